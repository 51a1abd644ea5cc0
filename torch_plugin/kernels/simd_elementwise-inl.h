// The SIMD loops of fake_quantize, its backward, quantize and dequantize; compiled once per
// instruction set by simd_kernels.cpp. Conversions and the formula are in simd_vectors-inl.h, the
// way through runs of elements in simd_runs-inl.h, products in place of divisions for 16-bit types
// in simd_products-inl.h.
#if defined(QCDQ_SIMD_ELEMENTWISE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QCDQ_SIMD_ELEMENTWISE_INL_H_
#undef QCDQ_SIMD_ELEMENTWISE_INL_H_
#else
#define QCDQ_SIMD_ELEMENTWISE_INL_H_
#endif

#include <hwy/aligned_allocator.h>
#include <hwy/highway.h>

#include <type_traits>

#include "torch_plugin/kernels/cpu_kernels.h"
#include "torch_plugin/kernels/exact_rounding.h"
#include "torch_plugin/kernels/simd_products-inl.h"
#include "torch_plugin/kernels/simd_runs-inl.h"
#include "torch_plugin/kernels/simd_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qcdq {
namespace HWY_NAMESPACE {

template <class D, typename X>
struct FakeQuantizeOp {
  using Inputs = OneInput<X>;
  using Output = X;
  using V = hn::Vec<D>;
  static constexpr bool kOneParamForm = true;
  static constexpr bool kColumnsForm = true;

  HWY_INLINE void vector(D d, Inputs in, X* out, V scale, V zero_point) const {
    const V ratio = hn::Div(load_f32(d, in.x), scale);
    const V code = formula.clamp(formula.unclamped(ratio, zero_point));
    store_f32(d, hn::Mul(hn::Sub(code, zero_point), scale), out);
  }

  // With one parameter the range moves instead of the codes: [lo, hi] minus the zero point is exact
  // (only narrow ranges come here), and clamping gives the same code also where adding the zero
  // point would round.
  struct Folded {
    HWY_INLINE V scale_of(size_t) const { return scale; }
    HWY_INLINE V inverse_of(size_t) const { return inverse; }
    HWY_INLINE V lo_of(size_t) const { return lo; }
    HWY_INLINE V hi_of(size_t) const { return hi; }
    V scale;
    V inverse;
    V lo;
    V hi;
    V doubt;
    Rounding rounding;
    float short_scale = 0.0f;  // of kMultiplied
  };
  HWY_INLINE Folded fold(D d, const OneParam<D>& p, size_t count) const {
    const V lo = hn::Sub(formula.lo, p.zero_point);
    const V hi = hn::Sub(formula.hi, p.zero_point);
    const float scale = hn::GetLane(p.scale);
    const float furthest = HWY_MAX(-hn::GetLane(lo), hn::GetLane(hi));
    if (count < kTestedRun || !has_ordinary_inverse(scale) || furthest > kFurthestMultiplied) {
      return {p.scale, p.scale, lo, hi, p.scale, Rounding::kDivided};
    }
    const V inverse = hn::Set(d, 1.0f / scale);
    if constexpr (!std::is_same_v<X, float>) {
      if (count >= kProvedRun && multiplication_suffices<X>(scale, furthest)) {
        const float short_scale = short_scale_of<X>(scale, furthest);
        if (short_scale != 0.0f) {
          return {p.scale, inverse, lo, hi, p.scale, Rounding::kMultiplied, short_scale};
        }
      }
    }
    return {p.scale, inverse, lo, hi, hn::Set(d, 0.5f - furthest * kDoubt), Rounding::kTested};
  }

  HWY_INLINE void vector(D d, Inputs in, X* out, const Folded& f) const {
    const V ratio = hn::Div(load_f32(d, in.x), f.scale);
    store_f32(d, value(d, hn::Round(hn::Min(hn::Max(ratio, f.lo), f.hi)), f.scale), out);
  }
  // Adding 0 turns the -0 of a code that equals the zero point into +0.
  static HWY_INLINE V value(D d, V distance, V scale) {
    return hn::MulAdd(distance, scale, hn::Zero(d));
  }

