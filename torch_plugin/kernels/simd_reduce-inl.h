// The SIMD loops that reduce: the backward of fake_quantize_learned (gradient and sums in one pass)
// and minima with maxima; compiled once per instruction set by simd_kernels.cpp. The order of sums
// is the one of kSumBlock (cpu_kernels.h): products and additions round one by one, the same on all
// instruction sets, with fused multiply-add or without.
#if defined(QCDQ_SIMD_REDUCE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QCDQ_SIMD_REDUCE_INL_H_
#undef QCDQ_SIMD_REDUCE_INL_H_
#else
#define QCDQ_SIMD_REDUCE_INL_H_
#endif

#include <hwy/highway.h>

#include "torch_plugin/kernels/cpu_kernels.h"
#include "torch_plugin/kernels/simd_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qcdq {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR
// One lane has no halves: the plain loops, whose bits are the same.
template <typename X>
void learned_columns(const void* grad, const void* x, void* grad_x, int64_t rows, int64_t stride,
                     int64_t columns, const SimdParams& params, LearnedSums* sums) {
  const std::vector<double> zero_point(params.zero_point, params.zero_point + columns);
  learned_backward_columns(static_cast<const X*>(grad), static_cast<const X*>(x),
                           static_cast<X*>(grad_x), rows, stride, columns,
                           KernelParams<float, double>{params.scale, zero_point.data(),
                                                       static_cast<int64_t>(params.quant_min),
                                                       static_cast<int64_t>(params.quant_max)},
                           sums);
}

template <typename X>
void learned_span(const void* grad, const void* x, void* grad_x, int64_t count,
                  const SimdParams& params, LearnedSums* sums) {
  const double zero_point = static_cast<double>(*params.zero_point);
  learned_backward_span(
      static_cast<const X*>(grad), static_cast<const X*>(x), static_cast<X*>(grad_x), count,
      KernelParams<float, double>{params.scale, &zero_point, static_cast<int64_t>(params.quant_min),
                                  static_cast<int64_t>(params.quant_max)},
      sums);
}
#else
using S32 = hn::CappedTag<float, static_cast<size_t>(kSumLanes)>;
using S64 = hn::RepartitionToWide<S32>;
using Half32 = hn::Half<S32>;
using VS32 = hn::Vec<S32>;
using VS64 = hn::Vec<S64>;

// The ends of the range minus the zero point, exact in f32: codes minus the zero point are clamped
// to them.
struct LearnedRange {
  VS32 scale;
  VS32 lo;
  VS32 hi;
};

// What vectors of elements add to LearnedSums: the f32 products of one vector, or a sum of several.
struct LearnedTerms {
  VS32 scale;
  VS32 outside;
};

// The terms of one vector; the gradient of x is stored. The gradient's factor, (inside ? code - zp
// - x/scale : code - zp), is exact in f32 because a rounded value and its fraction are.
template <typename X>
HWY_INLINE LearnedTerms learned_terms(const LearnedRange& range, const X* grad, const X* x,
                                      X* grad_x) {
  const S32 d;
  const VS32 ratio = hn::Div(load_f32(d, x), range.scale);
  const VS32 rounded = hn::Round(ratio);
  // Min(Max()) in this order: NaN becomes lo, and is outside.
  const VS32 distance = hn::Min(hn::Max(rounded, range.lo), range.hi);
  const auto inside = hn::Eq(distance, rounded);
  const VS32 g = load_f32(d, grad);
  store_where(d, inside, grad, grad_x);
  const VS32 factor = hn::Sub(distance, hn::IfThenElseZero(inside, ratio));
  return {hn::Mul(g, factor), hn::IfThenZeroElse(inside, g)};
}

HWY_INLINE LearnedTerms sum_of(const LearnedTerms& a, const LearnedTerms& b) {
#if HWY_NATIVE_FMA
  // The same bits as Add, in the units that multiply: comparing and rounding keep the others busy.
  const VS32 scale = hn::MulAdd(a.scale, hn::Set(S32(), 1.0f), b.scale);
#else
  const VS32 scale = hn::Add(a.scale, b.scale);
#endif
  return {scale, hn::Add(a.outside, b.outside)};
}

