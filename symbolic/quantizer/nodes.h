// Quantisers as data: which ONNX nodes a quantiser becomes, with their attributes and constants.
// Decided here once: quantizer/emit.cpp adds the nodes to the exporter's graph, and the torch.onnx
// hooks of python/qcdq replay the same nodes (through python_ops.cpp). No torch in here.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "symbolic/quantizer/params.h"

namespace qcdq {

/// An input of a FragmentNode: "x", "scale" or "zero_point" (what the quantiser is given), the
/// result of an earlier node, or a constant, whose `name` then only says what it is.
struct FragmentValue {
  std::string name;
  std::optional<TensorData> constant;
};

struct FragmentNode {
  std::string op_type;
  std::vector<FragmentValue> inputs;
  Attributes attributes;
  std::vector<std::string> results;
};

/// Nodes in topological order; `results` names what the torch op returns.
struct Fragment {
  std::vector<FragmentNode> nodes;
  std::vector<std::string> results;
};

enum class QuantOp { kQuantize, kDequantize, kFakeQuantize };

/// Types of scale and zero point where they are known at run time only.
struct RuntimeParams {
  TensorType scale;
  TensorType zero_point;
};

/// One quantiser and where it goes. `x` is the type of what comes in (of the codes for
/// kDequantize); unknown parts of it are allowed.
struct FragmentRequest {
  QuantOp op = QuantOp::kFakeQuantize;
  TensorType x;
  QuantParams
      params;  // as the source has them; with `runtime` only axis, block_size and dims' size
  std::optional<RuntimeParams> runtime;  // then the fragment's inputs are x, scale and zero_point
  CodeRange range;
  bool is_weight = false;           // codes are stored as they are: float -> Q -> [Clip] -> DQ
  bool rounds_zero_point = false;   // `runtime` only: fake_quantize_learned's zero point is a float
  DType dtype = DType::kUndefined;  // kQuantize: of the codes; kDequantize: of the result
  int64_t opset = 21;
  bool signed_activations = false;
  bool cast_f64 = false;
};

/// The nodes of a quantiser. An activation is stored unsigned with its range moved to 0 (unless
/// signed_activations), a weight as it is. Throws QuantRefusal. Example: fake_quantize of an int4
/// activation is QuantizeLinear (uint8, zero point + 8), Clip [0, 15], DequantizeLinear.
Fragment quantizer_fragment(const FragmentRequest& request);

/// DynamicQuantizeLinear's three results, or with `dequantize` the one value behind it. Throws
/// QuantRefusal for any other range than [0, 255], per tensor, asymmetric.
struct DynamicRequest {
  TensorType x;
  CodeRange range;
  bool is_symmetric = false;
  std::optional<int64_t> axis, block_size;
  int64_t opset = 21;
  bool cast_f64 = false;
  bool dequantize = true;
  int64_t qparams_rank = 0;  // without `dequantize`: of scale and zero point, 0 or 1
};
Fragment dynamic_fragment(const DynamicRequest& request);

}  // namespace qcdq
