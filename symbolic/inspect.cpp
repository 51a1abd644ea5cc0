// Sums up an .onnx file for `qcdq inspect`: read.cpp reads it, coverage.cpp judges it.
#include "qcdq/inspect.h"

#include <filesystem>

#include "symbolic/file/file.h"
#include "symbolic/graph/element_types.h"
#include "symbolic/qdq/coverage.h"

namespace qcdq {
namespace {

/// The values of an initializer; empty for a value that is none, or of a type without numbers here
/// (float8).
template <typename Out>
std::vector<Out> initializer_values(const OnnxGraph& graph, const std::string& name) {
  const TensorData* data = graph.initializer(name);
  if (data == nullptr || dtype_bits(data->dtype) == 0) return {};
  if (is_floating(data->dtype) && dtype_bits(data->dtype) < 16) return {};
  return read_elements<Out>(*data);
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
  summary.dtype = dtype_name(dtype);
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
  summary.dtype = dtype_name(dtype);
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

}  // namespace

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
    InitializerTotal& total = summary.initializers[std::string(dtype_name(data.dtype))];
    ++total.tensors;
    total.bytes += data.bytes();
  }
  summary.quantizers = quantizers(graph);
  summary.coverage = int8_coverage(graph);
  return summary;
}

}  // namespace qcdq
