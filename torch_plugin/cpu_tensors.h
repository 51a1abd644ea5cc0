// What the CPU kernels share: tensors as the dense arrays that kernels/cpu_kernels.h takes, scale
// and zero_point read and checked, work spread over threads. Used by cpu_ops.cpp and
// cpu_reduce_ops.cpp. A call on a small tensor costs less than 2 us, so nothing here goes through
// torch's dispatcher or allocates for the usual case: a dense x and one parameter.
#pragma once

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <c10/util/SmallVector.h>
#include <qcdq/affine.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "torch_plugin/checks.h"
#include "torch_plugin/kernels/cpu_kernels.h"
#include "torch_plugin/parallel.h"

namespace qcdq {

using OptionalInt = std::optional<int64_t>;

// Elements worth a thread of their own: about 10 us of work, several times the cost of waking one.
inline constexpr int64_t kElementsPerTask = 32768;

inline at::ScalarType compute_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

// Calls body(X{}) with the kernels' type of the elements.
template <typename Body>
void with_float_type(at::ScalarType type, Body&& body) {
  switch (type) {
    case at::kDouble:
      return body(double{});
    case at::kHalf:
      return body(F16{});
    case at::kBFloat16:
      return body(BF16{});
    default:
      return body(float{});
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

template <typename X>
const X* elements_of(const at::Tensor& t) {
  return static_cast<const X*>(t.const_data_ptr());
}

template <typename X>
X* mutable_elements_of(const at::Tensor& t) {
  return static_cast<X*>(t.mutable_data_ptr());
}

// A tensor of the strides that empty_like(x) gives, with no gaps and no overlaps; x itself if it is
// so.
inline at::Tensor make_dense(const at::Tensor& x) {
  if (x.unsafeGetTensorImpl()->is_non_overlapping_and_dense()) return x;
  return at::empty_like(x).copy_(x);
}

// `t` in the strides of `dense`.
inline at::Tensor with_strides_of(const at::Tensor& dense, const at::Tensor& t) {
  if (t.strides() == dense.strides()) return t;
  return at::empty_like(dense).copy_(t);
}

// Uninitialised, with the sizes and strides of `dense`; past the dispatcher, unlike empty_like.
inline at::Tensor empty_as(const at::Tensor& dense, at::ScalarType type) {
  if (dense.is_contiguous()) return at::detail::empty_cpu(dense.sizes(), type);
  return at::detail::empty_strided_cpu(dense.sizes(), dense.strides(), type);
}

// The order of dimensions in which a dense tensor's memory is contiguous.
inline c10::SmallVector<int64_t, 6> memory_order(const at::Tensor& dense) {
  c10::SmallVector<int64_t, 6> order(dense.dim());
  std::iota(order.begin(), order.end(), 0);
  if (!dense.is_contiguous()) {
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return dense.stride(a) > dense.stride(b); });
  }
  return order;
}

// How dense x, seen as the contiguous array that its memory is, shares parameters.
inline ParamLayout layout_of(const at::Tensor& dense, const Granularity& granularity) {
  if (!granularity.axis) return ParamLayout::per_tensor(dense.numel());
  int64_t outer = 1;
  int64_t inner = 1;
  bool before = true;
  for (const int64_t dim : memory_order(dense)) {
    if (dim == *granularity.axis) {
      before = false;
    } else {
      (before ? outer : inner) *= dense.size(dim);
    }
  }
  const int64_t length = dense.size(*granularity.axis);
  return granularity.block_size
             ? ParamLayout::blocked(outer, length, inner, *granularity.block_size)
             : ParamLayout::per_channel(outer, length, inner);
}

template <typename T>
using Values = c10::SmallVector<T, 4>;

// Appends the elements of a contiguous tensor, converted to T.
template <typename T>
void read_values(const at::Tensor& t, Values<T>* values) {
  const auto read = [&](auto element) {
    const auto* from = static_cast<const decltype(element)*>(t.const_data_ptr());
    const int64_t numel = t.numel();
    values->resize(numel);
    T* to = values->data();
    for (int64_t i = 0; i < numel; ++i) to[i] = static_cast<T>(from[i]);
  };
  switch (t.scalar_type()) {
    case at::kFloat:
      return read(float{});
    case at::kDouble:
      return read(double{});
    case at::kHalf:
      return read(c10::Half{});
    case at::kBFloat16:
      return read(c10::BFloat16{});
    case at::kByte:
      return read(uint8_t{});
    case at::kChar:
      return read(int8_t{});
    case at::kShort:
      return read(int16_t{});
    case at::kInt:
      return read(int32_t{});
    case at::kLong:
      return read(int64_t{});
    case at::kUInt16:
      return read(uint16_t{});
    case at::kUInt32:
      return read(uint32_t{});
    default:
      return read_values(t.to(at::kDouble), values);
  }
}

// Scale and zero point in the order of `layout`, checked. Only the vectors that visit_params uses
// are filled.
struct QParams {
  ParamLayout layout;
  bool wide = false;  // codes need f64 (affine.h)
  int64_t quant_min = 0;
  int64_t quant_max = 0;
  Values<float> scale_f32;
  Values<double> scale_f64;
  Values<float> zero_point_f32;
  Values<double> zero_point_f64;
};

// Calls body(QuantParams<T, Acc>) for elements of type X.
template <typename X, typename Body>
void visit_params(const QParams& p, Body&& body) {
  if constexpr (std::is_same_v<X, double>) {
    body(QuantParams<double, double>{p.scale_f64.data(), p.zero_point_f64.data(), p.quant_min,
                                     p.quant_max});
  } else if (p.wide) {
    body(QuantParams<float, double>{p.scale_f32.data(), p.zero_point_f64.data(), p.quant_min,
                                    p.quant_max});
  } else {
    body(QuantParams<float, float>{p.scale_f32.data(), p.zero_point_f32.data(), p.quant_min,
                                   p.quant_max});
  }
}

// Whether `is_good` holds for all. Blocks have many parameters: no branch for each.
template <typename T, typename IsGood>
bool all_are(const Values<T>& values, IsGood&& is_good) {
  bool all = true;
  for (const T* v = values.begin(); v != values.end(); ++v) all &= is_good(*v);
  return all;
}

template <typename T>
void check_scale_values(const char* op, const Values<T>& values) {
  constexpr T kLargest = std::numeric_limits<T>::max();
  if (all_are(values, [](T v) { return (v > T(0)) & (v <= kLargest); })) return;
  for (size_t i = 0; i < values.size(); ++i) {
    TORCH_CHECK_VALUE(std::isfinite(values[i]) && values[i] > T(0), "qcdq::", op, ": scale is ",
                      values[i], " at element ", i, ", expected a finite value > 0");
  }
}

// zero_point holds integers; `range` names what the bounds are.
inline void check_zero_point_values(const char* op, const Values<double>& values, int64_t lowest,
                                    int64_t highest, const char* range) {
  const auto low = static_cast<double>(lowest);
  const auto high = static_cast<double>(highest);
  if (all_are(values, [=](double v) { return (v >= low) & (v <= high); })) return;
  for (size_t i = 0; i < values.size(); ++i) {
    TORCH_CHECK_VALUE(values[i] >= low && values[i] <= high, "qcdq::", op, ": zero_point is ",
                      static_cast<int64_t>(std::clamp(values[i], -9e18, 9e18)), " at element ", i,
                      ", expected a value in [", lowest, ", ", highest, "], ", range);
  }
}

// The zero point that a learned (floating) one stands for.
inline void round_learned_zero_point(const char* op, int64_t quant_min, int64_t quant_max,
                                     Values<double>* values) {
  for (size_t i = 0; i < values->size(); ++i) {
    double& value = (*values)[i];
    TORCH_CHECK_VALUE(std::isfinite(value), "qcdq::", op, ": zero_point is ", value, " at element ",
                      i, ", expected a finite value");
    value = clamp_code(round_half_even(value), static_cast<double>(quant_min),
                       static_cast<double>(quant_max));
  }
}

// What a call says about its parameters, besides the tensors.
struct QParamsRequest {
  const char* op;
  Granularity granularity;
  at::ScalarType value_type;  // of x
  int64_t quant_min;
  int64_t quant_max;
  bool wide;
  const char* zero_point_range = "the range [quant_min, quant_max]";
};

inline void read_zero_point(const QParamsRequest& request, const at::Tensor& zero_point,
                            QParams* p) {
  Values<double>& values = p->zero_point_f64;
  read_values(zero_point, &values);
  if (zero_point.is_floating_point()) {
    round_learned_zero_point(request.op, request.quant_min, request.quant_max, &values);
  }
  check_zero_point_values(request.op, values, request.quant_min, request.quant_max,
                          request.zero_point_range);
  if (!request.wide) p->zero_point_f32.assign(values.begin(), values.end());
}

inline QParams prepare_qparams(const at::Tensor& dense, const at::Tensor& scale,
                               const at::Tensor& zero_point, const QParamsRequest& request) {
  QParams p;
  p.layout = layout_of(dense, request.granularity);
  p.wide = request.wide;
  p.quant_min = request.quant_min;
  p.quant_max = request.quant_max;
  // Blocked parameters follow the dimensions of x, so they are put into its memory's order.
  const auto arrange = [&](const at::Tensor& t) {
    if (request.granularity.block_size && !dense.is_contiguous()) {
      return t.permute(memory_order(dense)).contiguous();
    }
    return t.contiguous();
  };
  const at::Tensor scales = arrange(scale);
  const at::Tensor zero_points = arrange(zero_point);
  if (request.value_type == at::kDouble) {
    read_values(scales, &p.scale_f64);
    check_scale_values(request.op, p.scale_f64);
  } else {
    read_values(scales, &p.scale_f32);
    check_scale_values(request.op, p.scale_f32);
  }
  read_zero_point(request, zero_points, &p);
  return p;
}

inline QParams prepare_qparams(const char* op, const at::Tensor& dense,
                               const Granularity& granularity, const at::Tensor& scale,
                               const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  const bool wide =
      dense.scalar_type() == at::kDouble || needs_wide_accumulator(quant_min, quant_max);
  return prepare_qparams(dense, scale, zero_point,
                         {op, granularity, dense.scalar_type(), quant_min, quant_max, wide});
}

// Each run costs the kernels a few ns. Where runs are shorter than kShortRun (few channels in
// channels-last memory, a small inner size), the parameters are repeated for the elements of about
// kTiledRun, which makes long runs with a parameter per element. Not for ops that sum.
inline constexpr int64_t kShortRun = 16;
inline constexpr int64_t kTiledRun = 512;

inline void tile_short_runs(QParams* p) {
  const ParamLayout& layout = p->layout;
  if (layout.one_param() || layout.inner_step != 0 || layout.numel() == 0) return;
  const int64_t inner = layout.inner;
  const int64_t period = layout.axis * inner;
  if ((inner == 1 ? layout.axis : inner) >= kShortRun || period > 16 * kTiledRun) return;
  const int64_t tiled = period * std::max<int64_t>(1, kTiledRun / period);
  if (layout.numel() < 4 * tiled) return;
  const auto tile = [&](auto* values) {
    if (values->empty()) return;
    const std::vector<std::decay_t<decltype((*values)[0])>> once(values->begin(), values->end());
    values->resize(tiled);
    for (int64_t i = 0; i < tiled; ++i) (*values)[i] = once[i % period / inner];
  };
  tile(&p->scale_f32);
  tile(&p->scale_f64);
  tile(&p->zero_point_f32);
  tile(&p->zero_point_f64);
  p->layout = ParamLayout::cyclic(layout.numel(), tiled);
}

// Calls body(begin, end) for parts of [0, count), here where one task is enough for `elements`
// elements, else from several threads.
template <typename Body>
void parallel_parts(int64_t count, int64_t elements, Body&& body) {
  if (count == 0) return;
  if (elements <= kElementsPerTask || count == 1) return body(int64_t{0}, count);
  parallel_for(0, count, std::max<int64_t>(1, kElementsPerTask * count / elements), body);
}

// Calls body(offset, layout, runs, params) for all elements of a layout, from several threads:
// `offset` is the first element of the arrays for which RunRange{layout, runs...} holds.
template <typename Q, typename Body>
void parallel_runs(const ParamLayout& layout, const Q& q, Body&& body) {
  const int64_t runs = layout.runs();
  if (runs == 1) {
    // One run is split by elements.
    const int64_t step = layout.run(0).param_step;
    parallel_parts(layout.numel(), layout.numel(), [&](int64_t begin, int64_t end) {
      const int64_t count = end - begin;
      const ParamLayout part =
          step == 0 ? ParamLayout::per_tensor(count) : ParamLayout::per_channel(1, count, 1);
      Q moved = q;
      moved.scale += begin * step;
      moved.zero_point += begin * step;
      body(begin, RunRange{part, 0, 1}, moved);
    });
    return;
  }
  parallel_parts(runs, layout.numel(), [&](int64_t begin, int64_t end) {
    body(0, RunRange{layout, begin, end}, q);
  });
}

// fake_quantize after all checks.
inline at::Tensor fake_quantize_dense(const at::Tensor& dense, QParams qparams) {
  tile_short_runs(&qparams);
  at::Tensor y = empty_as(dense, dense.scalar_type());
  with_float_type(dense.scalar_type(), [&](auto element) {
    using X = decltype(element);
    visit_params<X>(qparams, [&](const auto& params) {
      parallel_runs(qparams.layout, params,
                    [&](int64_t offset, const RunRange& runs, const auto& q) {
                      fake_quantize_runs(elements_of<X>(dense) + offset,
                                         mutable_elements_of<X>(y) + offset, runs, q);
                    });
    });
  });
  return y;
}

}  // namespace qcdq
