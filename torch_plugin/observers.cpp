// Statistics behind scales: percentile by kthvalue, minmax per tensor, channel or block, the
// gradient of an absmax, running means. The public contract is include/qcdq/observers.h;
// modules.cpp builds the quantisers of layers from it.
#include "qcdq/observers.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <ostream>

#include "torch_plugin/kernels/param_layout.h"

namespace qcdq {
namespace {

using torch::autograd::variable_list;

constexpr double kScaleFloor = 1e-10;  // a tensor of zeros has to have a scale too

void check_statistics(const at::Tensor& x, const char* name) {
  TORCH_CHECK_VALUE(at::isFloatingType(x.scalar_type()), name, ": x has type ", x.scalar_type(),
                    "; expected a floating-point tensor");
  TORCH_CHECK_VALUE(x.numel() > 0, name, ": x has shape ", x.sizes(),
                    "; expected at least one element");
}

// Statistics are taken in f32 (f64 keeps its own precision until the scale is made).
at::Tensor in_statistics_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

at::Tensor as_statistics(const at::Tensor& x, const char* name) {
  check_statistics(x, name);
  return in_statistics_type(x);
}

// 2^ceil(log2(scale)), exact; the gradient passes straight through.
at::Tensor rounded_up_to_power_of_two(const at::Tensor& scale) {
  at::Tensor power;
  {
    at::NoGradGuard no_grad;
    const at::Tensor mantissa =
        std::get<0>(at::frexp(scale));  // in [0.5, 1); 0.5 for a power of two
    power = scale / mantissa * at::where(mantissa == 0.5, 0.5, 1.0).to(scale.scalar_type());
  }
  return power + (scale - scale.detach());
}

at::Tensor finished_scale(const at::Tensor& scale, const QuantSpec& spec) {
  at::Tensor result = scale.to(at::kFloat).clamp_min(kScaleFloor);
  return spec.is_power_of_two ? rounded_up_to_power_of_two(result) : result;
}

int64_t checked_axis(const at::Tensor& x, int64_t axis) {
  TORCH_CHECK_VALUE(axis >= -x.dim() && axis < x.dim(), "QuantSpec: axis = ", axis,
                    "; expected a dimension of a tensor of shape ", x.sizes());
  return axis < 0 ? axis + x.dim() : axis;
}

// Smallest or largest value for each scale that spec asks for.
at::Tensor reduced(const at::Tensor& x, const QuantSpec& spec, bool largest) {
  at::Tensor values = x;
  std::vector<int64_t> dims;
  if (spec.granularity == Granularity::kPerChannel) {
    const int64_t axis = checked_axis(x, spec.axis);
    for (int64_t d = 0; d < x.dim(); ++d) {
      if (d != axis) dims.push_back(d);
    }
    if (dims.empty()) return values;
  } else if (spec.granularity == Granularity::kBlocked) {
    const int64_t axis = checked_axis(x, spec.axis);
    const int64_t blocks = (x.size(axis) + spec.block_size - 1) / spec.block_size;
    // The zeros that fill up a short last block change neither an absmax nor a range that has to
    // hold 0.
    std::vector<int64_t> padding(2 * (x.dim() - axis), 0);
    padding.back() = blocks * spec.block_size - x.size(axis);
    if (padding.back() > 0) values = at::constant_pad_nd(values, padding, 0);
    values = values.unflatten(axis, {blocks, spec.block_size});
    dims = {axis + 1};
  }
  return largest ? values.amax(dims) : values.amin(dims);
}

// The layout of a contiguous tensor of x's shape.
ParamLayout layout_of(const at::Tensor& x, const QuantSpec& spec) {
  if (spec.granularity == Granularity::kPerTensor) return ParamLayout::per_tensor(x.numel());
  const int64_t axis = checked_axis(x, spec.axis);
  const int64_t outer = c10::multiply_integers(x.sizes().slice(0, axis));
  const int64_t inner = c10::multiply_integers(x.sizes().slice(axis + 1));
  return spec.granularity == Granularity::kPerChannel
             ? ParamLayout::per_channel(outer, x.size(axis), inner)
             : ParamLayout::blocked(outer, x.size(axis), inner, spec.block_size);
}

// Adds to grad_x, which is all zeros: where |x| is the absmax of its group, sign(x) * the group's
// gradient / the number of such elements. The sign of 0 is 0, so a group of zeros gets none.
template <typename T>
void add_absmax_gradient(const ParamLayout& layout, const T* x, const T* absmax, const T* grad,
                         T* grad_x) {
  struct Largest {
    int64_t element, group;
  };
  std::vector<Largest> found;
  std::vector<int64_t> counts(layout.params(), 0);
  const auto search = [&](int64_t begin, int64_t count, int64_t group, int64_t group_step) {
    for (int64_t i = 0; i < count; ++i, group += group_step) {
      if (std::abs(x[begin + i]) != absmax[group] || absmax[group] == 0) continue;
      found.push_back({begin + i, group});
      ++counts[group];
    }
  };
  const int64_t runs = layout.runs();
  RunCursor cursor(layout, 0);
  for (int64_t r = 0; r < runs; ++r, cursor.next()) {
    const ParamLayout::Run run = cursor.run();
    int64_t i = 0;
    if (run.param_step == 0) {
      // Groups have few such elements: most chunks are passed over by a comparison of vectors.
      constexpr int64_t kChunk = 64;
      const T largest = absmax[run.param];
      if (largest == 0) continue;
      for (; i + kChunk <= run.count; i += kChunk) {
        const T* chunk = x + run.offset + i;
        int hits = 0;
        for (int64_t j = 0; j < kChunk; ++j) hits |= std::abs(chunk[j]) == largest;
        if (hits != 0) search(run.offset + i, kChunk, run.param, 0);
      }
    }
    search(run.offset + i, run.count - i, run.param + i * run.param_step, run.param_step);
  }
  for (const Largest& at : found) {
    const T share = grad[at.group] / static_cast<T>(counts[at.group]);
    grad_x[at.element] = x[at.element] > 0 ? share : -share;
  }
}

// max |x| for each scale that spec asks for, as statistics are typed. One node that keeps x: the
// graph of x.abs().amax() keeps two tensors of x's size, and its backward makes five more.
class Absmax : public torch::autograd::Function<Absmax> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const QuantSpec& spec) {
    const at::Tensor absmax = in_statistics_type(
        at::maximum(reduced(x, spec, false).abs(), reduced(x, spec, true).abs()));
    ctx->save_for_backward({x, absmax});
    ctx->saved_data["spec"] = spec.to_integers();
    return absmax;
  }

