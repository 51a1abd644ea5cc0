// Element types: how a number of each DType lies in memory. The one switch over DType that reads or
// makes elements is here; who needs the elements of a constant visits it, or takes Elements.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "qcdq/symbolic.h"

namespace qcdq {

/// The value of an IEEE 754 binary16, exactly.
float half_to_float(uint16_t bits);
/// The nearest binary16, ties to even; beyond the largest one infinity.
uint16_t float_to_half(double value);
/// The bfloat16 nearest to the float32 nearest to `value`, ties to even.
uint16_t float_to_bfloat16(double value);

/// f16 and bf16 as they lie in memory.
struct Half {
  uint16_t bits = 0;
  Half() = default;
  explicit Half(double value) : bits(float_to_half(value)) {}
  operator float() const { return half_to_float(bits); }
};
struct BFloat {
  uint16_t bits = 0;
  BFloat() = default;
  explicit BFloat(double value) : bits(float_to_bfloat16(value)) {}
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

[[noreturn]] inline void refuse_element_type(DType dtype, const char* expected) {
  throw std::invalid_argument("a constant of type " + std::string(dtype_name(dtype)) + " where " +
                              expected + " was expected");
}

/// Returns visit(T{}) for the C++ type of the elements: float, double, Half or BFloat. Throws
/// std::invalid_argument for other types.
template <typename F>
auto visit_floats(DType dtype, F visit) {
  switch (dtype) {
    case DType::kFloat32:
      return visit(float{});
    case DType::kFloat64:
      return visit(double{});
    case DType::kFloat16:
      return visit(Half{});
    case DType::kBFloat16:
      return visit(BFloat{});
    default:
      refuse_element_type(dtype, "a floating type of 16 bits or more");
  }
}

/// The same for integers of whole bytes; kBool counts as uint8.
template <typename F>
auto visit_integers(DType dtype, F visit) {
  switch (dtype) {
    case DType::kInt8:
      return visit(int8_t{});
    case DType::kUInt8:
    case DType::kBool:
      return visit(uint8_t{});
    case DType::kInt16:
      return visit(int16_t{});
    case DType::kUInt16:
      return visit(uint16_t{});
    case DType::kInt32:
      return visit(int32_t{});
    case DType::kUInt32:
      return visit(uint32_t{});
    case DType::kInt64:
      return visit(int64_t{});
    case DType::kUInt64:
      return visit(uint64_t{});
    default:
      refuse_element_type(dtype, "an integer type of 8 bits or more");
  }
}

/// The same for both.
template <typename F>
auto visit_elements(DType dtype, F visit) {
  return is_floating(dtype) ? visit_floats(dtype, visit) : visit_integers(dtype, visit);
}

/// The elements of a constant as `Out`, converted one at a time: nothing is copied. Integers of 2
/// and 4 bits are unpacked. Throws std::invalid_argument for floats of 8 bits or less and strings.
template <typename Out>
class Elements {
 public:
  explicit Elements(const TensorData& data) : held_(data.load()) {
    if (!is_floating(data.dtype) && dtype_bits(data.dtype) < 8 && dtype_bits(data.dtype) > 0) {
      read_ = unpack(data.dtype);
      return;
    }
    read_ = visit_elements(data.dtype, [](auto tag) -> Read {
      return [](const void* from, int64_t i) {
        decltype(tag) value;  // external data need not be aligned
        std::memcpy(&value, static_cast<const char*>(from) + i * int64_t{sizeof(value)},
                    sizeof(value));
        return static_cast<Out>(value);
      };
    });
  }
  Out operator[](int64_t i) const { return read_(held_.get(), i); }

 private:
  using Read = Out (*)(const void*, int64_t);

  template <int kBits, bool kSigned>
  static Out unpacked(const void* from, int64_t i) {
    constexpr int kPerByte = 8 / kBits;
    const auto byte = static_cast<const uint8_t*>(from)[i / kPerByte];
    const int low = (byte >> (i % kPerByte * kBits)) & ((1 << kBits) - 1);
    const bool negative = kSigned && low >= (1 << (kBits - 1));
    return static_cast<Out>(negative ? low - (1 << kBits) : low);
  }
  static Read unpack(DType dtype) {
    if (dtype == DType::kInt4) return unpacked<4, true>;
    if (dtype == DType::kUInt4) return unpacked<4, false>;
    return dtype == DType::kInt2 ? unpacked<2, true> : unpacked<2, false>;
  }

  std::shared_ptr<const void> held_;
  Read read_ = nullptr;
};

/// All elements; throws as Elements does.
template <typename Out>
std::vector<Out> read_elements(const TensorData& data) {
  const Elements<Out> elements(data);
  std::vector<Out> values(static_cast<size_t>(data.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = elements[static_cast<int64_t>(i)];
  return values;
}
/// The values of a constant as f64, exact but for integers beyond 2^53.
std::vector<double> read_numbers(const TensorData& data);
/// The values of an integer constant.
std::vector<int64_t> read_integers(const TensorData& data);

/// A constant of `numel` elements that are not set yet; `out` points at them.
template <typename T>
TensorData allocate(DType dtype, std::vector<int64_t> dims, int64_t numel, T** out) {
  std::shared_ptr<T[]> owned(new T[static_cast<size_t>(numel > 0 ? numel : 1)]);
  *out = owned.get();
  return {dtype, std::move(dims), std::shared_ptr<const void>(owned, owned.get()), nullptr};
}

/// A constant of an integer type. Throws std::invalid_argument where a value does not fit. Example:
/// `pack_integers(DType::kInt8, {2}, {1, -1})`.
TensorData pack_integers(DType dtype, std::vector<int64_t> dims,
                         const std::vector<int64_t>& values);
/// "300", "1.5", "nan": the fewest digits that tell a double from all others.
std::string number_text(const Number& number);
/// A 0-d constant. Throws std::invalid_argument where an integer type does not hold the number,
/// "300 does not fit uint8"; rounds to a float type as torch does, through float32 where it is
/// narrower, and what is too large becomes infinity.
TensorData scalar_data(DType dtype, const Number& value);
/// A 1-d constant of `count` times that number.
TensorData repeated_data(DType dtype, int64_t count, const Number& value);

}  // namespace qcdq
