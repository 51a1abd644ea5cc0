// QuantSpec: one value type that describes any quantiser (bits, sign, range, granularity, how its
// scale is found). No torch in here. modules.h has the layers that take it; observers.h the
// statistics that Scaling names.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "qcdq/api.h"

namespace qcdq {

/// How many values share one scale: the whole tensor, an index along `axis`, or `block_size`
/// neighbours along `axis`.
enum class Granularity : int64_t { kPerTensor = 0, kPerChannel = 1, kBlocked = 2 };

/// How the scale is found. kDefault is resolved by the layer: kMinMax for a weight, kLearned for an
/// activation, and input scale * weight scale for a bias.
enum class Scaling : int64_t {
  kDefault = 0,
  kMinMax = 1,      // weight: its own absmax (or min and max) at each training forward; activation:
                    // running mean
  kPercentile = 2,  // activation: running mean of a percentile
  kLearned = 3,     // a parameter, started from kPercentile (activation) or absmax (weight)
  kFixed = 4,       // given by the user
};

/// Describes a quantiser: code = clamp(round_half_even(x / scale) + zero_point, quant_min(),
/// quant_max()). A plain value: it compares, prints, and goes through the state dict as integers.
/// Setters return a changed copy:
///
///   QuantSpec w = qcdq::int4().per_channel(0).narrow();   // codes [-7, 7], one scale per output
///   channel QuantSpec a = qcdq::uint8().symmetric(false);         // zero point from the data
struct QCDQ_API QuantSpec {
  int64_t bits = 8;
  bool is_signed = true;
  bool is_narrow = false;    // signed only: drops the lowest code
  bool is_symmetric = true;  // zero point 0
  bool is_power_of_two = false;
  Granularity granularity = Granularity::kPerTensor;
  int64_t axis = 0;        // per channel and blocked
  int64_t block_size = 0;  // blocked
  Scaling scale_source = Scaling::kDefault;
  double fixed_scale = 0;           // kFixed
  double percentile_rank = 99.999;  // kPercentile and kLearned, in per cent
  int64_t statistics_steps = 300;   // kLearned: training steps before the parameter takes over

  bool operator==(const QuantSpec&) const = default;

  /// One scale (and zero point) per index of dimension `channel_axis`.
  QuantSpec per_channel(int64_t channel_axis) const;
  /// One scale per `size` neighbours along dimension `block_axis`; the last block may be shorter.
  QuantSpec blocked(int64_t block_axis, int64_t size) const;
  QuantSpec per_tensor() const;
  /// Signed ranges only: [-127, 127] instead of [-128, 127].
  QuantSpec narrow(bool on = true) const;
  /// false: the zero point comes from the data (shifted range).
  QuantSpec symmetric(bool on = true) const;
  QuantSpec scaling(Scaling source) const;
  /// A scale known beforehand, > 0.
  QuantSpec fixed(double scale) const;
  /// Fixed point: the scale found is rounded up to a power of two.
  QuantSpec power_of_two(bool on = true) const;
  /// Rank in (50, 100] of the percentile statistic.
  QuantSpec percentile(double rank) const;
  /// Training steps of statistics before a learned scale takes over, >= 1.
  QuantSpec collect_steps(int64_t steps) const;

  /// Lowest and highest code. n bits: signed [-2^(n-1), 2^(n-1) - 1], narrow without the lowest,
  /// unsigned [0, 2^n - 1].
  int64_t quant_min() const;
  int64_t quant_max() const;
  /// scale = threshold / divisor() for zero point 0: -quant_min if signed, else quant_max.
  int64_t divisor() const;

  /// Throws std::invalid_argument that names the field, its value and what was expected: bits
  /// outside 1..32, 1-bit signed, narrow unsigned, block_size < 1, a fixed scale that is not finite
  /// and positive, and so on.
  void check() const;

  /// "int4 narrow per_channel(0) learned"; what operator<< prints.
  std::string to_string() const;

  /// The form the state dict holds: kFieldCount integers (doubles by their bits). from_integers
  /// throws std::invalid_argument on anything else.
  static constexpr int64_t kFieldCount = 12;
  std::vector<int64_t> to_integers() const;
  static QuantSpec from_integers(const std::vector<int64_t>& fields);
};

QCDQ_API std::ostream& operator<<(std::ostream& out, const QuantSpec& spec);

/// Signed and unsigned specs of any width (1 to 32; layers narrow that down), and shorthands.
QCDQ_API QuantSpec intn(int64_t bits);
QCDQ_API QuantSpec uintn(int64_t bits);
inline QuantSpec int2() { return intn(2); }
inline QuantSpec int3() { return intn(3); }
inline QuantSpec int4() { return intn(4); }
inline QuantSpec int8() { return intn(8); }
inline QuantSpec int16() { return intn(16); }
inline QuantSpec int32() { return intn(32); }
inline QuantSpec uint1() { return uintn(1); }
inline QuantSpec uint2() { return uintn(2); }
inline QuantSpec uint3() { return uintn(3); }
inline QuantSpec uint4() { return uintn(4); }
inline QuantSpec uint8() { return uintn(8); }
inline QuantSpec uint16() { return uintn(16); }

}  // namespace qcdq
