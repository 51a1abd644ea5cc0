// The formula of qcdq/affine.h against plain arithmetic, and the loops of torch_plugin/kernels
// against the formula, on an edge set: ties, +-0, denormals, +-inf, NaN, values just past the
// range.
#include "torch_plugin/kernels/cpu_kernels.h"

#include <gtest/gtest.h>
#include <qcdq/affine.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace qcdq {
namespace {

struct Range {
  int64_t quant_min;
  int64_t quant_max;
  int64_t zero_point;
};

const std::vector<Range> kRanges = {{-128, 127, 0},
                                    {-127, 127, 0},
                                    {0, 255, 0},
                                    {0, 255, 128},
                                    {-128, 127, -3},
                                    {-8, 7, 0},
                                    {-3, 3, 0},
                                    {0, 1, 0},
                                    {0, 15, 7},
                                    {-32768, 32767, -1},
                                    {0, 65535, 32768},
                                    {-(1 << 23), (1 << 23) - 1, 5},
                                    {100, 200, 150},
                                    {INT32_MIN, INT32_MAX, 0},
                                    {INT32_MIN, INT32_MAX, 1 << 30}};

const std::vector<double> kScales = {0.1, 0.0123, 0.0021485, 1.0, 0.5, 3.7, 1e-38, 1e30};

// Values around every point where the formula changes its mind, then random ones.
template <typename T>
std::vector<T> edge_values(T scale, const Range& range) {
  using Limits = std::numeric_limits<T>;
  std::vector<T> values = {T(0),
                           -T(0),
                           Limits::denorm_min(),
                           -Limits::denorm_min(),
                           Limits::min(),
                           Limits::max(),
                           Limits::lowest(),
                           Limits::infinity(),
                           -Limits::infinity(),
                           Limits::quiet_NaN()};
  const auto around = [&](double code) {
    const T tie = static_cast<T>((code + 0.5) * scale);
    const T exact = static_cast<T>(code * scale);
    for (const T v : {tie, exact}) {
      values.push_back(v);
      values.push_back(std::nextafter(v, Limits::infinity()));
      values.push_back(std::nextafter(v, -Limits::infinity()));
    }
  };
  for (int code = -20; code <= 20; ++code) around(code);
  for (const int64_t bound : {range.quant_min, range.quant_max}) {
    for (int64_t d = -2; d <= 2; ++d) around(static_cast<double>(bound - range.zero_point + d));
  }
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> codes(
      1.1 * static_cast<double>(range.quant_min - range.zero_point) - 1.0,
      1.1 * static_cast<double>(range.quant_max - range.zero_point) + 1.0);
  for (int i = 0; i < 500; ++i) values.push_back(static_cast<T>(codes(random) * scale));
  return values;
}

// The formula with the C library's rounding and f64 everywhere after the division.
template <typename T>
int64_t expected_code(T x, T scale, const Range& range) {
  const T ratio = x / scale;
  if (std::isnan(ratio)) return range.quant_min;
  const double code = static_cast<double>(std::nearbyint(ratio)) + range.zero_point;
  if (code < static_cast<double>(range.quant_min)) return range.quant_min;
  if (code > static_cast<double>(range.quant_max)) return range.quant_max;
  return static_cast<int64_t>(code);
}

template <typename T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

template <typename T>
class AffineTest : public testing::Test {};
using ComputeTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(AffineTest, ComputeTypes);

TYPED_TEST(AffineTest, RoundsTiesToEven) {
  using T = TypeParam;
  EXPECT_EQ(round_half_even(T(0.5)), T(0));
  EXPECT_EQ(round_half_even(T(1.5)), T(2));
  EXPECT_EQ(round_half_even(T(2.5)), T(2));
  EXPECT_EQ(round_half_even(T(-0.5)), T(0));
  EXPECT_EQ(round_half_even(T(-1.5)), T(-2));
  EXPECT_EQ(round_half_even(std::numeric_limits<T>::infinity()),
            std::numeric_limits<T>::infinity());
  EXPECT_TRUE(std::isnan(round_half_even(std::numeric_limits<T>::quiet_NaN())));
}

TEST(RoundHalfEven, EqualsNearbyintOnEveryExponentOfFloat) {
  // All exponents and signs, with a stride through the mantissas that hits ties and neighbours.
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 509) {
    const uint32_t word = static_cast<uint32_t>(bits);
    float v;
    std::memcpy(&v, &word, sizeof(v));
    if (std::isnan(v)) continue;
    ASSERT_EQ(round_half_even(v), std::nearbyint(v)) << v;
  }
}

TYPED_TEST(AffineTest, CodesAndValuesFollowTheFormula) {
  using T = TypeParam;
  for (const Range& range : kRanges) {
    for (const double s : kScales) {
      const T scale = static_cast<T>(s);
      for (const T x : edge_values(scale, range)) {
        const int64_t code =
            quantize_one(x, scale, range.zero_point, range.quant_min, range.quant_max);
        ASSERT_EQ(code, expected_code(x, scale, range)) << "x=" << x << " scale=" << scale;
        const T value =
            fake_quantize_one(x, scale, range.zero_point, range.quant_min, range.quant_max);
        ASSERT_TRUE(same_bits(value, static_cast<T>(code - range.zero_point) * scale));
      }
    }
  }
}

