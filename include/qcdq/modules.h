// Quantised layers in torch::nn style: a Quantizer (QuantSpec + scale + zero point) and the layers
// that hold some. They call the ops of ops.h; quant_spec.h says what a quantiser is, observers.h
// how its scale starts.
#pragma once

#include <torch/enum.h>
#include <torch/expanding_array.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "qcdq/api.h"
#include "qcdq/observers.h"
#include "qcdq/quant_spec.h"

namespace qcdq {

/// What a Quantizer quantises; decides which specs are allowed and what Scaling::kDefault means.
///  kWeight      2 to 8 bits, unsigned 1 to 8; kDefault = kMinMax: absmax / divisor at every
///  training forward, gradient included kActivation  2 to 16 bits, unsigned 1 to 16, per tensor;
///  kDefault = kLearned: statistics, then a parameter kBias        signed, 8 to 32 bits, no scale
///  of its own: input scale * weight scale
enum class QuantizerRole : int64_t { kWeight = 0, kActivation = 1, kBias = 2 };

/// One quantiser. In training it finds its scale (and learns it); train(false), eval() freezes
/// scale and zero point into two plain buffers, and forward in eval mode is exactly one
/// qcdq::fake_quantize on them, which is what tracing and export see. Buffers: scale (f32),
/// zero_point (int32), spec (QuantSpec::to_integers), ready (0; 1 once there is a scale for eval; 2
/// once a weight's scale is learned); parameters threshold (and offset if asymmetric) where the
/// scale is learned: scale = |threshold| / divisor, at least 1e-10. All of them are saved and
/// loaded; loading a state dict of another QuantSpec is refused. to(dtype) leaves them as they are,
/// to(device) moves them.
class QCDQ_API QuantizerImpl : public torch::nn::Cloneable<QuantizerImpl> {
 public:
  /// owner: the layer's type, for messages. value_sizes: of the weight or bias, which give the
  /// shape of the scale.
  QuantizerImpl(const QuantSpec& spec, QuantizerRole role, std::string owner,
                std::vector<int64_t> value_sizes = {});
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  using torch::nn::Module::to;
  void to(torch::Device device, torch::Dtype dtype, bool non_blocking = false) override;
  void to(torch::Dtype dtype, bool non_blocking = false) override;
  void train(bool on = true) override;
  void load(torch::serialize::InputArchive& archive) override;

  /// x quantised and dequantised. Eval before any statistics is an error that names the layer.
  at::Tensor forward(const at::Tensor& x);
  /// The same and the scale that was used (with its gradient in training). zero_scale: least scale
  /// of a weight's tensors or channels that are all zero, where a bias needs one to fit; as large
  /// as the scale.
  std::tuple<at::Tensor, at::Tensor> forward_with_scale(const at::Tensor& x,
                                                        const at::Tensor& zero_scale = {});
  /// Bias: quantises with this scale (detached).
  at::Tensor forward_bias(const at::Tensor& bias, const at::Tensor& bias_scale) const;

  /// Writes the scale that training has arrived at into the buffers. An activation's comes from its
  /// own state, a weight's from `value`; a bias takes `set_scale`. Called by train(false).
  void freeze(const at::Tensor& value = {}, const at::Tensor& zero_scale = {});
  void set_scale(const at::Tensor& new_scale);
  /// The scale that eval would use now, without gradient; nothing before any statistics.
  /// Activations only.
  std::optional<at::Tensor> current_scale();
  bool is_ready() const;

  const QuantSpec& spec() const { return spec_; }
  QuantizerRole role() const { return role_; }
  /// "QuantReLU 'features.relu1'": type of the layer, and its path once name_layers has been
  /// called.
  std::string layer_name() const;

  at::Tensor scale, zero_point, spec_fields, ready;
  at::Tensor threshold, offset;  // learned scales only
  Observer observer{nullptr};    // activations whose scale is not fixed
  std::string path;              // set by name_layers

 private:
  at::Tensor quantized(const at::Tensor& x, const at::Tensor& with_scale) const;
  std::tuple<at::Tensor, at::Tensor> learned_qparams() const;
  std::tuple<at::Tensor, at::Tensor> frozen_qparams(const at::Tensor& value,
                                                    const at::Tensor& zero_scale);
  std::tuple<at::Tensor, at::Tensor> train_forward(const at::Tensor& x,
                                                   const at::Tensor& zero_scale);
  std::tuple<at::Tensor, at::Tensor> weight_qparams(const at::Tensor& value,
                                                    const at::Tensor& zero_scale) const;
  void start_learning(const at::Tensor& low, const at::Tensor& high);
  void mark_ready(int64_t state);
  void require_ready() const;
  bool is_learning() const;

