// CPU kernels of the ops: check arguments and values, bring tensors into the form that the torch-free
// loops of kernels/cpu_kernels.h take, and spread the work over threads.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <qcdq/affine.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "torch_plugin/checks.h"
#include "torch_plugin/kernels/cpu_kernels.h"

namespace qcdq {
namespace {

using OptionalInt = std::optional<int64_t>;

// Elements worth a thread of their own.
constexpr int64_t kElementsPerTask = 32768;

at::ScalarType compute_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

// Calls body(T{}) with the computing type.
template <typename Body>
void with_compute_type(at::ScalarType type, Body&& body) {
  if (type == at::kDouble) {
    body(double{});
  } else {
    body(float{});
  }
}

template <typename Body>
void with_code_type(at::ScalarType type, Body&& body) {
  switch (type) {
    case at::kChar:
      return body(int8_t{});
    case at::kByte:
      return body(uint8_t{});
    case at::kShort:
      return body(int16_t{});
    case at::kUInt16:
      return body(uint16_t{});
    default:
      return body(int32_t{});
  }
}

// A tensor of the strides that empty_like(x) gives, with no gaps and no overlaps.
at::Tensor make_dense(const at::Tensor& x, at::ScalarType type) {
  at::Tensor dense = x.to(type);
  if (!dense.unsafeGetTensorImpl()->is_non_overlapping_and_dense()) {
    dense = at::empty_like(dense).copy_(dense);
  }
  return dense;
}

// The order of dimensions in which a dense tensor's memory is contiguous.
std::vector<int64_t> memory_order(const at::Tensor& dense) {
  std::vector<int64_t> order(dense.dim());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return dense.stride(a) > dense.stride(b); });
  return order;
}

// Scale and zero point in the order of `layout`, ready for the kernels.
struct QParams {
  ParamLayout layout;
  at::Tensor scale;       // the computing type
  at::Tensor zero_point;  // f64
};

// How x, contiguous once its dimensions are put in `order`, shares parameters.
ParamLayout layout_of(const at::Tensor& x, const std::vector<int64_t>& order,
                      const Granularity& granularity) {
  if (!granularity.axis) return ParamLayout::per_tensor(x.numel());
  int64_t outer = 1;
  int64_t inner = 1;
  bool before = true;
  for (const int64_t dim : order) {
    if (dim == *granularity.axis) {
      before = false;
    } else {
      (before ? outer : inner) *= x.size(dim);
    }
  }
  const int64_t length = x.size(*granularity.axis);
  return granularity.block_size
             ? ParamLayout::blocked(outer, length, inner, *granularity.block_size)
             : ParamLayout::per_channel(outer, length, inner);
}

QParams prepare_qparams(const at::Tensor& x, const std::vector<int64_t>& order,
                        const Granularity& granularity, const at::Tensor& scale,
                        const at::Tensor& zero_point, at::ScalarType compute) {
  const auto arrange = [&](const at::Tensor& t, at::ScalarType type) {
    return (granularity.block_size ? t.permute(order) : t).to(type).contiguous();
  };
  return {layout_of(x, order, granularity), arrange(scale, compute),
          arrange(zero_point, at::kDouble)};
}

template <typename T>
void check_scale_values(const char* op, const at::Tensor& scale) {
  const T* values = scale.const_data_ptr<T>();
  for (int64_t i = 0; i < scale.numel(); ++i) {
    TORCH_CHECK_VALUE(std::isfinite(values[i]) && values[i] > T(0), "qcdq::", op, ": scale is ",
                      values[i], " at element ", i, ", expected a finite value > 0");
  }
}

// zero_point holds integers; `range` names what the bounds are.
void check_zero_point_values(const char* op, const at::Tensor& zero_point, int64_t lowest,
                             int64_t highest, const char* range) {
  const double* values = zero_point.const_data_ptr<double>();
  for (int64_t i = 0; i < zero_point.numel(); ++i) {
    TORCH_CHECK_VALUE(values[i] >= static_cast<double>(lowest) &&
                          values[i] <= static_cast<double>(highest),
                      "qcdq::", op, ": zero_point is ", static_cast<int64_t>(values[i]),
                      " at element ", i, ", expected a value in [", lowest, ", ", highest, "], ",
                      range);
  }
}

