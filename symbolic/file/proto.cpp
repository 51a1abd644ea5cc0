// OnnxGraph to onnx's protobuf messages; see file/proto.h.
#include "symbolic/file/proto.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <unordered_set>

#include "symbolic/file/file.h"

namespace qcdq {
namespace {

// [opset - kOldestOpset]: the release that introduced the opset fixes the least IR version.
constexpr std::array<int64_t, 19> kIrOfOpset = {5, 6,  7,  7,  7,  8,  8,  8,  8, 9,
                                                9, 10, 10, 11, 12, 13, 13, 13, 14};

void add_nodes(onnx::GraphProto& proto, const OnnxGraph& graph);

/// The body of an If, Loop or Scan with its initializers: unlike the model's own, they are never
/// streamed or put beside the file. Types stand where they are known; onnx asks for none here.
onnx::GraphProto body_proto(const std::string& name, const OnnxGraph& body) {
  onnx::GraphProto proto;
  proto.set_name(name);
  add_nodes(proto, body);
  const auto value = [&](const std::string& value_name) {
    const TensorType type = body.type(value_name);
    if (type.dtype != DType::kUndefined) return value_info(value_name, type);
    onnx::ValueInfoProto untyped;
    untyped.set_name(value_name);
    return untyped;
  };
  for (const std::string& input : body.inputs) *proto.add_input() = value(input);
  for (const std::string& output : body.outputs) *proto.add_output() = value(output);
  for (const std::string& initializer : initializers_by_first_use(body)) {
    *proto.add_initializer() = tensor_with_data(initializer, body.initializers.at(initializer));
  }
  return proto;
}

onnx::AttributeProto node_attribute(const std::string& name, const Attribute& attribute) {
  const auto* body = std::get_if<Subgraph>(&attribute);
  if (body == nullptr) return attribute_proto(name, attribute);
  onnx::AttributeProto proto;
  proto.set_name(name);
  proto.set_type(onnx::AttributeProto::GRAPH);
  *proto.mutable_g() = body_proto(name, *body->graph);
  return proto;
}

void add_nodes(onnx::GraphProto& proto, const OnnxGraph& graph) {
  for (const OnnxNode& node : graph.nodes) {
    onnx::NodeProto& to = *proto.add_node();
    to.set_op_type(node.op_type);
    if (!node.domain.empty()) to.set_domain(node.domain);
    to.set_name(node.name);
    if (!node.source.empty()) to.set_doc_string(node.source);
    for (const std::string& input : node.inputs) to.add_input(input);
    for (const std::string& output : node.outputs) to.add_output(output);
    for (const auto& [name, attribute] : node.attributes)
      *to.add_attribute() = node_attribute(name, attribute);
  }
}

onnx::ValueInfoProto typed_value(const OnnxGraph& graph, const std::string& name,
                                 const char* what) {
  const TensorType type = graph.type(name);
  if (type.dtype == DType::kUndefined) {
    throw std::runtime_error(std::string(what) + " '" + name +
                             "' of the graph has no element type");
  }
  return value_info(name, type);
}

}  // namespace

int64_t ir_version_for_opset(int64_t opset) {
  const int64_t newest = kOldestOpset + static_cast<int64_t>(kIrOfOpset.size()) - 1;
  if (opset < kOldestOpset || opset > newest) {
    throw std::runtime_error("opset " + std::to_string(opset) +
                             " has no known IR version: expected " + std::to_string(kOldestOpset) +
                             " to " + std::to_string(newest));
  }
  return kIrOfOpset[static_cast<size_t>(opset - kOldestOpset)];
}

onnx::ValueInfoProto value_info(const std::string& name, const TensorType& type) {
  onnx::ValueInfoProto info;
  info.set_name(name);
  *info.mutable_type() = type_proto(type);
  return info;
}

std::vector<std::string> initializers_by_first_use(const OnnxGraph& graph) {
  std::vector<std::string> order;
  std::unordered_set<std::string> seen;
  for (const OnnxNode& node : graph.nodes) {
    node.for_each_use([&](const std::string& used) {
      if (graph.initializers.count(used) != 0 && seen.insert(used).second) order.push_back(used);
    });
  }
  std::vector<std::string> unused;
  for (const auto& [name, data] : graph.initializers) {
    if (seen.count(name) == 0) unused.push_back(name);
  }
  std::sort(unused.begin(), unused.end());
  order.insert(order.end(), unused.begin(), unused.end());
  return order;
}

onnx::ModelProto model_without_initializers(const OnnxGraph& graph) {
  onnx::ModelProto model;
  model.set_ir_version(ir_version_for_opset(graph.opset));
  model.set_producer_name("qcdq");
  model.set_producer_version(QCDQ_VERSION);
  auto add_opset = [&](const std::string& domain, int64_t version) {
    onnx::OperatorSetIdProto& import = *model.add_opset_import();
    import.set_domain(domain);
    import.set_version(version);
  };
  add_opset("", graph.opset);
  for (const auto& [domain, version] : graph.domains) add_opset(domain, version);
  for (const auto& [key, value] : graph.metadata) {
    onnx::StringStringEntryProto& entry = *model.add_metadata_props();
    entry.set_key(key);
    entry.set_value(value);
  }

  onnx::GraphProto& proto = *model.mutable_graph();
  proto.set_name("main_graph");
  add_nodes(proto, graph);
  for (const std::string& name : graph.inputs) {
    *proto.add_input() = typed_value(graph, name, "input");
  }
  for (const std::string& name : graph.outputs) {
    *proto.add_output() = typed_value(graph, name, "output");
  }
  return model;
}

}  // namespace qcdq
