// Quantizer: finds a scale in training (statistics, then a learned parameter), freezes it into
// buffers for eval. The layers of modules.cpp hold these; observers.cpp has the statistics, ops.h
// the ops.
#include <ATen/TracerMode.h>
#include <torch/serialize/input-archive.h>

#include <ostream>

#include "qcdq/modules.h"
#include "qcdq/ops.h"

namespace qcdq {
namespace {

// A learned threshold gets its gradient from every element; dividing by the divisor has scaled it
// down already.
constexpr double kGradFactor = 1.0;

// States of the buffer `ready`. Eval before training leaves a weight's learned scale unstarted, so
// that it starts from the weights that training begins with.
constexpr int64_t kReady = 1;
constexpr int64_t kLearning = 2;

QuantSpec resolved(QuantSpec spec, QuantizerRole role, const std::string& owner, int64_t rank) {
  spec.check();
  const std::string text = spec.to_string();
  switch (role) {
    case QuantizerRole::kWeight:
      TORCH_CHECK_VALUE(spec.bits <= 8, owner, ": weight quantiser ", text,
                        "; expected 2 to 8 bits, or unsigned 1 to 8");
      TORCH_CHECK_VALUE(spec.scale_source != Scaling::kPercentile, owner, ": weight quantiser ",
                        text, "; expected scaling minmax, learned or fixed");
      if (spec.scale_source == Scaling::kDefault) spec.scale_source = Scaling::kMinMax;
      break;
    case QuantizerRole::kActivation:
      TORCH_CHECK_VALUE(spec.bits <= 16, owner, ": activation quantiser ", text,
                        "; expected 2 to 16 bits, or unsigned 1 to 16");
      TORCH_CHECK_VALUE(spec.granularity == Granularity::kPerTensor, owner,
                        ": activation quantiser ", text,
                        "; expected per_tensor (channels and blocks are for weights)");
      if (spec.scale_source == Scaling::kDefault) spec.scale_source = Scaling::kLearned;
      break;
    case QuantizerRole::kBias:
      TORCH_CHECK_VALUE(spec.is_signed && !spec.is_narrow && spec.is_symmetric && spec.bits >= 8,
                        owner, ": bias quantiser ", text,
                        "; expected a signed symmetric range of 8 to 32 bits");
      TORCH_CHECK_VALUE(
          spec.scale_source == Scaling::kDefault && !spec.is_power_of_two &&
              spec.granularity == Granularity::kPerTensor,
          owner, ": bias quantiser ", text,
          "; expected no scaling or granularity: the scale is input scale * weight scale");
      break;
  }
  if (spec.granularity != Granularity::kPerTensor) {
    TORCH_CHECK_VALUE(spec.axis >= -rank && spec.axis < rank, owner, ": weight quantiser ", text,
                      "; expected an axis of a weight with ", rank, " dimensions");
    if (spec.axis < 0) spec.axis += rank;
  }
  return spec;
}

}  // namespace

QuantizerImpl::QuantizerImpl(const QuantSpec& spec, QuantizerRole role, std::string owner,
                             std::vector<int64_t> value_sizes)
    : spec_(resolved(spec, role, owner, static_cast<int64_t>(value_sizes.size()))),
      role_(role),
      owner_(std::move(owner)) {
  if (role_ == QuantizerRole::kBias) scale_sizes_ = std::move(value_sizes);
  if (spec_.granularity == Granularity::kPerChannel) scale_sizes_ = {value_sizes[spec_.axis]};
  if (spec_.granularity == Granularity::kBlocked) {
    scale_sizes_ = std::move(value_sizes);
    auto& blocks = scale_sizes_[spec_.axis];
    blocks = (blocks + spec_.block_size - 1) / spec_.block_size;
  }
  QuantizerImpl::reset();
}

void QuantizerImpl::reset() {
  const bool is_fixed = spec_.scale_source == Scaling::kFixed;
  double first_scale = 1;
  if (is_fixed) first_scale = spec_.fixed_scale;
  scale = at::full(scale_sizes_, first_scale, at::kFloat);
  if (is_fixed && spec_.is_power_of_two) {
    const at::Tensor range = scale * static_cast<double>(spec_.divisor());
    scale = std::get<0>(qparams_from_range(-range, range, spec_));
  }
  register_buffer("scale", scale);
  zero_point = register_buffer("zero_point", at::zeros(scale_sizes_, at::kInt));
  spec_fields = register_buffer("spec", at::tensor(spec_.to_integers(), at::kLong));
  ready = register_buffer("ready", at::full({}, is_fixed ? kReady : 0, at::kLong));
  ready_ = is_fixed ? kReady : 0;
  if (spec_.scale_source == Scaling::kLearned) {
    threshold = register_parameter("threshold", at::zeros(scale_sizes_, at::kFloat));
    if (!spec_.is_symmetric) {
      offset = register_parameter("offset", at::zeros(scale_sizes_, at::kFloat));
    }
  }
  if (role_ == QuantizerRole::kActivation && !is_fixed) {
    observer = register_module(
        "observer", Observer(ObserverOptions{.statistic = spec_.scale_source == Scaling::kMinMax
                                                              ? Scaling::kMinMax
                                                              : Scaling::kPercentile,
                                             .rank = spec_.percentile_rank,
                                             .symmetric = spec_.is_symmetric}));
  }
}

void QuantizerImpl::pretty_print(std::ostream& stream) const {
  stream << "qcdq::Quantizer(" << spec_ << ")";
}

void QuantizerImpl::to(torch::Device device, torch::Dtype, bool non_blocking) {
  Module::to(device, non_blocking);
}

void QuantizerImpl::to(torch::Dtype, bool) {}

std::string QuantizerImpl::layer_name() const {
  return path.empty() ? owner_ : owner_ + " '" + path + "'";
}

void QuantizerImpl::train(bool on) {
  Module::train(on);
  if (!on && role_ == QuantizerRole::kActivation) freeze();
}

void QuantizerImpl::load(torch::serialize::InputArchive& archive) {
  at::Tensor stored;
  TORCH_CHECK_VALUE(archive.try_read("spec", stored, /*is_buffer=*/true), layer_name(),
                    ": the file has no QuantSpec for this quantiser; expected ", spec_.to_string());
  stored = stored.to(at::kCPU, at::kLong).contiguous();
  const int64_t* fields = stored.const_data_ptr<int64_t>();
  const QuantSpec loaded =
      QuantSpec::from_integers(std::vector<int64_t>(fields, fields + stored.numel()));
  TORCH_CHECK_VALUE(loaded == spec_, layer_name(), ": the file holds a quantiser ",
                    loaded.to_string(), "; expected ", spec_.to_string());
  Module::load(archive);
  ready_ = 0;
  // The file may have been saved in training, with buffers older than the statistics.
  stale_ = role_ != QuantizerRole::kBias;
}

bool QuantizerImpl::is_ready() const {
  if (ready_ == 0) {
    at::tracer::impl::NoTracerDispatchMode untraced;
    ready_ = ready.item<int64_t>();
  }
  return ready_ > 0;
}

void QuantizerImpl::require_ready() const {
  TORCH_CHECK(is_ready(), layer_name(), ": eval mode before any statistics: its ",
              spec_.to_string(),
              role_ == QuantizerRole::kBias ? " bias quantiser has no input scale yet"
                                            : " quantiser has no scale yet",
              "; run at least one batch in training mode, or load a trained state dict");
}

void QuantizerImpl::mark_ready(int64_t state) {
  if (is_ready() && ready_ >= state) return;
  at::NoGradGuard no_grad;
  ready.fill_(state);
  ready_ = state;
}

// Whether the parameter has taken over from the statistics.
bool QuantizerImpl::is_learning() const {
  if (spec_.scale_source != Scaling::kLearned) return false;
  return role_ == QuantizerRole::kWeight ? is_ready() && ready_ >= kLearning
                                         : observer->step_count() >= spec_.statistics_steps;
}

void QuantizerImpl::start_learning(const at::Tensor& low, const at::Tensor& high) {
  at::NoGradGuard no_grad;
  auto [first_scale, first_zero_point] = qparams_from_range(low, high, spec_.power_of_two(false));
  const int64_t steps =
      spec_.is_symmetric ? spec_.divisor() : spec_.quant_max() - spec_.quant_min();
  threshold.copy_(first_scale * static_cast<double>(steps));
  if (offset.defined()) offset.copy_(first_zero_point);
}

std::tuple<at::Tensor, at::Tensor> QuantizerImpl::learned_qparams() const {
  if (spec_.is_symmetric) {
    return qparams_from_range(-threshold, threshold, spec_);
  }
  const at::Tensor range = threshold.abs();
  return {std::get<0>(qparams_from_range(at::zeros_like(range), range, spec_)), offset};
}

// Any scale serves zeros: where there is nothing else, the one that the bias asks for.
std::tuple<at::Tensor, at::Tensor> QuantizerImpl::weight_qparams(
    const at::Tensor& value, const at::Tensor& zero_scale) const {
  auto [low, high] = range_of(value, spec_);
  auto [new_scale, new_zero_point] = qparams_from_range(low, high, spec_);
  if (zero_scale.defined()) {
    const at::Tensor is_zero = (low == 0).logical_and(high == 0);
    new_scale = at::where(is_zero, at::maximum(new_scale, zero_scale), new_scale);
  }
  return {new_scale, new_zero_point};
}

at::Tensor QuantizerImpl::quantized(const at::Tensor& x, const at::Tensor& with_scale) const {
  std::optional<int64_t> axis, block_size;
  if (with_scale.dim() > 0) axis = role_ == QuantizerRole::kBias ? 0 : spec_.axis;
  if (spec_.granularity == Granularity::kBlocked) block_size = spec_.block_size;
  return qcdq::fake_quantize(x, with_scale, zero_point, spec_.quant_min(), spec_.quant_max(), axis,
                             block_size);
}

at::Tensor QuantizerImpl::forward(const at::Tensor& x) {
  return std::get<0>(forward_with_scale(x));
}

std::tuple<at::Tensor, at::Tensor> QuantizerImpl::forward_with_scale(const at::Tensor& x,
                                                                     const at::Tensor& zero_scale) {
  if (is_training() && spec_.scale_source != Scaling::kFixed && role_ != QuantizerRole::kBias) {
    return train_forward(x, zero_scale);
  }
  if (stale_) {
    at::tracer::impl::NoTracerDispatchMode untraced;
    freeze(x, zero_scale);
  }
  require_ready();
  return {quantized(x, scale), scale};
}

std::tuple<at::Tensor, at::Tensor> QuantizerImpl::train_forward(const at::Tensor& x,
                                                                const at::Tensor& zero_scale) {
  if (x.numel() == 0) return {quantized(x, scale), scale};
  at::Tensor new_scale, new_zero_point;
  if (role_ == QuantizerRole::kActivation && !is_learning()) {
    observer->observe(x);
    std::tie(new_scale, new_zero_point) = observer->qparams(spec_);
    if (is_learning()) start_learning(observer->low, observer->high);
    mark_ready(kReady);
    return {qcdq::fake_quantize(x, new_scale, new_zero_point, spec_.quant_min(), spec_.quant_max()),
            new_scale};
  }
  if (spec_.scale_source == Scaling::kLearned) {
    if (!is_learning()) {
      auto [low, high] = range_of(x.detach(), spec_);
      start_learning(low, high);
      mark_ready(kLearning);
    }
    std::tie(new_scale, new_zero_point) = learned_qparams();
  } else {
    std::tie(new_scale, new_zero_point) = weight_qparams(x, zero_scale);
  }
  std::optional<int64_t> axis, block_size;
  if (spec_.granularity != Granularity::kPerTensor) axis = spec_.axis;
  if (spec_.granularity == Granularity::kBlocked) block_size = spec_.block_size;
  return {
      qcdq::fake_quantize_learned(x, new_scale, new_zero_point.to(at::kFloat), spec_.quant_min(),
                                  spec_.quant_max(), axis, block_size, kGradFactor),
      new_scale};
}

at::Tensor QuantizerImpl::forward_bias(const at::Tensor& bias, const at::Tensor& bias_scale) const {
  return quantized(bias, bias_scale.detach());
}

std::tuple<at::Tensor, at::Tensor> QuantizerImpl::frozen_qparams(const at::Tensor& value,
                                                                 const at::Tensor& zero_scale) {
  if (spec_.scale_source == Scaling::kFixed) return {scale, zero_point};
  if (role_ == QuantizerRole::kActivation) {
    if (!is_learning()) return observer->qparams(spec_);
    return learned_qparams();
  }
  if (spec_.scale_source != Scaling::kLearned) return weight_qparams(value.detach(), zero_scale);
  if (!is_learning()) {
    auto [low, high] = range_of(value.detach(), spec_);
    start_learning(low, high);
  }
  return learned_qparams();
}

void QuantizerImpl::freeze(const at::Tensor& value, const at::Tensor& zero_scale) {
  at::NoGradGuard no_grad;
  stale_ = false;
  if (spec_.scale_source == Scaling::kFixed) return;
  if (role_ == QuantizerRole::kActivation && observer->step_count() == 0) return;
  auto [new_scale, new_zero_point] = frozen_qparams(value, zero_scale);
  scale.copy_(new_scale);
  zero_point.copy_(new_zero_point.round().clamp(spec_.quant_min(), spec_.quant_max()));
  mark_ready(kReady);
}

void QuantizerImpl::set_scale(const at::Tensor& new_scale) {
  at::NoGradGuard no_grad;
  scale.copy_(new_scale);
  mark_ready(kReady);
}

std::optional<at::Tensor> QuantizerImpl::current_scale() {
  at::NoGradGuard no_grad;
  if (spec_.scale_source == Scaling::kFixed) return scale;
  TORCH_CHECK_VALUE(role_ == QuantizerRole::kActivation, layer_name(),
                    ": current_scale; expected the quantiser of an activation");
  if (observer->step_count() == 0) return std::nullopt;
  return std::get<0>(frozen_qparams({}, {}));
}

void name_layers(torch::nn::Module& root) {
  for (const auto& item : root.named_modules(std::string(), /*include_self=*/false)) {
    if (auto* quantizer = item.value()->as<QuantizerImpl>()) {
      const std::string& key = item.key();
      const size_t dot = key.rfind('.');
      quantizer->path = dot == std::string::npos ? "" : key.substr(0, dot);
    }
  }
}

}  // namespace qcdq
