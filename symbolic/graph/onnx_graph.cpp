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

namespace {

/// Calls visit(body) for each body of the node.
template <typename F>
void for_each_body(const OnnxNode& node, F visit) {
  for (const auto& [name, attribute] : node.attributes) {
    if (const auto* body = std::get_if<Subgraph>(&attribute)) visit(*body->graph);
  }
}

/// Names that mean something of the body's own inside it.
std::unordered_set<std::string> own_names(const OnnxGraph& body) {
  std::unordered_set<std::string> names(body.inputs.begin(), body.inputs.end());
  for (const auto& [name, data] : body.initializers) names.insert(name);
  for (const OnnxNode& node : body.nodes) names.insert(node.outputs.begin(), node.outputs.end());
  return names;
}

/// Calls `visit` for each use in the body of a value of the graphs around it.
void for_each_captured(const OnnxGraph& body,
                       const std::function<void(const std::string&)>& visit) {
  const std::unordered_set<std::string> own = own_names(body);
  const auto visit_captured = [&](const std::string& value) {
    if (!own.contains(value)) visit(value);
  };
  for (const OnnxNode& node : body.nodes) node.for_each_use(visit_captured);
  for (const std::string& output : body.outputs) visit_captured(output);
}

OnnxGraph with_renamed_uses(const OnnxGraph& body,
                            std::unordered_map<std::string, std::string> names) {
  for (const std::string& own : own_names(body)) names.erase(own);
  OnnxGraph renamed = body;
  for (OnnxNode& node : renamed.nodes) node.rename_uses(names);
  for (std::string& output : renamed.outputs) {
    if (const auto found = names.find(output); found != names.end()) output = found->second;
  }
  return renamed;
}

}  // namespace

void OnnxNode::for_each_use(const std::function<void(const std::string&)>& visit) const {
  for (const std::string& input : inputs) {
    if (!input.empty()) visit(input);
  }
  for_each_body(*this, [&](const OnnxGraph& body) { for_each_captured(body, visit); });
}

void OnnxNode::rename_uses(const std::unordered_map<std::string, std::string>& names) {
  for (std::string& input : inputs) {
    if (const auto found = names.find(input); found != names.end()) input = found->second;
  }
  for (auto& [name, attribute] : attributes) {
    auto* body = std::get_if<Subgraph>(&attribute);
    if (body == nullptr) continue;
    // Others may hold the same body: it is copied, and only where something changes.
    bool changes = false;
    for_each_captured(*body->graph,
                      [&](const std::string& used) { changes = changes || names.contains(used); });
    if (changes) {
      body->graph = std::make_shared<const OnnxGraph>(with_renamed_uses(*body->graph, names));
    }
  }
}

std::set<std::string> names_in_bodies(const OnnxNode& node) {
  std::set<std::string> names;
  for_each_body(node, [&](const OnnxGraph& body) {
    for (const std::string& own : own_names(body)) names.insert(own);
    for_each_captured(body, [&](const std::string& used) { names.insert(used); });
    for (const OnnxNode& inner : body.nodes) {
      names.insert(inner.name);
      names.merge(names_in_bodies(inner));
    }
  });
  return names;
}

void OnnxGraph::reserve_names_in_bodies(const OnnxNode& node) {
  for (const std::string& name : names_in_bodies(node)) taken_.emplace(name, 1);
}

std::string OnnxGraph::unique_name(const std::string& base) {
  if (taken_.empty()) {  // a graph filled by hand: its names count too
    for (const std::string& input : inputs) taken_.emplace(input, 1);
    for (const OnnxNode& node : nodes) {
      taken_.emplace(node.name, 1);
      for (const std::string& output : node.outputs) taken_.emplace(output, 1);
      reserve_names_in_bodies(node);
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
    node.for_each_use([&](const std::string& used) {
      ++uses_[used];
      std::vector<OnnxNode*>& users = consumers_[used];
      if (users.empty() || users.back() != &node) users.push_back(&node);
    });
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

void rename_uses(OnnxGraph& graph, const std::string& from, const std::string& to) {
  const std::unordered_map<std::string, std::string> names = {{from, to}};
  for (OnnxNode& node : graph.nodes) node.rename_uses(names);
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
  rename_uses(graph, from, to);
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
    rename_uses(graph, to, from);
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
      it->for_each_use([&](const std::string& value) { used.insert(value); });
    } else {
      for (const std::string& output : it->outputs) graph.types.erase(output);
      it = graph.nodes.erase(it);
    }
  }
  std::erase_if(graph.initializers, [&](const auto& item) { return !used.contains(item.first); });
}

}  // namespace qcdq
