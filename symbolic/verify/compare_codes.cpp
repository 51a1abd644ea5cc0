// See compare_codes.h.
#include "symbolic/verify/compare_codes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>

#include "qcdq/affine.h"
#include "symbolic/graph/element_types.h"

namespace qcdq {
namespace {

Elements<float> read_floats(const TensorData& tensor, const std::string& name) {
  if (!is_floating(tensor.dtype) || tensor.dtype == DType::kFloat64) {
    throw std::runtime_error("'" + name + "' has element type " +
                             std::string(dtype_name(tensor.dtype)) +
                             ": expected float32 or float16");
  }
  return Elements<float>(tensor);
}

Elements<int64_t> read_codes(const TensorData& tensor, const std::string& name) {
  const size_t bits = dtype_bits(tensor.dtype);
  if (is_floating(tensor.dtype) || tensor.dtype == DType::kBool || bits == 0 || bits > 32) {
    throw std::runtime_error("'" + name + "' has element type " +
                             std::string(dtype_name(tensor.dtype)) +
                             ": expected integers of at most 32 bits");
  }
  return Elements<int64_t>(tensor);
}

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
  const Elements<float> x = read_floats(x_data, q.x);
  const Elements<float> scale = read_floats(scale_data, q.scale);
  const Elements<int64_t> codes = read_codes(codes_data, q.codes);
  if (codes_data.dims != x_data.dims) {
    throw std::runtime_error(q.node + ": codes and input differ in shape");
  }
  CodeRange range = integer_range(codes_data.dtype);
  if (!q.clip_min.empty()) range.min = read_codes(value_of(values, q.clip_min), q.clip_min)[0];
  if (!q.clip_max.empty()) range.max = read_codes(value_of(values, q.clip_max), q.clip_max)[0];
  std::optional<Elements<int64_t>> zero_point;
  if (!q.zero_point.empty()) zero_point = read_codes(value_of(values, q.zero_point), q.zero_point);
  const ScaleIndex index(q, x_data, scale_data.numel());
  CodeCount total;
  const int64_t n = x_data.numel();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t s = index(i);
    count(total, codes[i],
          quantize_one(x[i], scale[s], zero_point ? (*zero_point)[s] : 0, range.min, range.max));
  }
  return total;
}

double rounding_distance(const RoundedBias& bias, const NamedTensors& values) {
  const TensorData& scale_data = value_of(values, bias.scale);
  const Elements<float> scale = read_floats(scale_data, bias.scale);
  const TensorData& codes_data = value_of(values, bias.codes);
  const Elements<int64_t> codes = read_codes(codes_data, bias.codes);
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
  const Elements<int64_t> first = read_codes(a, "codes");
  const Elements<int64_t> second = read_codes(b, "codes");
  CodeCount total;
  const int64_t n = a.numel();
  for (int64_t i = 0; i < n; ++i) count(total, first[i], second[i]);
  return total;
}

}  // namespace qcdq