// The zero point that a learned (floating) one stands for.
void round_learned_zero_point(const char* op, at::Tensor& zero_point, int64_t quant_min,
                              int64_t quant_max) {
  at::Tensor rounded = at::empty_like(zero_point);
  const double* from = zero_point.const_data_ptr<double>();
  double* to = rounded.mutable_data_ptr<double>();
  for (int64_t i = 0; i < zero_point.numel(); ++i) {
    TORCH_CHECK_VALUE(std::isfinite(from[i]), "qcdq::", op, ": zero_point is ", from[i],
                      " at element ", i, ", expected a finite value");
    to[i] = clamp_code(round_half_even(from[i]), static_cast<double>(quant_min),
                       static_cast<double>(quant_max));
  }
  zero_point = rounded;
}

void check_qparam_values(const char* op, const QParams& qparams, int64_t quant_min,
                         int64_t quant_max) {
  with_compute_type(qparams.scale.scalar_type(),
                    [&](auto t) { check_scale_values<decltype(t)>(op, qparams.scale); });
  check_zero_point_values(op, qparams.zero_point, quant_min, quant_max,
                          "the range [quant_min, quant_max]");
}

template <typename T>
RunParams<T> run_params(const QParams& qparams, int64_t param, int64_t step, int64_t quant_min,
                        int64_t quant_max) {
  return {qparams.scale.const_data_ptr<T>() + param,
          qparams.zero_point.const_data_ptr<double>() + param, step, quant_min, quant_max};
}

// Calls body(run) for all elements, from several threads.
template <typename Body>
void parallel_runs(const ParamLayout& layout, const Body& body) {
  const int64_t runs = layout.runs();
  if (runs == 0) return;
  const ParamLayout::Run first = layout.run(0);
  if (runs == 1) {
    at::parallel_for(0, first.count, kElementsPerTask, [&](int64_t begin, int64_t end) {
      body({begin, end - begin, first.param + begin * first.param_step, first.param_step});
    });
    return;
  }
  const int64_t runs_per_task = std::max<int64_t>(1, kElementsPerTask / first.count);
  at::parallel_for(0, runs, runs_per_task, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(layout.run(i));
  });
}

// fake_quantize after all checks; x is dense and of the computing type.
at::Tensor fake_quantize_dense(const at::Tensor& x, const QParams& qparams, int64_t quant_min,
                               int64_t quant_max) {
  at::Tensor y = at::empty_like(x);
  with_compute_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const T* from = x.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    parallel_runs(qparams.layout, [&](ParamLayout::Run run) {
      fake_quantize_run(from + run.offset, to + run.offset, run.count,
                        run_params<T>(qparams, run.param, run.param_step, quant_min, quant_max));
    });
  });
  return y;
}

at::Tensor quantize_cpu(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                        int64_t quant_min, int64_t quant_max, at::ScalarType dtype,
                        OptionalInt axis, OptionalInt block_size) {
  constexpr const char* kOp = "quantize";
  check_float_input(kOp, x);
  check_storage_type(kOp, "dtype", dtype);
  check_range(kOp, quant_min, quant_max);
  check_range_fits(kOp, dtype, quant_min, quant_max);
  const Granularity granularity = check_granularity(kOp, x, axis, block_size);
  check_qparams(kOp, x, x.scalar_type(), scale, zero_point, granularity);

  const at::ScalarType compute = compute_type(x.scalar_type());
  const at::Tensor dense = make_dense(x, compute);
  const QParams qparams =
      prepare_qparams(dense, memory_order(dense), granularity, scale, zero_point, compute);
  check_qparam_values(kOp, qparams, quant_min, quant_max);
  at::Tensor codes = at::empty_like(dense, dense.options().dtype(dtype));
  with_compute_type(compute, [&](auto t) {
    with_code_type(dtype, [&](auto c) {
      using T = decltype(t);
      using Code = decltype(c);
      const T* from = dense.const_data_ptr<T>();
      Code* to = codes.mutable_data_ptr<Code>();
      parallel_runs(qparams.layout, [&](ParamLayout::Run run) {
        quantize_run(from + run.offset, to + run.offset, run.count,
                     run_params<T>(qparams, run.param, run.param_step, quant_min, quant_max));
      });
    });
  });
  return codes;
}

