// What the quantisation passes (qdq/*.cpp), the quant symbolics and the coverage report share:
// reading QuantizeLinear, DequantizeLinear and Clip nodes of an OnnxGraph, and arithmetic on
// constant codes (by include/qcdq/affine.h). No torch, no protobuf.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "symbolic/graph/element_types.h"
#include "symbolic/graph/emission_options.h"
#include "symbolic/graph/onnx_graph.h"
#include "symbolic/quantizer/codes.h"
#include "symbolic/quantizer/onnx_ops.h"

namespace qcdq {

/// Parameters of a Q or DQ node; nothing where scale or zero point are computed at run time.
std::optional<QuantParams> quant_params(const OnnxGraph& graph, const OnnxNode& node);
/// Gives a Q or DQ node scale and zero point initializers of its own, named after `base`.
void set_quant_params(OnnxGraph& graph, OnnxNode& node, const QuantParams& params,
                      const std::string& base);

/// Bounds of a Clip node with constant bounds, or of a Relu ([0, inf]); nothing for other nodes.
std::optional<std::pair<double, double>> clip_bounds(const OnnxGraph& graph, const OnnxNode& node);

/// A DequantizeLinear of an integer initializer: a weight or a bias.
struct IntegerConstant {
  OnnxNode* dq = nullptr;
  std::string codes;  // the initializer
  QuantParams params;
};
std::optional<IntegerConstant> integer_constant(const OnnxGraph& graph, const GraphIndex& index,
                                                const std::string& value);
/// Values of a float initializer or of an IntegerConstant; nothing for what is computed at run
/// time.
std::optional<std::vector<double>> constant_values(const OnnxGraph& graph, const GraphIndex& index,
                                                   const std::string& value);

/// A quantised activation: QuantizeLinear -> [Clip] -> DequantizeLinear.
struct QuantizedValue {
  OnnxNode* dq = nullptr;
  OnnxNode* q = nullptr;
  OnnxNode* clip = nullptr;  // nullptr: none
  QuantParams params;        // of the DequantizeLinear
  CodeRange range;           // codes that can occur
};
/// The quantiser that `value` comes out of, seen through ops that only move elements (MaxPool,
/// Reshape, ...); the number of such ops goes to *moved.
std::optional<QuantizedValue> quantized_value(const OnnxGraph& graph, const GraphIndex& index,
                                              std::string value, int* moved = nullptr);

/// Where a weight's output channels lie in it, for Conv, ConvTranspose (group 1) and Gemm; -1 for
/// others.
int64_t output_channel_axis(const OnnxNode& node);

/// The Add of a constant bias that is the only user of a MatMul by a constant 2-d weight, as a
/// Linear on more than two dimensions has it; nullptr where there is none. The bias is input 1.
OnnxNode* bias_add(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& matmul);

/// A node with one output, inserted before `before`; its output's type is recorded.
OnnxNode& insert_node(OnnxGraph& graph, OnnxGraph::NodeIt before, const std::string& op_type,
                      const std::string& base, std::vector<std::string> inputs,
                      const TensorType& type, const OnnxNode& origin);
OnnxGraph::NodeIt find_node(OnnxGraph& graph, const OnnxNode& node);

/// What --weights qdq restores: the source's own floats, and the declared range.
struct WeightOrigin {
  std::optional<TensorData> x;  // nothing where the codes no longer follow from it
  CodeRange range;
};

/// What the passes hand on.
struct QdqState {
  OnnxGraph& graph;
  const EmissionOptions& options;
  std::vector<std::string>& notes;
  std::map<std::string, WeightOrigin> origins;  // by the codes' initializer
};

/// A change of the graph at one node, which it may remove; false: there is nothing to do.
using Rewrite = bool (*)(QdqState&, const GraphIndex&, OnnxGraph::NodeIt);
/// Applies `rewrite` until no node is left that it changes; each change gets a new
/// index (qdq/activations.cpp).
void rewrite_until_stable(QdqState& state, Rewrite rewrite);

// The pass families, in the order in which run_qdq_passes (qdq/passes.cpp) calls them.
void fold_constant_quantizers(QdqState& state);  // qdq/weights.cpp: Q [Clip] over an initializer
void fold_weight_views(QdqState& state);         // qdq/weights.cpp: Transpose, Reshape of a weight
void fold_batchnorm(QdqState& state);            // qdq/batchnorm.cpp
void simplify_quantizers(QdqState& state);       // qdq/activations.cpp: Relu, Clip, Cast, storage
void quantize_biases(QdqState& state);           // qdq/bias.cpp
void store_weights_as_uint8(QdqState& state);    // qdq/weights.cpp: --weight-storage uint8
void restore_float_weights(QdqState& state);     // qdq/weights.cpp: --weights qdq
void own_quant_params(QdqState& state);          // qdq/activations.cpp
void note_saturation(QdqState& state);           // qdq/weights.cpp

}  // namespace qcdq
