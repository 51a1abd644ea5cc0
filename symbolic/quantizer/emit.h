// The emission of quantisers for the quant symbolics (symbolics/quantizers.cpp): constants become
// codes, everything else the nodes that quantizer/nodes.h chooses. design: Q -> [Clip] -> DQ for
// activations, integer initializer -> DQ for constants.
#pragma once

#include <string>
#include <vector>

#include "symbolic/graph/graph_builder.h"
#include "symbolic/quantizer/nodes.h"

namespace qcdq {

/// What a torch op asks for: constant scale and zero point, and a range of codes.
struct QuantizerRequest {
  QuantParams params;  // zero points as the source has them; the storage type is not chosen yet
  CodeRange range;
  bool aten = false;  // aten multiplies by 1 / scale, so that rounding ties may differ
};

/// fake_quantize of a value: a constant becomes integer codes, anything else Q -> [Clip] -> DQ. The
/// result has x's type. `name` is x's argument.
Value emit_fake_quantize(GraphBuilder& graph, NodeArgs& args, const char* name,
                         QuantizerRequest quantizer);
/// Codes of x as element type `dtype`.
Value emit_quantize(GraphBuilder& graph, NodeArgs& args, const char* name,
                    QuantizerRequest quantizer, DType dtype);
/// Values of codes; the result has element type `dtype`.
Value emit_dequantize(GraphBuilder& graph, NodeArgs& args, const char* name, QuantParams params,
                      DType dtype);

/// Adds a fragment's nodes. x is its input; `base` starts the names of its constants.
std::vector<Value> emit_fragment(GraphBuilder& graph, const Fragment& fragment, const Value& x,
                                 const std::string& base);
/// Base of names for a quantiser's constants: the module's path.
std::string quantizer_name(const GraphBuilder& graph);
/// A fragment's refusal as one of this torch op; "x" and "axis" under the op's own names.
[[noreturn]] void refuse_quantizer(const NodeArgs& args, const QuantRefusal& refusal,
                                   const char* x_name);

/// Runs `make`, and turns a QuantRefusal into the torch op's UnsupportedOp.
template <typename Make>
auto with_refusals(const NodeArgs& args, const char* x_name, Make make) {
  try {
    return make();
  } catch (const QuantRefusal& refusal) {
    refuse_quantizer(args, refusal, x_name);
  }
}

}  // namespace qcdq
