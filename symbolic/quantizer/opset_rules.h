// opset_rules: from which opset on ONNX can express what a quantiser wants. One row per rule;
// tests/symbolic/quantizer/opset_rules_test.cpp asks onnx's own schemas whether every row is true.
// Used by quantizer/ and qdq/.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "qcdq/symbolic.h"

namespace qcdq {

enum class QuantFeature {
  kQdqInt8,          // QuantizeLinear/DequantizeLinear per tensor, int8 and uint8
  kDynamicQuantize,  // DynamicQuantizeLinear
  kIntegerClip,      // Clip on int8 and uint8; below it a float Clip before QuantizeLinear
  kPerChannel,       // the axis attribute
  kFloat8,           // float8 codes
  kFloat16Scale,     // float16 or bfloat16 x and scale
  kInt16,            // int16 and uint16 codes
  kInt4,             // int4 and uint4 codes
  kBlocked,          // the block_size attribute
  kOutputDtype,      // the output_dtype attribute of QuantizeLinear
  kInt2,             // int2 and uint2 codes
};

/// One rule. `op`, with `attribute` or with `type` at input or output `type_parameter` where they
/// are not empty, is what the schema of `least_opset` has and the schema before it has not.
struct OpsetRule {
  QuantFeature feature;
  int64_t least_opset;
  std::string_view wanted;  // for messages: "per-channel scales"
  std::string_view op;
  std::string_view attribute;
  std::string_view type;            // "tensor(int8)"
  std::string_view type_parameter;  // name of the schema's input or output that has this type
};

std::span<const OpsetRule> opset_rules();
/// The least opset at which the feature is legal.
int64_t least_opset(QuantFeature feature);
/// "per-channel scales", for messages.
std::string_view feature_name(QuantFeature feature);
/// least_opset of storing codes as dtype behind QuantizeLinear; 0 where ONNX has no such codes.
int64_t least_opset_for_codes(DType dtype);

}  // namespace qcdq
