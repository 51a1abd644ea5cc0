// How an elementwise op walks the runs of a layout: whole vectors, the last one overlapping, runs
// shorter than a vector, and rows that repeat their parameters. An op (simd_elementwise-inl.h) has
// its inputs, its output y and vector(); see map_run for what else it may have.
#if defined(QCDQ_SIMD_RUNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QCDQ_SIMD_RUNS_INL_H_
#undef QCDQ_SIMD_RUNS_INL_H_
#else
#define QCDQ_SIMD_RUNS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstring>
#include <type_traits>

#include "torch_plugin/kernels/cpu_kernels.h"
#include "torch_plugin/kernels/exact_rounding.h"
#include "torch_plugin/kernels/simd_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qcdq {
namespace HWY_NAMESPACE {

// Scale and zero point of the lanes at i: the same for a whole run, or one per element.
template <class D>
struct OneParam {
  OneParam(D d, const float* s, const float* z)
      : scale(hn::Set(d, *s)), zero_point(hn::Set(d, *z)) {}
  hn::Vec<D> scale;
  hn::Vec<D> zero_point;
};

template <class D>
struct ParamPerElement {
  ParamPerElement(D, const float* s, const float* z) : scale(s), zero_point(z) {}
  HWY_INLINE hn::Vec<D> scale_at(size_t i) const { return hn::LoadU(D(), scale + i); }
  HWY_INLINE hn::Vec<D> zero_point_at(size_t i) const { return hn::LoadU(D(), zero_point + i); }
  const float* scale;
  const float* zero_point;
};

// Calls op.vector(d, in, out, ...) for all vectors of a run. Where the count is no multiple of the
// lanes the last vector overlaps the one before it: outputs never alias inputs, so that computes
// some elements twice. Runs shorter than a vector go through small buffers; nothing outside of the
// run is read or written.
template <class Op, class Vector>
HWY_INLINE void map_vectors(const Op& op, int64_t offset, size_t count, size_t i,
                            const Vector& vector) {
  const size_t lanes = hn::Lanes(hn::ScalableTag<float>());
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    vector(op.inputs.at(offset + i), op.y + offset + i, i);
    vector(op.inputs.at(offset + i + lanes), op.y + offset + i + lanes, i + lanes);
  }
  if (i + lanes <= count) {
    vector(op.inputs.at(offset + i), op.y + offset + i, i);
    i += lanes;
  }
  if (i < count) {
    const size_t last = count - lanes;
    vector(op.inputs.at(offset + last), op.y + offset + last, last);
  }
}

template <class Op, class D>
HWY_INLINE void map_run(const Op& op, int64_t offset, size_t count, const OneParam<D>& params) {
  const D d;
  if constexpr (Op::kOneParamForm) {
    // Whole groups in the form that the op chooses for this parameter, the rest as any vectors.
    const auto folded = op.fold(d, params, count);
    const size_t done = op.groups(d, offset, count, folded);
    map_vectors(op, offset, count, done,
                [&](auto in, auto* out, size_t) HWY_ATTR { op.vector(d, in, out, folded); });
  } else {
    map_vectors(op, offset, count, 0, [&](auto in, auto* out, size_t) HWY_ATTR {
      op.vector(d, in, out, params.scale, params.zero_point);
    });
  }
}

template <class Op, class D>
HWY_INLINE void map_run(const Op& op, int64_t offset, size_t count,
                        const ParamPerElement<D>& params, size_t done = 0) {
  const D d;
  map_vectors(op, offset, count, done, [&](auto in, auto* out, size_t i) HWY_ATTR {
    op.vector(d, in, out, params.scale_at(i), params.zero_point_at(i));
  });
}

template <class Op>
HWY_INLINE void short_run(const Op& op, int64_t offset, size_t count, const float* scale,
                          const float* zero_point, bool one_param) {
  const hn::ScalableTag<float> d;
  constexpr size_t kLanes = hn::MaxLanes(d);
  float scales[kLanes];
  float zero_points[kLanes];
  for (size_t i = 0; i < kLanes; ++i) {  // lanes past the end repeat a parameter
    const size_t param = one_param ? 0 : HWY_MIN(i, count - 1);
    scales[i] = scale[param];
    zero_points[i] = zero_point[param];
  }
  typename Op::Output out[kLanes];
  typename Op::Inputs::template Buffer<kLanes> in;
  in.fill(op.inputs.at(offset), count);
  op.vector(d, in.inputs(), out, hn::LoadU(d, scales), hn::LoadU(d, zero_points));
  std::memcpy(static_cast<void*>(op.y + offset), out, count * sizeof(out[0]));
}

