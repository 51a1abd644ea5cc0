// f16 and bf16 as bits, for kernels that know no torch: exact conversion to f32, and one rounding
// (to nearest, ties to even) back. The SIMD kernels must equal these functions.
#pragma once

#include <bit>
#include <cstdint>

namespace qcdq {

/// IEEE 754 binary16.
struct F16 {
  uint16_t bits;
};

/// The upper half of an f32.
struct BF16 {
  uint16_t bits;
};

inline float to_compute(float v) { return v; }
inline double to_compute(double v) { return v; }
inline float to_compute(BF16 v) {
  return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16);
}
inline float to_compute(F16 v) {
  const uint32_t magnitude = v.bits & 0x7FFFu;
  // The exponent is rebiased by a product, which normalises subnormals as well.
  const float finite = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  uint32_t bits = std::bit_cast<uint32_t>(finite);
  if (magnitude >= 0x7C00u) bits |= 0x7F800000u;
  return std::bit_cast<float>(bits | (v.bits & 0x8000u) << 16);
}

/// The type that the formula is computed in: f64 for f64, f32 for the others.
template <typename X>
using ComputeType = decltype(to_compute(X{}));

template <typename X>
inline X from_compute(ComputeType<X> v) {
  return v;
}

template <>
inline BF16 from_compute<BF16>(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  if (v != v) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
}

template <>
inline F16 from_compute<F16>(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  uint32_t half;
  if (magnitude > 0x7F800000u) {
    half = 0x7E00u | (magnitude >> 13 & 0x3FFu);  // a quiet NaN
  } else if (magnitude >= 0x47800000u) {          // 65536 and above
    half = 0x7C00u;
  } else if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 leaves exactly the bits of an f16 subnormal, rounded by the addition.
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3F000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

}  // namespace qcdq