enum class Rows { kAll, kSome };

// `kCount` of kSumRows rows from kFirst on, added in pairs, the pairs in pairs and so on. Of kSome
// those before `rows` exist. (A missing row adds +0, which changes at most the sign of a zero, and
// sums in f64 that start with +0 never show it.)
template <Rows kWhich, int64_t kFirst = 0, int64_t kCount = kSumRows, typename X>
HWY_INLINE LearnedTerms sum_in_pairs(const LearnedRange& range, const X* grad, const X* x,
                                     X* grad_x, int64_t stride, int64_t rows) {
  if constexpr (kCount > 1) {
    constexpr int64_t kHalf = kCount / 2;
    const LearnedTerms first =
        sum_in_pairs<kWhich, kFirst, kHalf>(range, grad, x, grad_x, stride, rows);
    return sum_of(
        first, sum_in_pairs<kWhich, kFirst + kHalf, kHalf>(range, grad, x, grad_x, stride, rows));
  } else {
    if (kWhich == Rows::kSome && kFirst >= rows) return {hn::Zero(S32()), hn::Zero(S32())};
    const int64_t at = kFirst * stride;
    return learned_terms(range, grad + at, x + at, grad_x + at);
  }
}

HWY_INLINE VS64 low_f64(VS32 v) { return hn::PromoteTo(S64(), hn::LowerHalf(Half32(), v)); }
HWY_INLINE VS64 high_f64(VS32 v) { return hn::PromoteTo(S64(), hn::UpperHalf(Half32(), v)); }

// Adds f32 lanes to sums in f64.
HWY_INLINE void add_terms(const LearnedTerms& t, double* scale, double* outside) {
  const S64 d;
  constexpr size_t kHalf = hn::MaxLanes(S64());
  hn::StoreU(hn::Add(hn::LoadU(d, scale), low_f64(t.scale)), d, scale);
  hn::StoreU(hn::Add(hn::LoadU(d, scale + kHalf), high_f64(t.scale)), d, scale + kHalf);
  hn::StoreU(hn::Add(hn::LoadU(d, outside), low_f64(t.outside)), d, outside);
  hn::StoreU(hn::Add(hn::LoadU(d, outside + kHalf), high_f64(t.outside)), d, outside + kHalf);
}

// Out of line: rare in long runs, and sixteen conditions would crowd the loop over whole groups.
template <typename X>
HWY_NOINLINE void add_some_rows(const LearnedRange& range, const X* grad, const X* x, X* grad_x,
                                int64_t stride, int64_t rows, double* scale, double* outside) {
  add_terms(sum_in_pairs<Rows::kSome>(range, grad, x, grad_x, stride, rows), scale, outside);
}

// Adds at most kSumRows rows of one vector, `stride` elements apart, to the sums of its lanes.
template <typename X>
HWY_INLINE void add_rows(const LearnedRange& range, const X* grad, const X* x, X* grad_x,
                         int64_t stride, int64_t rows, double* scale, double* outside) {
  if (HWY_LIKELY(rows == kSumRows)) {
    add_terms(sum_in_pairs<Rows::kAll>(range, grad, x, grad_x, stride, rows), scale, outside);
  } else {
    add_some_rows(range, grad, x, grad_x, stride, rows, scale, outside);
  }
}

// The sums of the lanes of a run's block.
struct LaneSums {
  // At most kSumRows rows of kSumLanes neighbours.
  template <typename X>
  HWY_INLINE void add(const LearnedRange& range, const X* grad, const X* x, X* grad_x,
                      int64_t rows) {
    for (int64_t at = 0; at < kSumLanes; at += hn::MaxLanes(S32())) {
      add_rows(range, grad + at, x + at, grad_x + at, kSumLanes, rows, scale + at, outside + at);
    }
  }
  LearnedSums total() const { return {folded(scale), folded(outside)}; }
  static double folded(const double* s) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }

  double scale[kSumLanes] = {};
  double outside[kSumLanes] = {};
};

