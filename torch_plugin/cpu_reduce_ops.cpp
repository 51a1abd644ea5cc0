// CPU kernels of the ops that reduce over x: the gradients of fake_quantize_learned, choose_qparams
// and fake_quantize_dynamic. The elementwise ops are in cpu_ops.cpp.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "torch_plugin/checks.h"
#include "torch_plugin/cpu_tensors.h"
#include "torch_plugin/kernels/cpu_kernels.h"

namespace qcdq {
namespace {

// Row-major order: sums must not depend on the strides of x.
std::vector<int64_t> logical_order(const at::Tensor& x) {
  std::vector<int64_t> order(x.dim());
  std::iota(order.begin(), order.end(), 0);
  return order;
}

QParams prepare_learned_qparams(const char* op, const at::Tensor& x,
                                const std::vector<int64_t>& order, const Granularity& granularity,
                                const at::Tensor& scale, const at::Tensor& zero_point,
                                int64_t quant_min, int64_t quant_max) {
  QParams qparams =
      prepare_qparams(x, order, granularity, scale, zero_point, compute_type(x.scalar_type()));
  if (zero_point.is_floating_point()) {
    round_learned_zero_point(op, qparams.zero_point, quant_min, quant_max);
  }
  check_qparam_values(op, qparams, quant_min, quant_max);
  return qparams;
}

at::Tensor fake_quantize_learned_cpu(const at::Tensor& x, const at::Tensor& scale,
                                     const at::Tensor& zero_point, int64_t quant_min,
                                     int64_t quant_max, OptionalInt axis, OptionalInt block_size,
                                     double grad_factor) {
  constexpr const char* kOp = "fake_quantize_learned";
  const Granularity granularity =
      check_learned(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
  const at::Tensor dense = make_dense(x, compute_type(x.scalar_type()));
  const QParams qparams = prepare_learned_qparams(kOp, dense, memory_order(dense), granularity,
                                                  scale, zero_point, quant_min, quant_max);
  return fake_quantize_dense(dense, qparams, quant_min, quant_max).to(x.scalar_type());
}

// The sums of one parameter for all elements: blocks of kSumBlock from several threads, added in
// order, which gives the bits of a single thread.
template <typename T>
LearnedSums learned_sums_of_tensor(const T* grad, const T* x, int64_t numel,
                                   const RunParams<T>& params) {
  const int64_t blocks = (numel + kSumBlock - 1) / kSumBlock;
  std::vector<LearnedSums> partial(blocks);
  parallel_for(0, blocks, kElementsPerTask / kSumBlock, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t offset = b * kSumBlock;
      const int64_t count = std::min(kSumBlock, numel - offset);
      partial[b] = learned_sums(grad, x, {offset, 1, 0, count, 1}, params);
    }
  });
  LearnedSums total;
  for (const LearnedSums& sums : partial) {
    total.scale += sums.scale;
    total.zero_point += sums.zero_point;
  }
  return total;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_learned_backward_cpu(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, OptionalInt axis,
    OptionalInt block_size, double grad_factor) {
  constexpr const char* kOp = "fake_quantize_learned_backward";
  const Granularity granularity =
      check_learned(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
  check_grad(kOp, grad, x);
  const at::ScalarType compute = compute_type(x.scalar_type());
  const at::Tensor flat_x = x.to(compute).contiguous();
  const at::Tensor flat_grad = grad.to(compute).contiguous();
  const QParams qparams = prepare_learned_qparams(kOp, flat_x, logical_order(x), granularity, scale,
                                                  zero_point, quant_min, quant_max);
  const ParamLayout& layout = qparams.layout;
  at::Tensor grad_x = at::empty(x.sizes(), flat_x.options());
  at::Tensor grad_scale = at::empty(scale.sizes(), scale.options().dtype(at::kDouble));
  at::Tensor grad_zero_point = at::empty(scale.sizes(), scale.options().dtype(at::kDouble));
  double* scale_sums = grad_scale.mutable_data_ptr<double>();
  double* zero_point_sums = grad_zero_point.mutable_data_ptr<double>();
  with_compute_type(compute, [&](auto t) {
    using T = decltype(t);
    const T* g = flat_grad.const_data_ptr<T>();
    const T* from = flat_x.const_data_ptr<T>();
    T* to = grad_x.mutable_data_ptr<T>();
    parallel_runs(layout, [&](ParamLayout::Run run) {
      fake_quantize_backward_run(
          g + run.offset, from + run.offset, to + run.offset, run.count,
          run_params<T>(qparams, run.param, run.param_step, quant_min, quant_max));
    });
    const auto store = [&](int64_t param, const LearnedSums& sums) {
      scale_sums[param] = grad_factor * sums.scale;
      zero_point_sums[param] = grad_factor * sums.zero_point;
    };
    if (layout.one_param()) {
      store(0, learned_sums_of_tensor(g, from, layout.numel(),
                                      run_params<T>(qparams, 0, 0, quant_min, quant_max)));
      return;
    }
    parallel_params(layout, [&](int64_t param) {
      store(param, learned_sums(g, from, layout.elements(param),
                                run_params<T>(qparams, param, 0, quant_min, quant_max)));
    });
  });
  const at::ScalarType zero_point_type =
      zero_point.is_floating_point() ? zero_point.scalar_type() : scale.scalar_type();
  return {grad_x.to(x.scalar_type()), grad_scale.to(scale.scalar_type()),
          grad_zero_point.reshape(zero_point.sizes()).to(zero_point_type)};
}

std::tuple<at::Tensor, at::Tensor> choose_checked(const at::Tensor& x, int64_t quant_min,
                                                  int64_t quant_max, bool symmetric,
                                                  const Granularity& granularity) {
  const at::ScalarType compute = compute_type(x.scalar_type());
  const at::Tensor flat_x = x.to(compute).contiguous();
  const ParamLayout layout = layout_of(flat_x, logical_order(x), granularity);
  const auto shape = C10_AS_INTARRAYREF_SLOW_ALLOC(qparams_shape(x, granularity));
  at::Tensor scale = at::empty(shape, x.options().dtype(at::kFloat));
  at::Tensor zero_point = at::empty(shape, x.options().dtype(at::kInt));
  float* scales = scale.mutable_data_ptr<float>();
  int32_t* zero_points = zero_point.mutable_data_ptr<int32_t>();
  with_compute_type(compute, [&](auto t) {
    using T = decltype(t);
    const T* from = flat_x.const_data_ptr<T>();
    parallel_params(layout, [&](int64_t param) {
      const Extremes<T> found = find_extremes(from, layout.elements(param));
      const ScaleAndZeroPoint chosen =
          choose_one(static_cast<float>(found.lowest), static_cast<float>(found.highest), quant_min,
                     quant_max, symmetric);
      scales[param] = chosen.scale;
      zero_points[param] = static_cast<int32_t>(chosen.zero_point);
    });
  });
  return {scale, zero_point};
}

std::tuple<at::Tensor, at::Tensor> choose_qparams_cpu(const at::Tensor& x, int64_t quant_min,
                                                      int64_t quant_max, bool symmetric,
                                                      OptionalInt axis, OptionalInt block_size) {
  const Granularity granularity =
      check_choose("choose_qparams", x, quant_min, quant_max, symmetric, axis, block_size);
  return choose_checked(x, quant_min, quant_max, symmetric, granularity);
}

at::Tensor fake_quantize_dynamic_cpu(const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                                     bool symmetric, OptionalInt axis, OptionalInt block_size) {
  const Granularity granularity =
      check_choose("fake_quantize_dynamic", x, quant_min, quant_max, symmetric, axis, block_size);
  const auto [scale, zero_point] = choose_checked(x, quant_min, quant_max, symmetric, granularity);
  const at::ScalarType compute = compute_type(x.scalar_type());
  const at::Tensor dense = make_dense(x, compute);
  const QParams qparams =
      prepare_qparams(dense, memory_order(dense), granularity, scale, zero_point, compute);
  return fake_quantize_dense(dense, qparams, quant_min, quant_max).to(x.scalar_type());
}

TORCH_LIBRARY_IMPL(qcdq, CPU, m) {
  m.impl("fake_quantize_learned", TORCH_FN(fake_quantize_learned_cpu));
  m.impl("fake_quantize_learned_backward", TORCH_FN(fake_quantize_learned_backward_cpu));
  m.impl("choose_qparams", TORCH_FN(choose_qparams_cpu));
  m.impl("fake_quantize_dynamic", TORCH_FN(fake_quantize_dynamic_cpu));
}

}  // namespace
}  // namespace qcdq
