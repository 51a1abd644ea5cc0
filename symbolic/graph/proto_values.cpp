// The messages of proto_values.h.
#include "symbolic/graph/proto_values.h"

#include <stdexcept>

namespace qcdq {

onnx::TypeProto type_proto(const TensorType& type) {
  onnx::TypeProto proto;
  onnx::TypeProto::Tensor& tensor = *proto.mutable_tensor_type();
  tensor.set_elem_type(static_cast<int32_t>(type.dtype));
  if (!type.ranked) return proto;
  onnx::TensorShapeProto& shape = *tensor.mutable_shape();  // present for a 0-d tensor too
  for (size_t i = 0; i < type.dims.size(); ++i) {
    auto& dim = *shape.add_dim();
    if (type.dims[i] >= 0) {
      dim.set_dim_value(type.dims[i]);
    } else if (i < type.symbols.size() && !type.symbols[i].empty()) {
      dim.set_dim_param(type.symbols[i]);
    }
  }
  return proto;
}

TensorType tensor_type(const onnx::TypeProto& proto) {
  TensorType type;
  if (!proto.has_tensor_type()) return type;
  type.dtype = static_cast<DType>(proto.tensor_type().elem_type());
  type.ranked = proto.tensor_type().has_shape();
  for (const auto& dim : proto.tensor_type().shape().dim()) {
    type.dims.push_back(dim.has_dim_value() && dim.dim_value() >= 0 ? dim.dim_value() : -1);
    type.symbols.push_back(dim.has_dim_param() ? dim.dim_param() : "");
  }
  return type;
}

onnx::TensorProto tensor_header(const std::string& name, const TensorData& data) {
  if (dtype_bits(data.dtype) == 0) {
    throw std::runtime_error("constant '" + name + "' has element type " +
                             std::string(dtype_name(data.dtype)) +
                             ": expected a type of fixed size");
  }
  onnx::TensorProto tensor;
  if (!name.empty()) tensor.set_name(name);
  tensor.set_data_type(static_cast<int32_t>(data.dtype));
  for (int64_t dim : data.dims) tensor.add_dims(dim);
  return tensor;
}

onnx::TensorProto tensor_with_data(const std::string& name, const TensorData& data) {
  onnx::TensorProto tensor = tensor_header(name, data);
  if (data.bytes() == 0) return tensor;  // the checker wants no data field on an empty tensor
  const std::shared_ptr<const void> values = data.load();
  tensor.set_raw_data(values.get(), data.bytes());
  return tensor;
}

onnx::AttributeProto attribute_proto(const std::string& name, const Attribute& attribute) {
  onnx::AttributeProto proto;
  proto.set_name(name);
  if (const auto* i = std::get_if<int64_t>(&attribute)) {
    proto.set_type(onnx::AttributeProto::INT);
    proto.set_i(*i);
  } else if (const auto* f = std::get_if<float>(&attribute)) {
    proto.set_type(onnx::AttributeProto::FLOAT);
    proto.set_f(*f);
  } else if (const auto* s = std::get_if<std::string>(&attribute)) {
    proto.set_type(onnx::AttributeProto::STRING);
    proto.set_s(*s);
  } else if (const auto* ints = std::get_if<std::vector<int64_t>>(&attribute)) {
    proto.set_type(onnx::AttributeProto::INTS);
    proto.mutable_ints()->Add(ints->begin(), ints->end());
  } else if (const auto* floats = std::get_if<std::vector<float>>(&attribute)) {
    proto.set_type(onnx::AttributeProto::FLOATS);
    proto.mutable_floats()->Add(floats->begin(), floats->end());
  } else if (const auto* strings = std::get_if<std::vector<std::string>>(&attribute)) {
    proto.set_type(onnx::AttributeProto::STRINGS);
    for (const std::string& s : *strings) proto.add_strings(s);
  } else if (const auto* tensor = std::get_if<TensorData>(&attribute)) {
    proto.set_type(onnx::AttributeProto::TENSOR);
    *proto.mutable_t() = tensor_with_data("", *tensor);
  } else {
    throw std::logic_error("attribute '" + name + "' is a body, which file/proto.cpp writes");
  }
  return proto;
}

}  // namespace qcdq