  QuantSpec spec_;
  QuantizerRole role_;
  std::string owner_;
  std::vector<int64_t> scale_sizes_;
  bool stale_ = false;  // loaded since the last freeze
  mutable int64_t ready_ =
      0;  // what `ready` holds, at least: reading it in every forward would wait for a GPU
};
TORCH_MODULE(Quantizer);

/// Gives every quantiser below `root` the path of its layer, for messages: "QuantReLU
/// 'features.relu1'".
QCDQ_API void name_layers(torch::nn::Module& root);

/// Passes x on, quantised. Default: int8, learned. Works on any shape.
///
///   qcdq::QuantIdentity input{qcdq::uint8().symmetric(false)};
class QCDQ_API QuantIdentityImpl : public torch::nn::Cloneable<QuantIdentityImpl> {
 public:
  explicit QuantIdentityImpl(const QuantSpec& spec = int8());
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  at::Tensor forward(const at::Tensor& x);

  QuantSpec spec;
  Quantizer act_quant{nullptr};
};
TORCH_MODULE(QuantIdentity);

/// relu, then quantised. Default: uint8, learned.
///
///   qcdq::QuantReLU relu{qcdq::uint4()};
class QCDQ_API QuantReLUImpl : public torch::nn::Cloneable<QuantReLUImpl> {
 public:
  explicit QuantReLUImpl(const QuantSpec& spec = uint8());
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  at::Tensor forward(const at::Tensor& x);

  QuantSpec spec;
  Quantizer act_quant{nullptr};
};
TORCH_MODULE(QuantReLU);

/// The quantisers of a layer with weights. Default: weight int8 narrow per tensor, input float. The
/// bias is quantised to int32 at input scale * weight scale wherever both are quantised and the
/// weight has one scale per tensor or per output channel; else it is float.
struct QCDQ_API LayerQuantization {
  std::optional<QuantSpec> weight = int8().narrow();
  std::optional<QuantSpec> input;
  bool has_bias = true;
  bool bias_by_default = true;  // bias is as above; else it is `bias`
  std::optional<QuantSpec> bias;
};

/// Setters shared by the options of layers with weights; std::nullopt means float.
template <typename Derived>
class QuantLayerOptions {
 public:
  Derived& weight(std::optional<QuantSpec> spec) {
    quantization_.weight = spec;
    return self();
  }
  Derived& input(std::optional<QuantSpec> spec) {
    quantization_.input = spec;
    return self();
  }
  /// Whether there is a bias at all.
  Derived& bias(bool on) {
    quantization_.has_bias = on;
    return self();
  }
  /// A bias quantised as `spec` says (int32(), intn(24), ...), or a float one. A quantised one
  /// needs the input's scale.
  Derived& bias(std::optional<QuantSpec> spec) {
    quantization_.has_bias = true;
    quantization_.bias_by_default = false;
    quantization_.bias = spec;
    return self();
  }
  const LayerQuantization& quantization() const { return quantization_; }