  // Computes the elements that fill whole groups, and returns how many those are.
  HWY_INLINE size_t groups(D d, int64_t offset, size_t count, const Folded& f) const {
    const X* x = inputs.x + offset;
    X* out = y + offset;
    return may_stream(d, streamed, out) ? stored_groups<Stores::kStreamed>(d, x, out, count, f)
                                        : stored_groups<Stores::kCached>(d, x, out, count, f);
  }
  template <Stores kStores>
  HWY_INLINE size_t stored_groups(D d, const X* x, X* out, size_t count, const Folded& f) const {
    const size_t size = Group<D>::kVectors * hn::Lanes(d);
    size_t i = 0;
    if constexpr (!std::is_same_v<X, float>) {
      if (f.rounding == Rounding::kMultiplied) {
        const uint16_t cap = from_compute<X>(hn::GetLane(f.hi) * hn::GetLane(f.scale)).bits;
        constexpr size_t kVectors = MultipliedGroup::kVectors;
        for (; i + kVectors * hn::Lanes(d) <= count; i += kVectors * hn::Lanes(d)) {
          multiplied_group<kStores>(d, x + i, out + i, f, cap);
        }
        return i;
      }
    }
    if (f.rounding == Rounding::kTested) {
      for (; i + size <= count; i += size) {
        tested_group<kStores>(d, x + i, out + i, f, f.doubt);
      }
    } else {
      for (; i + size <= count; i += size) {
        group<Rounding::kDivided, kStores>(d, x + i, out + i, f, f.doubt);
      }
      // Blocks of 32 are two vectors of AVX-512.
      constexpr size_t kPair = 2;
      for (; i + kPair * hn::Lanes(d) <= count; i += kPair * hn::Lanes(d)) {
        group<Rounding::kDivided, kStores, kPair>(d, x + i, out + i, f, f.doubt);
      }
    }
    return i;
  }

  template <Stores kStores, class Params>
  HWY_INLINE void tested_group(D d, const X* x, X* out, const Params& p, V doubt) const {
    const bool certain = group<Rounding::kTested, kStores>(d, x, out, p, doubt);
    if (HWY_UNLIKELY(!certain)) {
      group<Rounding::kDivided, kStores>(d, x, out, p, doubt);
    }
  }
  // Computes one group of vectors. `p` has parameters for each of its vectors. Returns whether
  // every code is certain; if not, the caller divides. With GroupParams the caller also prefetches:
  // it knows whether the next group lies in this row or in the rows below.
  template <Rounding kRounding, Stores kStores, size_t kVectors = Group<D>::kVectors, class Params>
  HWY_INLINE bool group(D d, const X* x, X* out, const Params& p, V doubt) const {
    constexpr bool kInOrder = !std::is_same_v<Params, Folded>;
    Group<D, kVectors> v;
    if constexpr (kInOrder) {
      v.load_in_order(d, x, p.stride);
    } else {
      prefetch_around<kStores>(x, out, v.kVectors * hn::Lanes(d));
      v.load(d, x);
    }
    v.each([&](V a, size_t k) HWY_ATTR {
      return kRounding == Rounding::kDivided ? hn::Div(a, p.scale_of(k))
                                             : hn::Mul(a, p.inverse_of(k));
    });
    v.each([&](V a, size_t k) HWY_ATTR { return hn::Max(a, p.lo_of(k)); });
    v.each([&](V a, size_t k) HWY_ATTR { return hn::Min(a, p.hi_of(k)); });
    const Group<D, kVectors> ratio = v;
    v.each([&](V a) HWY_ATTR { return hn::Round(a); });
    V furthest = hn::Zero(d);
    if constexpr (kRounding == Rounding::kTested) {
      for (size_t k = 0; k < kVectors; ++k) {
        furthest = hn::Max(furthest, hn::Abs(hn::Sub(ratio.at[k], v.at[k])));
      }
    }
    v.each([&](V a, size_t k) HWY_ATTR { return value(d, a, p.scale_of(k)); });
    if constexpr (kInOrder) {
      v.template store_in_order<kStores>(d, out, p.stride);
    } else {
      v.template store<kStores>(d, out);
    }
    return kRounding != Rounding::kTested || hn::AllFalse(d, hn::Ge(furthest, doubt));
  }

