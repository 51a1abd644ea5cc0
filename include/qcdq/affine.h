// The formula: what quantize, dequantize and fake_quantize compute for one element, without torch.
// Every kernel (torch_plugin/kernels), every instruction set and the exporter's weight conversion
// must equal these functions exactly, rounding ties included. docs/semantics.md says it in words.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

// nvcc compiles these functions for the GPU as well (torch_plugin/kernels/cuda); no other compiler
// sees a difference.
#ifdef __CUDACC__
#define QCDQ_HOST_DEVICE __host__ __device__
#else
#define QCDQ_HOST_DEVICE
#endif

#ifdef __FAST_MATH__
#error \
    "qcdq/affine.h: -ffast-math reorders the rounding below and changes codes; compile without it."
#endif

namespace qcdq {

/// A closed interval of integer codes.
struct CodeRange {
  int64_t min = 0;
  int64_t max = 0;
  bool operator==(const CodeRange&) const = default;
  constexpr bool holds(int64_t code) const { return code >= min && code <= max; }
  constexpr bool holds(CodeRange other) const { return other.min >= min && other.max <= max; }
};

/// All values of an integer type of up to 64 bits; of uint64_t those that int64_t holds. Example:
/// `range_of_type<int8_t>()` is [-128, 127].
template <typename T>
constexpr CodeRange range_of_type() {
  static_assert(std::is_integral_v<T>);
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  constexpr auto kOwn = static_cast<uint64_t>(std::numeric_limits<T>::max());
  return {static_cast<int64_t>(std::numeric_limits<T>::min()),
          static_cast<int64_t>(kOwn < kMost ? kOwn : kMost)};
}

// f32 holds every integer up to 2^24; a range beyond it is accumulated in f64.
inline constexpr int64_t kLargestExactFloatInteger = int64_t{1} << 24;
inline constexpr float kLargestFloat = std::numeric_limits<float>::max();

/// True where codes of [quant_min, quant_max], or their distance to a zero point, do not all fit
/// f32. Example: `needs_wide_accumulator(-128, 127) == false`; an int32 range gives true.
QCDQ_HOST_DEVICE constexpr bool needs_wide_accumulator(int64_t quant_min, int64_t quant_max) {
  return quant_min < -kLargestExactFloatInteger || quant_max > kLargestExactFloatInteger ||
         quant_max - quant_min > kLargestExactFloatInteger;
}

/// Rounds to the nearest integer, ties to even (IEEE 754 roundTiesToEven); NaN and infinities pass
/// through. Adding 2^23 (f32) or 2^52 (f64) leaves no room for a fraction, so the addition itself
/// rounds; from there on every value is an integer already. The sign of a zero result is not kept.
/// Example: `round_half_even(2.5f) == 2.0f`, `round_half_even(-1.5f) == -2.0f`.
template <typename T>
QCDQ_HOST_DEVICE inline T round_half_even(T v) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
#ifdef __CUDA_ARCH__  // one instruction
  if constexpr (std::is_same_v<T, float>) return rintf(v);
  return rint(v);
#else
  constexpr T kNoFraction = std::is_same_v<T, float> ? T(8388608.0) : T(4503599627370496.0);
  const T shift = v < T(0) ? -kNoFraction : kNoFraction;
  const T rounded = (v + shift) - shift;
  const T magnitude = v < T(0) ? -v : v;
  return magnitude < kNoFraction ? rounded : v;
#endif
}

/// round_half_even(x / scale) + zero_point, not clamped: the value whose place inside or outside
/// the range decides the gradient. A true division: x * (1 / scale) gives other codes at rounding
/// ties. T is the computing type of x; Acc is double where needs_wide_accumulator says so, else T.
template <typename T, typename Acc = T>
QCDQ_HOST_DEVICE inline Acc unclamped_code(T x, T scale, Acc zero_point) {
  return static_cast<Acc>(round_half_even(x / scale)) + zero_point;
}

/// Clamps a code; NaN becomes quant_min (it fails the first comparison).
template <typename Acc>
QCDQ_HOST_DEVICE inline Acc clamp_code(Acc code, Acc quant_min, Acc quant_max) {
#ifdef __CUDA_ARCH__  // of a number and NaN, these give the number
  if constexpr (std::is_same_v<Acc, float>) return fminf(fmaxf(code, quant_min), quant_max);
#endif
  const Acc raised = code > quant_min ? code : quant_min;
  return raised < quant_max ? raised : quant_max;
}

