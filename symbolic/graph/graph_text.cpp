// An OnnxGraph and its types as text, for tests, dumps and messages.
#include <charconv>
#include <unordered_set>

#include "symbolic/graph/element_types.h"
#include "symbolic/graph/message_text.h"
#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

namespace {

// Printed values of initializers up to this size; longer ones show their type only.
constexpr int64_t kPrintedElements = 8;

template <typename T>
std::string number_text(T value) {
  char buffer[64];
  auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  (void)error;  // 64 bytes hold any number
  return std::string(buffer, end);
}

/// Out: the type as which elements are printed.
template <typename Out>
std::string elements_text(const TensorData& data) {
  const Elements<Out> elements(data);
  std::string text;
  for (int64_t i = 0; i < data.numel(); ++i) {
    text += (i > 0 ? ", " : "") + number_text(elements[i]);
  }
  return text;
}

std::string data_text(const TensorData& data) {
  if (data.dtype == DType::kBool) {
    std::string text;
    for (const int64_t value : read_integers(data)) {
      text += (text.empty() ? "" : ", ") + std::string(value != 0 ? "true" : "false");
    }
    return "{" + text + "}";
  }
  if (data.dtype == DType::kFloat64) return "{" + elements_text<double>(data) + "}";
  if (data.dtype == DType::kUInt64) return "{" + elements_text<uint64_t>(data) + "}";
  const size_t bits = dtype_bits(data.dtype);
  if (is_floating(data.dtype) && bits >= 16) return "{" + elements_text<float>(data) + "}";
  if (is_floating(data.dtype) || bits == 0) return "{?}";
  return "{" + elements_text<int64_t>(data) + "}";
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
    std::string operator()(int64_t value) const { return number_text(value); }
    std::string operator()(float value) const { return number_text(value); }
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
    std::string operator()(const Subgraph&) const { return "body"; }  // node_text prints bodies
  };
  return std::visit(Print{}, attribute);
}

std::string value_list(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    text += (i > 0 ? ", " : "") + (names[i].empty() ? "-" : "%" + names[i]);
  }
  return text;
}

std::string outputs_text(const OnnxGraph& graph, const OnnxNode& node, NodeDetail detail) {
  if (detail == NodeDetail::kPlain) return value_list(node.outputs);
  std::string text;
  for (const std::string& output : node.outputs) {
    text += (text.empty() ? "" : ", ") + value_list({output});
    const TensorType type = graph.type(output);
    if (type.dtype != DType::kUndefined) text += ": " + type_text(type);
  }
  return text;
}

std::string origin_text(const OnnxNode& node) {
  const std::string place = place_text(node.torch_op, node.source);
  return place.empty() ? "" : "  # " + place;
}

std::string indented(const std::string& text, const std::string& by) {
  std::string result;
  for (size_t start = 0; start < text.size();) {
    const size_t end = text.find('\n', start);  // every line of a graph's text ends in one
    result += by + text.substr(start, end + 1 - start);
    start = end + 1;
  }
  return result;
}

std::string node_text(const OnnxGraph& graph, const OnnxNode& node, NodeDetail detail) {
  std::string text = outputs_text(graph, node, detail) + " = " +
                     (node.domain.empty() ? "" : node.domain + "::") + node.op_type;
  std::string attributes;
  std::string bodies;
  for (const auto& [name, attribute] : node.attributes) {
    if (const auto* body = std::get_if<Subgraph>(&attribute)) {
      bodies += "  " + name + ":\n" + indented(to_text(*body->graph, detail), "    ");
    } else {
      attributes += (attributes.empty() ? "" : ", ") + name + "=" + attribute_text(attribute);
    }
  }
  if (!attributes.empty()) text += "[" + attributes + "]";
  text += "(" + value_list(node.inputs) + ")";
  if (detail == NodeDetail::kOrigins) text += origin_text(node);
  return text + "\n" + bodies;
}

}  // namespace

std::string type_text(const TensorType& type) {
  std::string text = std::string(dtype_name(type.dtype)) + "[";
  if (!type.ranked) return text + "...]";
  for (size_t i = 0; i < type.dims.size(); ++i) {
    if (i > 0) text += ",";
    if (type.dims[i] >= 0) {
      text += std::to_string(type.dims[i]);
    } else {
      const bool named = i < type.symbols.size() && !type.symbols[i].empty();
      text += named ? type.symbols[i] : "?";
    }
  }
  return text + "]";
}

std::string initializer_text(const std::string& name, const TensorData& data) {
  std::string text = "%" + name + ": " + type_text({data.dtype, true, data.dims, {}});
  if (data.numel() <= kPrintedElements) text += " = " + data_text(data);
  return text;
}

std::string to_text(const OnnxGraph& graph, NodeDetail detail) {
  std::string text;
  for (const std::string& input : graph.inputs) {
    text += "input %" + input + ": " + type_text(graph.type(input)) + "\n";
  }
  // Initializers stand before their first user: the map has no order of its own.
  std::unordered_set<std::string> printed;
  auto print_initializer = [&](const std::string& name) {
    const TensorData* data = graph.initializer(name);
    if (data != nullptr && printed.insert(name).second) {
      text += initializer_text(name, *data) + "\n";
    }
  };
  for (const OnnxNode& node : graph.nodes) {
    node.for_each_use(print_initializer);
    text += node_text(graph, node, detail);
  }
  for (const std::string& output : graph.outputs) {
    print_initializer(output);
    text += "output %" + output + ": " + type_text(graph.type(output)) + "\n";
  }
  return text;
}

}  // namespace qcdq