  // The upper end of the range is clamped after two vectors of f32 have become one of 16 bits:
  // their bits rise with the codes, and `cap` holds the bits of the largest value. NaN becomes the
  // lower end, as in Formula::clamp.
  using MultipliedGroup = Group<D, 8>;
  template <Stores kStores>
  HWY_INLINE void multiplied_group(D d, const X* x, X* out, const Folded& f, uint16_t cap) const {
    const V first = hn::Add(hn::Set(d, kIntegersOnly), f.lo);
    const V short_scale = hn::Set(d, f.short_scale);
    MultipliedGroup v;
    prefetch_around<kStores>(x, out, v.kVectors * hn::Lanes(d));
    v.load(d, x);
    v.each([&](V a) HWY_ATTR { return shifted_code(d, a, f.inverse); });
    v.each([&](V a) HWY_ATTR { return hn::Max(a, first); });
    v.each([&](V a) HWY_ATTR { return shifted_value(d, a, short_scale); });
    v.template store_capped<kStores>(d, cap, out);
  }

  // The parameters of columns, which are the same in every row: computed once, as fold() does for a
  // single parameter.
  static constexpr size_t kFields = 4;
  struct FoldedColumns {
    // Points at the scale of a column. Its inverse, lo and hi follow at distances of one group's
    // columns.
    HWY_INLINE float* of(size_t column) const {
      const size_t size = Group<D>::kVectors * hn::Lanes(D());
      return groups.get() + column / size * size * kFields + column % size;
    }
    hwy::AlignedFreeUniquePtr<float[]> groups;
    float doubt = 0.0f;
  };
  // kOneRow: the vectors of a group are neighbours in one row, and each has parameters of its own.
  // kRows: they are the same columns of as many rows and share parameters, which are loaded once.
  enum class Of { kOneRow, kRows };
  template <Of kOf>
  struct GroupParams {
    HWY_INLINE V field(size_t number, size_t k) const {
      const size_t vector = number * Group<D>::kVectors + (kOf == Of::kOneRow ? k : 0);
      return hn::Load(D(), params + vector * hn::Lanes(D()));
    }
    HWY_INLINE V scale_of(size_t k) const { return field(0, k); }
    HWY_INLINE V inverse_of(size_t k) const { return field(1, k); }
    HWY_INLINE V lo_of(size_t k) const { return field(2, k); }
    HWY_INLINE V hi_of(size_t k) const { return field(3, k); }
    const float* params;
    size_t stride;  // elements from a vector to the next
  };
  // Computes `folded`; returns whether multiplying by the inverse can stand for every division.
  bool fold_columns(D d, const float* scale, const float* zero_point, size_t columns,
                    FoldedColumns* folded) const {
    const size_t size = Group<D>::kVectors * hn::Lanes(d);
    const size_t whole = columns - columns % size;
    folded->groups = hwy::AllocateAligned<float>(kFields * whole);
    float furthest = 0.0f;
    for (size_t c = 0; c < whole; ++c) {
      const float lo = hn::GetLane(formula.lo) - zero_point[c];
      const float hi = hn::GetLane(formula.hi) - zero_point[c];
      furthest = HWY_MAX(furthest, HWY_MAX(-lo, hi));
      if (!has_ordinary_inverse(scale[c])) return false;
      float* column = folded->of(c);
      column[0] = scale[c];
      column[size] = 1.0f / scale[c];
      column[2 * size] = lo;
      column[3 * size] = hi;
    }
    folded->doubt = 0.5f - furthest * kDoubt;
    return furthest <= kFurthestMultiplied;
  }
  // Computes the elements of consecutive rows that fill whole groups; returns how many of each row
  // those are.
  HWY_INLINE size_t row_groups(D d, int64_t offset, size_t columns, int64_t rows,
                               const FoldedColumns& f) const {
    const X* x = inputs.x + offset;
    X* out = y + offset;
    return may_stream(d, streamed, out)
               ? stored_row_groups<Stores::kStreamed>(d, x, out, columns, rows, f)
               : stored_row_groups<Stores::kCached>(d, x, out, columns, rows, f);
  }
  template <Stores kStores>
  HWY_INLINE size_t stored_row_groups(D d, const X* x, X* out, size_t columns, int64_t rows,
                                      const FoldedColumns& f) const {
    const size_t size = Group<D>::kVectors * hn::Lanes(d);
    const size_t whole = columns - columns % size;
    const V doubt = hn::Set(d, f.doubt);
    const size_t lanes = hn::Lanes(d);
    int64_t r = 0;
    if (columns <= kMostColumnsOfRows) {
      constexpr int64_t kRows = Group<D>::kVectors;
      for (; r + kRows <= rows; r += kRows, x += kRows * columns, out += kRows * columns) {
        for (size_t i = 0; i < whole; i += lanes) {
          prefetch_around<kStores>(x + kRows * i, out + kRows * i, kRows * lanes);
          tested_group<kStores>(d, x + i, out + i, GroupParams<Of::kRows>{f.of(i), columns}, doubt);
        }
      }
    }
    for (; r < rows; ++r, x += columns, out += columns) {
      for (size_t i = 0; i < whole; i += size) {
        prefetch_around<kStores>(x + i, out + i, size);
        tested_group<kStores>(d, x + i, out + i, GroupParams<Of::kOneRow>{f.of(i), lanes}, doubt);
      }
    }
    return whole;
  }