  static variable_list backward(torch::autograd::AutogradContext* ctx, const variable_list& grads) {
    if (!grads[0].defined()) return {at::Tensor(), at::Tensor()};
    const variable_list saved = ctx->get_saved_variables();
    const QuantSpec spec = QuantSpec::from_integers(ctx->saved_data["spec"].toIntVector());
    return {gradient(saved[0], saved[1], grads[0], spec), at::Tensor()};
  }

 private:
  static at::Tensor gradient(const at::Tensor& x, const at::Tensor& absmax, const at::Tensor& grad,
                             const QuantSpec& spec) {
    const bool keeps_graph = at::GradMode::is_enabled();
    if (!x.is_cpu() || keeps_graph) {
      const at::AutoGradMode with_grad(true);
      const at::Tensor input = keeps_graph ? x : x.detach().requires_grad_();
      const at::Tensor composed = reduced(in_statistics_type(input).abs(), spec, true);
      return torch::autograd::grad({composed}, {input}, {grad}, keeps_graph, keeps_graph)[0];
    }
    const at::Tensor values = in_statistics_type(x).contiguous();
    const at::Tensor dense_absmax = absmax.contiguous(), dense_grad = grad.contiguous();
    const at::Tensor grad_x = at::zeros_like(values);
    AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "absmax_backward", [&] {
      add_absmax_gradient(layout_of(x, spec), values.const_data_ptr<scalar_t>(),
                          dense_absmax.const_data_ptr<scalar_t>(),
                          dense_grad.const_data_ptr<scalar_t>(),
                          grad_x.mutable_data_ptr<scalar_t>());
    });
    return grad_x.to(x.scalar_type());
  }
};

}  // namespace

at::Tensor percentile(const at::Tensor& x, double rank) {
  TORCH_CHECK_VALUE(rank >= 0 && rank <= 100, "percentile: rank = ", rank, "; expected 0 to 100");
  at::NoGradGuard no_grad;
  const at::Tensor values = as_statistics(x, "percentile").detach().reshape({-1});
  const int64_t n = values.numel();
  const auto k = static_cast<int64_t>(std::floor(0.01 * rank * static_cast<double>(n) + 0.5));
  // kthvalue needs half a pass of selection; the two ends are plain reductions.
  if (k >= n) return values.amax().to(at::kFloat);
  if (k <= 1) return values.amin().to(at::kFloat);
  return std::get<0>(values.kthvalue(k)).to(at::kFloat);
}

