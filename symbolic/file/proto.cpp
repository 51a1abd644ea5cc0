// OnnxGraph to onnx's protobuf messages; see file/proto.h.
#include "symbolic/file/proto.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <unordered_set>

#include "symbolic/file/file.h"

namespace qcdq {
namespace {

// [opset - 10]: the release that introduced the opset fixes the least IR version.
constexpr std::array<int64_t, 19> kIrOfOpset = {5, 6,  7,  7,  7,  8,  8,  8,  8, 9,
                                                9, 10, 10, 11, 12, 13, 13, 13, 14};

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
  const int64_t newest = 10 + static_cast<int64_t>(kIrOfOpset.size()) - 1;
  if (opset < 10 || opset > newest) {
    throw std::runtime_error("opset " + std::to_string(opset) +
                             " has no known IR version: expected 10 to " + std::to_string(newest));
  }
  return kIrOfOpset[static_cast<size_t>(opset - 10)];
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
    for (const std::string& input : node.inputs) {
      if (graph.initializers.count(input) != 0 && seen.insert(input).second) order.push_back(input);
    }
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
  for (const OnnxNode& node : graph.nodes) {
    onnx::NodeProto& to = *proto.add_node();
    to.set_op_type(node.op_type);
    if (!node.domain.empty()) to.set_domain(node.domain);
    to.set_name(node.name);
    if (!node.source.empty()) to.set_doc_string(node.source);
    for (const std::string& input : node.inputs) to.add_input(input);
    for (const std::string& output : node.outputs) to.add_output(output);
    for (const auto& [name, attribute] : node.attributes) {
      *to.add_attribute() = attribute_proto(name, attribute);
    }
  }
  for (const std::string& name : graph.inputs) {
    *proto.add_input() = typed_value(graph, name, "input");
  }
  for (const std::string& name : graph.outputs) {
    *proto.add_output() = typed_value(graph, name, "output");
  }
  return model;
}

}  // namespace qcdq
