// Reading of Q, DQ and Clip nodes, and their insertion (qdq/match.h). The arithmetic on codes is in
// quantizer/codes.cpp.
#include "symbolic/qdq/match.h"

#include <algorithm>
#include <limits>

namespace qcdq {

std::optional<QuantParams> quant_params(const OnnxGraph& graph, const OnnxNode& node) {
  if (node.inputs.size() < 2) return std::nullopt;
  const TensorData* scale = graph.initializer(node.inputs[1]);
  if (scale == nullptr || scale->dtype != DType::kFloat32) return std::nullopt;
  QuantParams params;
  for (double value : read_numbers(*scale)) params.scale.push_back(static_cast<float>(value));
  params.block_size = node.int_attribute("block_size", 0);
  const bool has_zero_point = node.inputs.size() > 2 && !node.inputs[2].empty();
  if (has_zero_point) {
    const TensorData* zero_point = graph.initializer(node.inputs[2]);
    if (zero_point == nullptr) return std::nullopt;
    params.storage = zero_point->dtype;
    for (double value : read_numbers(*zero_point)) {
      params.zero_point.push_back(static_cast<int64_t>(value));
    }
  } else {
    if (node.op_type == "DequantizeLinear") {
      params.storage = graph.type(node.inputs[0]).dtype;
    } else {
      const int64_t named = node.int_attribute("output_dtype", 0);
      params.storage = named == 0 ? DType::kUInt8 : static_cast<DType>(named);
    }
    params.zero_point.assign(params.scale.size(), 0);
  }
  if (params.zero_point.size() != params.scale.size()) return std::nullopt;
  // A scale of shape [1] is per tensor to ONNX.
  if (!scale->dims.empty() && (scale->dims.size() > 1 || params.scale.size() != 1)) {
    params.dims = scale->dims;
    params.axis = node.int_attribute("axis", 1);
    if (params.axis < 0) {
      const TensorType x = graph.type(node.inputs[0]);
      const TensorType y = graph.type(node.outputs[0]);
      if (!x.ranked && !y.ranked) return std::nullopt;
      params.axis += x.ranked ? x.rank() : y.rank();
    }
  }
  return params;
}

void set_quant_params(OnnxGraph& graph, OnnxNode& node, const QuantParams& params,
                      const std::string& base) {
  node.inputs.resize(3);
  node.inputs[1] = graph.add_initializer(
      base + "_scale", TensorData::from<float>(DType::kFloat32, params.dims, params.scale));
  node.inputs[2] = graph.add_initializer(
      base + "_zero_point", pack_integers(params.storage, params.dims, params.zero_point));
  std::erase_if(node.attributes, [](const auto& attribute) {
    return attribute.first == "axis" || attribute.first == "block_size";
  });
  if (!params.per_tensor()) node.set("axis", params.axis);
  if (params.block_size > 0) node.set("block_size", params.block_size);
}

std::optional<std::pair<double, double>> clip_bounds(const OnnxGraph& graph, const OnnxNode& node) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (!node.domain.empty()) return std::nullopt;
  if (node.op_type == "Relu") return std::pair{0.0, kInfinity};
  if (node.op_type != "Clip") return std::nullopt;
  std::pair<double, double> bounds{-kInfinity, kInfinity};
  if (const Attribute* min = node.find("min")) bounds.first = std::get<float>(*min);
  if (const Attribute* max = node.find("max")) bounds.second = std::get<float>(*max);
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    if (node.inputs[i].empty()) continue;
    const TensorData* bound = graph.initializer(node.inputs[i]);
    if (bound == nullptr || bound->numel() != 1) return std::nullopt;
    (i == 1 ? bounds.first : bounds.second) = read_numbers(*bound)[0];
  }
  return bounds;
}

std::optional<IntegerConstant> integer_constant(const OnnxGraph& graph, const GraphIndex& index,
                                                const std::string& value) {
  OnnxNode* dq = index.producer(value);
  if (dq == nullptr || dq->op_type != "DequantizeLinear" || !dq->domain.empty()) return {};
  const TensorData* codes = graph.initializer(dq->inputs[0]);
  if (codes == nullptr) return {};
  std::optional<QuantParams> params = quant_params(graph, *dq);
  if (!params) return {};
  return IntegerConstant{dq, dq->inputs[0], std::move(*params)};
}

