// The nodes of dynamic quantisation (quantizer/nodes.h): ONNX has one form of it, and the rest is
// refused.
#include <string>
#include <utility>

#include "symbolic/graph/element_types.h"
#include "symbolic/quantizer/nodes.h"
#include "symbolic/quantizer/opset_rules.h"

namespace qcdq {

Fragment dynamic_fragment(const DynamicRequest& request) {
  const char* hint = "use the range [0, 255], asymmetric, per tensor, or a static quantiser";
  if (request.range != integer_range(DType::kUInt8)) {
    throw QuantRefusal{"quant_max", std::to_string(request.range.max),
                       "ONNX quantises dynamically to [0, 255] only", hint};
  }
  if (request.is_symmetric) {
    throw QuantRefusal{"symmetric", "True", "ONNX quantises dynamically with a zero point only",
                       hint};
  }
  for (const auto& [name, value] :
       {std::pair("axis", request.axis), std::pair("block_size", request.block_size)}) {
    if (value) {
      throw QuantRefusal{name, std::to_string(*value), "ONNX quantises dynamically per tensor only",
                         hint};
    }
  }
  const int64_t least = least_opset(QuantFeature::kDynamicQuantize);
  if (request.opset < least) {
    throw QuantRefusal{"", "", "DynamicQuantizeLinear needs opset " + std::to_string(least), ""};
  }
  const DType dtype = request.x.dtype;
  if (dtype == DType::kFloat64 && !request.cast_f64) {
    throw QuantRefusal{"x", "float64", "ONNX has no 64-bit QuantizeLinear",
                       "export with --cast-f64 to quantise through float32"};
  }
  Fragment fragment;
  const auto cast = [&](const char* from, const char* to_name, DType to) {
    fragment.nodes.push_back({"Cast", {{from, {}}}, {{"to", static_cast<int64_t>(to)}}, {to_name}});
  };
  const bool converts = dtype != DType::kUndefined && dtype != DType::kFloat32;
  if (converts) {
    if (!is_floating(dtype)) {
      throw QuantRefusal{"x", std::string(dtype_name(dtype)), "only floating tensors are quantised",
                         ""};
    }
    cast("x", "x_f32", DType::kFloat32);
  }
  fragment.nodes.push_back({"DynamicQuantizeLinear",
                            {{converts ? "x_f32" : "x", {}}},
                            {},
                            {"codes", "y_scale", "y_zero_point"}});
  if (request.dequantize) {
    fragment.nodes.push_back(
        {"DequantizeLinear", {{"codes", {}}, {"y_scale", {}}, {"y_zero_point", {}}}, {}, {"y"}});
    fragment.results = {"y"};
    if (converts) {
      cast("y", "y_cast", dtype);
      fragment.results = {"y_cast"};
    }
    return fragment;
  }
  cast("y_zero_point", "zero_point_i32", DType::kInt32);
  fragment.results = {"y_scale", "zero_point_i32"};
  if (request.qparams_rank == 1) {
    for (std::string& result : fragment.results) {
      fragment.nodes.push_back({"Reshape",
                                {{result, {}}, {"shape", pack_integers(DType::kInt64, {1}, {1})}},
                                {},
                                {result + "_1d"}});
      result += "_1d";
    }
  }
  return fragment;
}

}  // namespace qcdq
