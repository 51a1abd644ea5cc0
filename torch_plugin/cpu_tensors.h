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
#include "torch_plugin/dense_tensors.h"
#include "torch_plugin/kernels/cpu_kernels.h"
#include "torch_plugin/kernels/param_values.h"
#include "torch_plugin/parallel.h"

namespace qcdq {

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

// Uninitialised, with the sizes and strides of `dense`; past the dispatcher, unlike empty_like.
inline at::Tensor empty_as(const at::Tensor& dense, at::ScalarType type) {
  if (dense.is_contiguous()) return at::detail::empty_cpu(dense.sizes(), type);
  return at::detail::empty_strided_cpu(dense.sizes(), dense.strides(), type);
}

template <typename T>
using Values = c10::SmallVector<T, 4>;

// The values of a scale or a zero point as kernels take them: where the tensor has them, or
// converted.
template <typename T>
class ParamValues {
 public:
  void borrow(const T* values, int64_t count) {
    borrowed_ = values;
    count_ = count;
  }
  // Room for `count` values of our own.
  T* make(int64_t count) {
    borrowed_ = nullptr;
    count_ = count;
    own_.resize_for_overwrite(count);
    return own_.data();
  }
  const T* data() const { return borrowed_ != nullptr ? borrowed_ : own_.data(); }
  int64_t size() const { return count_; }

 private:
  const T* borrowed_ = nullptr;
  int64_t count_ = 0;
  Values<T> own_;
};

// Calls body(elements, count) with the elements of a contiguous tensor, of their own type.
template <typename Body>
void visit_elements(const at::Tensor& t, Body&& body) {
  const auto visit = [&](auto element) {
    body(static_cast<const decltype(element)*>(t.const_data_ptr()), t.numel());
  };
  switch (t.scalar_type()) {
    case at::kFloat:
      return visit(float{});
    case at::kHalf:
      return visit(F16{});
    case at::kBFloat16:
      return visit(BF16{});
    case at::kByte:
      return visit(uint8_t{});
    case at::kChar:
      return visit(int8_t{});
    case at::kShort:
      return visit(int16_t{});
    case at::kInt:
      return visit(int32_t{});
    case at::kLong:
      return visit(int64_t{});
    case at::kUInt16:
      return visit(uint16_t{});
    case at::kUInt32:
      return visit(uint32_t{});
    case at::kDouble:
      return visit(double{});
    default:
      return visit_elements(t.to(at::kDouble), body);
  }
}

// Returns where the values are.
template <typename T>
T* convert_elements(const at::Tensor& t, ParamValues<T>* values) {
  T* to = values->make(t.numel());
  visit_elements(t, [&](const auto* from, int64_t count) { convert_values(from, count, to); });
  return to;
}

// Scale and zero point in the order of `layout`, checked. Only the values that visit_params uses
// are there.
struct QParams {
  ParamLayout layout;
  bool wide = false;  // codes need f64 (affine.h)
  int64_t quant_min = 0;
  int64_t quant_max = 0;
  at::Tensor scale;  // contiguous; what values are borrowed from
  ParamValues<float> scale_f32;
  ParamValues<double> scale_f64;
  ParamValues<float> zero_point_f32;
  ParamValues<double> zero_point_f64;
};

// Calls body(KernelParams<T, Acc>) for elements of type X.
template <typename X, typename Body>
void visit_params(const QParams& p, Body&& body) {
  if constexpr (std::is_same_v<X, double>) {
    body(KernelParams<double, double>{p.scale_f64.data(), p.zero_point_f64.data(), p.quant_min,
                                      p.quant_max});
  } else if (p.wide) {
    body(KernelParams<float, double>{p.scale_f32.data(), p.zero_point_f64.data(), p.quant_min,
                                     p.quant_max});
  } else {
    body(KernelParams<float, float>{p.scale_f32.data(), p.zero_point_f32.data(), p.quant_min,
                                    p.quant_max});
  }
}

// What a call says about its parameters, besides the tensors.
struct QParamsRequest {
  const char* op;
  ParamShape granularity;
  at::ScalarType value_type;  // of x
  int64_t quant_min;
  int64_t quant_max;
  bool wide;
  const char* zero_point_range = "the range [quant_min, quant_max]";
};

template <typename T>
void read_scale(const QParamsRequest& request, const at::Tensor& scale, ParamValues<T>* values) {
  if (scale.scalar_type() == c10::CppTypeToScalarType<T>::value) {
    values->borrow(scale.const_data_ptr<T>(), scale.numel());
  } else {
    convert_elements(scale, values);
  }
  const T* v = values->data();
  if (all_finite_and_positive(v, values->size())) return;
  for (int64_t i = 0; i < values->size(); ++i) {
    TORCH_CHECK_VALUE(std::isfinite(v[i]) && v[i] > T(0), "qcdq::", request.op, ": scale is ", v[i],
                      " at element ", i, ", expected a finite value > 0");
  }
}

// Throws for the first element that is out of range.
inline void refuse_zero_point(const QParamsRequest& request, const at::Tensor& zero_point) {
  ParamValues<double> exact;
  convert_elements(zero_point, &exact);
  for (int64_t i = 0; i < exact.size(); ++i) {
    const double value = exact.data()[i];
    TORCH_CHECK_VALUE(value >= static_cast<double>(request.quant_min) &&
                          value <= static_cast<double>(request.quant_max),
                      "qcdq::", request.op, ": zero_point is ",
                      static_cast<int64_t>(std::clamp(value, -9e18, 9e18)), " at element ", i,
                      ", expected a value in [", request.quant_min, ", ", request.quant_max, "], ",
                      request.zero_point_range);
  }
}

// Rounds and clamps learned zero points to the codes that they stand for.
template <typename T>
void round_learned(const QParamsRequest& request, T* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK_VALUE(std::isfinite(values[i]), "qcdq::", request.op, ": zero_point is ", values[i],
                      " at element ", i, ", expected a finite value");
    values[i] = clamp_code(round_half_even(values[i]), static_cast<T>(request.quant_min),
                           static_cast<T>(request.quant_max));
  }
}

