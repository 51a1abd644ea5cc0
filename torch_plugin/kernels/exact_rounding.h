// What lets kernels do without a division for each element and still give the bits of affine.h:
// where codes by x * (1 / scale) can be trusted, and which x lie inside of the range. Used by
// simd_elementwise-inl.h. Plain functions of one scale; called once for a run of elements.
#pragma once

#include <qcdq/affine.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace qcdq {

// The quotient Q = x / scale is rounded once by a division: by at most |Q| * 2^-24. A product with
// the rounded inverse is within |Q| * (2^-23 + 2^-48) of Q. The codes can differ only where a half
// integer h lies between the two, so where the product is within 1.5 * |Q| * 2^-23 of one. With all
// distances from the zero point up to H, 2^-22 * H is more than that.

/// How fake_quantize finds the codes of a run.
enum class Rounding {
  kDivided,     // by division
  kTested,      // by multiplication, and by division where the product is close to a half integer
  kMultiplied,  // by multiplication: multiplication_suffices and short_scale_of
};

inline constexpr float kDoubt = 0x1p-22f;
/// Above it too many products are in doubt: one in a thousand has a fraction within 1024 * 2^-22 of
/// one half.
inline constexpr float kFurthestMultiplied = 1024.0f;
/// Rows and columns for which inverses are worth keeping: they stay in the first two caches.
inline constexpr int64_t kLeastFoldedRows = 8;
inline constexpr size_t kMostFoldedColumns = 8192;
/// Columns up to which several rows are taken together: 64 columns take 0.85 of the time of one row
/// after the other (Zen 3; 0.7 where they are streamed), 512 columns 1.03 and five times as long.
inline constexpr size_t kMostColumnsOfRows = 128;
/// Shortest runs for which the inverse is computed, multiplication is proved for all inputs, and
/// the interval is computed.
inline constexpr size_t kTestedRun = 256;
inline constexpr size_t kProvedRun = 8192;
inline constexpr size_t kIntervalRun = 512;
inline constexpr float kFurthestInterval = 0x1p22f;

/// Whether 1 / scale and half of the scale's codes are far from overflow and subnormal numbers.
inline bool has_ordinary_inverse(float scale) { return scale >= 0x1p-80f && scale <= 0x1p80f; }

struct Interval {
  float first;
  float last;
};

/// The x whose code lies in the range, lowest and highest being its ends minus the zero point:
/// those in [first, last]. At most kFurthestInterval from 0, the scale with an ordinary inverse.
/// Example: `inside_interval(1.0f, -128.0f, 127.0f)` is [-128.5, 127.499992]: ties go to even.
inline Interval inside_interval(float scale, float lowest, float highest) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto distance = [scale](float x) { return round_half_even(x / scale); };
  // The guesses are off by a few units in the last place.
  auto first = static_cast<float>((static_cast<double>(lowest) - 0.5) * scale);
  while (distance(first) >= lowest) first = std::nextafter(first, -kInfinity);
  while (distance(first) < lowest) first = std::nextafter(first, kInfinity);
  auto last = static_cast<float>((static_cast<double>(highest) + 0.5) * scale);
  while (distance(last) <= highest) last = std::nextafter(last, kInfinity);
  while (distance(last) > highest) last = std::nextafter(last, -kInfinity);
  return {first, last};
}

}  // namespace qcdq
