// Reads an .onnx file into an OnnxGraph: the opposite of write.cpp, for `qcdq inspect` and tests.
#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>

#include "symbolic/file/file.h"
#include "symbolic/file/proto.h"
#include "symbolic/graph/proto_values.h"

namespace qcdq {
namespace {

// Bodies inside bodies that a file may have; protobuf itself stops at about 30.
constexpr int kDeepestBody = 16;

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
    default:  // 8-bit types, bool, and the packed ones of 4 and 2 bits: a byte each
      return copy_field<uint8_t>(tensor.int32_data());
  }
}

size_t typed_bytes(const onnx::TensorProto& tensor, DType dtype) {
  const auto each = std::max<size_t>(dtype_bits(dtype) / 8, 1);
  const int values = tensor.float_data_size() + tensor.double_data_size() +
                     tensor.int32_data_size() + tensor.int64_data_size() +
                     tensor.uint64_data_size();
  return static_cast<size_t>(values) * each;
}

struct ExternalPart {
  std::filesystem::path file;
  uint64_t offset = 0;
  uint64_t length = 0;
};

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

/// One file on its way into an OnnxGraph.
class Reader {
 public:
  Reader(std::string path, std::shared_ptr<const onnx::ModelProto> model, ModelHeader& header)
      : path_(std::move(path)), model_(std::move(model)), header_(header) {}

  OnnxGraph read() {
    header_.ir_version = model_->ir_version();
    header_.producer = model_->producer_name();
    if (!model_->producer_version().empty()) header_.producer += " " + model_->producer_version();
    for (const auto& import : model_->opset_import()) {
      if (import.domain().empty() || import.domain() == "ai.onnx") opset_ = import.version();
    }
    OnnxGraph graph = read_graph(model_->graph(), 0);
    for (const auto& import : model_->opset_import()) {
      if (import.domain().empty() || import.domain() == "ai.onnx") continue;
      graph.domains[import.domain()] = import.version();
    }
    for (const auto& entry : model_->metadata_props()) {
      graph.metadata.emplace_back(entry.key(), entry.value());
    }
    return graph;
  }

