// What an OnnxGraph holds, as onnx's protobuf messages: types, attributes and constants. Type
// inference (infer_types.cpp) hands them to onnx, and file/proto.cpp writes them. Only files
// without torch headers include this one: torch has its own onnx classes.
#pragma once

#include <onnx/onnx_pb.h>

#include <string>

#include "qcdq/symbolic.h"

namespace qcdq {

/// Symbols become dim_param, unknown dimensions stay empty.
onnx::TypeProto type_proto(const TensorType& type);
/// The other way round; nothing is known of what is no tensor.
TensorType tensor_type(const onnx::TypeProto& type);

/// Name, element type and shape of a constant; its data is left to the caller. Throws
/// std::runtime_error for element types without a fixed size (strings).
onnx::TensorProto tensor_header(const std::string& name, const TensorData& data);
/// The same with its data as raw_data.
onnx::TensorProto tensor_with_data(const std::string& name, const TensorData& data);

onnx::AttributeProto attribute_proto(const std::string& name, const Attribute& attribute);

}  // namespace qcdq
