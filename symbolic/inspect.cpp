// Sums up an .onnx file for `qcdq inspect`: read.cpp reads it, coverage.cpp judges it.
#include "qcdq/inspect.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "symbolic/file/file.h"

namespace qcdq {
namespace {

template <typename T, typename Out>
void append(const void* data, int64_t count, std::vector<Out>& out) {
  const T* values = static_cast<const T*>(data);
  out.insert(out.end(), values, values + count);
}

float float16_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const float sign = (bits & 0x8000) ? -1.0F : 1.0F;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  if (exponent == 31) {
    return mantissa ? std::numeric_limits<float>::quiet_NaN()
                    : sign * std::numeric_limits<float>::infinity();
  }
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

/// The values of an initializer; empty for a value that is none, or of a type that has no numbers
/// here (packed int4).
template <typename Out>
std::vector<Out> initializer_values(const OnnxGraph& graph, const std::string& name) {
  std::vector<Out> values;
  const TensorData* data = graph.initializer(name);
  if (!data) return values;
  const std::shared_ptr<const void> loaded = data->load();
  const int64_t count = data->numel();
  switch (data->dtype) {
    case DType::kFloat32:
      append<float>(loaded.get(), count, values);
      break;
    case DType::kFloat64:
      append<double>(loaded.get(), count, values);
      break;
    case DType::kUInt8:
      append<uint8_t>(loaded.get(), count, values);
      break;
    case DType::kInt8:
      append<int8_t>(loaded.get(), count, values);
      break;
    case DType::kUInt16:
      append<uint16_t>(loaded.get(), count, values);
      break;
    case DType::kInt16:
      append<int16_t>(loaded.get(), count, values);
      break;
    case DType::kInt32:
      append<int32_t>(loaded.get(), count, values);
      break;
    case DType::kInt64:
      append<int64_t>(loaded.get(), count, values);
      break;
    case DType::kFloat16: {
      const auto* bits = static_cast<const uint16_t*>(loaded.get());
      for (int64_t i = 0; i < count; ++i) {
        values.push_back(static_cast<Out>(float16_value(bits[i])));
      }
      break;
    }
    case DType::kBFloat16: {
      const auto* bits = static_cast<const uint16_t*>(loaded.get());
      for (int64_t i = 0; i < count; ++i) {
        const uint32_t wide = static_cast<uint32_t>(bits[i]) << 16;
        float value;
        std::memcpy(&value, &wide, sizeof(value));
        values.push_back(static_cast<Out>(value));
      }
      break;
    }
    default:
      break;
  }
  return values;
}

std::string input(const OnnxNode& node, size_t index) {
  return index < node.inputs.size() ? node.inputs[index] : "";
}

/// Scale, zero point, axis and block size of a QuantizeLinear or DequantizeLinear.
void fill_parameters(const OnnxGraph& graph, const OnnxNode& node, QuantizerSummary& summary) {
  const std::string scale = input(node, 1);
  const std::string zero_point = input(node, 2);
  summary.scale = initializer_values<double>(graph, scale);
  summary.zero_point =
      zero_point.empty() ? std::vector<int64_t>{0} : initializer_values<int64_t>(graph, zero_point);
  const TensorType type = graph.type(scale);
  summary.block_size = node.int_attribute("block_size", 0);
  if ((type.ranked && type.rank() > 0 && summary.scale.size() != 1) || summary.block_size > 0) {
    summary.axis = node.int_attribute("axis", 1);
  }
}

/// The range of a Clip on codes behind a QuantizeLinear.
void fill_range(const OnnxGraph& graph, const GraphIndex& index, const std::string& codes,
                QuantizerSummary& summary) {
  const auto& consumers = index.consumers(codes);
  if (consumers.size() != 1 || consumers[0]->op_type != "Clip") return;
  const auto low = initializer_values<int64_t>(graph, input(*consumers[0], 1));
  const auto high = initializer_values<int64_t>(graph, input(*consumers[0], 2));
  if (low.size() != 1 || high.size() != 1) return;
  summary.has_range = true;
  summary.quant_min = low[0];
  summary.quant_max = high[0];
}

QuantizerSummary quantize_summary(const OnnxGraph& graph, const GraphIndex& index,
                                  const OnnxNode& node) {
  QuantizerSummary summary;
  summary.node = node.name;
  summary.tensor = input(node, 0);
  summary.role = graph.initializer(summary.tensor) ? "weight" : "activation";
  const std::string zero_point = input(node, 2);
  const auto dtype = zero_point.empty() ? static_cast<DType>(node.int_attribute(
                                              "output_dtype", static_cast<int64_t>(DType::kUInt8)))
                                        : graph.type(zero_point).dtype;
  summary.dtype = element_type_name(dtype);
  fill_parameters(graph, node, summary);
  if (!node.outputs.empty()) fill_range(graph, index, node.outputs[0], summary);
  return summary;
}

QuantizerSummary dequantize_summary(const OnnxGraph& graph, const OnnxNode& node) {
  QuantizerSummary summary;
  summary.node = node.name;
  summary.tensor = input(node, 0);
  const DType dtype = graph.type(summary.tensor).dtype;
  summary.role = dtype == DType::kInt32 ? "bias" : "weight";
  summary.dtype = element_type_name(dtype);
  fill_parameters(graph, node, summary);
  return summary;
}

std::vector<QuantizerSummary> quantizers(OnnxGraph& graph) {
  const GraphIndex index(graph);
  std::vector<QuantizerSummary> all;
  for (const OnnxNode& node : graph.nodes) {
    if (!node.domain.empty()) continue;
    if (node.op_type == "QuantizeLinear") {
      all.push_back(quantize_summary(graph, index, node));
    } else if (node.op_type == "DequantizeLinear" && graph.initializer(input(node, 0))) {
      all.push_back(dequantize_summary(graph, node));
    } else if (node.op_type == "DynamicQuantizeLinear") {
      QuantizerSummary summary;
      summary.node = node.name;
      summary.tensor = input(node, 0);
      summary.role = "activation";
      summary.dtype = "uint8";
      all.push_back(summary);
    }
  }
  return all;
}

/// Bytes of an initializer, from its element type: nothing is loaded for it.
uint64_t stored_bytes(const TensorData& data) {
  const std::string name = element_type_name(data.dtype);
  const auto count = static_cast<uint64_t>(data.numel());
  if (name == "int4" || name == "uint4" || name == "float4e2m1") return (count + 1) / 2;
  if (name == "int2" || name == "uint2") return (count + 3) / 4;
  if (name.starts_with("float8")) return count;
  return count * dtype_size(data.dtype);
}

}  // namespace

std::string element_type_name(DType dtype) {
  const std::string_view name = dtype_name(dtype);
  const int number = static_cast<int>(dtype);
  if (name != "undefined" || !onnx::TensorProto_DataType_IsValid(number)) return std::string(name);
  std::string other =
      onnx::TensorProto_DataType_Name(static_cast<onnx::TensorProto_DataType>(number));
  std::transform(other.begin(), other.end(), other.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return other;
}

std::string type_text(const TensorType& type) {
  std::string text = element_type_name(type.dtype) + "[";
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

ModelSummary inspect_onnx(const std::string& path) {
  ModelHeader header;
  OnnxGraph graph = read_model(path, &header);
  ModelSummary summary;
  summary.path = path;
  summary.producer = header.producer;
  summary.ir_version = header.ir_version;
  summary.opset = graph.opset;
  summary.domains = graph.domains;
  summary.file_bytes = std::filesystem::file_size(path);
  summary.external_bytes = header.external_bytes;
  summary.has_subgraphs = header.has_subgraphs;
  summary.metadata = graph.metadata;
  for (const auto& name : graph.inputs) summary.inputs.push_back({name, graph.type(name)});
  for (const auto& name : graph.outputs) summary.outputs.push_back({name, graph.type(name)});
  for (const OnnxNode& node : graph.nodes) {
    ++summary.nodes_by_op[node.domain.empty() ? node.op_type : node.domain + "::" + node.op_type];
  }
  for (const auto& [name, data] : graph.initializers) {
    InitializerTotal& total = summary.initializers[element_type_name(data.dtype)];
    ++total.tensors;
    total.bytes += stored_bytes(data);
  }
  summary.quantizers = quantizers(graph);
  for (NodeCoverage& line : int8_coverage(graph)) {
    summary.coverage.push_back({line.node, line.op_type, line.int8, line.reason});
  }
  return summary;
}

}  // namespace qcdq
