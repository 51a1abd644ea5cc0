// OnnxGraph and the operations on it that convert, qdq_passes and the tests share. No torch, no
// protobuf.
#include "symbolic/graph/onnx_graph.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_set>

namespace qcdq {

const Attribute* OnnxNode::find(std::string_view attribute) const {
  for (const auto& [name, value] : attributes) {
    if (name == attribute) return &value;
  }
  return nullptr;
}

int64_t OnnxNode::int_attribute(std::string_view attribute, int64_t absent) const {
  const Attribute* found = find(attribute);
  if (found == nullptr) return absent;
  if (const int64_t* value = std::get_if<int64_t>(found)) return *value;
  throw std::logic_error(name + ": attribute " + std::string(attribute) + " is not an integer");
}

void OnnxNode::set(std::string_view attribute, Attribute value) {
  for (auto& [name, old] : attributes) {
    if (name == attribute) {
      old = std::move(value);
      return;
    }
  }
  attributes.emplace_back(std::string(attribute), std::move(value));
}

std::string OnnxGraph::unique_name(const std::string& base) {
  if (taken_.empty()) {  // a graph filled by hand: its names count too
    for (const std::string& input : inputs) taken_.emplace(input, 1);
    for (const OnnxNode& node : nodes) {
      taken_.emplace(node.name, 1);
      for (const std::string& output : node.outputs) taken_.emplace(output, 1);
    }
  }
  const std::string stem = base.empty() ? "value" : base;
  std::string name = stem;
  int64_t& next = taken_[stem];  // unordered_map: references survive insertion
  if (next == 0 && !initializers.contains(name) && !types.contains(name)) {
    bool used = std::find(inputs.begin(), inputs.end(), name) != inputs.end();
    next = 1;
    if (!used) return name;
  }
  do {
    name = stem + "_" + std::to_string(std::max<int64_t>(next, 1));
    next = std::max<int64_t>(next, 1) + 1;
  } while (taken_.contains(name) || initializers.contains(name) || types.contains(name));
  taken_.emplace(name, 1);
  return name;
}

const TensorData* OnnxGraph::initializer(const std::string& value) const {
  auto found = initializers.find(value);
  return found == initializers.end() ? nullptr : &found->second;
}

std::string OnnxGraph::add_initializer(const std::string& base, TensorData data) {
  std::string name = unique_name(base);
  initializers.emplace(name, std::move(data));
  return name;
}

bool OnnxGraph::is_output(const std::string& value) const {
  return std::find(outputs.begin(), outputs.end(), value) != outputs.end();
}

TensorType OnnxGraph::type(const std::string& value) const {
  if (const TensorData* data = initializer(value)) return {data->dtype, true, data->dims, {}};
  auto found = types.find(value);
  return found == types.end() ? TensorType{} : found->second;
}

GraphIndex::GraphIndex(OnnxGraph& graph) {
  for (OnnxNode& node : graph.nodes) {
    for (const std::string& output : node.outputs) {
      if (!output.empty()) producer_[output] = &node;
    }
    for (const std::string& input : node.inputs) {
      if (input.empty()) continue;
      ++uses_[input];
      std::vector<OnnxNode*>& users = consumers_[input];
      if (users.empty() || users.back() != &node) users.push_back(&node);
    }
  }
  for (const std::string& output : graph.outputs) ++uses_[output];
}

OnnxNode* GraphIndex::producer(const std::string& value) const {
  auto found = producer_.find(value);
  return found == producer_.end() ? nullptr : found->second;
}

const std::vector<OnnxNode*>& GraphIndex::consumers(const std::string& value) const {
  static const std::vector<OnnxNode*> kNone;
  auto found = consumers_.find(value);
  return found == consumers_.end() ? kNone : found->second;
}

size_t GraphIndex::uses(const std::string& value) const {
  auto found = uses_.find(value);
  return found == uses_.end() ? 0 : found->second;
}

namespace {

void rename_inputs(OnnxGraph& graph, const std::string& from, const std::string& to) {
  for (OnnxNode& node : graph.nodes) std::replace(node.inputs.begin(), node.inputs.end(), from, to);
}

std::string* output_slot(OnnxGraph& graph, const std::string& value) {
  for (OnnxNode& node : graph.nodes) {
    for (std::string& output : node.outputs) {
      if (output == value) return &output;
    }
  }
  return nullptr;
}

}  // namespace

void replace_uses(OnnxGraph& graph, const std::string& from, const std::string& to) {
  if (from == to) return;
  rename_inputs(graph, from, to);
  if (!graph.is_output(from)) return;
  // A graph output keeps its name, so `to` has to be computed under it.
  std::string* old_producer = output_slot(graph, from);
  std::string* new_producer = output_slot(graph, to);
  if (old_producer != nullptr) *old_producer = graph.unique_name(from + "_replaced");
  const TensorType type = graph.type(to);
  if (new_producer == nullptr ||
      graph.is_output(to)) {  // an input, an initializer or another output
    OnnxNode identity;
    identity.op_type = "Identity";
    identity.name = graph.unique_name(from + "/Identity");
    identity.inputs = {to};
    identity.outputs = {from};
    graph.nodes.push_back(std::move(identity));
  } else {
    *new_producer = from;
    rename_inputs(graph, to, from);
    graph.types.erase(to);
  }
  if (!graph.types.contains(from)) graph.types[from] = type;
}

void remove_dead(OnnxGraph& graph) {
  std::unordered_set<std::string> used(graph.outputs.begin(), graph.outputs.end());
  for (auto it = graph.nodes.end(); it != graph.nodes.begin();) {
    --it;
    const bool alive =
        std::any_of(it->outputs.begin(), it->outputs.end(),
                    [&](const std::string& output) { return used.contains(output); });
    if (alive) {
      used.insert(it->inputs.begin(), it->inputs.end());
    } else {
      for (const std::string& output : it->outputs) graph.types.erase(output);
      it = graph.nodes.erase(it);
    }
  }
  std::erase_if(graph.initializers, [&](const auto& item) { return !used.contains(item.first); });
}

}  // namespace qcdq
