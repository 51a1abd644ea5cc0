// ONNX ops whose form changed between opsets (attributes that became inputs), and the questions
// about ranks and element types that every symbolic function asks. Used by symbolics/*.cpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qcdq/symbolic.h"

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

/// The rank of `x`, which is argument `name`; refuses where it is not known.
int64_t rank_of(const GraphBuilder& graph, const NodeArgs& args, std::string_view name,
                const Value& x);
/// The dimensions of `x` (-1: dynamic); refuses where its rank is not known.
std::vector<int64_t> dims_of(const GraphBuilder& graph, const NodeArgs& args, std::string_view name,
                             const Value& x);
/// dim in [0, rank); a 0-d tensor counts as rank 1, as in torch.
int64_t normalized(int64_t dim, int64_t rank);

/// Notes the dimensions of a value between ops, where ONNX's schema alone does not tell them.
void set_dims(GraphBuilder& graph, const Value& value, std::vector<int64_t> dims);

/// torch's promotion of two element types of equal standing.
DType promote(DType a, DType b);
/// torch's result_type of two tensors: a 0-d tensor only counts where its category (bool < integer
/// < floating) is higher.
DType result_type(const GraphBuilder& graph, const Value& a, const Value& b);
/// torch's result_type of a tensor and a Scalar.
DType result_type(DType tensor, bool scalar_is_integer);

/// `x` in the element type that torch's output was recorded with.
Value as_output(GraphBuilder& graph, const NodeArgs& args, const Value& x);

Value unsqueeze(GraphBuilder& graph, const Value& x, std::vector<int64_t> axes);
Value squeeze(GraphBuilder& graph, const Value& x, std::vector<int64_t> axes);
/// op: ReduceMean, ReduceSum, ReduceMax, ... Empty axes: all of them.
Value reduce(GraphBuilder& graph, std::string_view op, const Value& x,
             const std::vector<int64_t>& axes, bool keepdims);
/// Bounds that are not given leave that side open.
Value clip(GraphBuilder& graph, const Value& x, std::optional<double> lowest,
           std::optional<double> highest);
/// pads in ONNX order: all begins, then all ends. mode: constant, reflect, edge, wrap.
Value pad(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& pads,
          const std::string& mode, double value);
Values split(GraphBuilder& graph, const Value& x, int64_t axis, const std::vector<int64_t>& sizes);
/// Reshape to constant dims, of which one may be -1.
Value reshape(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& dims);
/// Slices one axis; start and end are 1-element int64 values.
Value slice(GraphBuilder& graph, const Value& x, int64_t axis, const Value& start, const Value& end,
            int64_t step);
/// The same between constants, with step 1; `end` may be kEnd.
Value slice(GraphBuilder& graph, const Value& x, int64_t axis, int64_t start, int64_t end);
inline constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
Value transpose(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& permutation);
/// Softmax or LogSoftmax over one axis: before opset 13 ONNX flattened everything behind `axis`
/// into it.
Value softmax(GraphBuilder& graph, std::string_view op, const Value& x, int64_t axis, int64_t rank);
/// Normalisation over the last dimensions, of sizes `shape`, of an x of `rank` dimensions; weight
/// and bias may be absent. LayerNormalization, or its composition before opset 17.
Value layer_norm(GraphBuilder& graph, const Value& x, int64_t rank,
                 const std::vector<int64_t>& shape, const Value& weight, const Value& bias,
                 double epsilon);
/// approximate: none or tanh. Gelu, or its composition before opset 20.
Value gelu(GraphBuilder& graph, const Value& x, const std::string& approximate);
/// A 1-d constant of `count` equal numbers.
Value filled(GraphBuilder& graph, DType dtype, int64_t count, double value);

/// "[1, 2]", for messages.
std::string list_text(const std::vector<int64_t>& values);
/// One number stands for all spatial dimensions, as torch's layers have it.
std::vector<int64_t> spread(std::vector<int64_t> values, int64_t spatial);
/// ONNX's order of pads.
std::vector<int64_t> begins_and_ends(const std::vector<int64_t>& begins,
                                     const std::vector<int64_t>& ends);
/// `x` with a batch dimension, which torch's layers don't insist on and ONNX's do; `added` says
/// whether it had none.
Value batched(GraphBuilder& graph, const NodeArgs& args, std::string_view name, const Value& x,
              int64_t spatial, bool& added);
/// The result without the batch dimension that `batched` added.
Value unbatched(GraphBuilder& graph, const Value& y, bool added);

}  // namespace qcdq
