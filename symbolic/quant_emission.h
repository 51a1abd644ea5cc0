// The emission of quantisers (quant_emission.cpp) for the quant symbolics (symbolics_quant.cpp):
// which nodes and which storage type a quantiser becomes. design: Q -> [Clip] -> DQ for
// activations, integer initializer -> DQ for constants.
#pragma once

#include <string>

#include "symbolic/graph_builder.h"
#include "symbolic/qdq_graph.h"

namespace qcdq {

/// What a torch op asks for: constant scale and zero point, and a range of codes.
struct Quantizer {
  QuantParams params;  // zero points as the source has them; the storage type is not chosen yet
  CodeRange range;
  bool aten = false;  // aten multiplies by 1 / scale, so that rounding ties may differ
};

/// How codes of a range are stored: code + shift in `storage`.
struct CodeStorage {
  DType storage = DType::kUInt8;
  int64_t shift = 0;
};
/// Storage of an activation: unsigned with the range moved to 0 unless `keep_sign`; kUndefined
/// where the range has more than 16 bits. Example: `activation_storage({-8, 7}, false)` is uint8
/// shifted by 8.
CodeStorage activation_storage(CodeRange range, bool keep_sign);
/// Smallest storage of constant codes as they are: 8 bits, then 16 bits (opset 21), else int32.
DType constant_storage(CodeRange range, int64_t opset);

/// fake_quantize of a value: a constant becomes integer codes, anything else Q -> [Clip] -> DQ. The
/// result has x's type. `name` is x's argument.
Value emit_fake_quantize(GraphBuilder& graph, NodeArgs& args, const char* name,
                         Quantizer quantizer);
/// Codes of x as element type `dtype`.
Value emit_quantize(GraphBuilder& graph, NodeArgs& args, const char* name, Quantizer quantizer,
                    DType dtype);
/// Values of codes; the result has element type `dtype`.
Value emit_dequantize(GraphBuilder& graph, NodeArgs& args, const char* name, QuantParams params,
                      DType dtype);

/// x as float32 where it is f16, bf16 or, with --cast-f64, f64; refuses other types.
Value as_float32(GraphBuilder& graph, NodeArgs& args, const char* name, const Value& x);
/// Refuses parameters that the target opset can't express: per channel, blocked.
void require_opset(const GraphBuilder& graph, const NodeArgs& args, const QuantParams& params);
/// Base of names for a quantiser's constants: the module's path.
std::string quantizer_name(const GraphBuilder& graph);

}  // namespace qcdq
