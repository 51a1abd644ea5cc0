// Element types: how constants of each lie in memory, those of less than a byte above all.
#include "symbolic/graph/element_types.h"

#include <gtest/gtest.h>

#include <cmath>

namespace qcdq {
namespace {

struct NarrowType {
  DType dtype;
  const char* name;
  size_t bits;
  bool floating;
};

const std::vector<NarrowType> kNarrowTypes = {
    {DType::kUInt4, "uint4", 4, false},
    {DType::kInt4, "int4", 4, false},
    {DType::kUInt2, "uint2", 2, false},
    {DType::kInt2, "int2", 2, false},
    {DType::kFloat4E2M1, "float4e2m1", 4, true},
    {DType::kFloat8E4M3FN, "float8e4m3fn", 8, true},
    {DType::kFloat8E4M3FNUZ, "float8e4m3fnuz", 8, true},
    {DType::kFloat8E5M2, "float8e5m2", 8, true},
    {DType::kFloat8E5M2FNUZ, "float8e5m2fnuz", 8, true},
    {DType::kFloat8E8M0, "float8e8m0", 8, true},
};

TEST(ElementTypes, NarrowTypesHaveNamesAndSizes) {
  for (const NarrowType& type : kNarrowTypes) {
    EXPECT_EQ(dtype_name(type.dtype), type.name);
    EXPECT_EQ(dtype_bits(type.dtype), type.bits) << type.name;
    EXPECT_EQ(is_floating(type.dtype), type.floating) << type.name;
  }
}

TEST(ElementTypes, BytesCountPackedElements) {
  const auto bytes = [](DType dtype, std::vector<int64_t> dims) {
    return TensorData{dtype, std::move(dims), nullptr, nullptr}.bytes();
  };
  for (const NarrowType& type : kNarrowTypes) {
    const size_t per_byte = 8 / type.bits;
    EXPECT_EQ(bytes(type.dtype, {}), 1U) << type.name;
    EXPECT_EQ(bytes(type.dtype, {0, 3}), 0U) << type.name;
    EXPECT_EQ(bytes(type.dtype, {3, 5}), (15 + per_byte - 1) / per_byte) << type.name;
    EXPECT_EQ(bytes(type.dtype, {8}), 8 / per_byte) << type.name;
  }
}

TEST(ElementTypes, IntegersOfEveryWidthComeBack) {
  for (const DType dtype : {DType::kInt2, DType::kUInt2, DType::kInt4, DType::kUInt4, DType::kInt8,
                            DType::kUInt8, DType::kInt16, DType::kInt32}) {
    const CodeRange range = integer_range(dtype);
    // Every number of elements, so that the last byte is full, half full, ...
    std::vector<int64_t> values;
    for (int64_t i = 0; i < 9; ++i) {
      values.push_back(i % 3 == 0 ? range.min : i % 3 == 1 ? range.max : i % 2);
      const auto size = static_cast<int64_t>(values.size());
      const TensorData data = pack_integers(dtype, {size}, values);
      EXPECT_EQ(data.bytes(), (values.size() * dtype_bits(dtype) + 7) / 8);
      EXPECT_EQ(read_integers(data), values) << dtype_name(dtype);
      EXPECT_EQ(read_numbers(data).back(), static_cast<double>(values.back()));
    }
    EXPECT_THROW(pack_integers(dtype, {1}, {range.min - 1}), std::invalid_argument)
        << dtype_name(dtype);
  }
}

TEST(ElementTypes, PackedFromTheLowBitsOn) {
  // As ONNX's raw data has it: the first element in the low bits of the first byte.
  const auto packed = [](DType dtype, const std::vector<int64_t>& values) {
    const TensorData data = pack_integers(dtype, {static_cast<int64_t>(values.size())}, values);
    const auto* bytes = static_cast<const uint8_t*>(data.data.get());
    return std::vector<uint8_t>(bytes, bytes + data.bytes());
  };
  EXPECT_EQ(packed(DType::kInt4, {1, -8, 7}), (std::vector<uint8_t>{0x81, 0x07}));
  EXPECT_EQ(packed(DType::kUInt4, {15, 0, 10}), (std::vector<uint8_t>{0x0F, 0x0A}));
  EXPECT_EQ(packed(DType::kInt2, {1, -1, -2, 0, 1}), (std::vector<uint8_t>{0x2D, 0x01}));
  EXPECT_EQ(packed(DType::kUInt2, {3, 0, 2, 1}), (std::vector<uint8_t>{0x63}));
}

TEST(ElementTypes, NarrowFloatsHaveNoElementsHere) {
  for (const NarrowType& type : kNarrowTypes) {
    const TensorData data = TensorData::from<uint8_t>(type.dtype, {1}, {0});
    if (type.floating) {
      EXPECT_THROW(read_numbers(data), std::invalid_argument) << type.name;
      EXPECT_THROW(integer_range(type.dtype), std::invalid_argument) << type.name;
    } else {
      EXPECT_EQ(read_numbers(data), std::vector<double>{0}) << type.name;
    }
  }
}

}  // namespace
}  // namespace qcdq