template <typename X>
void learned_span(const void* grad_, const void* x_, void* grad_x_, int64_t count,
                  const SimdParams& params, LearnedSums* sums) {
  const X* grad = static_cast<const X*>(grad_);
  const X* x = static_cast<const X*>(x_);
  X* grad_x = static_cast<X*>(grad_x_);
  const LearnedRange range{hn::Set(S32(), *params.scale),
                           hn::Set(S32(), params.quant_min - *params.zero_point),
                           hn::Set(S32(), params.quant_max - *params.zero_point)};
  for (int64_t begin = 0; begin < count; begin += kSumBlock) {
    LaneSums lanes;
    const int64_t end = HWY_MIN(begin + kSumBlock, count);
    int64_t i = begin;
    for (int64_t rows = 0; (rows = HWY_MIN(kSumRows, (end - i) / kSumLanes)) > 0;) {
      lanes.add(range, grad + i, x + i, grad_x + i, rows);
      i += rows * kSumLanes;
    }
    if (i < end) {
      // Zeros past the end: their code is the zero point, inside the range, and adds +0.
      X g[kSumLanes] = {};
      X from[kSumLanes] = {};
      X to[kSumLanes];
      const size_t bytes = static_cast<size_t>(end - i) * sizeof(X);
      std::memcpy(static_cast<void*>(g), grad + i, bytes);
      std::memcpy(static_cast<void*>(from), x + i, bytes);
      lanes.add(range, g, from, to, 1);
      std::memcpy(static_cast<void*>(grad_x + i), to, bytes);
    }
    *sums++ = lanes.total();
  }
}

// Column sums of a tile of columns stay in the first-level cache while groups of rows pass by.
constexpr int64_t kColumnTile = 256;

template <typename X>
void learned_columns(const void* grad_, const void* x_, void* grad_x_, int64_t rows, int64_t stride,
                     int64_t columns, const SimdParams& params, LearnedSums* sums) {
  const X* grad = static_cast<const X*>(grad_);
  const X* x = static_cast<const X*>(x_);
  X* grad_x = static_cast<X*>(grad_x_);
  constexpr int64_t kLanes = hn::MaxLanes(S32());
  const Formula<S32> formula(S32(), params.quant_min, params.quant_max);
  const auto range_of = [&](const float* scale, const float* zero_point) HWY_ATTR {
    const VS32 z = hn::LoadU(S32(), zero_point);
    return LearnedRange{hn::LoadU(S32(), scale), hn::Sub(formula.lo, z), hn::Sub(formula.hi, z)};
  };
  for (int64_t first = 0; first < columns; first += kColumnTile) {
    const int64_t width = HWY_MIN(kColumnTile, columns - first);
    double scale_sums[kColumnTile + kSumLanes] = {};
    double outside_sums[kColumnTile + kSumLanes] = {};
    const int64_t whole = width - width % kLanes;
    for (int64_t row = 0; row < rows; row += kSumRows) {
      const int64_t group = HWY_MIN(kSumRows, rows - row);
      for (int64_t c = 0; c < whole; c += kLanes) {
        const int64_t at = row * stride + first + c;
        add_rows(range_of(params.scale + first + c, params.zero_point + first + c), grad + at,
                 x + at, grad_x + at, stride, group, scale_sums + c, outside_sums + c);
      }
      if (whole < width) {
        // The columns past the last whole vector, copied into rows of one vector.
        const int64_t rest = width - whole;
        X g[kSumRows * kLanes] = {};
        X from[kSumRows * kLanes] = {};
        X to[kSumRows * kLanes];
        float scale[kLanes];
        float zero_point[kLanes];
        for (int64_t c = 0; c < kLanes; ++c) {
          const int64_t param = first + whole + HWY_MIN(c, rest - 1);
          scale[c] = params.scale[param];
          zero_point[c] = params.zero_point[param];
        }
        const int64_t at = row * stride + first + whole;
        for (int64_t r = 0; r < group; ++r) {
          for (int64_t c = 0; c < rest; ++c) {
            g[r * kLanes + c] = grad[at + r * stride + c];
            from[r * kLanes + c] = x[at + r * stride + c];
          }
        }
        add_rows(range_of(scale, zero_point), g, from, to, kLanes, group, scale_sums + whole,
                 outside_sums + whole);
        for (int64_t r = 0; r < group; ++r) {
          for (int64_t c = 0; c < rest; ++c) grad_x[at + r * stride + c] = to[r * kLanes + c];
        }
      }
    }
    for (int64_t c = 0; c < width; ++c) sums[first + c] = {scale_sums[c], outside_sums[c]};
  }
}

