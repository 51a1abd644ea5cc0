// Symbolic functions of reductions: sums, means, extremes, any and all, argmax, and the running
// sum. Where the axes stand at an opset is known to `reduce` of symbolics/onnx_forms.h.
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

// dim arguments: int[]?, where None and [] mean all dimensions.
std::vector<int64_t> reduced_axes(NodeArgs& args, int64_t rank) {
  if (!args.has("dim") || args.is_none("dim")) return {};
  std::vector<int64_t> axes = args.ints("dim");
  for (int64_t& axis : axes) axis = wrap_dim(axis, rank);
  return axes;
}

// x in the type of the output: torch sums integers as int64, and `dtype` asks for others.
Value input_of(GraphBuilder& graph, NodeArgs& args) {
  if (args.has("dtype")) args.ignore("dtype", "the recorded type of the output says the same");
  return graph.cast(args.tensor("self"), args.output_type().dtype);
}

template <OpName kOp>
Values reduction(GraphBuilder& graph, NodeArgs& args) {
  const Value x = input_of(graph, args);
  const int64_t rank = rank_of(graph, args, "self", x);
  const bool keepdim = args.has("keepdim") && args.boolean("keepdim");
  const std::vector<int64_t> axes = reduced_axes(args, rank);
  if (rank == 0) return {x};  // one element: its sum, mean and extremes are itself
  return {emit_reduce(graph, kOp.text, x, axes, keepdim)};
}

Value any_of(GraphBuilder& graph, const Value& boolean, const std::vector<int64_t>& axes,
             bool keepdim) {
  // A sum, not a maximum: nothing at all is 0, as in torch.
  const Value count =
      emit_reduce(graph, "ReduceSum", graph.cast(boolean, DType::kInt32), axes, keepdim);
  return graph.cast(count, DType::kBool);
}

// any and all; all is none that is not. They give uint8 for uint8, else bool.
template <bool kAll>
Values truth(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  const bool keepdim = args.has("keepdim") && args.boolean("keepdim");
  const bool named = args.has("dim") && !args.is_none("dim");
  const std::vector<int64_t> axes = reduced_axes(args, rank);
  Value y = graph.cast(x, DType::kBool);
  // Unlike elsewhere, an empty dim means no dimension here.
  if (rank > 0 && !(named && axes.empty())) {
    if (kAll) y = graph.op("Not", {y});
    y = any_of(graph, y, axes, keepdim);
    if (kAll) y = graph.op("Not", {y});
  }
  return {as_output(graph, args, y)};
}

template <OpName kOp>
Values arg_extreme(GraphBuilder& graph, NodeArgs& args) {
  Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  const bool keepdim = args.boolean("keepdim");
  const std::optional<int64_t> dim = args.optional_integer("dim");
  if (!dim) {
    if (keepdim)
      args.unsupported("keepdim", "True", "is only meant together with dim", "name the dim");
    x = emit_reshape(graph, x, {-1});
  }
  const int64_t axis = dim ? wrap_dim(*dim, rank) : 0;
  return {graph.op(kOp.text, {x}, {{"axis", axis}, {"keepdims", static_cast<int64_t>(keepdim)}})};
}

// max.dim and min.dim: values and indices.
template <OpName kReduce, OpName kArg>
Values extreme_and_index(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t dim = wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x));
  const bool keepdim = args.boolean("keepdim");
  const Value values = emit_reduce(graph, kReduce.text, x, {dim}, keepdim);
  return {values,
          graph.op(kArg.text, {x}, {{"axis", dim}, {"keepdims", static_cast<int64_t>(keepdim)}})};
}

Values cumsum(GraphBuilder& graph, NodeArgs& args) {
  const Value x = input_of(graph, args);
  const int64_t dim = wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x));
  return {graph.op("CumSum", {x, graph.scalar(DType::kInt64, dim)})};
}

constexpr Symbolic kRows[] = {
    {"aten::mean", 10, reduction<"ReduceMean">, "ReduceMean"},
    {"aten::mean.dim", 10, reduction<"ReduceMean">, "ReduceMean"},
    {"aten::sum", 10, reduction<"ReduceSum">, "ReduceSum"},
    {"aten::sum.dim_IntList", 10, reduction<"ReduceSum">, "ReduceSum"},
    {"aten::amax", 10, reduction<"ReduceMax">, "ReduceMax"},
    {"aten::amin", 10, reduction<"ReduceMin">, "ReduceMin"},
    {"aten::max", 10, reduction<"ReduceMax">, "ReduceMax"},
    {"aten::min", 10, reduction<"ReduceMin">, "ReduceMin"},
    {"aten::max.dim", 10, extreme_and_index<"ReduceMax", "ArgMax">, "ReduceMax, ArgMax"},
    {"aten::min.dim", 10, extreme_and_index<"ReduceMin", "ArgMin">, "ReduceMin, ArgMin"},
    {"aten::any", 10, truth<false>, "Cast, ReduceSum"},
    {"aten::any.dim", 10, truth<false>, "Cast, ReduceSum"},
    {"aten::any.dims", 10, truth<false>, "Cast, ReduceSum"},
    {"aten::all", 10, truth<true>, "Cast, Not, ReduceSum"},
    {"aten::all.dim", 10, truth<true>, "Cast, Not, ReduceSum"},
    {"aten::all.dims", 10, truth<true>, "Cast, Not, ReduceSum"},
    {"aten::argmax", 10, arg_extreme<"ArgMax">, "ArgMax, Reshape"},
    {"aten::argmin", 10, arg_extreme<"ArgMin">, "ArgMin, Reshape"},
    {"aten::cumsum", 11, cumsum, "CumSum"},
};

}  // namespace

std::span<const Symbolic> reductions_symbolics() { return kRows; }

}  // namespace qcdq