std::tuple<at::Tensor, at::Tensor> range_of(const at::Tensor& x, const QuantSpec& spec) {
  if (spec.is_symmetric) {
    check_statistics(x, "range_of");
    const at::Tensor absmax = Absmax::apply(x, spec);
    return {-absmax, absmax};
  }
  const at::Tensor values = as_statistics(x, "range_of");
  return {reduced(values, spec, false), reduced(values, spec, true)};
}

std::tuple<at::Tensor, at::Tensor> qparams_from_range(const at::Tensor& low, const at::Tensor& high,
                                                      const QuantSpec& spec) {
  spec.check();
  TORCH_CHECK_VALUE(low.sizes() == high.sizes(), "qparams_from_range: low has shape ", low.sizes(),
                    " and high ", high.sizes(), "; expected the same shape");
  if (spec.is_symmetric) {
    const at::Tensor scale = finished_scale(
        at::maximum(low.abs(), high.abs()) / static_cast<double>(spec.divisor()), spec);
    return {scale, at::zeros_like(scale, at::TensorOptions().dtype(at::kInt))};
  }
  const auto steps = static_cast<double>(spec.quant_max() - spec.quant_min());
  const at::Tensor bottom = low.clamp_max(0), top = high.clamp_min(0);
  const at::Tensor scale = finished_scale((top - bottom) / steps, spec);
  at::NoGradGuard no_grad;
  const at::Tensor zero_point =
      (-bottom / scale).clamp(0, steps).round() + static_cast<double>(spec.quant_min());
  return {scale, zero_point.to(at::kInt)};
}

ObserverImpl::ObserverImpl(const ObserverOptions& options_) : options(options_) {
  TORCH_CHECK_VALUE(
      options.statistic == Scaling::kMinMax || options.statistic == Scaling::kPercentile,
      "Observer: statistic = ", static_cast<int64_t>(options.statistic),
      "; expected Scaling::kMinMax or Scaling::kPercentile");
  TORCH_CHECK_VALUE(options.rank > 50 && options.rank <= 100, "Observer: rank = ", options.rank,
                    "; expected more than 50 and at most 100");
  TORCH_CHECK_VALUE(options.momentum > 0 && options.momentum <= 1,
                    "Observer: momentum = ", options.momentum,
                    "; expected more than 0 and at most 1");
  ObserverImpl::reset();
}

void ObserverImpl::reset() {
  low = register_buffer("low", at::zeros({}, at::kFloat));
  high = register_buffer("high", at::zeros({}, at::kFloat));
  steps = register_buffer("steps", at::zeros({}, at::kLong));
}

void ObserverImpl::pretty_print(std::ostream& stream) const {
  stream << "qcdq::Observer(";
  if (options.statistic == Scaling::kMinMax) {
    stream << "minmax";
  } else {
    stream << "percentile " << options.rank;
  }
  stream << (options.symmetric ? ")" : ", asymmetric)");
}

void ObserverImpl::to(torch::Device device, torch::Dtype, bool non_blocking) {
  Module::to(device, non_blocking);
}

void ObserverImpl::to(torch::Dtype, bool) {}

void ObserverImpl::observe(const at::Tensor& x) {
  if (x.numel() == 0) return;
  at::NoGradGuard no_grad;
  at::Tensor batch_low, batch_high;
  if (options.statistic == Scaling::kMinMax) {
    std::tie(batch_low, batch_high) =
        range_of(x.detach(), QuantSpec{}.symmetric(options.symmetric));
  } else if (options.symmetric) {
    batch_high = percentile(x.abs(), options.rank);
    batch_low = -batch_high;
  } else {
    batch_low = percentile(x, 100 - options.rank);
    batch_high = percentile(x, options.rank);
  }
  if (step_count() == 0) {
    low.copy_(batch_low);
    high.copy_(batch_high);
  } else {
    low.mul_(1 - options.momentum).add_(batch_low.to(at::kFloat), options.momentum);
    high.mul_(1 - options.momentum).add_(batch_high.to(at::kFloat), options.momentum);
  }
  steps.add_(1);
}

int64_t ObserverImpl::step_count() const { return steps.item<int64_t>(); }

std::tuple<at::Tensor, at::Tensor> ObserverImpl::qparams(const QuantSpec& spec) const {
  TORCH_CHECK(step_count() > 0, "Observer: no batch has been observed yet; call observe(x) first");
  at::NoGradGuard no_grad;
  return qparams_from_range(low, high, spec);
}

}  // namespace qcdq
