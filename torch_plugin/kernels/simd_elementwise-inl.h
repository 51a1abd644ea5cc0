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
  size_t i = 0;
  if constexpr (Op::kOneParamForm) {
    const auto folded = op.fold(d, params);
    if constexpr (Op::kPairs) {
      const size_t pair = 2 * hn::Lanes(d);
      for (; i + pair <= count; i += pair) {
        op.pair(d, op.inputs.at(offset + i), op.y + offset + i, folded);
      }
    }
    map_vectors(op, offset, count, i,
                [&](auto in, auto* out, size_t) HWY_ATTR { op.vector(d, in, out, folded); });
  } else {
    map_vectors(op, offset, count, i, [&](auto in, auto* out, size_t) HWY_ATTR {
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

template <class D, typename X>
struct FakeQuantizeOp {
  using Inputs = OneInput<X>;
  using Output = X;
  using V = hn::Vec<D>;
  static constexpr bool kOneParamForm = true;
  static constexpr bool kPairs = std::is_same_v<X, BF16> && HWY_TARGET != HWY_SCALAR;

  HWY_INLINE void vector(D d, Inputs in, X* out, V scale, V zero_point) const {
    const V ratio = hn::Div(load_f32(d, in.x), scale);
    const V code = formula.clamp(formula.unclamped(ratio, zero_point));
    store_f32(d, hn::Mul(hn::Sub(code, zero_point), scale), out);
  }

  // With one parameter the range moves instead of the codes: [lo, hi] minus the zero point is exact
  // (only narrow ranges come here), and clamping gives the same code also where adding the zero
  // point would round. The + 0 makes -0 (a code equal to the zero point) into +0.
  struct Folded {
    V scale;
    V lo;
    V hi;
  };
  HWY_INLINE Folded fold(D, const OneParam<D>& p) const {
    return {p.scale, hn::Sub(formula.lo, p.zero_point), hn::Sub(formula.hi, p.zero_point)};
  }
  HWY_INLINE V value(D d, V x, const Folded& f) const {
    const V distance = hn::Min(hn::Max(hn::Round(hn::Div(x, f.scale)), f.lo), f.hi);
    return hn::MulAdd(distance, f.scale, hn::Zero(d));
  }
  HWY_INLINE void vector(D d, Inputs in, X* out, const Folded& f) const {
    store_f32(d, value(d, load_f32(d, in.x), f), out);
  }
  // Two vectors of bf16, as the upper and lower halves of 32-bit lanes: nothing is unpacked.
  HWY_INLINE void pair(D d, Inputs in, X* out, const Folded& f) const {
    static_assert(std::endian::native == std::endian::little);
    const hn::Rebind<uint32_t, D> du;
    const hn::Repartition<uint16_t, D> d16;
    const auto upper = hn::Set(du, 0xFFFF0000u);
    const auto both = hn::BitCast(du, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(in.x)));
    const auto even = rounded_to_bf16(d, value(d, hn::BitCast(d, hn::ShiftLeft<16>(both)), f));
    const auto odd = rounded_to_bf16(d, value(d, hn::BitCast(d, hn::And(both, upper)), f));
    hn::StoreU(hn::BitCast(d16, hn::Or(hn::ShiftRight<16>(even), hn::And(odd, upper))), d16,
               reinterpret_cast<uint16_t*>(out));
  }

  Formula<D> formula;
  Inputs inputs;
  X* y;
};

template <class D, typename X>
struct FakeQuantizeBackwardOp {
  static constexpr bool kOneParamForm = false;
  using Inputs = GradAndInput<X>;
  using Output = X;
  using V = hn::Vec<D>;
  HWY_INLINE void vector(D d, Inputs in, X* out, V scale, V zero_point) const {
    const V ratio = hn::Div(load_f32(d, in.x), scale);
    store_where(d, formula.inside(formula.unclamped(ratio, zero_point)), in.grad, out);
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
