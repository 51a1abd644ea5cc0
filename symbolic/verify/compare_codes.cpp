// Codes against the formula of qcdq/affine.h, and against another run's codes; see
// verify/probe_model.h.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>

#include "qcdq/affine.h"
#include "symbolic/verify/probe_model.h"

namespace qcdq {
namespace {

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const int exponent = (half >> 10) & 0x1f;
  const uint32_t fraction = half & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t bits = exponent == 31
                            ? sign | 0x7f800000u | fraction << 13
                            : sign | static_cast<uint32_t>(exponent + 112) << 23 | fraction << 13;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

/// Elements of a floating tensor as f32, of an integer tensor as int64; one at a time, so that
/// nothing is copied.
class FloatReader {
 public:
  FloatReader(const TensorData& tensor, const std::string& name)
      : dtype_(tensor.dtype), held_(tensor.load()) {
    if (dtype_ != DType::kFloat32 && dtype_ != DType::kFloat16 && dtype_ != DType::kBFloat16) {
      throw std::runtime_error("'" + name + "' has element type " +
                               std::string(dtype_name(dtype_)) + ": expected float32 or float16");
    }
  }
  float operator[](int64_t i) const {
    if (dtype_ == DType::kFloat32) return static_cast<const float*>(held_.get())[i];
    const uint16_t bits = static_cast<const uint16_t*>(held_.get())[i];
    if (dtype_ == DType::kFloat16) return half_to_float(bits);
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof(value));
    return value;
  }

 private:
  DType dtype_;
  std::shared_ptr<const void> held_;
};

class CodeReader {
 public:
  CodeReader(const TensorData& tensor, const std::string& name)
      : dtype_(tensor.dtype), held_(tensor.load()) {
    switch (dtype_) {
      case DType::kUInt8:
        set_range<uint8_t>();
        return;
      case DType::kInt8:
        set_range<int8_t>();
        return;
      case DType::kUInt16:
        set_range<uint16_t>();
        return;
      case DType::kInt16:
        set_range<int16_t>();
        return;
      case DType::kInt32:
        set_range<int32_t>();
        return;
      default:
        throw std::runtime_error("'" + name + "' has ONNX element type " +
                                 std::to_string(static_cast<int>(dtype_)) +
                                 ": expected 8-, 16- or 32-bit integers");
    }
  }
  int64_t operator[](int64_t i) const {
    switch (dtype_) {
      case DType::kUInt8:
        return static_cast<const uint8_t*>(held_.get())[i];
      case DType::kInt8:
        return static_cast<const int8_t*>(held_.get())[i];
      case DType::kUInt16:
        return static_cast<const uint16_t*>(held_.get())[i];
      case DType::kInt16:
        return static_cast<const int16_t*>(held_.get())[i];
      default:
        return static_cast<const int32_t*>(held_.get())[i];
    }
  }
  int64_t lowest = 0;  // of the type
  int64_t highest = 0;

 private:
  template <typename T>
  void set_range() {
    lowest = std::numeric_limits<T>::min();
    highest = std::numeric_limits<T>::max();
  }
  DType dtype_;
  std::shared_ptr<const void> held_;
};

const TensorData& value_of(const NamedTensors& values, const std::string& name) {
  auto found = values.find(name);
  if (found == values.end()) throw std::runtime_error("no value of '" + name + "'");
  return found->second;
}

/// Which scale belongs to element i of x: per tensor, per channel along axis, or per block of it.
class ScaleIndex {
 public:
  ScaleIndex(const FileQuantizer& q, const TensorData& x, int64_t scales) {
    if (scales == 1) return;
    const int64_t rank = static_cast<int64_t>(x.dims.size());
    const int64_t axis = q.axis < 0 ? q.axis + rank : q.axis;
    if (axis < 0 || axis >= rank) {
      throw std::runtime_error(q.node + ": axis " + std::to_string(q.axis) +
                               " of a tensor of rank " + std::to_string(rank));
    }
    dim_ = x.dims[static_cast<size_t>(axis)];
    inner_ = 1;
    for (int64_t d = axis + 1; d < rank; ++d) inner_ *= x.dims[static_cast<size_t>(d)];
    block_ = q.block_size;
    per_tensor_ = false;
  }
  int64_t operator()(int64_t i) const {
    if (per_tensor_) return 0;
    const int64_t position = i / inner_ % dim_;
    if (block_ == 0) return position;
    const int64_t blocks = (dim_ + block_ - 1) / block_;
    return (i / (inner_ * dim_) * blocks + position / block_) * inner_ + i % inner_;
  }

