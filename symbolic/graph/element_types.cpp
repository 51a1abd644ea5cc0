// See element_types.h; and members of the value types of include/qcdq/symbolic.h.
#include "symbolic/graph/element_types.h"

#include <charconv>
#include <cmath>
#include <functional>
#include <numeric>

namespace qcdq {
namespace {

struct TypeFacts {
  std::string_view name;  // as ONNX spells it, in lower case
  size_t bits = 0;
  bool is_floating = false;
};

TypeFacts facts_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return {"float32", 32, true};
    case DType::kUInt8:
      return {"uint8", 8};
    case DType::kInt8:
      return {"int8", 8};
    case DType::kUInt16:
      return {"uint16", 16};
    case DType::kInt16:
      return {"int16", 16};
    case DType::kInt32:
      return {"int32", 32};
    case DType::kInt64:
      return {"int64", 64};
    case DType::kString:
      return {"string"};
    case DType::kBool:
      return {"bool", 8};
    case DType::kFloat16:
      return {"float16", 16, true};
    case DType::kFloat64:
      return {"float64", 64, true};
    case DType::kUInt32:
      return {"uint32", 32};
    case DType::kUInt64:
      return {"uint64", 64};
    case DType::kBFloat16:
      return {"bfloat16", 16, true};
    case DType::kFloat8E4M3FN:
      return {"float8e4m3fn", 8, true};
    case DType::kFloat8E4M3FNUZ:
      return {"float8e4m3fnuz", 8, true};
    case DType::kFloat8E5M2:
      return {"float8e5m2", 8, true};
    case DType::kFloat8E5M2FNUZ:
      return {"float8e5m2fnuz", 8, true};
    case DType::kUInt4:
      return {"uint4", 4};
    case DType::kInt4:
      return {"int4", 4};
    case DType::kFloat4E2M1:
      return {"float4e2m1", 4, true};
    case DType::kFloat8E8M0:
      return {"float8e8m0", 8, true};
    case DType::kUInt2:
      return {"uint2", 2};
    case DType::kInt2:
      return {"int2", 2};
    case DType::kUndefined:
      break;
  }
  return {"undefined"};
}

}  // namespace

std::string_view dtype_name(DType dtype) { return facts_of(dtype).name; }
size_t dtype_bits(DType dtype) { return facts_of(dtype).bits; }
bool is_floating(DType dtype) { return facts_of(dtype).is_floating; }

CodeRange integer_range(DType dtype) {
  if (dtype == DType::kBool) return {0, 1};
  if (dtype == DType::kInt4) return {-8, 7};
  if (dtype == DType::kUInt4) return {0, 15};
  if (dtype == DType::kInt2) return {-2, 1};
  if (dtype == DType::kUInt2) return {0, 3};
  if (is_floating(dtype) || dtype_bits(dtype) == 0) {
    throw std::invalid_argument("integer_range: " + std::string(dtype_name(dtype)) +
                                " is no integer type");
  }
  return visit_integers(dtype, [](auto tag) { return range_of_type<decltype(tag)>(); });
}

float half_to_float(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  float value;
  if (exponent == 31) {
    value = mantissa != 0 ? std::numeric_limits<float>::quiet_NaN()
                          : std::numeric_limits<float>::infinity();
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    value = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

uint16_t float_to_half(double value) {
  if (std::isnan(value)) return 0x7e00;
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const double magnitude = std::fabs(value);
  if (magnitude >= 65520.0) return sign | 0x7c00;  // rounds past the largest half, 65504
  if (magnitude < std::ldexp(1.0, -14)) {
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(magnitude, 24)));
  }
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const auto mantissa = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, 11 - exponent)));
  return sign | static_cast<uint16_t>((static_cast<uint32_t>(exponent + 13) << 10) + mantissa);
}

uint16_t float_to_bfloat16(double value) {
  const auto narrow = static_cast<float>(value);
  uint32_t bits = 0;
  std::memcpy(&bits, &narrow, sizeof bits);
  if (std::isnan(narrow)) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

std::string number_text(const Number& number) {
  if (const auto* integer = std::get_if<int64_t>(&number)) return std::to_string(*integer);
  char text[32];  // 24 hold any double
  const auto end = std::to_chars(text, text + sizeof text, std::get<double>(number)).ptr;
  return {text, end};
}

namespace {

[[noreturn]] void refuse_number(DType dtype, const Number& value) {
  throw std::invalid_argument(number_text(value) + " does not fit " +
                              std::string(dtype_name(dtype)));
}

int64_t integral(DType dtype, const Number& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
  const double number = std::get<double>(value);
  constexpr double kEnd = 9223372036854775808.0;  // 2^63; a NaN fails each comparison
  if (!(number >= -kEnd && number < kEnd) || number != std::trunc(number)) {
    refuse_number(dtype, value);
  }
  return static_cast<int64_t>(number);
}

template <typename T>
T rounded(const Number& value) {
  return std::visit(
      [](auto number) {
        if constexpr (sizeof(T) < sizeof(float)) {
          return T(static_cast<double>(static_cast<float>(number)));
        } else {
          return static_cast<T>(number);
        }
      },
      value);
}

}  // namespace

TensorData repeated_data(DType dtype, int64_t count, const Number& value) {
  if (!is_floating(dtype)) {
    const std::vector<int64_t> values(static_cast<size_t>(count), integral(dtype, value));
    return pack_integers(dtype, {count}, values);
  }
  return visit_floats(dtype, [&](auto tag) {
    using T = decltype(tag);
    return TensorData::from<T>(dtype, {count},
                               std::vector<T>(static_cast<size_t>(count), rounded<T>(value)));
  });
}

TensorData scalar_data(DType dtype, const Number& value) {
  TensorData data = repeated_data(dtype, 1, value);
  data.dims.clear();
  return data;
}

std::vector<double> read_numbers(const TensorData& data) { return read_elements<double>(data); }

std::vector<int64_t> read_integers(const TensorData& data) { return read_elements<int64_t>(data); }

TensorData pack_integers(DType dtype, std::vector<int64_t> dims,
                         const std::vector<int64_t>& values) {
  const CodeRange range = integer_range(dtype);
  for (const int64_t value : values) {
    if (!range.holds(value)) {
      throw std::invalid_argument(std::to_string(value) + " does not fit " +
                                  std::string(dtype_name(dtype)));
    }
  }
  const size_t bits = dtype_bits(dtype);
  if (bits < 8) {
    const size_t per_byte = 8 / bits;
    std::vector<uint8_t> packed((values.size() + per_byte - 1) / per_byte, 0);
    for (size_t i = 0; i < values.size(); ++i) {
      const auto low = static_cast<unsigned>(values[i]) & ((1U << bits) - 1);
      packed[i / per_byte] |= static_cast<uint8_t>(low << (i % per_byte * bits));
    }
    return TensorData::from<uint8_t>(dtype, std::move(dims), std::move(packed));
  }
  TensorData result;
  visit_integers(dtype, [&](auto tag) {
    decltype(tag)* out = nullptr;
    result = allocate(dtype, std::move(dims), static_cast<int64_t>(values.size()), &out);
    for (size_t i = 0; i < values.size(); ++i) out[i] = static_cast<decltype(tag)>(values[i]);
  });
  return result;
}

bool TensorType::is_static() const {
  if (!ranked) return false;
  for (int64_t d : dims) {
    if (d < 0) return false;
  }
  return true;
}

int64_t TensorData::numel() const {
  return std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace qcdq
