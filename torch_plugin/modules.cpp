// The quantised layers: which quantisers they hold, when those freeze, and the float op in between.
// quantizer.cpp has the quantiser itself; include/qcdq/modules.h the contract.
#include "qcdq/modules.h"

#include <ATen/TracerMode.h>
#include <qcdq/ops.h>
#include <torch/nn/init.h>
#include <torch/serialize/input-archive.h>

#include <cmath>
#include <ostream>

namespace qcdq {

QuantIdentityImpl::QuantIdentityImpl(const QuantSpec& spec_) : spec(spec_) {
  QuantIdentityImpl::reset();
}

void QuantIdentityImpl::reset() {
  act_quant =
      register_module("act_quant", Quantizer(spec, QuantizerRole::kActivation, "QuantIdentity"));
}

void QuantIdentityImpl::pretty_print(std::ostream& stream) const {
  stream << "qcdq::QuantIdentity(" << spec << ")";
}

at::Tensor QuantIdentityImpl::forward(const at::Tensor& x) { return act_quant->forward(x); }

QuantReLUImpl::QuantReLUImpl(const QuantSpec& spec_) : spec(spec_) { QuantReLUImpl::reset(); }

void QuantReLUImpl::reset() {
  act_quant =
      register_module("act_quant", Quantizer(spec, QuantizerRole::kActivation, "QuantReLU"));
}

void QuantReLUImpl::pretty_print(std::ostream& stream) const {
  stream << "qcdq::QuantReLU(" << spec << ")";
}

at::Tensor QuantReLUImpl::forward(const at::Tensor& x) { return act_quant->forward(at::relu(x)); }

template <typename Derived>
void QuantWeightedImpl<Derived>::register_all(const std::vector<int64_t>& weight_sizes,
                                              int64_t bias_size, int64_t bias_axis,
                                              int64_t groups) {
  bias_axis_ = bias_axis;
  groups_ = groups;
  weight = this->register_parameter("weight", at::empty(weight_sizes, at::kFloat));
  torch::nn::init::kaiming_uniform_(weight, std::sqrt(5));
  if (quantization_.has_bias) {
    bias = this->register_parameter("bias", at::empty({bias_size}, at::kFloat));
    const auto [fan_in, fan_out] = torch::nn::init::_calculate_fan_in_and_fan_out(weight);
    const double bound = fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0;
    torch::nn::init::uniform_(bias, -bound, bound);
  }
  if (quantization_.input) {
    input_quant = this->register_module(
        "input_quant", Quantizer(*quantization_.input, QuantizerRole::kActivation, type_name_));
  }
  if (quantization_.weight) {
    weight_quant = this->register_module(
        "weight_quant",
        Quantizer(*quantization_.weight, QuantizerRole::kWeight, type_name_, weight_sizes));
  }
  // A clone whose original was given a source has to register what the original has.
  if (quantize_bias_ || quantization_.input || !quantization_.bias_by_default) {
    register_bias_quantizer();
  }
}

template <typename Derived>
void QuantWeightedImpl<Derived>::register_bias_quantizer() {
  if (!quantization_.has_bias) return;
  if (!quantization_.bias_by_default && !quantization_.bias) return;
  const bool has_channel_scale = weight_quant &&
                                 weight_quant->spec().granularity == Granularity::kPerChannel &&
                                 weight_quant->spec().axis == bias_axis_;
  const bool is_possible = weight_quant && (has_channel_scale || weight_quant->spec().granularity ==
                                                                     Granularity::kPerTensor);
  TORCH_CHECK_VALUE(is_possible || quantization_.bias_by_default, type_name_,
                    ": bias = ", quantization_.bias->to_string(),
                    " with weight = ", weight_quant ? weight_quant->spec().to_string() : "float",
                    "; expected a weight quantised per tensor or per channel along axis ",
                    bias_axis_, " (the bias takes input scale * weight scale)");
  if (!is_possible) return;
  quantize_bias_ = true;
  std::vector<int64_t> scale_sizes;
  if (has_channel_scale) scale_sizes = {bias.size(0)};
  bias_quant =
      this->register_module("bias_quant", Quantizer(quantization_.bias.value_or(int32()),
                                                    QuantizerRole::kBias, type_name_, scale_sizes));
}

template <typename Derived>
void QuantWeightedImpl<Derived>::set_input_quantizer(const Quantizer& quantizer) {
  TORCH_CHECK_VALUE(
      !quantizer.is_empty() && quantizer->role() == QuantizerRole::kActivation, type_name_,
      ": set_input_quantizer; expected the quantiser of an activation, such as relu->act_quant");
  TORCH_CHECK_VALUE(!input_quant, type_name_,
                    ": set_input_quantizer; expected a layer without an input quantiser of its "
                    "own, this one has ",
                    input_quant ? input_quant->spec().to_string() : "");
  input_source_.quantizer = quantizer.ptr();
  if (!bias_quant) register_bias_quantizer();
}

template <typename Derived>
std::optional<at::Tensor> QuantWeightedImpl<Derived>::input_scale() {
  if (input_quant) return input_quant->current_scale();
  if (input_source_.quantizer) return input_source_.quantizer->current_scale();
  return std::nullopt;
}

template <typename Derived>
at::Tensor QuantWeightedImpl<Derived>::bias_scale(const at::Tensor& input_scale,
                                                  const at::Tensor& weight_scale) const {
  at::NoGradGuard no_grad;
  at::Tensor scale = input_scale.to(weight_scale.device()) * weight_scale;
  // A grouped transposed convolution has one weight scale for the same channel of each group.
  if (scale.dim() == 1 && scale.size(0) != bias.size(0)) scale = scale.repeat({groups_});
  return scale;
}

// Weights that are all zero (a pruned channel) would get the least scale, 1e-10, and the int32 bias
// a range of about 1e-3: such a channel takes a scale at which its bias has 30 bits.
template <typename Derived>
at::Tensor QuantWeightedImpl<Derived>::zero_weight_scale(
    const std::optional<at::Tensor>& input_scale) const {
  if (!bias_quant || !input_scale) return {};
  at::NoGradGuard no_grad;
  const double bias_codes = static_cast<double>(bias_quant->spec().quant_max()) / 2;
  at::Tensor needed = bias.abs().to(at::kFloat) / (input_scale->to(bias.device()) * bias_codes);
  if (bias_quant->scale.dim() == 0) return needed.amax();
  return groups_ == 1 ? needed : std::get<0>(needed.view({groups_, -1}).max(0));
}

template <typename Derived>
void QuantWeightedImpl<Derived>::freeze() {
  stale_ = false;
  const auto scale = input_scale();
  // A clone that was given no source keeps the scales that belong together.
  if (bias_quant && !scale && bias_quant->is_ready()) return;
  if (weight_quant) weight_quant->freeze(weight, zero_weight_scale(scale));
  if (bias_quant && scale) {
    bias_quant->set_scale(bias_scale(*scale, weight_quant->scale));
  }
}

template <typename Derived>
void QuantWeightedImpl<Derived>::train(bool on) {
  torch::nn::Module::train(on);
  if (!on) freeze();
}

template <typename Derived>
void QuantWeightedImpl<Derived>::load(torch::serialize::InputArchive& archive) {
  torch::nn::Module::load(archive);
  stale_ = true;  // the input's scale may come later in the file: freeze at the next use
}

template <typename Derived>
at::Tensor QuantWeightedImpl<Derived>::prepared_input(const at::Tensor& x) {
  return input_quant ? input_quant->forward(x) : x;
}

template <typename Derived>
std::tuple<at::Tensor, at::Tensor> QuantWeightedImpl<Derived>::prepared_weight_and_bias() {
  if (stale_ && !this->is_training()) {
    at::tracer::impl::NoTracerDispatchMode untraced;
    freeze();
  }
  std::optional<at::Tensor> scale;
  if (this->is_training() && bias_quant) scale = input_scale();
  at::Tensor used_weight = weight, weight_scale;
  if (weight_quant) {
    std::tie(used_weight, weight_scale) =
        weight_quant->forward_with_scale(weight, zero_weight_scale(scale));
  }
  if (!bias_quant) return {used_weight, bias};
  if (!this->is_training()) return {used_weight, bias_quant->forward(bias)};
  TORCH_CHECK(scale.has_value(), bias_quant->layer_name(), ": its ", bias_quant->spec().to_string(),
              " bias takes input scale * weight scale, and the input's scale is not known; "
              "expected input(spec) in the options, or set_input_quantizer(quantizer) with one "
              "that has seen a batch (again on a clone)");
  return {used_weight, bias_quant->forward_bias(bias, bias_scale(*scale, weight_scale))};
}

template <typename Derived>
void QuantWeightedImpl<Derived>::print_quantizers(std::ostream& stream) const {
  stream << ", weight=" << (weight_quant ? weight_quant->spec().to_string() : "float");
  if (input_quant) stream << ", input=" << input_quant->spec();
  if (!bias.defined()) {
    stream << ", bias=false";
  } else {
    stream << ", bias=" << (bias_quant ? bias_quant->spec().to_string() : "float");
  }
}

QuantLinearImpl::QuantLinearImpl(const QuantLinearOptions& options_)
    : QuantWeightedImpl("QuantLinear", options_.quantization()), options(options_) {
  TORCH_CHECK_VALUE(options.in_features() > 0 && options.out_features() > 0,
                    "QuantLinear: in_features = ", options.in_features(),
                    ", out_features = ", options.out_features(), "; expected both > 0");
  QuantLinearImpl::reset();
}

void QuantLinearImpl::reset() {
  register_all({options.out_features(), options.in_features()}, options.out_features(), 0, 1);
}

void QuantLinearImpl::pretty_print(std::ostream& stream) const {
  stream << "qcdq::QuantLinear(" << options.in_features() << ", " << options.out_features();
  print_quantizers(stream);
  stream << ")";
}

at::Tensor QuantLinearImpl::forward(const at::Tensor& x) {
  const at::Tensor input = prepared_input(x);
  const auto [used_weight, used_bias] = prepared_weight_and_bias();
  return recompute_quantized(at::linear(input, used_weight, used_bias));
}

namespace {

template <typename Options>
void check_channels(const char* type_name, const Options& options) {
  TORCH_CHECK_VALUE(options.groups() > 0 && options.in_channels() > 0 &&
                        options.out_channels() > 0 &&
                        options.in_channels() % options.groups() == 0 &&
                        options.out_channels() % options.groups() == 0,
                    type_name, ": in_channels = ", options.in_channels(),
                    ", out_channels = ", options.out_channels(), ", groups = ", options.groups(),
                    "; expected channels > 0 that groups divides");
}

template <typename Options>
void print_convolution(std::ostream& stream, size_t dims, bool is_transposed,
                       const Options& options) {
  stream << "qcdq::QuantConv" << (is_transposed ? "Transpose" : "") << dims << "d("
         << options.in_channels() << ", " << options.out_channels()
         << ", kernel_size=" << options.kernel_size() << ", stride=" << options.stride()
         << ", padding=" << options.padding();
  if (options.groups() != 1) stream << ", groups=" << options.groups();
}

}  // namespace

template <size_t D, typename Derived>
QuantConvNdImpl<D, Derived>::QuantConvNdImpl(std::string type_name,
                                             const QuantConvOptions<D>& options_)
    : QuantWeightedImpl<Derived>(type_name, options_.quantization()), options(options_) {
  check_channels(type_name.c_str(), options);
  QuantConvNdImpl::reset();
}

template <size_t D, typename Derived>
void QuantConvNdImpl<D, Derived>::reset() {
  std::vector<int64_t> sizes{options.out_channels(), options.in_channels() / options.groups()};
  sizes.insert(sizes.end(), options.kernel_size()->begin(), options.kernel_size()->end());
  this->register_all(sizes, options.out_channels(), 0, 1);
}

template <size_t D, typename Derived>
void QuantConvNdImpl<D, Derived>::pretty_print(std::ostream& stream) const {
  print_convolution(stream, D, false, options);
  this->print_quantizers(stream);
  stream << ")";
}

template <size_t D, typename Derived>
at::Tensor QuantConvNdImpl<D, Derived>::forward(const at::Tensor& x) {
  const at::Tensor input = this->prepared_input(x);
  const auto [used_weight, used_bias] = this->prepared_weight_and_bias();
  if constexpr (D == 1) {
    return recompute_quantized(at::conv1d(input, used_weight, used_bias, options.stride(),
                                          options.padding(), options.dilation(), options.groups()));
  } else {
    return recompute_quantized(at::conv2d(input, used_weight, used_bias, options.stride(),
                                          options.padding(), options.dilation(), options.groups()));
  }
}

template <size_t D, typename Derived>
QuantConvTransposeNdImpl<D, Derived>::QuantConvTransposeNdImpl(
    std::string type_name, const QuantConvTransposeOptions<D>& options_)
    : QuantWeightedImpl<Derived>(type_name, options_.quantization()), options(options_) {
  check_channels(type_name.c_str(), options);
  QuantConvTransposeNdImpl::reset();
}

template <size_t D, typename Derived>
void QuantConvTransposeNdImpl<D, Derived>::reset() {
  std::vector<int64_t> sizes{options.in_channels(), options.out_channels() / options.groups()};
  sizes.insert(sizes.end(), options.kernel_size()->begin(), options.kernel_size()->end());
  this->register_all(sizes, options.out_channels(), 1, options.groups());
}

template <size_t D, typename Derived>
void QuantConvTransposeNdImpl<D, Derived>::pretty_print(std::ostream& stream) const {
  print_convolution(stream, D, true, options);
  this->print_quantizers(stream);
  stream << ")";
}

template <size_t D, typename Derived>
at::Tensor QuantConvTransposeNdImpl<D, Derived>::forward(const at::Tensor& x) {
  const at::Tensor input = this->prepared_input(x);
  const auto [used_weight, used_bias] = this->prepared_weight_and_bias();
  if constexpr (D == 1) {
    return recompute_quantized(at::conv_transpose1d(input, used_weight, used_bias, options.stride(),
                                                    options.padding(), options.output_padding(),
                                                    options.groups(), options.dilation()));
  } else {
    return recompute_quantized(at::conv_transpose2d(input, used_weight, used_bias, options.stride(),
                                                    options.padding(), options.output_padding(),
                                                    options.groups(), options.dilation()));
  }
}

template class QuantWeightedImpl<QuantLinearImpl>;
template class QuantWeightedImpl<QuantConv1dImpl>;
template class QuantWeightedImpl<QuantConv2dImpl>;
template class QuantWeightedImpl<QuantConvTranspose1dImpl>;
template class QuantWeightedImpl<QuantConvTranspose2dImpl>;
template class QuantConvNdImpl<1, QuantConv1dImpl>;
template class QuantConvNdImpl<2, QuantConv2dImpl>;
template class QuantConvTransposeNdImpl<1, QuantConvTranspose1dImpl>;
template class QuantConvTransposeNdImpl<2, QuantConvTranspose2dImpl>;

}  // namespace qcdq
