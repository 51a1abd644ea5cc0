// OnnxGraph and the operations on it that convert, qdq_passes and the tests share. No torch, no
// protobuf.
#include "symbolic/graph/onnx_graph.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
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

namespace {

// Printed values of initializers up to this size; longer ones show their type only.
constexpr int64_t kPrintedElements = 8;

template <typename T>
std::string number(T value) {
  char buffer[64];
  auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  (void)error;  // 64 bytes hold any number
  return std::string(buffer, end);
}

float half_to_float(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  float value;
  if (exponent == 31) {
    value = mantissa != 0 ? std::numeric_limits<float>::quiet_NaN()
                          : std::numeric_limits<float>::infinity();
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    value = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

template <typename T>
T element(const void* data, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(data) + index * static_cast<int64_t>(sizeof(T)),
              sizeof(T));
  return value;
}

std::string element_text(DType dtype, const void* data, int64_t i) {
  switch (dtype) {
    case DType::kFloat32:
      return number(element<float>(data, i));
    case DType::kFloat64:
      return number(element<double>(data, i));
    case DType::kFloat16:
      return number(half_to_float(element<uint16_t>(data, i)));
    case DType::kBFloat16: {
      const uint32_t bits = static_cast<uint32_t>(element<uint16_t>(data, i)) << 16;
      return number(element<float>(&bits, 0));
    }
    case DType::kInt8:
      return number(static_cast<int>(element<int8_t>(data, i)));
    case DType::kUInt8:
      return number(static_cast<int>(element<uint8_t>(data, i)));
    case DType::kInt16:
      return number(element<int16_t>(data, i));
    case DType::kUInt16:
      return number(element<uint16_t>(data, i));
    case DType::kInt32:
      return number(element<int32_t>(data, i));
    case DType::kUInt32:
      return number(element<uint32_t>(data, i));
    case DType::kInt64:
      return number(element<int64_t>(data, i));
    case DType::kUInt64:
      return number(element<uint64_t>(data, i));
    case DType::kBool:
      return element<uint8_t>(data, i) != 0 ? "true" : "false";
    case DType::kString:
    case DType::kUndefined:
      break;
  }
  return "?";
}

std::string data_text(const TensorData& data) {
  const std::shared_ptr<const void> loaded = data.load();
  std::string text;
  for (int64_t i = 0; i < data.numel(); ++i) {
    if (i > 0) text += ", ";
    text += element_text(data.dtype, loaded.get(), i);
  }
  return "{" + text + "}";
}

std::string type_text(const TensorType& type) {
  std::string text(dtype_name(type.dtype));
  if (!type.ranked) return text + "[?]";
  text += "[";
  for (size_t i = 0; i < type.dims.size(); ++i) {
    if (i > 0) text += ",";
    if (type.dims[i] >= 0) {
      text += std::to_string(type.dims[i]);
    } else {
      text += i < type.symbols.size() && !type.symbols[i].empty() ? type.symbols[i] : "?";
    }
  }
  return text + "]";
}

template <typename T, typename F>
std::string list_text(const std::vector<T>& values, F print) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) text += ",";
    text += print(values[i]);
  }
  return text + "]";
}

std::string attribute_text(const Attribute& attribute) {
  struct Print {
    std::string operator()(int64_t value) const { return number(value); }
    std::string operator()(float value) const { return number(value); }
    std::string operator()(const std::string& value) const { return "'" + value + "'"; }
    std::string operator()(const std::vector<int64_t>& values) const {
      return list_text(values, *this);
    }
    std::string operator()(const std::vector<float>& values) const {
      return list_text(values, *this);
    }
    std::string operator()(const std::vector<std::string>& values) const {
      return list_text(values, *this);
    }
    std::string operator()(const TensorData& data) const {
      return type_text({data.dtype, true, data.dims, {}}) + data_text(data);
    }
  };
  return std::visit(Print{}, attribute);
}

std::string initializer_text(const std::string& name, const TensorData& data) {
  std::string text = "%" + name + ": " + type_text({data.dtype, true, data.dims, {}});
  if (data.numel() <= kPrintedElements) text += " = " + data_text(data);
  return text + "\n";
}

std::string node_text(const OnnxNode& node) {
  std::string text;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (i > 0) text += ", ";
    text += node.outputs[i].empty() ? "-" : "%" + node.outputs[i];
  }
  text += " = " + (node.domain.empty() ? "" : node.domain + "::") + node.op_type;
  if (!node.attributes.empty()) {
    text += "[";
    for (size_t i = 0; i < node.attributes.size(); ++i) {
      if (i > 0) text += ", ";
      text += node.attributes[i].first + "=" + attribute_text(node.attributes[i].second);
    }
    text += "]";
  }
  text += "(";
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (i > 0) text += ", ";
    text += node.inputs[i].empty() ? "-" : "%" + node.inputs[i];
  }
  return text + ")\n";
}

}  // namespace

std::string to_text(const OnnxGraph& graph) {
  std::string text;
  for (const std::string& input : graph.inputs) {
    text += "input %" + input + ": " + type_text(graph.type(input)) + "\n";
  }
  // Initializers stand before their first user: the map has no order of its own.
  std::unordered_set<std::string> printed;
  auto print_initializer = [&](const std::string& name) {
    const TensorData* data = graph.initializer(name);
    if (data != nullptr && printed.insert(name).second) text += initializer_text(name, *data);
  };
  for (const OnnxNode& node : graph.nodes) {
    for (const std::string& input : node.inputs) print_initializer(input);
    text += node_text(node);
  }
  for (const std::string& output : graph.outputs) {
    print_initializer(output);
    text += "output %" + output + ": " + type_text(graph.type(output)) + "\n";
  }
  return text;
}

}  // namespace qcdq
