// Symbolic functions of comparisons and of logic on booleans. torch compares two operands in the
// type that it would promote them to (symbolics/torch_rules.h). Arithmetic:
// symbolics/arithmetic.cpp.
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

using enum OpTraits;

// Both sides of a comparison in the type in which torch compares them.
std::pair<Value, Value> compared(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  if (ends_with_scalar(args)) {
    const Number other = args.number("other");
    const DType dtype = result_type(graph.type(x).dtype, other);
    return {graph.cast(x, dtype), graph.scalar(dtype, cast_number(dtype, other))};
  }
  const Value y = args.tensor("other");
  const DType dtype = result_type(graph, x, y);
  return {graph.cast(x, dtype), graph.cast(y, dtype)};
}

template <OpName kOp>
Values comparison(GraphBuilder& graph, NodeArgs& args) {
  const auto [x, y] = compared(graph, args);
  return {graph.op(kOp.text, {x, y})};
}

Values not_equal(GraphBuilder& graph, NodeArgs& args) {
  const auto [x, y] = compared(graph, args);
  return {graph.op("Not", {graph.op("Equal", {x, y})})};
}

// LessOrEqual and GreaterOrEqual exist from opset 12; Not(Greater) would be true for NaN.
template <OpName kStrict>
Values or_equal(GraphBuilder& graph, NodeArgs& args) {
  const auto [x, y] = compared(graph, args);
  if (graph.opset() >= 12) return {graph.op(std::string(kStrict.text) + "OrEqual", {x, y})};
  return {graph.op("Or", {graph.op(kStrict.text, {x, y}), graph.op("Equal", {x, y})})};
}

template <OpName kOp>
Values logical(GraphBuilder& graph, NodeArgs& args) {
  const Value x = graph.cast(args.tensor("self"), DType::kBool);
  return {graph.op(kOp.text, {x, graph.cast(args.tensor("other"), DType::kBool)})};
}

Values logical_not(GraphBuilder& graph, NodeArgs& args) {
  return {graph.op("Not", {graph.cast(args.tensor("self"), DType::kBool)})};
}

constexpr Symbolic kRows[] = {
    {"aten::eq", 10, comparison<"Equal">, "Equal", kBoolResult},
    {"aten::ne", 10, not_equal, "Equal, Not", kBoolResult},
    {"aten::lt", 10, comparison<"Less">, "Less", kBoolResult},
    {"aten::gt", 10, comparison<"Greater">, "Greater", kBoolResult},
    {"aten::le", 10, or_equal<"Less">, "LessOrEqual; below 12: Less, Equal, Or", kBoolResult},
    {"aten::ge", 10, or_equal<"Greater">, "GreaterOrEqual; below 12: Greater, Equal, Or",
     kBoolResult},
    {"aten::logical_and", 10, logical<"And">, "And", kBoolResult},
    {"aten::logical_or", 10, logical<"Or">, "Or", kBoolResult},
    {"aten::logical_xor", 10, logical<"Xor">, "Xor", kBoolResult},
    {"aten::logical_not", 10, logical_not, "Not", kBoolResult},
};

}  // namespace

std::span<const Symbolic> comparisons_symbolics() { return kRows; }

}  // namespace qcdq