  Formula<D> formula;
  Inputs inputs;
  X* y;
  bool streamed;
};

template <class D, typename X>
struct FakeQuantizeBackwardOp {
  static constexpr bool kOneParamForm = true;
  static constexpr bool kColumnsForm = false;
  using Inputs = GradAndInput<X>;
  using Output = X;
  using V = hn::Vec<D>;
  HWY_INLINE void vector(D d, Inputs in, X* out, V scale, V zero_point) const {
    const V ratio = hn::Div(load_f32(d, in.x), scale);
    store_where(d, formula.inside(formula.unclamped(ratio, zero_point)), in.grad, out);
  }

  // Codes never fall as x rises, so the x whose codes are inside the range form an interval. With
  // one parameter its ends are computed once, and no x is divided.
  struct Folded {
    V scale;
    V zero_point;
    V first;
    V last;
    bool has_interval;
  };
  HWY_INLINE Folded fold(D d, const OneParam<D>& p, size_t count) const {
    const float scale = hn::GetLane(p.scale);
    const float lowest = hn::GetLane(hn::Sub(formula.lo, p.zero_point));
    const float highest = hn::GetLane(hn::Sub(formula.hi, p.zero_point));
    if (count < kIntervalRun || !has_ordinary_inverse(scale) ||
        HWY_MAX(-lowest, highest) > kFurthestInterval) {
      return {p.scale, p.zero_point, p.scale, p.scale, false};
    }
    const Interval inside = inside_interval(scale, lowest, highest);
    return {p.scale, p.zero_point, hn::Set(d, inside.first), hn::Set(d, inside.last), true};
  }
  HWY_INLINE void vector(D d, Inputs in, X* out, const Folded& f) const {
    vector(d, in, out, f.scale, f.zero_point);
  }
  HWY_INLINE size_t groups(D d, int64_t offset, size_t count, const Folded& f) const {
    if (!f.has_interval) return 0;
    const Inputs in = inputs.at(offset);
    X* out = y + offset;
    return may_stream(d, streamed, out) ? stored_groups<Stores::kStreamed>(d, in, out, count, f)
                                        : stored_groups<Stores::kCached>(d, in, out, count, f);
  }
  template <Stores kStores>
  HWY_INLINE size_t stored_groups(D d, Inputs in, X* out, size_t count, const Folded& f) const {
    const size_t lanes = hn::Lanes(d);
    size_t i = 0;
    for (; i + 2 * lanes <= count; i += 2 * lanes) {
      prefetch_around<kStores>(in.x + i, out + i, 2 * lanes);
      prefetch_ahead<kStores>(in.grad + i, 2 * lanes);
      for (size_t j = i; j < i + 2 * lanes; j += lanes) {
        const V v = load_f32(d, in.x + j);
        store_where<kStores>(d, hn::And(hn::Ge(v, f.first), hn::Le(v, f.last)), in.grad + j,
                             out + j);
      }
    }
    return i;
  }