/// The value of a code: (code - zero_point) * scale, the difference in Acc, the product in T.
template <typename T, typename Acc = T>
QCDQ_HOST_DEVICE inline T value_of_code(Acc code, T scale, Acc zero_point) {
  return static_cast<T>(code - zero_point) * scale;
}

/// The code of x: clamp(round_half_even(x / scale) + zero_point, quant_min, quant_max).
/// T is float (f32, f16 and bf16 data) or double; the range lies within int32.
/// Example: `quantize_one(1.26f, 0.5f, 0, -128, 127) == 3`.
template <typename T>
QCDQ_HOST_DEVICE inline int64_t quantize_one(T x, T scale, int64_t zero_point, int64_t quant_min,
                                             int64_t quant_max) {
  if (std::is_same_v<T, float> && !needs_wide_accumulator(quant_min, quant_max)) {
    return static_cast<int64_t>(clamp_code(unclamped_code(x, scale, static_cast<T>(zero_point)),
                                           static_cast<T>(quant_min), static_cast<T>(quant_max)));
  }
  const double code = unclamped_code<T, double>(x, scale, static_cast<double>(zero_point));
  return static_cast<int64_t>(
      clamp_code(code, static_cast<double>(quant_min), static_cast<double>(quant_max)));
}

/// The value of an integer code: (code - zero_point) * scale. The difference is exact; it is
/// rounded to T once (only int32 codes can need it), and the product once. Example:
/// `dequantize_one(int64_t{3}, 0.5f, 1) == 1.0f`.
template <typename T>
QCDQ_HOST_DEVICE inline T dequantize_one(int64_t code, T scale, int64_t zero_point) {
  return static_cast<T>(code - zero_point) * scale;
}

/// dequantize_one(quantize_one(x)): what the network sees of x after quantisation. Never -0.0 for a
/// code equal to zero_point. Example: `fake_quantize_one(1.26f, 0.5f, 0, -128, 127) == 1.5f`.
template <typename T>
QCDQ_HOST_DEVICE inline T fake_quantize_one(T x, T scale, int64_t zero_point, int64_t quant_min,
                                            int64_t quant_max) {
  return dequantize_one(quantize_one(x, scale, zero_point, quant_min, quant_max), scale,
                        zero_point);
}

/// Scale and zero point chosen from a value interval.
struct ScaleAndZeroPoint {
  float scale;
  int64_t zero_point;
};

/// The quantisation parameters of values in [lowest, highest]; the interval is widened to hold 0.
/// Asymmetric: ONNX DynamicQuantizeLinear, scale = (highest - lowest) / (quant_max - quant_min) in
/// f32, zero_point = round_half_even(clamp(quant_min - lowest / scale)). Symmetric: scale =
/// max(|lowest|, |highest|) / quant_max, zero_point 0 (quant_min <= 0 < quant_max is required).
/// A scale of 0 (all zeros, underflow) or not finite gives scale 1, zero point 0 (clamped).
/// Example: `choose_one(-1.0f, 3.0f, 0, 255, false)` has scale 4/255 and zero point 64.
QCDQ_HOST_DEVICE inline ScaleAndZeroPoint choose_one(float lowest, float highest, int64_t quant_min,
                                                     int64_t quant_max, bool symmetric) {
  const float lo = lowest < 0.0f ? lowest : 0.0f;
  const float hi = highest > 0.0f ? highest : 0.0f;
  const float scale = symmetric ? (-lo > hi ? -lo : hi) / static_cast<float>(quant_max)
                                : (hi - lo) / static_cast<float>(quant_max - quant_min);
  if (!(scale > 0.0f && scale <= kLargestFloat)) {
    return {1.0f, quant_min > 0 ? quant_min : (quant_max < 0 ? quant_max : 0)};
  }
  if (symmetric) return {scale, 0};
  if (!needs_wide_accumulator(quant_min, quant_max)) {
    const float start = static_cast<float>(quant_min) - lo / scale;
    return {scale, static_cast<int64_t>(round_half_even(clamp_code(
                       start, static_cast<float>(quant_min), static_cast<float>(quant_max))))};
  }
  const double start = static_cast<double>(quant_min) - static_cast<double>(lo / scale);
  return {scale, static_cast<int64_t>(round_half_even(clamp_code(
                     start, static_cast<double>(quant_min), static_cast<double>(quant_max))))};
}

}  // namespace qcdq
