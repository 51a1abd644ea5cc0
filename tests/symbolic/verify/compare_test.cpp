// The numbers of verification: outputs with NaN and infinities, codes against the formula.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "symbolic/verify/compare_codes.h"
#include "symbolic/verify/compare_outputs.h"
#include "tests/symbolic/file/file_fixture.h"

namespace qcdq {
namespace {

TensorData floats(std::vector<int64_t> dims, std::vector<float> values) {
  return TensorData::from<float>(DType::kFloat32, std::move(dims), std::move(values));
}

TEST(CompareOutputsTest, NanAndInfinity) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  auto difference = [](std::vector<float> a, std::vector<float> b) {
    return compare_outputs("y", torch::tensor(a), torch::tensor(b)).difference;
  };
  EXPECT_EQ(difference({nan, 1, infinity}, {nan, 1, infinity}).max_relative, 0);
  EXPECT_EQ(difference({nan, 1}, {0, 1}).max_relative, infinity);
  EXPECT_EQ(difference({0, 1}, {nan, 1}).max_relative, infinity);
  EXPECT_EQ(difference({infinity, 1}, {-infinity, 1}).max_abs, infinity);
  EXPECT_EQ(difference({0, 0}, {0, 1}).max_relative, infinity);
  const OutputDifference d = difference({1, -4}, {1, -3});
  EXPECT_EQ(d.max_abs, 1);
  EXPECT_EQ(d.max_relative, 0.25);
  EXPECT_NEAR(d.cosine, 13 / std::sqrt(170.0), 1e-12);
  EXPECT_EQ(
      compare_outputs("y", torch::tensor({3.0f, -4.0f}), torch::tensor({3.0f, -3.0f})).rms_relative,
      0.2);
  EXPECT_EQ(difference({}, {}).max_relative, 0);
  EXPECT_EQ(difference({0}, {0}).cosine, 1);
}

TEST(CompareCodesTest, PerChannelAndBlocked) {
  FileQuantizer q;
  q.node = "q";
  q.x = "x";
  q.scale = "s";
  q.zero_point = "z";
  q.codes = "c";
  q.axis = -1;
  NamedTensors values;
  values["x"] = floats({2, 4}, {1, 1, 1, 1, -2, 3, 400, std::nanf("")});
  values["s"] = floats({4}, {1, 0.5f, 0.4f, 1});
  values["z"] = TensorData::from<int8_t>(DType::kInt8, {4}, {0, 1, 2, 3});
  // 1 / 0.4f is exactly 2.5 in f32: a tie, to the even 2.
  values["c"] = TensorData::from<int8_t>(DType::kInt8, {2, 4}, {1, 3, 4, 4, -2, 7, 127, -128});
  CodeCount count = compare_with_formula(q, values);
  EXPECT_EQ(count.codes, 8);
  EXPECT_EQ(count.differing, 0);

  values["c"] = TensorData::from<int8_t>(DType::kInt8, {2, 4}, {1, 3, 5, 4, -2, 7, 127, -100});
  count = compare_with_formula(q, values);
  EXPECT_EQ(count.differing, 2);
  EXPECT_EQ(count.max_steps, 28);

  // A Clip behind it; blocks of 3 along the last axis of 4: two scales in a row.
  q.block_size = 3;
  q.clip_min = "lo";
  q.clip_max = "hi";
  values["s"] = floats({2, 2}, {1, 2, 0.5f, 4});
  values["z"] = TensorData::from<int8_t>(DType::kInt8, {2, 2}, {0, 0, 1, -1});
  values["lo"] = TensorData::scalar<int8_t>(DType::kInt8, -4);
  values["hi"] = TensorData::scalar<int8_t>(DType::kInt8, 7);
  values["c"] = TensorData::from<int8_t>(DType::kInt8, {2, 4}, {1, 1, 1, 0, -3, 7, 7, -4});
  EXPECT_EQ(compare_with_formula(q, values).differing, 0);

  q.block_size = 0;
  q.axis = 2;
  EXPECT_EQ(error_of([&] { compare_with_formula(q, values); }), "q: axis 2 of a tensor of rank 2");
  values["c"] = floats({2, 4}, std::vector<float>(8));
  EXPECT_EQ(error_of([&] { compare_with_formula(q, values); }),
            "'c' has element type float32: expected integers of at most 32 bits");
}

TEST(CompareCodesTest, HalfPrecisionInput) {
  FileQuantizer q{"q", "x", "s", "", "c", "c", "", "", 1, 0, false};
  NamedTensors values;
  // 1.5, -0.5, 2^-24 (subnormal), infinity, NaN with scale 0.5
  values["x"] =
      TensorData::from<uint16_t>(DType::kFloat16, {5}, {0x3e00, 0xb800, 0x0001, 0x7c00, 0x7e00});
  values["s"] = TensorData::from<uint16_t>(DType::kFloat16, {}, {0x3800});
  values["c"] = TensorData::from<uint8_t>(DType::kUInt8, {5}, {3, 0, 0, 255, 0});
  EXPECT_EQ(compare_with_formula(q, values).differing, 0);
}

}  // namespace
}  // namespace qcdq
