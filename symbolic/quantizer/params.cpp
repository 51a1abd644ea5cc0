// See params.h.
#include "symbolic/quantizer/params.h"

#include <cmath>
#include <utility>

#include "symbolic/graph/element_types.h"
#include "symbolic/quantizer/opset_rules.h"

namespace qcdq {

bool is_8bit(DType dtype) { return dtype == DType::kInt8 || dtype == DType::kUInt8; }

std::string range_text(CodeRange range) {
  return "[" + std::to_string(range.min) + ", " + std::to_string(range.max) + "]";
}

CodeRange checked_range(int64_t quant_min, int64_t quant_max) {
  if (quant_min >= quant_max) {
    throw QuantRefusal{"quant_min", std::to_string(quant_min),
                       "expected less than quant_max = " + std::to_string(quant_max), ""};
  }
  const CodeRange full = integer_range(DType::kInt32);
  if (quant_min < full.min || quant_max > full.max) {
    throw QuantRefusal{"quant_max", std::to_string(quant_max), "codes have at most 32 bits", ""};
  }
  return {quant_min, quant_max};
}

QuantParams constant_params(const std::vector<double>& scale, std::vector<int64_t> scale_dims,
                            std::vector<double> zero_point, CodeRange range,
                            std::optional<int64_t> axis, int64_t block_size) {
  QuantParams params;
  if (!axis && scale.size() != 1) {
    throw QuantRefusal{"scale", std::to_string(scale.size()) + " elements",
                       "expected one: the quantiser is per tensor", ""};
  }
  if (block_size == 0 && axis && scale_dims.size() > 1) {
    throw QuantRefusal{"scale", std::to_string(scale_dims.size()) + " dimensions",
                       "expected one scale per channel", ""};
  }
  if (block_size > 0 && scale_dims.empty()) {
    throw QuantRefusal{"scale", "0 dimensions",
                       "expected the shape of x with its axis divided by block_size", ""};
  }
  for (double value : scale) {
    const auto narrow = static_cast<float>(value);
    if (!(narrow > 0) || !std::isfinite(narrow)) {
      throw QuantRefusal{"scale", number_text(value), "expected a finite float32 > 0", ""};
    }
    params.scale.push_back(narrow);
  }
  if (axis) {
    params.dims = block_size > 0 ? std::move(scale_dims)
                                 : std::vector<int64_t>{static_cast<int64_t>(scale.size())};
    params.axis = *axis;
    params.block_size = block_size;
  }
  for (double value : zero_point) {
    const bool inside =
        value >= static_cast<double>(range.min) && value <= static_cast<double>(range.max);
    if (value != std::floor(value) || !inside) {
      throw QuantRefusal{"zero_point", number_text(value),
                         "expected an integer in " + range_text(range), ""};
    }
    params.zero_point.push_back(static_cast<int64_t>(value));
  }
  if (params.zero_point.size() == 1)
    params.zero_point.resize(params.scale.size(), params.zero_point[0]);
  if (params.zero_point.size() != params.scale.size()) {
    throw QuantRefusal{"zero_point", std::to_string(params.zero_point.size()) + " elements",
                       "expected as many as scale has, " + std::to_string(params.scale.size()), ""};
  }
  return params;
}

void fit_params(QuantParams& params, const TensorType& x, int64_t opset) {
  if (params.per_tensor()) return;
  const int64_t rank = x.ranked ? x.rank() : -1;
  if (params.axis < 0 && rank >= 0) params.axis += rank;
  if (params.axis < 0 || (rank >= 0 && params.axis >= rank)) {
    throw QuantRefusal{"axis", std::to_string(params.axis),
                       rank < 0 ? "a negative axis of a tensor of unknown rank"
                                : "the tensor has " + std::to_string(rank) + " dimensions",
                       ""};
  }
  const QuantFeature feature =
      params.block_size > 0 ? QuantFeature::kBlocked : QuantFeature::kPerChannel;
  const int64_t least = least_opset(feature);
  if (opset < least) {
    throw QuantRefusal{"axis", std::to_string(params.axis),
                       std::string(feature_name(feature)) + " need opset " + std::to_string(least),
                       "export with --opset " + std::to_string(least) + " or newer"};
  }
  const auto count = static_cast<int64_t>(params.scale.size());
  const bool counts = params.block_size == 0 && count > 0 && x.ranked;
  if (counts && x.dims[params.axis] >= 0 && x.dims[params.axis] != count) {
    throw QuantRefusal{"scale", std::to_string(count) + " elements",
                       "axis " + std::to_string(params.axis) + " has " +
                           std::to_string(x.dims[params.axis]) + " channels",
                       ""};
  }
}

CodeStorage activation_storage(CodeRange range, bool keep_sign) {
  if (keep_sign) {
    for (DType storage : {DType::kUInt8, DType::kInt8}) {
      if (integer_range(storage).holds(range) && (storage == DType::kInt8) == (range.min < 0))
        return {storage, 0};
    }
  }
  const CodeRange moved{0, range.max - range.min};
  if (integer_range(DType::kUInt8).holds(moved)) return {DType::kUInt8, -range.min};
  if (keep_sign && integer_range(DType::kInt16).holds(range)) return {DType::kInt16, 0};
  if (integer_range(DType::kUInt16).holds(moved)) return {DType::kUInt16, -range.min};
  return {DType::kUndefined, 0};
}

DType constant_storage(CodeRange range, int64_t opset) {
  if (integer_range(DType::kInt8).holds(range)) return DType::kInt8;
  if (integer_range(DType::kUInt8).holds(range)) return DType::kUInt8;
  if (opset >= least_opset(QuantFeature::kInt16)) {
    if (integer_range(DType::kInt16).holds(range)) return DType::kInt16;
    if (integer_range(DType::kUInt16).holds(range)) return DType::kUInt16;
  }
  return DType::kInt32;
}

}  // namespace qcdq