TEST(Affine, DividesInsteadOfMultiplyingByTheReciprocal) {
  const float scale = 0.0123f;
  int differ = 0;
  for (int code = -127; code < 127; ++code) {
    const float x = (static_cast<float>(code) + 0.5f) * scale;
    const float reciprocal = std::nearbyint(x * (1.0f / scale));
    if (static_cast<float>(quantize_one(x, scale, 0, -128, 127)) != reciprocal) ++differ;
  }
  EXPECT_GT(differ, 0);
}

TEST(Affine, ZeroPointIsAddedAfterRounding) {
  EXPECT_EQ(quantize_one(0.5f, 1.0f, 1, -128, 127), 1);   // rounding 0.5 + 1 would give 2
  EXPECT_EQ(quantize_one(-0.0f, 1.0f, 5, -128, 127), 5);  // -0.0 is the zero point
}

TEST(Affine, ValueOfTheZeroPointIsPositiveZero) {
  EXPECT_FALSE(std::signbit(fake_quantize_one(-0.0f, 0.1f, 0, -128, 127)));
  EXPECT_FALSE(std::signbit(fake_quantize_one(-0.01f, 0.1f, 0, -128, 127)));
}

TEST(ChooseOne, FollowsDynamicQuantizeLinear) {
  const ScaleAndZeroPoint asymmetric = choose_one(-1.0f, 3.0f, 0, 255, false);
  EXPECT_EQ(asymmetric.scale, 4.0f / 255.0f);
  EXPECT_EQ(asymmetric.zero_point, 64);
  const ScaleAndZeroPoint positive = choose_one(1.0f, 3.0f, 0, 255, false);
  EXPECT_EQ(positive.scale, 3.0f / 255.0f);
  EXPECT_EQ(positive.zero_point, 0);
  const ScaleAndZeroPoint tie = choose_one(-127.5f, 127.5f, -128, 127, false);
  EXPECT_EQ(tie.scale, 1.0f);
  EXPECT_EQ(tie.zero_point, 0);  // -128 + 127.5 = -0.5, to even
  const ScaleAndZeroPoint symmetric = choose_one(-2.0f, 1.0f, -127, 127, true);
  EXPECT_EQ(symmetric.scale, 2.0f / 127.0f);
  EXPECT_EQ(symmetric.zero_point, 0);
}

TEST(ChooseOne, DegenerateIntervalsGiveScaleOne) {
  const float inf = std::numeric_limits<float>::infinity();
  const float tiny = std::numeric_limits<float>::denorm_min();
  const float huge = std::numeric_limits<float>::max();
  for (const auto& [lo, hi] : std::vector<std::pair<float, float>>{
           {0.0f, 0.0f}, {0.0f, inf}, {-inf, 0.0f}, {0.0f, tiny}, {-huge, huge}}) {
    const ScaleAndZeroPoint chosen = choose_one(lo, hi, 0, 255, false);
    EXPECT_EQ(chosen.scale, 1.0f) << lo << " " << hi;
    EXPECT_EQ(chosen.zero_point, 0);
  }
  EXPECT_EQ(choose_one(0.0f, 0.0f, 1, 255, false).zero_point, 1);  // kept inside the range
}

// --- the loops
// ------------------------------------------------------------------------------------

// (The SIMD kernels are in isa_test.cpp.)

template <typename T>
struct PlainCall {
  PlainCall(int64_t n, T s, const Range& range)
      : layout(ParamLayout::per_tensor(n)),
        scale(s),
        zero_point(static_cast<double>(range.zero_point)),
        runs{layout, 0, layout.runs()},
        params{&scale, &zero_point, range.quant_min, range.quant_max} {}
  ParamLayout layout;
  T scale;
  double zero_point;
  RunRange runs;
  KernelParams<T, double> params;
};

template <typename T>
class KernelTest : public testing::Test {};
TYPED_TEST_SUITE(KernelTest, ComputeTypes);

TYPED_TEST(KernelTest, PlainFakeQuantizeEqualsTheFormula) {
  using T = TypeParam;
  for (const Range& range : kRanges) {
    for (const double s : kScales) {
      const T scale = static_cast<T>(s);
      const std::vector<T> x = edge_values(scale, range);
      const int64_t n = static_cast<int64_t>(x.size());
      std::vector<T> y(n);
      const PlainCall<T> call(n, scale, range);
      fake_quantize_runs(x.data(), y.data(), call.runs, call.params);
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_TRUE(same_bits(y[i], fake_quantize_one(x[i], scale, range.zero_point,
                                                      range.quant_min, range.quant_max)))
            << x[i] << " " << y[i];
      }
    }
  }
}