  Formula<D> formula;
  Inputs inputs;
  X* y;
  bool streamed;
};

template <class D, typename X, typename Code>
struct QuantizeOp {
  static constexpr bool kOneParamForm = false;
  static constexpr bool kColumnsForm = false;
  using Inputs = OneInput<X>;
  using Output = Code;
  using V = hn::Vec<D>;
  HWY_INLINE void vector(D d, Inputs in, Code* out, V scale, V zero_point) const {
    const V ratio = hn::Div(load_f32(d, in.x), scale);
    store_codes(d, formula.clamp(formula.unclamped(ratio, zero_point)), out);
  }
  Formula<D> formula;
  Inputs inputs;
  Code* y;
};

template <class D, typename X, typename Code>
struct DequantizeOp {
  static constexpr bool kOneParamForm = false;
  static constexpr bool kColumnsForm = false;
  using Inputs = OneInput<Code>;
  using Output = X;
  using V = hn::Vec<D>;
  HWY_INLINE void vector(D d, Inputs in, X* out, V scale, V zero_point) const {
    store_f32(d, hn::Mul(hn::Sub(load_codes(d, in.x), zero_point), scale), out);
  }
  Inputs inputs;
  X* y;
};

using F32 = hn::ScalableTag<float>;

template <typename X>
void fake_quantize(const void* x, void* y, const SimdRuns& runs) {
  map_runs(runs, FakeQuantizeOp<F32, X>{{F32(), runs.quant_min, runs.quant_max},
                                        {static_cast<const X*>(x)},
                                        static_cast<X*>(y),
                                        runs.streamed});
  if (runs.streamed) hwy::FlushStream();
}

template <typename X>
void fake_quantize_backward(const void* grad, const void* x, void* grad_x, const SimdRuns& runs) {
  map_runs(runs,
           FakeQuantizeBackwardOp<F32, X>{{F32(), runs.quant_min, runs.quant_max},
                                          {static_cast<const X*>(grad), static_cast<const X*>(x)},
                                          static_cast<X*>(grad_x),
                                          runs.streamed});
  if (runs.streamed) hwy::FlushStream();
}

template <typename X, typename Code>
void quantize(const void* x, void* codes, const SimdRuns& runs) {
  map_runs(runs, QuantizeOp<F32, X, Code>{{F32(), runs.quant_min, runs.quant_max},
                                          {static_cast<const X*>(x)},
                                          static_cast<Code*>(codes)});
}

template <typename X, typename Code>
void dequantize(const void* codes, void* y, const SimdRuns& runs) {
  map_runs(runs, DequantizeOp<F32, X, Code>{{static_cast<const Code*>(codes)}, static_cast<X*>(y)});
}

}  // namespace HWY_NAMESPACE
}  // namespace qcdq
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
