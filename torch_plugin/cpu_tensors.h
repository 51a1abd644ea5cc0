// What the CPU kernels share: tensors brought into the form that the loops of kernels/cpu_kernels.h
// take, checks of scale and zero_point values, work spread over threads. Used by cpu_ops.cpp and
// cpu_reduce_ops.cpp.
#pragma once

#include <ATen/ATen.h>
#include <qcdq/affine.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "torch_plugin/checks.h"
#include "torch_plugin/kernels/cpu_kernels.h"
#include "torch_plugin/parallel.h"

namespace qcdq {

using OptionalInt = std::optional<int64_t>;

// Elements worth a thread of their own.
inline constexpr int64_t kElementsPerTask = 32768;

inline at::ScalarType compute_type(at::ScalarType type) {
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
inline at::Tensor make_dense(const at::Tensor& x, at::ScalarType type) {
  at::Tensor dense = x.to(type);
  if (!dense.unsafeGetTensorImpl()->is_non_overlapping_and_dense()) {
    dense = at::empty_like(dense).copy_(dense);
  }
  return dense;
}

// The order of dimensions in which a dense tensor's memory is contiguous.
inline std::vector<int64_t> memory_order(const at::Tensor& dense) {
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
inline ParamLayout layout_of(const at::Tensor& x, const std::vector<int64_t>& order,
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

inline QParams prepare_qparams(const at::Tensor& x, const std::vector<int64_t>& order,
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
inline void check_zero_point_values(const char* op, const at::Tensor& zero_point, int64_t lowest,
                                    int64_t highest, const char* range) {
  const double* values = zero_point.const_data_ptr<double>();
  for (int64_t i = 0; i < zero_point.numel(); ++i) {
    TORCH_CHECK_VALUE(
        values[i] >= static_cast<double>(lowest) && values[i] <= static_cast<double>(highest),
        "qcdq::", op, ": zero_point is ", static_cast<int64_t>(std::clamp(values[i], -9e18, 9e18)),
        " at element ", i, ", expected a value in [", lowest, ", ", highest, "], ", range);
  }
}

// The zero point that a learned (floating) one stands for.
inline void round_learned_zero_point(const char* op, at::Tensor& zero_point, int64_t quant_min,
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

inline void check_qparam_values(const char* op, const QParams& qparams, int64_t quant_min,
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
    parallel_for(0, first.count, kElementsPerTask, [&](int64_t begin, int64_t end) {
      body({begin, end - begin, first.param + begin * first.param_step, first.param_step});
    });
    return;
  }
  const int64_t runs_per_task = std::max<int64_t>(1, kElementsPerTask / first.count);
  parallel_for(0, runs, runs_per_task, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(layout.run(i));
  });
}

// Calls body(param) for all parameters, from several threads.
template <typename Body>
void parallel_params(const ParamLayout& layout, const Body& body) {
  const int64_t params = layout.params();
  if (params == 0) return;
  const int64_t elements = std::max<int64_t>(1, layout.numel() / params);
  const int64_t params_per_task = std::max<int64_t>(1, kElementsPerTask / elements);
  parallel_for(0, params, params_per_task, [&](int64_t begin, int64_t end) {
    for (int64_t param = begin; param < end; ++param) body(param);
  });
}

// fake_quantize after all checks; x is dense and of the computing type.
inline at::Tensor fake_quantize_dense(const at::Tensor& x, const QParams& qparams,
                                      int64_t quant_min, int64_t quant_max) {
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

}  // namespace qcdq