template <typename T, typename Code>
void check_codes(const Range& range) {
  for (const double s : kScales) {
    const T scale = static_cast<T>(s);
    const std::vector<T> x = edge_values(scale, range);
    const int64_t n = static_cast<int64_t>(x.size());
    const PlainCall<T> call(n, scale, range);
    std::vector<Code> codes(n);
    std::vector<T> values(n);
    quantize_runs(x.data(), codes.data(), call.runs, call.params);
    dequantize_runs(codes.data(), values.data(), call.runs, call.params);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(static_cast<int64_t>(codes[i]),
                quantize_one(x[i], scale, range.zero_point, range.quant_min, range.quant_max));
      ASSERT_TRUE(same_bits(values[i], dequantize_one<T>(codes[i], scale, range.zero_point)));
    }
  }
}

TYPED_TEST(KernelTest, PlainCodesEqualTheFormula) {
  using T = TypeParam;
  for (const Range& range : kRanges) {
    const auto fits = [&](int64_t lowest, int64_t highest) {
      return range.quant_min >= lowest && range.quant_max <= highest;
    };
    if (fits(-128, 127)) check_codes<T, int8_t>(range);
    if (fits(0, 255)) check_codes<T, uint8_t>(range);
    if (fits(-32768, 32767)) check_codes<T, int16_t>(range);
    if (fits(0, 65535)) check_codes<T, uint16_t>(range);
    check_codes<T, int32_t>(range);
  }
}

TYPED_TEST(KernelTest, PlainBackwardPassesTheGradientInsideTheRangeOnly) {
  using T = TypeParam;
  for (const Range& range : kRanges) {
    const T scale = T(0.25);
    const std::vector<T> x = edge_values(scale, range);
    const int64_t n = static_cast<int64_t>(x.size());
    const PlainCall<T> call(n, scale, range);
    std::vector<T> grad(n), grad_x(n, T(-1));
    for (int64_t i = 0; i < n; ++i) grad[i] = T(i + 1);
    fake_quantize_backward_runs(grad.data(), x.data(), grad_x.data(), call.runs, call.params);
    for (int64_t i = 0; i < n; ++i) {
      const double code = static_cast<double>(std::nearbyint(x[i] / scale)) + call.zero_point;
      const bool inside = code >= static_cast<double>(range.quant_min) &&
                          code <= static_cast<double>(range.quant_max);
      ASSERT_EQ(grad_x[i], inside ? grad[i] : T(0)) << x[i];
    }
  }
}

// Every element is in one run, with the parameter it should have, wherever the walk starts.
void check_layout(const ParamLayout& layout) {
  const auto expected_param = [&](int64_t element) {
    const int64_t i = element % layout.inner;
    const int64_t a = element / layout.inner % layout.axis;
    const int64_t o = element / layout.inner / layout.axis;
    return o * layout.outer_step + (a / layout.block) * layout.axis_step + i * layout.inner_step;
  };
  std::vector<int> seen(layout.numel(), 0);
  for (int64_t start = 0; start < std::min<int64_t>(layout.runs(), 3); ++start) {
    RunCursor cursor(layout, start);
    for (int64_t r = start; r < layout.runs(); ++r, cursor.next()) {
      const ParamLayout::Run run = cursor.run();
      ASSERT_EQ(run.offset, layout.run(r).offset);
      ASSERT_EQ(run.param, layout.run(r).param);
      for (int64_t i = 0; i < run.count; ++i) {
        ASSERT_EQ(run.param + i * run.param_step, expected_param(run.offset + i));
        ASSERT_LT(expected_param(run.offset + i), layout.params());
        if (start == 0) ++seen[run.offset + i];
      }
    }
  }
  ASSERT_EQ(seen, std::vector<int>(layout.numel(), 1));
}

TEST(ParamLayout, RunsCoverTheArray) {
  for (const int64_t n : {0, 1, 2, 7}) check_layout(ParamLayout::per_tensor(n));
  for (const int64_t n : {1, 6, 7, 8}) check_layout(ParamLayout::cyclic(n, 3));
  for (const int64_t outer : {1, 2, 3}) {
    for (const int64_t axis : {0, 1, 2, 5, 8}) {
      for (const int64_t inner : {1, 2, 4}) {
        check_layout(ParamLayout::per_channel(outer, axis, inner));
        for (const int64_t block : {1, 2, 3, 5, 8, 100}) {
          check_layout(ParamLayout::blocked(outer, axis, inner, block));
        }
      }
    }
  }
}

TEST(Extremes, CountZeroAndIgnoreNaN) {
  const std::vector<double> x = {std::nan(""), 2.0, 1.0, std::nan("")};
  Extremes<double> found;
  find_extremes(x.data(), 4, &found);
  EXPECT_EQ(found.lowest, 0.0);
  EXPECT_EQ(found.highest, 2.0);
}

}  // namespace
}  // namespace qcdq