 private:
  bool per_tensor_ = true;
  int64_t dim_ = 1;
  int64_t inner_ = 1;
  int64_t block_ = 0;
};

void count(CodeCount& total, int64_t a, int64_t b) {
  ++total.codes;
  if (a == b) return;
  ++total.differing;
  const int64_t steps = a > b ? a - b : b - a;
  if (steps > total.max_steps) total.max_steps = steps;
}

}  // namespace

CodeCount compare_with_formula(const FileQuantizer& q, const NamedTensors& values) {
  const TensorData& x_data = value_of(values, q.x);
  const TensorData& scale_data = value_of(values, q.scale);
  const TensorData& codes_data = value_of(values, q.codes);
  const FloatReader x(x_data, q.x);
  const FloatReader scale(scale_data, q.scale);
  const CodeReader codes(codes_data, q.codes);
  if (codes_data.dims != x_data.dims) {
    throw std::runtime_error(q.node + ": codes and input differ in shape");
  }
  int64_t quant_min = codes.lowest;
  int64_t quant_max = codes.highest;
  if (!q.clip_min.empty()) quant_min = CodeReader(value_of(values, q.clip_min), q.clip_min)[0];
  if (!q.clip_max.empty()) quant_max = CodeReader(value_of(values, q.clip_max), q.clip_max)[0];
  std::optional<CodeReader> zero_point;
  if (!q.zero_point.empty()) zero_point.emplace(value_of(values, q.zero_point), q.zero_point);
  const ScaleIndex index(q, x_data, scale_data.numel());
  CodeCount total;
  const int64_t n = x_data.numel();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t s = index(i);
    count(total, codes[i],
          quantize_one(x[i], scale[s], zero_point ? (*zero_point)[s] : 0, quant_min, quant_max));
  }
  return total;
}

double rounding_distance(const RoundedBias& bias, const NamedTensors& values) {
  const TensorData& scale_data = value_of(values, bias.scale);
  const FloatReader scale(scale_data, bias.scale);
  const TensorData& codes_data = value_of(values, bias.codes);
  const CodeReader codes(codes_data, bias.codes);
  const auto n = static_cast<int64_t>(bias.floats.size());
  const int64_t scales = scale_data.numel();
  if (codes_data.numel() != n || (scales != 1 && scales != n)) {
    throw std::runtime_error("bias '" + bias.value + "': " + std::to_string(codes_data.numel()) +
                             " codes and " + std::to_string(scales) + " scales for " +
                             std::to_string(n) + " float values in the metadata");
  }
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double code =
        bias.floats[static_cast<size_t>(i)] / static_cast<double>(scale[scales == 1 ? 0 : i]);
    const double distance = std::abs(code - static_cast<double>(codes[i]));
    if (std::isnan(distance)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, distance);
  }
  return largest;
}

CodeCount compare_codes(const TensorData& a, const TensorData& b) {
  if (a.dtype != b.dtype || a.dims != b.dims) {
    throw std::runtime_error("the codes of two runs differ in type or shape");
  }
  const CodeReader first(a, "codes");
  const CodeReader second(b, "codes");
  CodeCount total;
  const int64_t n = a.numel();
  for (int64_t i = 0; i < n; ++i) count(total, first[i], second[i]);
  return total;
}

}  // namespace qcdq