// Rows that repeat the parameters of their columns, where the op folds those. Returns whether it
// does.
template <class Op, class D>
HWY_INLINE bool map_rows(const SimdRuns& runs, const Op& op, D d) {
  const ParamLayout& layout = *runs.layout;
  const size_t columns = static_cast<size_t>(layout.columns_that_repeat());
  if (columns < Group<D>::kVectors * hn::Lanes(d) || columns > kMostFoldedColumns ||
      runs.end - runs.begin < kLeastFoldedRows) {
    return false;
  }
  typename Op::FoldedColumns folded;
  if (!op.fold_columns(d, runs.scale, runs.zero_point, columns, &folded)) return false;
  const ParamPerElement<D> params(d, runs.scale, runs.zero_point);
  const int64_t whole = HWY_MIN(runs.end, layout.numel() / layout.axis);  // the last may be cut
  if (columns % (Group<D>::kVectors * hn::Lanes(d)) == 0) {
    // Rows of a few groups: what a call for each costs would take as long as these.
    op.row_groups(d, runs.begin * layout.axis, columns, whole - runs.begin, folded);
  } else {
    for (int64_t r = runs.begin; r < whole; ++r) {
      const size_t done = op.row_groups(d, r * layout.axis, columns, 1, folded);
      map_run(op, r * layout.axis, columns, params, done);
    }
  }
  if (whole < runs.end) {
    const int64_t offset = whole * layout.axis;
    const size_t count = static_cast<size_t>(layout.numel() - offset);
    const size_t done = op.row_groups(d, offset, count, 1, folded);
    if (count >= hn::Lanes(d)) {
      map_run(op, offset, count, params, done);
    } else {
      short_run(op, offset, count, runs.scale, runs.zero_point, false);
    }
  }
  return true;
}

template <class Op>
HWY_INLINE void map_runs(const SimdRuns& runs, const Op& op) {
  const hn::ScalableTag<float> d;
  using D = decltype(d);
  if (const int64_t block = runs.layout->equal_blocks();
      block >= static_cast<int64_t>(hn::Lanes(d))) {
    // A few vectors a run: what RunCursor does for each would take longer than these.
    for (int64_t r = runs.begin; r < runs.end; ++r) {
      map_run(op, r * block, static_cast<size_t>(block),
              OneParam<std::remove_const_t<D>>(d, runs.scale + r, runs.zero_point + r));
    }
    return;
  }
  if constexpr (Op::kColumnsForm) {
    if (map_rows(runs, op, std::remove_const_t<D>())) return;
  }
  RunCursor cursor(*runs.layout, runs.begin);
  for (int64_t r = runs.begin; r < runs.end; ++r, cursor.next()) {
    const ParamLayout::Run run = cursor.run();
    const size_t count = static_cast<size_t>(run.count);
    const float* scale = runs.scale + run.param;
    const float* zero_point = runs.zero_point + run.param;
    if (count < hn::Lanes(d)) {
      if (count > 0) short_run(op, run.offset, count, scale, zero_point, run.param_step == 0);
    } else if (run.param_step == 0) {
      map_run(op, run.offset, count, OneParam<std::remove_const_t<D>>(d, scale, zero_point));
    } else {
      map_run(op, run.offset, count, ParamPerElement<std::remove_const_t<D>>(d, scale, zero_point));
    }
  }
}

// What an op reads: one array, or a gradient and an array.
template <typename X>
struct OneInput {
  const X* x;
  HWY_INLINE OneInput at(int64_t i) const { return {x + i}; }
  template <size_t N>
  struct Buffer {
    void fill(const OneInput& from, size_t count) {
      std::memcpy(static_cast<void*>(x), from.x, count * sizeof(X));
    }
    OneInput inputs() const { return {x}; }
    X x[N] = {};
  };
};

template <typename X>
struct GradAndInput {
  const X* grad;
  const X* x;
  HWY_INLINE GradAndInput at(int64_t i) const { return {grad + i, x + i}; }
  template <size_t N>
  struct Buffer {
    void fill(const GradAndInput& from, size_t count) {
      std::memcpy(static_cast<void*>(grad), from.grad, count * sizeof(X));
      std::memcpy(static_cast<void*>(x), from.x, count * sizeof(X));
    }
    GradAndInput inputs() const { return {grad, x}; }
    X grad[N] = {};
    X x[N] = {};
  };
};

}  // namespace HWY_NAMESPACE
}  // namespace qcdq
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
