// ONNX ops whose form changed between opsets (attributes that became inputs) and short compositions
// of them: symbolics/*.cpp ask for what they mean, and these give the nodes of the target opset.
// What torch's side needs, promotion and dimensions, is in symbolics/torch_rules.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

using Values = std::vector<Value>;

/// A string as a template argument: `unary<"Relu">`.
template <size_t N>
struct OpName {
  char text[N];
  constexpr OpName(const char (&name)[N]) {
    std::copy_n(name, N, text);
  }  // NOLINT: implicit on purpose
};

/// The symbolic function of a torch op that is ONNX op `kOp` of argument `self`.
template <OpName kOp>
Values unary(GraphBuilder& graph, NodeArgs& args) {
  return {graph.op(kOp.text, {as_output(graph, args, args.tensor("self"))})};
}

Value emit_unsqueeze(GraphBuilder& graph, const Value& x, std::vector<int64_t> axes);
Value emit_squeeze(GraphBuilder& graph, const Value& x, std::vector<int64_t> axes);
/// op: ReduceMean, ReduceSum, ReduceMax, ... Empty axes: all of them.
Value emit_reduce(GraphBuilder& graph, std::string_view op, const Value& x,
                  const std::vector<int64_t>& axes, bool keepdims);
/// Bounds that are not given leave that side open, as do those that no value of x reaches.
Value emit_clip(GraphBuilder& graph, const Value& x, std::optional<Number> lowest,
                std::optional<Number> highest);
/// pads in ONNX order: all begins, then all ends. mode: constant, reflect, edge, wrap.
Value emit_pad(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& pads,
               const std::string& mode, const Number& value);
Values emit_split(GraphBuilder& graph, const Value& x, int64_t axis,
                  const std::vector<int64_t>& sizes);
/// Reshape to constant dims, of which one may be -1.
Value emit_reshape(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& dims);
/// Slices one axis; start and end are 1-element int64 values.
Value emit_slice(GraphBuilder& graph, const Value& x, int64_t axis, const Value& start,
                 const Value& end, int64_t step);
/// The same between constants, with step 1; `end` may be kEnd.
Value emit_slice(GraphBuilder& graph, const Value& x, int64_t axis, int64_t start, int64_t end);
inline constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
Value emit_transpose(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& permutation);
/// Softmax or LogSoftmax over one axis: before opset 13 ONNX flattened everything behind `axis`
/// into it.
Value emit_softmax(GraphBuilder& graph, std::string_view op, const Value& x, int64_t axis,
                   int64_t rank);
/// Normalisation over the last dimensions, of sizes `shape`, of an x of `rank` dimensions; weight
/// and bias may be absent. LayerNormalization, or its composition before opset 17.
Value emit_layer_norm(GraphBuilder& graph, const Value& x, int64_t rank,
                      const std::vector<int64_t>& shape, const Value& weight, const Value& bias,
                      double epsilon);
/// approximate: none or tanh. Gelu, or its composition before opset 20.
Value emit_gelu(GraphBuilder& graph, const Value& x, const std::string& approximate);
/// A 1-d constant of `count` equal numbers.
Value constant_of(GraphBuilder& graph, DType dtype, int64_t count, const Number& value);

/// ONNX's order of pads.
std::vector<int64_t> begins_and_ends(const std::vector<int64_t>& begins,
                                     const std::vector<int64_t>& ends);
/// `x` with a batch dimension, which torch's layers don't insist on and ONNX's do; `added` says
/// whether it had none.
Value add_batch(GraphBuilder& graph, const NodeArgs& args, std::string_view name, const Value& x,
                int64_t spatial, bool& added);
/// The result without the batch dimension that `batched` added.
Value drop_batch(GraphBuilder& graph, const Value& y, bool added);

}  // namespace qcdq
