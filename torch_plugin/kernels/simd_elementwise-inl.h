// The SIMD loops of fake_quantize, its backward, quantize and dequantize; compiled once per
// instruction set by simd_kernels.cpp. Conversions and the formula are in simd_vectors-inl.h.
#if defined(QCDQ_SIMD_ELEMENTWISE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QCDQ_SIMD_ELEMENTWISE_INL_H_
#undef QCDQ_SIMD_ELEMENTWISE_INL_H_
#else
#define QCDQ_SIMD_ELEMENTWISE_INL_H_
#endif

#include <hwy/highway.h>

#include <bit>
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
                        const ParamPerElement<D>& params) {
  const D d;
  map_vectors(op, offset, count, 0, [&](auto in, auto* out, size_t i) HWY_ATTR {
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

// Whether x * (1 / scale) gives the codes of x / scale for every x of a 16-bit type whose code is
// at most `furthest` from the zero point: all of them are tried. Signs don't matter to rounding;
// below scale / 4 and above (furthest + 1) * scale both give the same code.
template <typename X>
bool multiplication_suffices(float scale, float furthest) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  constexpr uint32_t kInfinity = std::is_same_v<X, F16> ? 0x7C00 : 0x7F80;
  constexpr uint32_t kAtOnce = 64;
  const auto s = hn::Set(d, scale);
  const auto inverse = hn::Set(d, 1.0f / scale);
  const uint32_t below = from_compute<X>(0.25f * scale).bits;
  const uint32_t above = from_compute<X>((furthest + 1.0f) * scale).bits + 1u;
  const uint32_t last = HWY_MIN(above, kInfinity - 1);
  auto same = hn::Eq(s, s);
  for (uint32_t first = below > 0 ? below - 1 : 0; first <= last; first += kAtOnce) {
    X x[kAtOnce];
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      x[i].bits = static_cast<uint16_t>(HWY_MIN(first + i, last));
    }
    for (uint32_t i = 0; i < kAtOnce; i += static_cast<uint32_t>(lanes)) {
      const auto v = load_f32(d, x + i);
      const auto agree = hn::Eq(hn::Round(hn::Mul(v, inverse)), hn::Round(hn::Div(v, s)));
      same = hn::And(same, agree);
    }
  }
  return hn::AllTrue(d, same) && (std::is_same_v<X, F16> || has_no_bf16_ties(scale, furthest));
}

template <class D, typename X>
struct FakeQuantizeOp {
  using Inputs = OneInput<X>;
  using Output = X;
  using V = hn::Vec<D>;
  static constexpr bool kOneParamForm = true;

  HWY_INLINE void vector(D d, Inputs in, X* out, V scale, V zero_point) const {
    const V ratio = hn::Div(load_f32(d, in.x), scale);
    const V code = formula.clamp(formula.unclamped(ratio, zero_point));
    store_f32(d, hn::Mul(hn::Sub(code, zero_point), scale), out);
  }

  // With one parameter the range moves instead of the codes: [lo, hi] minus the zero point is exact
  // (only narrow ranges come here), and clamping gives the same code also where adding the zero
  // point would round.
  struct Folded {
    V scale;
    V inverse;
    V lo;
    V hi;
    V doubt;
    Rounding rounding;
  };
  HWY_INLINE Folded fold(D d, const OneParam<D>& p, size_t count) const {
    const V lo = hn::Sub(formula.lo, p.zero_point);
    const V hi = hn::Sub(formula.hi, p.zero_point);
    const float scale = hn::GetLane(p.scale);
    const float furthest = HWY_MAX(-hn::GetLane(lo), hn::GetLane(hi));
    const Rounding rounding = choose_rounding(scale, furthest, count);
    if (rounding == Rounding::kDivided) return {p.scale, p.scale, lo, hi, p.scale, rounding};
    return {p.scale, hn::Set(d, 1.0f / scale), lo, hi, hn::Set(d, 0.5f - furthest * kDoubt),
            rounding};
  }
  static Rounding choose_rounding(float scale, float furthest, size_t count) {
    if (count < (std::is_same_v<X, float> ? kTestedRun : kProvedRun)) return Rounding::kDivided;
    if (!has_ordinary_inverse(scale) || furthest > kFurthestMultiplied) return Rounding::kDivided;
    if constexpr (std::is_same_v<X, float>) {
      return Rounding::kTested;
    } else {
      return multiplication_suffices<X>(scale, furthest) ? Rounding::kMultiplied
                                                         : Rounding::kDivided;
    }
  }

  // The + 0 makes -0 (a code equal to the zero point) into +0.
  static HWY_INLINE V value(D d, V distance, const Folded& f) {
    return hn::MulAdd(distance, f.scale, hn::Zero(d));
  }
  static HWY_INLINE V clamped(V ratio, const Folded& f) {
    return hn::Min(hn::Max(ratio, f.lo), f.hi);
  }
  HWY_INLINE void vector(D d, Inputs in, X* out, const Folded& f) const {
    const V ratio = hn::Div(load_f32(d, in.x), f.scale);
    store_f32(d, value(d, hn::Round(clamped(ratio, f)), f), out);
  }

  // The elements of whole groups; returns how many that were.
  HWY_INLINE size_t groups(D d, int64_t offset, size_t count, const Folded& f) const {
    const size_t size = Group<D>::kVectors * hn::Lanes(d);
    const X* x = inputs.x + offset;
    X* out = y + offset;
    size_t i = 0;
    switch (f.rounding) {
      case Rounding::kTested:
        for (; i + size <= count; i += size) {
          if (HWY_UNLIKELY(!group<Rounding::kTested>(d, x + i, out + i, f))) {
            group<Rounding::kDivided>(d, x + i, out + i, f);
          }
        }
        break;
      case Rounding::kMultiplied:
        for (; i + size <= count; i += size) group<Rounding::kMultiplied>(d, x + i, out + i, f);
        break;
      case Rounding::kDivided:
        for (; i + size <= count; i += size) group<Rounding::kDivided>(d, x + i, out + i, f);
        break;
    }
    return i;
  }

  // Returns whether all codes are beyond doubt.
  template <Rounding kRounding>
  HWY_INLINE bool group(D d, const X* x, X* out, const Folded& f) const {
    Group<D> v;
    v.load(d, x);
    v.each([&](V a) HWY_ATTR {
      return kRounding == Rounding::kDivided ? hn::Div(a, f.scale) : hn::Mul(a, f.inverse);
    });
    v.each([&](V a) HWY_ATTR { return hn::Max(a, f.lo); });
    v.each([&](V a) HWY_ATTR { return hn::Min(a, f.hi); });
    const Group<D> ratio = v;
    v.each([&](V a) HWY_ATTR { return hn::Round(a); });
    V furthest = hn::Zero(d);
    if constexpr (kRounding == Rounding::kTested) {
      for (size_t k = 0; k < Group<D>::kVectors; ++k) {
        furthest = hn::Max(furthest, hn::Abs(hn::Sub(ratio.at[k], v.at[k])));
      }
    }
    v.each([&](V a) HWY_ATTR { return value(d, a, f); });
    v.template store<kRounding == Rounding::kMultiplied ? Ties::kNone : Ties::kToEven>(d, out);
    return kRounding != Rounding::kTested || hn::AllFalse(d, hn::Ge(furthest, f.doubt));
  }

  Formula<D> formula;
  Inputs inputs;
  X* y;
};

template <class D, typename X>
struct FakeQuantizeBackwardOp {
  static constexpr bool kOneParamForm = true;
  using Inputs = GradAndInput<X>;
  using Output = X;
  using V = hn::Vec<D>;
  HWY_INLINE void vector(D d, Inputs in, X* out, V scale, V zero_point) const {
    const V ratio = hn::Div(load_f32(d, in.x), scale);
    store_where(d, formula.inside(formula.unclamped(ratio, zero_point)), in.grad, out);
  }

  // The x that are inside the range are an interval, since the code does not fall where x rises:
  // with one parameter nothing is divided.
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
    const size_t lanes = hn::Lanes(d);
    const X* x = inputs.x + offset;
    const X* grad = inputs.grad + offset;
    size_t i = 0;
    for (; i + 2 * lanes <= count; i += 2 * lanes) {
      for (size_t j = i; j < i + 2 * lanes; j += lanes) {
        const V v = load_f32(d, x + j);
        store_where(d, hn::And(hn::Ge(v, f.first), hn::Le(v, f.last)), grad + j, y + offset + j);
      }
    }
    return i;
  }

  Formula<D> formula;
  Inputs inputs;
  X* y;
};

template <class D, typename X, typename Code>
struct QuantizeOp {
  static constexpr bool kOneParamForm = false;
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
                                        static_cast<X*>(y)});
}

template <typename X>
void fake_quantize_backward(const void* grad, const void* x, void* grad_x, const SimdRuns& runs) {
  map_runs(runs,
           FakeQuantizeBackwardOp<F32, X>{{F32(), runs.quant_min, runs.quant_max},
                                          {static_cast<const X*>(grad), static_cast<const X*>(x)},
                                          static_cast<X*>(grad_x)});
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