 private:
  Derived& self() { return static_cast<Derived&>(*this); }
  LayerQuantization quantization_;
};

/// Options of QuantLinear: QuantLinearOptions(400,
/// 10).weight(int4().per_channel(0)).input(uint8()).
class QCDQ_API QuantLinearOptions : public QuantLayerOptions<QuantLinearOptions> {
 public:
  QuantLinearOptions(int64_t in_features, int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}
  TORCH_ARG(int64_t, in_features);
  TORCH_ARG(int64_t, out_features);
};

/// Options of QuantConv1d and QuantConv2d; padding with zeros.
template <size_t D>
class QuantConvOptions : public QuantLayerOptions<QuantConvOptions<D>> {
 public:
  QuantConvOptions(int64_t in_channels, int64_t out_channels, torch::ExpandingArray<D> kernel_size)
      : in_channels_(in_channels), out_channels_(out_channels), kernel_size_(kernel_size) {}
  TORCH_ARG(int64_t, in_channels);
  TORCH_ARG(int64_t, out_channels);
  TORCH_ARG(torch::ExpandingArray<D>, kernel_size);
  TORCH_ARG(torch::ExpandingArray<D>, stride) = 1;
  TORCH_ARG(torch::ExpandingArray<D>, padding) = 0;
  TORCH_ARG(torch::ExpandingArray<D>, dilation) = 1;
  TORCH_ARG(int64_t, groups) = 1;
};
using QuantConv1dOptions = QuantConvOptions<1>;
using QuantConv2dOptions = QuantConvOptions<2>;

/// Options of QuantConvTranspose1d and 2d. The weight is [in, out / groups, ...]: its output
/// channel is axis 1.
template <size_t D>
class QuantConvTransposeOptions : public QuantLayerOptions<QuantConvTransposeOptions<D>> {
 public:
  QuantConvTransposeOptions(int64_t in_channels, int64_t out_channels,
                            torch::ExpandingArray<D> kernel_size)
      : in_channels_(in_channels), out_channels_(out_channels), kernel_size_(kernel_size) {}
  TORCH_ARG(int64_t, in_channels);
  TORCH_ARG(int64_t, out_channels);
  TORCH_ARG(torch::ExpandingArray<D>, kernel_size);
  TORCH_ARG(torch::ExpandingArray<D>, stride) = 1;
  TORCH_ARG(torch::ExpandingArray<D>, padding) = 0;
  TORCH_ARG(torch::ExpandingArray<D>, output_padding) = 0;
  TORCH_ARG(torch::ExpandingArray<D>, dilation) = 1;
  TORCH_ARG(int64_t, groups) = 1;
};
using QuantConvTranspose1dOptions = QuantConvTransposeOptions<1>;
using QuantConvTranspose2dOptions = QuantConvTransposeOptions<2>;

/// A quantiser of an earlier layer, whose scale the bias takes. A copy of a layer has none: clone()
/// copies the quantiser elsewhere, and a copy must not train on the original's scale.
struct QCDQ_API InputScaleSource {
  std::shared_ptr<QuantizerImpl> quantizer;
  InputScaleSource() = default;
  InputScaleSource(const InputScaleSource&) {}
  InputScaleSource& operator=(const InputScaleSource&) {
    quantizer = nullptr;
    return *this;
  }
};

/// What the layers with weights share: weight and bias, their quantisers, and when to freeze them.
template <typename Derived>
class QCDQ_API QuantWeightedImpl : public torch::nn::Cloneable<Derived> {
 public:
  void train(bool on = true) override;
  void load(torch::serialize::InputArchive& archive) override;

  /// Says that the input comes quantised by `quantizer`, an earlier layer's (`relu->act_quant`):
  /// the bias then takes its scale, as with an input quantiser of its own. Call it in the net's
  /// constructor, before parameters go to a file, and again on a clone that is to be trained (its
  /// eval mode needs no source).
  void set_input_quantizer(const Quantizer& quantizer);

  at::Tensor weight, bias;
  Quantizer weight_quant{nullptr}, bias_quant{nullptr}, input_quant{nullptr};

 protected:
  explicit QuantWeightedImpl(std::string type_name, const LayerQuantization& quantization)
      : type_name_(std::move(type_name)), quantization_(quantization) {}
  /// Registers everything. bias_axis: the weight's output-channel dimension; groups: how often its
  /// scales repeat.
  void register_all(const std::vector<int64_t>& weight_sizes, int64_t bias_size, int64_t bias_axis,
                    int64_t groups);
  at::Tensor prepared_input(const at::Tensor& x);
  std::tuple<at::Tensor, at::Tensor> prepared_weight_and_bias();
  void print_quantizers(std::ostream& stream) const;

 private:
  void register_bias_quantizer();
  void freeze();
  std::optional<at::Tensor> input_scale();
  at::Tensor zero_weight_scale(const std::optional<at::Tensor>& input_scale) const;
  at::Tensor bias_scale(const at::Tensor& input_scale, const at::Tensor& weight_scale) const;

