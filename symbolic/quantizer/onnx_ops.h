// onnx_ops: what the quantisation passes must know of an ONNX op: whether it only moves elements,
// where it takes a weight and a bias, and what ONNX Runtime (ORT) runs in int8. One row per op;
// used by every file of qdq/.
#pragma once

#include <span>
#include <string_view>

#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

/// How an op's output is made of the elements of its input 0, so that the op runs on codes as it
/// does on values. ORT carries Q/DQ pairs through all but kComputes.
enum class ElementMove {
  kComputes,    // they are new
  kReshapes,    // all elements in the same order
  kTransposes,  // all elements in another order
  kPicks,       // some of them
};

/// ORT's kernel on codes for an op between DequantizeLinear and QuantizeLinear.
enum class Int8Kernel {
  kUnlisted,  // the coverage report leaves the op out: it moves elements, or is no layer
  kFloatOnly,
  kConv,
  kMatrix,
  kOneInput,   // elementwise, by input 0
  kAllInputs,  // elementwise, of several inputs
  kPool,       // MaxPool: moves codes, and is listed because people look for it
};

struct OnnxOpFacts {
  std::string_view op_type = "";
  Int8Kernel int8 = Int8Kernel::kUnlisted;
  ElementMove moves = ElementMove::kComputes;
  bool takes_weight = false;  // as input 1
  bool takes_bias = false;    // as input 2
};

/// The row of the node's op; one with no facts for an op that has none, or of another domain.
const OnnxOpFacts& onnx_op_facts(const OnnxNode& node);
std::span<const OnnxOpFacts> onnx_op_rows();

/// Ops that keep or pick elements, so that they run on codes as they do on values.
bool moves_elements(const OnnxNode& node);

}  // namespace qcdq
