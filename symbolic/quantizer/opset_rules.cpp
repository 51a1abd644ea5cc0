// The table behind opset_rules.h.
#include "symbolic/quantizer/opset_rules.h"

#include <array>
#include <stdexcept>

namespace qcdq {

namespace {

using enum QuantFeature;

constexpr std::array kRules = {
    OpsetRule{kQdqInt8, 10, "8-bit Q/DQ", "QuantizeLinear", "", "tensor(int8)", "y"},
    OpsetRule{kDynamicQuantize, 11, "dynamic quantisation", "DynamicQuantizeLinear", "", "", ""},
    OpsetRule{kIntegerClip, 12, "Clip on 8-bit integers", "Clip", "", "tensor(int8)", "input"},
    OpsetRule{kPerChannel, 13, "per-channel scales", "QuantizeLinear", "axis", "", ""},
    OpsetRule{kFloat8, 19, "float8 codes", "QuantizeLinear", "", "tensor(float8e4m3fn)", "y"},
    OpsetRule{kFloat16Scale, 19, "float16 scales", "QuantizeLinear", "", "tensor(float16)", "x"},
    OpsetRule{kInt16, 21, "16-bit codes", "QuantizeLinear", "", "tensor(int16)", "y"},
    OpsetRule{kInt4, 21, "4-bit codes", "QuantizeLinear", "", "tensor(int4)", "y"},
    OpsetRule{kBlocked, 21, "blocked scales", "QuantizeLinear", "block_size", "", ""},
    OpsetRule{kOutputDtype, 21, "output_dtype", "QuantizeLinear", "output_dtype", "", ""},
    OpsetRule{kInt2, 25, "2-bit codes", "QuantizeLinear", "", "tensor(int2)", "y"},
};

const OpsetRule& rule(QuantFeature feature) {
  for (const OpsetRule& row : kRules) {
    if (row.feature == feature) return row;
  }
  throw std::logic_error("opset_rules has no row for this feature");
}

}  // namespace

std::span<const OpsetRule> opset_rules() { return kRules; }

int64_t least_opset(QuantFeature feature) { return rule(feature).least_opset; }

std::string_view feature_name(QuantFeature feature) { return rule(feature).wanted; }

int64_t least_opset_for_codes(DType dtype) {
  if (dtype == DType::kInt8 || dtype == DType::kUInt8) return least_opset(kQdqInt8);
  if (dtype == DType::kInt16 || dtype == DType::kUInt16) return least_opset(kInt16);
  return 0;
}

}  // namespace qcdq