#endif  // HWY_SCALAR

using F32Tag = hn::ScalableTag<float>;

// NaN fails both comparisons. (Min and Max would do the same on x86 only.)
struct LaneExtremes {
  using V = hn::Vec<F32Tag>;
  LaneExtremes() : lowest(hn::Zero(F32Tag())), highest(hn::Zero(F32Tag())) {}
  HWY_INLINE void widen(V v) {
    lowest = hn::IfThenElse(hn::Lt(v, lowest), v, lowest);
    highest = hn::IfThenElse(hn::Gt(v, highest), v, highest);
  }
  V lowest;
  V highest;
};

template <typename X>
HWY_INLINE void widen_one(X x, Extremes<float>* found) {
  const float v = to_compute(x);
  found->lowest = v < found->lowest ? v : found->lowest;
  found->highest = v > found->highest ? v : found->highest;
}

template <typename X>
void extremes(const void* x_, int64_t count, Extremes<float>* found) {
  const F32Tag d;
  const X* x = static_cast<const X*>(x_);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  if (count >= lanes) {
    LaneExtremes four[4];  // independent chains hide the latency
    for (; i + 4 * lanes <= count; i += 4 * lanes) {
      four[0].widen(load_f32(d, x + i));
      four[1].widen(load_f32(d, x + i + lanes));
      four[2].widen(load_f32(d, x + i + 2 * lanes));
      four[3].widen(load_f32(d, x + i + 3 * lanes));
    }
    for (; i + lanes <= count; i += lanes) four[0].widen(load_f32(d, x + i));
    if (i < count) four[1].widen(load_f32(d, x + count - lanes));
    // No lane is NaN: they started from 0.
    const auto lowest =
        hn::Min(hn::Min(four[0].lowest, four[1].lowest), hn::Min(four[2].lowest, four[3].lowest));
    const auto highest = hn::Max(hn::Max(four[0].highest, four[1].highest),
                                 hn::Max(four[2].highest, four[3].highest));
    widen_one(hn::GetLane(hn::MinOfLanes(d, lowest)), found);
    widen_one(hn::GetLane(hn::MaxOfLanes(d, highest)), found);
    return;
  }
  for (; i < count; ++i) widen_one(x[i], found);
}

template <typename X>
void extremes_columns(const void* x_, int64_t rows, int64_t stride, int64_t columns,
                      Extremes<float>* found) {
  const F32Tag d;
  const X* x = static_cast<const X*>(x_);
  constexpr int64_t kLanes = hn::MaxLanes(F32Tag());
  constexpr int64_t kRows = 64;  // a strip of columns stays in cache over this many rows
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t row = 0; row < rows; row += kRows) {
    const int64_t last = HWY_MIN(row + kRows, rows);
    int64_t c = 0;
    for (; c + lanes <= columns; c += lanes) {
      LaneExtremes strip;
      for (int64_t r = row; r < last; ++r) strip.widen(load_f32(d, x + r * stride + c));
      float lowest[kLanes];
      float highest[kLanes];
      hn::StoreU(strip.lowest, d, lowest);
      hn::StoreU(strip.highest, d, highest);
      for (int64_t lane = 0; lane < lanes; ++lane) {
        widen_one(lowest[lane], &found[c + lane]);
        widen_one(highest[lane], &found[c + lane]);
      }
    }
    for (; c < columns; ++c) {
      for (int64_t r = row; r < last; ++r) widen_one(x[r * stride + c], &found[c]);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace qcdq
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
