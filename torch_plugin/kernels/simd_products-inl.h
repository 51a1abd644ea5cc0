// Codes and values of f16 and bf16 by two fused multiply-adds, and whether these give the bits of
// affine.h for a scale: 16-bit types have so few numbers that all that could differ are tried. Used
// by FakeQuantizeOp (simd_elementwise-inl.h); what holds for f32 is in exact_rounding.h.
#if defined(QCDQ_SIMD_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QCDQ_SIMD_PRODUCTS_INL_H_
#undef QCDQ_SIMD_PRODUCTS_INL_H_
#else
#define QCDQ_SIMD_PRODUCTS_INL_H_
#endif

#include <hwy/highway.h>

#include <bit>
#include <type_traits>

#include "torch_plugin/kernels/simd_vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qcdq {
namespace HWY_NAMESPACE {

// x * inverse rounded to an integer, half to even, plus 1.5 * 2^23: floats there are 1 apart. Where
// the product is beyond 2^22 the sum is no integer's code, but on the right side of all codes.
constexpr float kIntegersOnly = 0x1.8p23f;
template <class D>
HWY_INLINE hn::Vec<D> shifted_code(D d, hn::Vec<D> x, hn::Vec<D> inverse) {
  return hn::MulAdd(x, inverse, hn::Set(d, kIntegersOnly));
}

// (shifted - kIntegersOnly) * scale, rounded once. The scale has 22 bits: kIntegersOnly times it is
// exact.
template <class D>
HWY_INLINE hn::Vec<D> shifted_value(D d, hn::Vec<D> shifted, hn::Vec<D> short_scale) {
  const hn::Vec<D> integers = hn::Set(d, kIntegersOnly);
#if HWY_NATIVE_FMA
  return hn::MulSub(shifted, short_scale, hn::Mul(integers, short_scale));
#else
  return hn::Mul(hn::Sub(shifted, integers), short_scale);
#endif
}

// Whether shifted_code gives the codes of x / scale for every x of a 16-bit type whose code is at
// most `furthest` from the zero point. Both rise with x, so they can only differ next to a tie, a
// half integer times the scale; and both are off by a relative 2^-22 at most, less than two x are
// apart. So the x next to each tie are tried: the nearest one and its neighbours. Signs don't
// matter to rounding.
template <typename X>
bool multiplication_suffices(float scale, float furthest) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const size_t lanes = hn::Lanes(d);
  const auto largest = hn::Set(d16, uint16_t{std::is_same_v<X, F16> ? 0x7BFF : 0x7F7F});
  const auto one = hn::Set(d16, uint16_t{1});
  const auto s = hn::Set(d, scale);
  const auto inverse = hn::Set(d, 1.0f / scale);
  auto same = hn::Eq(s, s);
  const auto try_all = [&](auto bits) HWY_ATTR {
    X x[hn::MaxLanes(d)];
    hn::StoreU(hn::Min(bits, largest), d16, &x->bits);
    const auto v = load_f32(d, x);
    const auto product = hn::Sub(shifted_code(d, v, inverse), hn::Set(d, kIntegersOnly));
    same = hn::And(same, hn::Eq(product, hn::Round(hn::Div(v, s))));
  };
  for (float first = 0.5f; first <= furthest + 0.5f; first += static_cast<float>(lanes)) {
    const auto nearest = bits_of(d, hn::Mul(hn::Iota(d, first), s), X{});
    try_all(hn::SaturatedSub(nearest, one));
    try_all(nearest);
    try_all(hn::Add(nearest, one));
  }
  return hn::AllTrue(d, same);
}

// Whether the values of all codes at most `furthest` from the zero point are those of `scale` when
// they are computed with `short_scale` and rounded as Group::store_capped does. Signs don't matter.
template <typename X>
bool short_scale_suffices(float scale, float short_scale, float furthest) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  auto same = hn::Eq(hn::Zero(d16), hn::Zero(d16));
  for (float first = 0.0f; first <= furthest; first += static_cast<float>(hn::Lanes(d))) {
    const auto distance = hn::Min(hn::Iota(d, first), hn::Set(d, furthest));
    const auto shifted = hn::Add(distance, hn::Set(d, kIntegersOnly));
    const auto value = hn::Mul(distance, hn::Set(d, scale));
    const auto short_value = shifted_value(d, shifted, hn::Set(d, short_scale));
    same = hn::And(same, hn::Eq(bits_of(d, value, X{}), bits_half_away(d, short_value, X{})));
  }
  return hn::AllTrue(d16, same);
}

// A scale of 22 bits that gives the values of `scale` in a 16-bit type, or 0. The nearest one does
// for most; else a value is next to a tie, and one of its neighbours may be on the right side.
template <typename X>
float short_scale_of(float scale, float furthest) {
  const uint32_t nearest = (std::bit_cast<uint32_t>(scale) + 2) & ~3u;
  for (const uint32_t bits : {nearest, nearest - 4, nearest + 4}) {
    const float short_scale = std::bit_cast<float>(bits);
    if (short_scale_suffices<X>(scale, short_scale, furthest)) return short_scale;
  }
  return 0.0f;
}

}  // namespace HWY_NAMESPACE
}  // namespace qcdq
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
