// Reads an .onnx file into an OnnxGraph: the opposite of write.cpp, for `qcdq inspect` and tests.
#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <onnx/onnx_pb.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>

#include "symbolic/file/file.h"
#include "symbolic/graph/proto_values.h"

namespace qcdq {
namespace {

namespace pb = google::protobuf::io;

std::shared_ptr<onnx::ModelProto> parse(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error("cannot open " + path + ": " + std::strerror(errno));
  pb::FileInputStream file(fd);
  file.SetCloseOnDelete(true);
  pb::CodedInputStream coded(&file);
  coded.SetTotalBytesLimit(INT_MAX);
  auto model = std::make_shared<onnx::ModelProto>();
  const bool parsed = model->ParseFromCodedStream(&coded) && coded.ConsumedEntireMessage();
  if (file.GetErrno() != 0) {
    throw std::runtime_error("cannot read " + path + ": " + std::strerror(file.GetErrno()));
  }
  // An empty file parses as an empty message.
  if (!parsed || !model->has_graph() || model->ir_version() == 0) {
    throw std::runtime_error(path + " is not an ONNX file");
  }
  return model;
}

template <typename T, typename Field>
std::shared_ptr<const void> copy_field(const Field& field) {
  auto owned = std::make_shared<std::vector<T>>();
  owned->reserve(static_cast<size_t>(field.size()));
  for (const auto value : field) owned->push_back(static_cast<T>(value));
  return {owned, owned->data()};
}

/// Values kept in the typed fields (float_data, int32_data, ...) as dense memory.
std::shared_ptr<const void> typed_data(const onnx::TensorProto& tensor) {
  switch (tensor.data_type()) {
    case onnx::TensorProto::FLOAT:
      return copy_field<float>(tensor.float_data());
    case onnx::TensorProto::DOUBLE:
      return copy_field<double>(tensor.double_data());
    case onnx::TensorProto::INT64:
      return copy_field<int64_t>(tensor.int64_data());
    case onnx::TensorProto::UINT64:
      return copy_field<uint64_t>(tensor.uint64_data());
    case onnx::TensorProto::UINT32:
      return copy_field<uint32_t>(tensor.uint64_data());
    case onnx::TensorProto::INT32:
      return copy_field<int32_t>(tensor.int32_data());
    case onnx::TensorProto::UINT16:
    case onnx::TensorProto::INT16:
    case onnx::TensorProto::FLOAT16:
    case onnx::TensorProto::BFLOAT16:
      return copy_field<uint16_t>(tensor.int32_data());
    default:  // 8-bit types, bool, and packed 4-bit ones
      return copy_field<uint8_t>(tensor.int32_data());
  }
}

struct ExternalPart {
  std::filesystem::path file;
  uint64_t offset = 0;
  uint64_t length = 0;
};

ExternalPart external_part(const onnx::TensorProto& tensor, const std::string& path,
                           uint64_t bytes) {
  ExternalPart part;
  part.length = bytes;
  for (const auto& entry : tensor.external_data()) {
    if (entry.key() == "location") {
      part.file = std::filesystem::path(path).parent_path() / entry.value();
    }
    if (entry.key() == "offset") part.offset = std::stoull(entry.value());
    if (entry.key() == "length") part.length = std::stoull(entry.value());
  }
  return part;
}

std::shared_ptr<const void> read_part(const ExternalPart& part, const std::string& name) {
  auto owned = std::make_shared<std::vector<char>>(part.length);
  std::ifstream in(part.file, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(part.offset));
  in.read(owned->data(), static_cast<std::streamsize>(owned->size()));
  if (!in) {
    throw std::runtime_error("cannot read the external data of '" + name + "' from " +
                             part.file.string());
  }
  return {owned, owned->data()};
}

/// Shares `tensor`'s bytes with the parsed model, which `owner` keeps alive.
TensorData tensor_data(const onnx::TensorProto& tensor, const std::shared_ptr<const void>& owner,
                       const std::string& path, ModelHeader& header) {
  TensorData data;
  data.dtype = static_cast<DType>(tensor.data_type());
  data.dims.assign(tensor.dims().begin(), tensor.dims().end());
  const size_t bytes = data.bytes();
  if (tensor.data_location() == onnx::TensorProto::EXTERNAL) {
    const ExternalPart part = external_part(tensor, path, bytes);
    header.external_bytes += part.length;
    data.produce = [part, name = tensor.name()] { return read_part(part, name); };
    return data;
  }
  if (tensor.has_raw_data()) {
    if (tensor.raw_data().size() < bytes) {
      throw std::runtime_error(path + ": initializer '" + tensor.name() + "' holds " +
                               std::to_string(tensor.raw_data().size()) + " bytes, expected " +
                               std::to_string(bytes));
    }
    data.data = std::shared_ptr<const void>(owner, tensor.raw_data().data());
    return data;
  }
  data.data = typed_data(tensor);
  return data;
}

/// False for what an OnnxGraph has no room for (subgraphs, types, sparse tensors).
bool add_attribute(OnnxNode& node, const onnx::AttributeProto& attribute,
                   const std::shared_ptr<const void>& owner, const std::string& path,
                   ModelHeader& header) {
  switch (attribute.type()) {
    case onnx::AttributeProto::INT:
      node.set(attribute.name(), static_cast<int64_t>(attribute.i()));
      return true;
    case onnx::AttributeProto::FLOAT:
      node.set(attribute.name(), attribute.f());
      return true;
    case onnx::AttributeProto::STRING:
      node.set(attribute.name(), attribute.s());
      return true;
    case onnx::AttributeProto::INTS:
      node.set(attribute.name(),
               std::vector<int64_t>(attribute.ints().begin(), attribute.ints().end()));
      return true;
    case onnx::AttributeProto::FLOATS:
      node.set(attribute.name(),
               std::vector<float>(attribute.floats().begin(), attribute.floats().end()));
      return true;
    case onnx::AttributeProto::STRINGS:
      node.set(attribute.name(),
               std::vector<std::string>(attribute.strings().begin(), attribute.strings().end()));
      return true;
    case onnx::AttributeProto::TENSOR:
      node.set(attribute.name(), tensor_data(attribute.t(), owner, path, header));
      return true;
    default:
      return false;
  }
}

}  // namespace

OnnxGraph read_model(const std::string& path, ModelHeader* header) {
  const std::shared_ptr<onnx::ModelProto> model = parse(path);
  ModelHeader local;
  ModelHeader& info = header ? *header : local;
  info = {};
  info.ir_version = model->ir_version();
  info.producer = model->producer_name();
  if (!model->producer_version().empty()) info.producer += " " + model->producer_version();

  OnnxGraph graph;
  for (const auto& import : model->opset_import()) {
    if (import.domain().empty() || import.domain() == "ai.onnx") {
      graph.opset = import.version();
    } else {
      graph.domains[import.domain()] = import.version();
    }
  }
  const onnx::GraphProto& proto = model->graph();
  for (const auto& tensor : proto.initializer()) {
    graph.initializers[tensor.name()] = tensor_data(tensor, model, path, info);
  }
  for (const auto& input : proto.input()) {
    if (graph.initializers.count(input.name())) continue;  // IR 3 lists initializers here as well
    graph.inputs.push_back(input.name());
    graph.types[input.name()] = tensor_type(input.type());
  }
  for (const auto& output : proto.output()) {
    graph.outputs.push_back(output.name());
    graph.types[output.name()] = tensor_type(output.type());
  }
  for (const auto& value : proto.value_info()) {
    graph.types[value.name()] = tensor_type(value.type());
  }
  for (const auto& node_proto : proto.node()) {
    OnnxNode node;
    node.op_type = node_proto.op_type();
    node.domain = node_proto.domain() == "ai.onnx" ? "" : node_proto.domain();
    node.name = node_proto.name();
    node.source = node_proto.doc_string();
    node.inputs.assign(node_proto.input().begin(), node_proto.input().end());
    node.outputs.assign(node_proto.output().begin(), node_proto.output().end());
    for (const auto& attribute : node_proto.attribute()) {
      if (!add_attribute(node, attribute, model, path, info)) info.has_subgraphs = true;
    }
    graph.nodes.push_back(std::move(node));
  }
  for (const auto& entry : model->metadata_props()) {
    graph.metadata.emplace_back(entry.key(), entry.value());
  }
  return graph;
}

}  // namespace qcdq