at::Tensor dequantize_cpu(const at::Tensor& q, const at::Tensor& scale,
                          const at::Tensor& zero_point, OptionalInt axis, OptionalInt block_size,
                          std::optional<at::ScalarType> dtype) {
  constexpr const char* kOp = "dequantize";
  check_storage_type(kOp, "q", q.scalar_type());
  const at::ScalarType value_type = dtype.value_or(scale.scalar_type());
  check_value_type(kOp, dtype ? "dtype" : "scale", value_type);
  const Granularity granularity = check_granularity(kOp, q, axis, block_size);
  check_qparams(kOp, q, value_type, scale, zero_point, granularity);

  const at::ScalarType compute = compute_type(value_type);
  const at::Tensor dense = make_dense(q, q.scalar_type());
  const QParams qparams =
      prepare_qparams(dense, memory_order(dense), granularity, scale, zero_point, compute);
  const CodeRange range = range_of_storage_type(q.scalar_type());
  with_compute_type(compute,
                    [&](auto t) { check_scale_values<decltype(t)>(kOp, qparams.scale); });
  check_zero_point_values(kOp, qparams.zero_point, range.lowest, range.highest,
                          "the range of q's type");
  at::Tensor y = at::empty_like(dense, dense.options().dtype(compute));
  with_compute_type(compute, [&](auto t) {
    with_code_type(q.scalar_type(), [&](auto c) {
      using T = decltype(t);
      using Code = decltype(c);
      const Code* from = dense.const_data_ptr<Code>();
      T* to = y.mutable_data_ptr<T>();
      parallel_runs(qparams.layout, [&](ParamLayout::Run run) {
        dequantize_run(
            from + run.offset, to + run.offset, run.count,
            run_params<T>(qparams, run.param, run.param_step, range.lowest, range.highest));
      });
    });
  });
  return y.to(value_type);
}

at::Tensor fake_quantize_cpu(const at::Tensor& x, const at::Tensor& scale,
                             const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                             OptionalInt axis, OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize";
  check_float_input(kOp, x);
  check_range(kOp, quant_min, quant_max);
  const Granularity granularity = check_granularity(kOp, x, axis, block_size);
  check_qparams(kOp, x, x.scalar_type(), scale, zero_point, granularity);

  const at::ScalarType compute = compute_type(x.scalar_type());
  const at::Tensor dense = make_dense(x, compute);
  const QParams qparams =
      prepare_qparams(dense, memory_order(dense), granularity, scale, zero_point, compute);
  check_qparam_values(kOp, qparams, quant_min, quant_max);
  return fake_quantize_dense(dense, qparams, quant_min, quant_max).to(x.scalar_type());
}

at::Tensor fake_quantize_backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                                      const at::Tensor& scale, const at::Tensor& zero_point,
                                      int64_t quant_min, int64_t quant_max, OptionalInt axis,
                                      OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize_backward";
  check_float_input(kOp, x);
  check_grad(kOp, grad, x);
  check_range(kOp, quant_min, quant_max);
  const Granularity granularity = check_granularity(kOp, x, axis, block_size);
  check_qparams(kOp, x, x.scalar_type(), scale, zero_point, granularity);

  const at::ScalarType compute = compute_type(x.scalar_type());
  const at::Tensor dense = make_dense(x, compute);
  at::Tensor dense_grad = grad.to(compute);
  if (dense_grad.strides() != dense.strides()) {
    dense_grad = at::empty_like(dense).copy_(dense_grad);
  }
  const QParams qparams =
      prepare_qparams(dense, memory_order(dense), granularity, scale, zero_point, compute);
  check_qparam_values(kOp, qparams, quant_min, quant_max);
  at::Tensor grad_x = at::empty_like(dense);
  with_compute_type(compute, [&](auto t) {
    using T = decltype(t);
    const T* from_grad = dense_grad.const_data_ptr<T>();
    const T* from = dense.const_data_ptr<T>();
    T* to = grad_x.mutable_data_ptr<T>();
    parallel_runs(qparams.layout, [&](ParamLayout::Run run) {
      fake_quantize_backward_run(
          from_grad + run.offset, from + run.offset, to + run.offset, run.count,
          run_params<T>(qparams, run.param, run.param_step, quant_min, quant_max));
    });
  });
  return grad_x.to(x.scalar_type());
}

TORCH_LIBRARY_IMPL(qcdq, CPU, m) {
  m.impl("quantize", TORCH_FN(quantize_cpu));
  m.impl("dequantize", TORCH_FN(dequantize_cpu));
  m.impl("fake_quantize", TORCH_FN(fake_quantize_cpu));
  m.impl("fake_quantize_backward", TORCH_FN(fake_quantize_backward_cpu));
}

}  // namespace
}  // namespace qcdq
