// An OnnxGraph and its types as text, for tests, dumps and messages.
#include <charconv>
#include <unordered_set>

#include "symbolic/graph/element_types.h"
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
