// Will ONNX Runtime run a node in int8? Predicts what its QDQ fusion does on x64 (measured
// with 1.31; docs/semantics.md and the tests in tests/python/test_fusion.py compare with the graph
// that it writes), and notes which layers may saturate.
#include <algorithm>

#include "qcdq/affine.h"
#include "symbolic/qdq/coverage.h"
#include "symbolic/qdq/match.h"

namespace qcdq {
namespace {

/// One side of a node as ORT sees it.
struct Side {
  bool quantized = false;
  DType storage = DType::kUndefined;  // after ORT's rewrite of int8 pairs to uint8
  bool clipped = false;
  std::string reason;  // why it isn't quantised
};

// ORT stores a plain int8 Q/DQ pair as uint8, but only where its DequantizeLinear has one user.
DType rewritten(const GraphIndex& index, DType storage, bool clipped, const OnnxNode* dq) {
  if (storage != DType::kInt8 || clipped || dq == nullptr) return storage;
  return index.uses(dq->outputs[0]) == 1 ? DType::kUInt8 : storage;
}

Side input_side(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& node, size_t i) {
  Side side;
  const auto found = quantized_value(graph, index, node.inputs[i]);
  if (!found) {
    side.reason = "input " + std::to_string(i) + " has no quantiser: put one before " + node.name;
  } else if (!is_8bit(found->params.storage)) {
    side.reason = "input " + std::to_string(i) + " has " +
                  std::string(dtype_name(found->params.storage)) + " codes: quantise it to 8 bits";
  } else if (!found->params.per_tensor()) {
    side.reason = "input " + std::to_string(i) + " is quantised per channel: use one scale";
  } else {
    side.quantized = true;
    side.clipped = found->clip != nullptr;
    side.storage = rewritten(index, found->params.storage, side.clipped, found->dq);
  }
  return side;
}

Side output_side(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& node) {
  Side side;
  side.reason = "output has no quantiser: put one behind " + node.name;
  std::string value = node.outputs[0];
  std::vector<std::pair<double, double>> clips;  // Relu and Clip on the way
  for (;;) {
    const auto& users = index.consumers(value);
    if (graph.is_output(value) || users.empty()) return side;
    if (users.size() > 1) {
      side.reason = "output has " + std::to_string(users.size()) +
                    " users before its quantiser: quantise it once, first";
      return side;
    }
    const OnnxNode& user = *users[0];
    if (user.op_type == "QuantizeLinear") break;
    if (const auto bounds = clip_bounds(graph, user)) {
      clips.push_back(*bounds);
    } else if (!moves_elements(user)) {
      return side;
    }
    value = user.outputs[0];
  }
  const OnnxNode& q = *index.consumers(value)[0];
  const auto params = quant_params(graph, q);
  if (!params || !params->per_tensor() || !is_8bit(params->storage)) {
    side.reason = "output quantiser is not per tensor with 8 bits";
    return side;
  }
  const CodeRange full = integer_range(params->storage);
  for (const auto& [min, max] : clips) {
    const auto code = [&](double x) {
      return quantize_one(static_cast<float>(x), params->scale[0], params->zero_point[0], full.min,
                          full.max);
    };
    if (code(min) == full.min && code(max) == full.max) continue;
    side.reason =
        "a Relu or Clip stands before the output quantiser and cuts its codes: use "
        "unsigned activation storage";
    return side;
  }
  side.quantized = true;
  const auto& users = index.consumers(q.outputs[0]);
  side.clipped = users.size() == 1 && users[0]->op_type == "Clip";
  side.storage = rewritten(index, params->storage, side.clipped,
                           users.size() == 1 && !side.clipped ? users[0] : nullptr);
  return side;
}

const char* const kInt8Clip =
    "int8 codes with a Clip, or with several users, stop ORT's fusion: use unsigned activation "
    "storage";

struct Verdict {
  bool int8 = false;
  std::string reason;
};

// Whether input i is a weight that ORT's kernels take: 8-bit codes, or floats that ORT quantises
// itself.
std::string weight_reason(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& node) {
  if (graph.initializer(node.inputs[1]) != nullptr) {
    return node.op_type == "MatMul" ? "weight is float: quantise it" : "";
  }
  const OnnxNode* dq = index.producer(node.inputs[1]);
  if (dq == nullptr || dq->op_type != "DequantizeLinear") return "weight has no quantiser";
  const auto params = quant_params(graph, *dq);
  if (!params || !is_8bit(params->storage)) return "weight codes are not 8-bit";
  if (params->block_size > 0) return "weight scales are blocked";
  return "";
}

Verdict layer_verdict(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& node,
                      bool conv) {
  const Side in = input_side(graph, index, node, 0);
  if (!in.quantized) return {false, in.reason};
  const bool activations = node.op_type == "MatMul" &&
                           graph.initializer(node.inputs[1]) == nullptr &&
                           quantized_value(graph, index, node.inputs[1]).has_value();
  if (!activations) {
    if (std::string why = weight_reason(graph, index, node); !why.empty()) return {false, why};
  }
  // ORT makes one Gemm of a MatMul and the Add of its bias.
  const OnnxNode* bias = bias_add(graph, index, node);
  const Side out = output_side(graph, index, bias != nullptr ? *bias : node);
  const bool gemm = node.op_type == "Gemm" || bias != nullptr;
  if (gemm) {
    const Attribute* alpha = node.find("alpha");
    const Attribute* beta = node.find("beta");
    if ((alpha != nullptr && std::get<float>(*alpha) != 1.0f) ||
        (beta != nullptr && std::get<float>(*beta) != 1.0f)) {
      return {false, "alpha or beta is not 1"};
    }
  }
  if (conv && !out.quantized) return {false, out.reason};
  if (in.storage == DType::kInt8 || (out.quantized && out.storage == DType::kInt8)) {
    const bool both = in.storage == DType::kInt8 && (!out.quantized || out.storage == DType::kInt8);
    if (gemm && both) {
      return {true, "runs as int8 x int8, slower than float: use unsigned activation storage"};
    }
    return {false, kInt8Clip};
  }
  return {true, graph.initializer(node.inputs[1]) != nullptr
                    ? "ORT quantises its float weight by itself: quantise it in the model"
                    : ""};
}

Verdict elementwise_verdict(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& node) {
  const Side out = output_side(graph, index, node);
  DType storage = DType::kUndefined;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (i > 0 && onnx_op_facts(node).int8 == Int8Kernel::kOneInput) break;
    // A constant operand is as good as a quantised one where it has a Q/DQ of its own.
    if (const auto constant = integer_constant(graph, index, node.inputs[i])) {
      if (!is_8bit(constant->params.storage)) return {false, "a constant operand is not 8-bit"};
      continue;
    }
    const Side in = input_side(graph, index, node, i);
    if (!in.quantized) return {false, in.reason};
    if (storage != DType::kUndefined && in.storage != storage) return {false, kInt8Clip};
    storage = in.storage;
  }
  if (!out.quantized) return {false, out.reason};
  if (storage != DType::kUndefined && out.storage != storage) return {false, kInt8Clip};
  return {true, ""};
}

Verdict verdict(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& node) {
  switch (onnx_op_facts(node).int8) {
    case Int8Kernel::kConv:
      return layer_verdict(graph, index, node, true);
    case Int8Kernel::kMatrix:
      return layer_verdict(graph, index, node, false);
    case Int8Kernel::kOneInput:
    case Int8Kernel::kAllInputs:
      return elementwise_verdict(graph, index, node);
    case Int8Kernel::kPool: {
      const Side in = input_side(graph, index, node, 0);
      return {in.quantized, in.reason};
    }
    case Int8Kernel::kFloatOnly:
    case Int8Kernel::kUnlisted:
      break;
  }
  return {false, "ONNX Runtime has no int8 kernel for " + node.op_type + " behind Q/DQ"};
}

}  // namespace

std::vector<CoverageLine> int8_coverage(const OnnxGraph& graph) {
  // GraphIndex hands out nodes to passes too; nothing is changed here.
  auto& nodes = const_cast<OnnxGraph&>(graph);
  const GraphIndex index(nodes);
  std::vector<CoverageLine> coverage;
  for (const OnnxNode& node : graph.nodes) {
    if (onnx_op_facts(node).int8 == Int8Kernel::kUnlisted) continue;
    if (is_8bit(graph.type(node.inputs[0]).dtype)) continue;  // works on codes already
    const OnnxNode* matmul = index.producer(node.inputs[0]);
    if (matmul != nullptr && bias_add(graph, index, *matmul) == &node) continue;  // part of its row
    Verdict found = verdict(graph, index, node);
    coverage.push_back({node.name, node.op_type, found.int8, std::move(found.reason)});
  }
  return coverage;
}

}  // namespace qcdq
