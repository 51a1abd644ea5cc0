// ResNet-18 in C++ whose weights and activations each pass a QuantSite: 21 per-channel weight sites
// and 18 activation sites (the input, and what follows each ReLU). bench_qat_step times its
// training step with every kind of site, bench_export exports it.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <tuple>

#include "qcdq/modules.h"
#include "qcdq/ops.h"

namespace qcdq::bench {

/// Who quantises. Fixed scales: kOurs, kAten. A learned scale (LSQ): kOursLearned, kAtenLearned.
/// Statistics at each step: kAtenObserved (torch.ao's default for QAT, moving average of min and
/// max), kOursLayers (qcdq's Quantizer: weights by absmax at each step, activations learned).
enum class Quantization {
  kNone,
  kOurs,
  kOursLearned,
  kOursLayers,
  kAten,
  kAtenLearned,
  kAtenObserved
};

/// kEverywhere also quantises what enters an Add, the pooled features and the result, without which
/// ORT runs 21 of the 31 nodes in float.
enum class Sites { kTraining, kEverywhere };

/// One quantiser: int8 per output channel for a weight, uint8 per tensor for an activation, int8
/// where no ReLU comes before it.
class QuantSiteImpl : public torch::nn::Module {
 public:
  /// weight: what is quantised, for its shape and first scales; undefined for an activation.
  QuantSiteImpl(Quantization quantization, const torch::Tensor& weight, bool is_signed = false)
      : kind_(quantization), is_weight_(weight.defined()), is_signed_(is_signed), weight_(weight) {
    if (kind_ == Quantization::kNone) return;
    if (kind_ == Quantization::kOursLayers) {
      const QuantSpec spec = is_weight_ ? int8().narrow().per_channel(0)
                                        : (is_signed ? int8() : uint8()).collect_steps(1);
      layer_ = register_module(
          "quantizer",
          Quantizer(spec, is_weight_ ? QuantizerRole::kWeight : QuantizerRole::kActivation,
                    "QuantSite", is_weight_ ? weight.sizes().vec() : std::vector<int64_t>{}));
      return;
    }
    const bool learned = kind_ == Quantization::kOursLearned || kind_ == Quantization::kAtenLearned;
    // absmax for a weight; activations of a normalised network reach about 4.
    const torch::Tensor first = is_weight_ ? weight.detach().abs().flatten(1).amax(1) / 127.0
                                           : torch::full({1}, 4.0 / 255.0);
    const torch::Tensor zeros = torch::zeros_like(first, learned ? torch::kFloat32 : torch::kInt32);
    if (learned) {
      scale_ = register_parameter("scale", first);
      zero_point_ = register_parameter("zero_point", zeros);
    } else {
      scale_ = register_buffer("scale", first);
      zero_point_ = register_buffer("zero_point", zeros);
    }
    if (kind_ == Quantization::kAtenObserved) {
      on_ = register_buffer("on", torch::ones({1}, torch::kLong));
      const float infinity = std::numeric_limits<float>::infinity();
      lowest_ = register_buffer("lowest", torch::full({first.numel()}, infinity));
      highest_ = register_buffer("highest", torch::full({first.numel()}, -infinity));
    }
  }

  // A weight's scale is frozen by the layer that owns the weight.
  void train(bool on = true) override {
    torch::nn::Module::train(on);
    if (!on && layer_ && is_weight_) layer_->freeze(weight_.detach());
  }

  torch::Tensor forward(const torch::Tensor& x) {
    const int64_t low = is_weight_ ? -127 : is_signed_ ? -128 : 0;
    const int64_t high = is_weight_ || is_signed_ ? 127 : 255;
    const std::optional<int64_t> axis = is_weight_ ? std::optional<int64_t>(0) : std::nullopt;
    switch (kind_) {
      case Quantization::kNone:
        return x;
      case Quantization::kOurs:
        return fake_quantize(x, scale_, zero_point_, low, high, axis);
      case Quantization::kOursLearned:
        return fake_quantize_learned(x, scale_, zero_point_, low, high, axis, {}, grad_factor(x));
      case Quantization::kOursLayers:
        return layer_->forward(x);
      case Quantization::kAten:
        return is_weight_
                   ? at::fake_quantize_per_channel_affine(x, scale_, zero_point_, 0, low, high)
                   : at::fake_quantize_per_tensor_affine(x, scale_, zero_point_, low, high);
      case Quantization::kAtenLearned:
        return is_weight_ ? at::_fake_quantize_learnable_per_channel_affine(
                                x, scale_, zero_point_, 0, low, high, grad_factor(x))
                          : at::_fake_quantize_learnable_per_tensor_affine(
                                x, scale_, zero_point_, low, high, grad_factor(x));
      case Quantization::kAtenObserved:
        return at::fused_moving_avg_obs_fake_quant(x, on_, on_, lowest_, highest_, scale_,
                                                   zero_point_, 0.01, low, high, 0,
                                                   /*per_row_fake_quant=*/is_weight_,
                                                   /*symmetric_quant=*/is_weight_);
    }
    return x;
  }

 private:
  // LSQ's: without it the sums of gradients drive scales to 0 within a few steps.
  double grad_factor(const torch::Tensor& x) const {
    const auto sharing = static_cast<double>(x.numel() / scale_.numel());
    return 1.0 / std::sqrt(sharing * (is_weight_ ? 127.0 : 255.0));
  }