// T is float for narrow ranges only, whose ends it holds exactly. Floating zero points are learned.
template <typename T>
void read_zero_point(const QParamsRequest& request, const at::Tensor& zero_point,
                     ParamValues<T>* values) {
  T* v = convert_elements(zero_point, values);
  if (zero_point.is_floating_point()) {
    round_learned(request, v, values->size());
  } else if (!all_within(v, values->size(), static_cast<T>(request.quant_min),
                         static_cast<T>(request.quant_max))) {
    refuse_zero_point(request, zero_point);
  }
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
  p.scale = arrange(scale);
  if (request.value_type == at::kDouble) {
    read_scale(request, p.scale, &p.scale_f64);
  } else {
    read_scale(request, p.scale, &p.scale_f32);
  }
  const at::Tensor zero_points = arrange(zero_point);
  if (request.wide) {
    read_zero_point(request, zero_points, &p.zero_point_f64);
  } else {
    read_zero_point(request, zero_points, &p.zero_point_f32);
  }
  return p;
}

inline QParams prepare_qparams(const char* op, const at::Tensor& dense,
                               const ParamShape& granularity, const at::Tensor& scale,
                               const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  const bool wide =
      dense.scalar_type() == at::kDouble || needs_wide_accumulator(quant_min, quant_max);
  return prepare_qparams(dense, scale, zero_point,
                         {op, granularity, dense.scalar_type(), quant_min, quant_max, wide});
}

// Each run costs the kernels a few ns. Where runs are short (few channels in channels-last memory,
// a small inner size), the parameters are repeated for the elements of about kTiledRun, which makes
// long runs with a parameter per element. Not for ops that sum.
inline constexpr int64_t kShortRun = 16;
inline constexpr int64_t kTiledRun = 512;
// fake_quantize walks rows of whole groups of vectors without a cost for each (at most 64 elements,
// kernels/simd_runs-inl.h), and the fewer parameters it keeps the better.
inline constexpr int64_t kGroupElements = 64;

enum class Tiles { kLong, kGroups };

inline void tile_short_runs(QParams* p, Tiles wanted = Tiles::kLong) {
  const ParamLayout& layout = p->layout;
  if (layout.one_param() || layout.inner_step != 0 || layout.numel() == 0) return;
  const int64_t inner = layout.inner;
  const int64_t period = layout.axis * inner;
  if (inner == 1 ? period > kTiledRun / 2 : inner >= kShortRun || period > 16 * kTiledRun) return;
  int64_t tiles = std::max<int64_t>(1, kTiledRun / period);
  const int64_t to_groups = kGroupElements / std::gcd(period, kGroupElements);
  if (wanted == Tiles::kGroups && to_groups < tiles) tiles = to_groups;
  if (layout.numel() < 4 * tiles * period) return;
  const auto tile = [&](auto* values) {
    if (values->size() == 0) return;
    const std::vector once(values->data(), values->data() + values->size());
    auto* to = values->make(tiles * period);
    for (int64_t t = 0; t < tiles; ++t) {
      for (const auto value : once) to = std::fill_n(to, inner, value);
    }
  };
  tile(&p->scale_f32);
  tile(&p->scale_f64);
  tile(&p->zero_point_f32);
  tile(&p->zero_point_f64);
  p->layout = ParamLayout::cyclic(layout.numel(), tiles * period);
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
    // One run is split between vectors, where stores past the caches may begin.
    constexpr int64_t kUnit = 64;
    const int64_t step = layout.run(0).param_step;
    const int64_t numel = layout.numel();
    parallel_parts((numel + kUnit - 1) / kUnit, numel, [&](int64_t first, int64_t last) {
      const int64_t begin = first * kUnit;
      const int64_t end = std::min(last * kUnit, numel);
      const int64_t count = end - begin;
      const ParamLayout part =
          step == 0 ? ParamLayout::per_tensor(count) : ParamLayout::per_channel(1, count, 1);
      Q moved = q;
      moved.scale += begin * step;
      moved.zero_point += begin * step;
      body(begin, RunRange{part, 0, 1, numel}, moved);
    });
    return;
  }
  parallel_parts(runs, layout.numel(), [&](int64_t begin, int64_t end) {
    body(0, RunRange{layout, begin, end}, q);
  });
}

// fake_quantize after all checks.
inline at::Tensor fake_quantize_dense(const at::Tensor& dense, QParams qparams) {
  tile_short_runs(&qparams, Tiles::kGroups);
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
