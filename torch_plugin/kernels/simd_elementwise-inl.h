// The SIMD loops of fake_quantize, its backward, quantize and dequantize; compiled once per
// instruction set by simd_kernels.cpp. Conversions and the formula are in simd_vectors-inl.h.
#if defined(QCDQ_SIMD_ELEMENTWISE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QCDQ_SIMD_ELEMENTWISE_INL_H_
#undef QCDQ_SIMD_ELEMENTWISE_INL_H_
#else
#define QCDQ_SIMD_ELEMENTWISE_INL_H_
#endif

#include <hwy/highway.h>

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
  HWY_INLINE hn::Vec<D> scale_at(size_t) const { return scale; }
  HWY_INLINE hn::Vec<D> zero_point_at(size_t) const { return zero_point; }
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

// Calls op.vector(d, in, out, scale, zero_point) for all vectors of a run. Where the count is no
// multiple of the lanes the last vector overlaps the one before it: outputs never alias inputs, so
// that computes some elements twice. Runs shorter than a vector go through small buffers; nothing
// outside of the run is read or written.
template <class Op, class Params>
HWY_INLINE void map_run(const Op& op, int64_t offset, size_t count, const Params& params) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto at = [&](size_t i) HWY_ATTR {
    op.vector(d, op.inputs.at(offset + i), op.y + offset + i, params.scale_at(i),
              params.zero_point_at(i));
  };
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) at(i);
  if (i < count) at(count - lanes);
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
  HWY_INLINE void vector(D d, Inputs in, X* out, V scale, V zero_point) const {
    const V ratio = hn::Div(load_f32(d, in.x), scale);
    const V code = formula.clamp(formula.unclamped(ratio, zero_point));
    store_f32(d, hn::Mul(hn::Sub(code, zero_point), scale), out);
  }
  Formula<D> formula;
  Inputs inputs;
  X* y;
};

template <class D, typename X>
struct FakeQuantizeBackwardOp {
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