 private:
  /// `depth`: how many bodies it lies in.
  OnnxGraph read_graph(const onnx::GraphProto& proto, int depth) {
    if (depth > kDeepestBody) {
      fail("bodies of If, Loop and Scan lie in one another more than " +
           std::to_string(kDeepestBody) + " deep");
    }
    OnnxGraph graph;
    graph.opset = opset_;
    for (const auto& tensor : proto.initializer()) {
      graph.initializers[tensor.name()] = tensor_data(tensor);
    }
    for (const auto& input : proto.input()) {
      if (graph.initializers.contains(input.name())) continue;  // IR 3 lists initializers here too
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
    for (const auto& node : proto.node()) graph.nodes.push_back(read_node(node, depth));
    return graph;
  }

  OnnxNode read_node(const onnx::NodeProto& proto, int depth) {
    OnnxNode node;
    node.op_type = proto.op_type();
    node.domain = proto.domain() == "ai.onnx" ? "" : proto.domain();
    node.name = proto.name();
    node.source = proto.doc_string();
    node.inputs.assign(proto.input().begin(), proto.input().end());
    node.outputs.assign(proto.output().begin(), proto.output().end());
    for (const auto& attribute : proto.attribute()) read_attribute(node, attribute, depth);
    return node;
  }

  void read_attribute(OnnxNode& node, const onnx::AttributeProto& proto, int depth) {
    const std::string& name = proto.name();
    switch (proto.type()) {
      case onnx::AttributeProto::INT:
        return node.set(name, static_cast<int64_t>(proto.i()));
      case onnx::AttributeProto::FLOAT:
        return node.set(name, proto.f());
      case onnx::AttributeProto::STRING:
        return node.set(name, proto.s());
      case onnx::AttributeProto::INTS:
        return node.set(name, std::vector<int64_t>(proto.ints().begin(), proto.ints().end()));
      case onnx::AttributeProto::FLOATS:
        return node.set(name, std::vector<float>(proto.floats().begin(), proto.floats().end()));
      case onnx::AttributeProto::STRINGS:
        return node.set(name,
                        std::vector<std::string>(proto.strings().begin(), proto.strings().end()));
      case onnx::AttributeProto::TENSOR:
        return node.set(name, tensor_data(proto.t()));
      case onnx::AttributeProto::GRAPH:
        header_.has_subgraphs = true;
        return node.set(name,
                        Subgraph{std::make_shared<OnnxGraph>(read_graph(proto.g(), depth + 1))});
      default:  // types, sparse tensors, lists of tensors or graphs: file.h says that they are left
        return;
    }
  }

  /// Shares `tensor`'s bytes with the parsed model.
  TensorData tensor_data(const onnx::TensorProto& tensor) {
    TensorData data;
    data.dtype = static_cast<DType>(tensor.data_type());
    data.dims.assign(tensor.dims().begin(), tensor.dims().end());
    check_size(tensor, data);
    const size_t bytes = data.bytes();
    if (tensor.data_location() == onnx::TensorProto::EXTERNAL) {
      const ExternalPart part = external_part(tensor, bytes);
      header_.external_bytes += part.length;
      data.produce = [part, name = tensor.name()] { return read_part(part, name); };
      return data;
    }
    const size_t held =
        tensor.has_raw_data() ? tensor.raw_data().size() : typed_bytes(tensor, data.dtype);
    if (held < bytes) {
      fail("initializer '" + tensor.name() + "' holds " + std::to_string(held) +
           " bytes, expected " + std::to_string(bytes));
    }
    data.data = tensor.has_raw_data()
                    ? std::shared_ptr<const void>(model_, tensor.raw_data().data())
                    : typed_data(tensor);
    return data;
  }

  /// Dimensions whose product does not fit would pass every later test of sizes.
  void check_size(const onnx::TensorProto& tensor, const TensorData& data) const {
    constexpr int64_t kMostElements = int64_t{1} << 56;  // with 8 bytes each, bytes() still fits
    int64_t elements = 1;
    for (const int64_t dim : data.dims) {
      if (dim < 0 || (dim > 0 && elements > kMostElements / dim)) {
        fail("initializer '" + tensor.name() +
             "' has a size that can't be: " + type_text({data.dtype, true, data.dims, {}}));
      }
      elements *= std::max<int64_t>(dim, 1);
    }
  }

  ExternalPart external_part(const onnx::TensorProto& tensor, uint64_t bytes) const {
    ExternalPart part;
    part.length = bytes;
    for (const auto& entry : tensor.external_data()) {
      if (entry.key() == "location") {
        part.file = std::filesystem::path(path_).parent_path() / entry.value();
      }
      if (entry.key() == "offset") part.offset = number(tensor, entry.value());
      if (entry.key() == "length") part.length = number(tensor, entry.value());
    }
    if (part.length < bytes) {
      fail("initializer '" + tensor.name() + "' has " + std::to_string(part.length) +
           " bytes of external data, expected " + std::to_string(bytes));
    }
    return part;
  }

  uint64_t number(const onnx::TensorProto& tensor, const std::string& text) const {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      fail("the external data of '" + tensor.name() + "' is at '" + text + "', which is no number");
    }
    return value;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(path_ + ": " + what);
  }

  std::string path_;
  std::shared_ptr<const onnx::ModelProto> model_;
  ModelHeader& header_;
  int64_t opset_ = OnnxGraph().opset;
};

}  // namespace

onnx::ModelProto parse_model(const std::string& path) {
  namespace pb = google::protobuf::io;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error("cannot open " + path + ": " + std::strerror(errno));
  pb::FileInputStream file(fd);
  file.SetCloseOnDelete(true);
  pb::CodedInputStream coded(&file);
  coded.SetTotalBytesLimit(INT_MAX);
  onnx::ModelProto model;
  const bool parsed = model.ParseFromCodedStream(&coded) && coded.ConsumedEntireMessage();
  if (file.GetErrno() != 0) {
    throw std::runtime_error("cannot read " + path + ": " + std::strerror(file.GetErrno()));
  }
  // An empty file parses as an empty message.
  if (!parsed || !model.has_graph() || model.ir_version() == 0) {
    throw std::runtime_error(path + " is not an ONNX file");
  }
  return model;
}

OnnxGraph read_model(const std::string& path, ModelHeader* header) {
  auto model = std::make_shared<const onnx::ModelProto>(parse_model(path));
  ModelHeader local;
  ModelHeader& info = header ? *header : local;
  info = {};
  return Reader(path, std::move(model), info).read();
}

}  // namespace qcdq