  Quantization kind_;
  bool is_weight_;
  bool is_signed_;
  torch::Tensor weight_;
  Quantizer layer_{nullptr};
  torch::Tensor scale_, zero_point_, on_, lowest_, highest_;
};
TORCH_MODULE(QuantSite);

/// Convolution without bias, its weight quantised, and BatchNorm.
class ConvBnImpl : public torch::nn::Module {
 public:
  ConvBnImpl(int64_t in, int64_t out, int64_t kernel, int64_t stride, Quantization quantization,
             bool quantize_result = false)
      : stride_(stride), padding_(kernel / 2) {
    weight_ = register_parameter("weight", torch::empty({out, in, kernel, kernel}));
    torch::nn::init::kaiming_normal_(weight_, 0.0, torch::kFanOut, torch::kReLU);
    site_ = register_module("weight_site", QuantSite(quantization, weight_));
    bn_ = register_module("bn", torch::nn::BatchNorm2d(out));
    result_site_ = register_module(
        "result_site",
        QuantSite(quantize_result ? quantization : Quantization::kNone, torch::Tensor(), true));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const torch::Tensor y = torch::conv2d(x, site_->forward(weight_), {}, stride_, padding_);
    // As qcdq's layers do; changes nothing where the weight was quantised by another library.
    return result_site_->forward(bn_->forward(recompute_quantized(y)));
  }

 private:
  int64_t stride_, padding_;
  torch::Tensor weight_;
  QuantSite site_{nullptr}, result_site_{nullptr};
  torch::nn::BatchNorm2d bn_{nullptr};
};
TORCH_MODULE(ConvBn);

class BasicBlockImpl : public torch::nn::Module {
 public:
  BasicBlockImpl(int64_t in, int64_t out, int64_t stride, Quantization quantization, Sites sites) {
    const bool everywhere = sites == Sites::kEverywhere;
    conv1_ = register_module("conv1", ConvBn(in, out, 3, stride, quantization));
    conv2_ = register_module("conv2", ConvBn(out, out, 3, 1, quantization, everywhere));
    if (in != out || stride != 1) {
      shortcut_ = register_module("shortcut", ConvBn(in, out, 1, stride, quantization, everywhere));
    }
    site1_ = register_module("site1", QuantSite(quantization, torch::Tensor()));
    site2_ = register_module("site2", QuantSite(quantization, torch::Tensor()));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const torch::Tensor middle = site1_->forward(torch::relu(conv1_->forward(x)));
    const torch::Tensor around = shortcut_ ? shortcut_->forward(x) : x;
    return site2_->forward(torch::relu(conv2_->forward(middle) + around));
  }

 private:
  ConvBn conv1_{nullptr}, conv2_{nullptr}, shortcut_{nullptr};
  QuantSite site1_{nullptr}, site2_{nullptr};
};
TORCH_MODULE(BasicBlock);

/// x [N, 3, H, W] -> [N, 1000].
class ResNet18Impl : public torch::nn::Module {
 public:
  explicit ResNet18Impl(Quantization quantization, Sites sites = Sites::kTraining) {
    input_site_ = register_module("input_site", QuantSite(quantization, torch::Tensor()));
    stem_ = register_module("stem", ConvBn(3, 64, 7, 2, quantization));
    stem_site_ = register_module("stem_site", QuantSite(quantization, torch::Tensor()));
    int64_t in = 64;
    for (int64_t stage = 0; stage < 4; ++stage) {
      const int64_t out = int64_t{64} << stage;
      for (int64_t block = 0; block < 2; ++block) {
        const int64_t stride = stage > 0 && block == 0 ? 2 : 1;
        blocks_->push_back(BasicBlock(in, out, stride, quantization, sites));
        in = out;
      }
    }
    register_module("blocks", blocks_);
    fc_weight_ = register_parameter("fc_weight", torch::randn({1000, 512}) * 0.03);
    fc_bias_ = register_parameter("fc_bias", torch::zeros({1000}));
    fc_site_ = register_module("fc_site", QuantSite(quantization, fc_weight_));
    const Quantization late = sites == Sites::kEverywhere ? quantization : Quantization::kNone;
    pool_site_ = register_module("pool_site", QuantSite(late, torch::Tensor()));
    result_site_ = register_module("result_site", QuantSite(late, torch::Tensor(), true));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    torch::Tensor y = stem_->forward(input_site_->forward(x));
    y = torch::max_pool2d(stem_site_->forward(torch::relu(y)), 3, 2, 1);
    for (const auto& block : *blocks_) y = block->as<BasicBlock>()->forward(y);
    y = pool_site_->forward(torch::adaptive_avg_pool2d(y, {1, 1})).flatten(1);
    y = recompute_quantized(torch::linear(y, fc_site_->forward(fc_weight_), fc_bias_));
    return result_site_->forward(y);
  }

 private:
  QuantSite input_site_{nullptr}, stem_site_{nullptr}, fc_site_{nullptr}, pool_site_{nullptr},
      result_site_{nullptr};
  ConvBn stem_{nullptr};
  torch::nn::ModuleList blocks_;
  torch::Tensor fc_weight_, fc_bias_;
};
TORCH_MODULE(ResNet18);

}  // namespace qcdq::bench