  std::string type_name_;
  LayerQuantization quantization_;
  InputScaleSource input_source_;
  bool quantize_bias_ = false;
  bool stale_ = false;  // loaded since the last freeze
  int64_t bias_axis_ = 0, groups_ = 1;
};

/// y = x W^T + b, W [out_features, in_features]; x [..., in_features].
///
///   qcdq::QuantLinear fc{qcdq::QuantLinearOptions(400, 10).input(qcdq::uint8())};
class QCDQ_API QuantLinearImpl : public QuantWeightedImpl<QuantLinearImpl> {
 public:
  QuantLinearImpl(int64_t in_features, int64_t out_features)
      : QuantLinearImpl(QuantLinearOptions(in_features, out_features)) {}
  explicit QuantLinearImpl(const QuantLinearOptions& options);
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  at::Tensor forward(const at::Tensor& x);

  QuantLinearOptions options;
};
TORCH_MODULE(QuantLinear);

/// Convolution over [N, C, L] (1d) or [N, C, H, W] (2d).
///
///   qcdq::QuantConv2d conv{qcdq::QuantConv2dOptions(1, 16,
///   3).padding(1).weight(qcdq::int4().per_channel(0).narrow())};
template <size_t D, typename Derived>
class QCDQ_API QuantConvNdImpl : public QuantWeightedImpl<Derived> {
 public:
  QuantConvNdImpl(std::string type_name, const QuantConvOptions<D>& options);
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  at::Tensor forward(const at::Tensor& x);

  QuantConvOptions<D> options;
};

/// Transposed convolution; the output size follows from stride, padding, output_padding and
/// dilation.
template <size_t D, typename Derived>
class QCDQ_API QuantConvTransposeNdImpl : public QuantWeightedImpl<Derived> {
 public:
  QuantConvTransposeNdImpl(std::string type_name, const QuantConvTransposeOptions<D>& options);
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  at::Tensor forward(const at::Tensor& x);

  QuantConvTransposeOptions<D> options;
};

class QCDQ_API QuantConv1dImpl : public QuantConvNdImpl<1, QuantConv1dImpl> {
 public:
  explicit QuantConv1dImpl(const QuantConv1dOptions& options)
      : QuantConvNdImpl("QuantConv1d", options) {}
  at::Tensor forward(const at::Tensor& x) { return QuantConvNdImpl::forward(x); }
};
TORCH_MODULE(QuantConv1d);

class QCDQ_API QuantConv2dImpl : public QuantConvNdImpl<2, QuantConv2dImpl> {
 public:
  explicit QuantConv2dImpl(const QuantConv2dOptions& options)
      : QuantConvNdImpl("QuantConv2d", options) {}
  at::Tensor forward(const at::Tensor& x) { return QuantConvNdImpl::forward(x); }
};
TORCH_MODULE(QuantConv2d);

class QCDQ_API QuantConvTranspose1dImpl
    : public QuantConvTransposeNdImpl<1, QuantConvTranspose1dImpl> {
 public:
  explicit QuantConvTranspose1dImpl(const QuantConvTranspose1dOptions& options)
      : QuantConvTransposeNdImpl("QuantConvTranspose1d", options) {}
  at::Tensor forward(const at::Tensor& x) { return QuantConvTransposeNdImpl::forward(x); }
};
TORCH_MODULE(QuantConvTranspose1d);

class QCDQ_API QuantConvTranspose2dImpl
    : public QuantConvTransposeNdImpl<2, QuantConvTranspose2dImpl> {
 public:
  explicit QuantConvTranspose2dImpl(const QuantConvTranspose2dOptions& options)
      : QuantConvTransposeNdImpl("QuantConvTranspose2d", options) {}
  at::Tensor forward(const at::Tensor& x) { return QuantConvTransposeNdImpl::forward(x); }
};
TORCH_MODULE(QuantConvTranspose2d);

extern template class QuantWeightedImpl<QuantLinearImpl>;
extern template class QuantWeightedImpl<QuantConv1dImpl>;
extern template class QuantWeightedImpl<QuantConv2dImpl>;
extern template class QuantWeightedImpl<QuantConvTranspose1dImpl>;
extern template class QuantWeightedImpl<QuantConvTranspose2dImpl>;
extern template class QuantConvNdImpl<1, QuantConv1dImpl>;
extern template class QuantConvNdImpl<2, QuantConv2dImpl>;
extern template class QuantConvTransposeNdImpl<1, QuantConvTranspose1dImpl>;
extern template class QuantConvTransposeNdImpl<2, QuantConvTranspose2dImpl>;

}  // namespace qcdq