std::optional<std::vector<double>> constant_values(const OnnxGraph& graph, const GraphIndex& index,
                                                   const std::string& value) {
  if (const TensorData* data = graph.initializer(value)) return read_numbers(*data);
  if (auto found = integer_constant(graph, index, value)) {
    return read_numbers(dequantize_constant(*graph.initializer(found->codes), found->params));
  }
  return std::nullopt;
}

std::optional<QuantizedValue> quantized_value(const OnnxGraph& graph, const GraphIndex& index,
                                              std::string value, int* moved) {
  OnnxNode* node = index.producer(value);
  for (; node != nullptr && moves_elements(*node); node = index.producer(node->inputs[0])) {
    if (moved != nullptr) ++*moved;
  }
  if (node == nullptr || node->op_type != "DequantizeLinear" || !node->domain.empty()) return {};
  std::optional<QuantParams> params = quant_params(graph, *node);
  if (!params) return {};
  QuantizedValue found{node, index.producer(node->inputs[0]), nullptr, std::move(*params), {}};
  found.range = integer_range(found.params.storage);
  if (found.q != nullptr && found.q->op_type == "Clip") {
    const auto bounds = clip_bounds(graph, *found.q);
    if (!bounds) return {};
    found.range.min = static_cast<int64_t>(std::max<double>(bounds->first, found.range.min));
    found.range.max = static_cast<int64_t>(std::min<double>(bounds->second, found.range.max));
    found.clip = found.q;
    found.q = index.producer(found.clip->inputs[0]);
  }
  if (found.q == nullptr || found.q->op_type != "QuantizeLinear") return {};
  return found;
}

int64_t output_channel_axis(const OnnxNode& node) {
  if (!node.domain.empty()) return -1;
  if (node.op_type == "Conv") return 0;
  if (node.op_type == "ConvTranspose") return node.int_attribute("group", 1) == 1 ? 1 : -1;
  if (node.op_type == "Gemm") return node.int_attribute("transB", 0) != 0 ? 0 : 1;
  if (node.op_type == "MatMul") return 1;
  return -1;
}

OnnxNode* bias_add(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& matmul) {
  if (matmul.op_type != "MatMul" || !matmul.domain.empty()) return nullptr;
  const std::string& output = matmul.outputs[0];
  if (index.uses(output) != 1 || graph.is_output(output)) return nullptr;
  OnnxNode& add = *index.consumers(output)[0];
  if (add.op_type != "Add" || !add.domain.empty() || add.inputs[0] != output) return nullptr;
  std::string bias = add.inputs[1];
  if (const auto codes = integer_constant(graph, index, bias)) bias = codes->codes;
  const TensorData* values = graph.initializer(bias);
  std::string weight = matmul.inputs[1];
  if (const OnnxNode* dq = index.producer(weight)) weight = dq->inputs[0];
  const TensorType type = graph.type(weight);
  const bool fits = values != nullptr && type.is_static() && type.rank() == 2 &&
                    values->dims == std::vector<int64_t>{type.dims[1]};
  return fits ? &add : nullptr;
}

OnnxNode& insert_node(OnnxGraph& graph, OnnxGraph::NodeIt before, const std::string& op_type,
                      const std::string& base, std::vector<std::string> inputs,
                      const TensorType& type, const OnnxNode& origin) {
  OnnxNode node;
  node.op_type = op_type;
  node.name = graph.unique_name(base + "/" + op_type);
  node.outputs = {graph.unique_name(base + "_" + op_type)};
  node.inputs = std::move(inputs);
  node.torch_op = origin.torch_op;
  node.source = origin.source;
  graph.types[node.outputs[0]] = type;
  return *graph.nodes.insert(before, std::move(node));
}

OnnxGraph::NodeIt find_node(OnnxGraph& graph, const OnnxNode& node) {
  return std::find_if(graph.nodes.begin(), graph.nodes.end(),
                      [&](const OnnxNode& other) { return &other == &node; });
}

}  // namespace qcdq
