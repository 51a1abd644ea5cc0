// Symbolic functions of sizes and other integers that are known only at run time: 0-d int64 values,
// and lists of them as 1-d ones. Sizes that the recorded shapes decide are folded before
// (record/shape_folding.cpp).
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

using enum OpTraits;

Values size(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const Value shape = graph.op("Shape", {x});
  if (!args.has("dim")) return {shape};
  const int64_t dim = wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x));
  return {graph.op("Gather", {shape, graph.scalar(DType::kInt64, dim)}, {{"axis", int64_t{0}}})};
}

Values list_item(GraphBuilder& graph, NodeArgs& args) {
  if (args.output_type().dtype != DType::kUndefined) {  // Tensor[]
    const Values elements = args.tensors("list");
    const int64_t index = wrap_dim(args.integer("idx"), static_cast<int64_t>(elements.size()));
    if (index < 0 || index >= static_cast<int64_t>(elements.size())) {
      args.unsupported("idx", std::to_string(args.integer("idx")),
                       "the list has " + std::to_string(elements.size()) + " known elements");
    }
    return {elements[static_cast<size_t>(index)]};
  }
  const Value list = args.ints_value("list");
  return {graph.op("Gather", {list, args.integer_value("idx")}, {{"axis", int64_t{0}}})};
}

template <OpName kOp>
Values int_arithmetic(GraphBuilder& graph, NodeArgs& args) {
  const Value a = args.integer_value("a");
  return {graph.op(kOp.text, {a, args.integer_value("b")})};
}

// ONNX's Div truncates; without the remainder (its Mod has the sign of the divisor) nothing is cut
// off. An integer may come from data, and be negative.
Values int_floor_divide(GraphBuilder& graph, NodeArgs& args) {
  const Value a = args.integer_value("a");
  if (args.integer("b") <= 0)
    args.unsupported("b", std::to_string(args.integer("b")), "expected a positive divisor");
  const Value b = args.integer_value("b");
  return {graph.op("Div", {graph.op("Sub", {a, graph.op("Mod", {a, b})}), b})};
}

// A size as a 0-d tensor and back.
Values same_number(GraphBuilder& /*graph*/, NodeArgs& args) { return {args.integer_value("a")}; }
Values int_of_tensor(GraphBuilder& graph, NodeArgs& args) {
  return {graph.cast(args.tensor("a"), DType::kInt64)};
}

constexpr Symbolic kRows[] = {
    {"aten::size", 10, size, "Shape, Gather", kQuery},
    {"aten::size.int", 10, size, "Shape, Gather", kQuery},
    {"aten::__getitem__.t", 10, list_item, "Gather"},
    {"aten::add.int", 10, int_arithmetic<"Add">, "Add"},
    {"aten::sub.int", 10, int_arithmetic<"Sub">, "Sub"},
    {"aten::mul.int", 10, int_arithmetic<"Mul">, "Mul"},
    {"aten::floordiv.int", 10, int_floor_divide, "Mod, Sub, Div"},
    {"prim::NumToTensor.Scalar", 10, same_number, "(no node)"},
    {"aten::Int.Tensor", 10, int_of_tensor, "(no node)"},
    {"aten::IntImplicit", 10, int_of_tensor, "(no node)"},
    facts_of("aten::dim", kQuery),
    facts_of("aten::numel", kQuery),
    facts_of("aten::len.Tensor", kQuery),
    facts_of("aten::len.t", kQuery),
    facts_of("aten::stride", kQuery),
    facts_of("aten::is_floating_point", kQuery),
    facts_of("aten::is_complex", kQuery),
    facts_of("aten::_shape_as_tensor", kQuery),
    facts_of("aten::__is__", kQuery),
    facts_of("aten::__isnot__", kQuery),
    facts_of("prim::dtype", kQuery),
    facts_of("prim::device", kQuery),
    facts_of("prim::layout", kQuery),
    facts_of("prim::requires_grad", kQuery),
    facts_of("prim::is_cpu", kQuery),
    facts_of("prim::is_cuda", kQuery),
    facts_of("prim::is_ipu", kQuery),
    facts_of("prim::is_maia", kQuery),
    facts_of("prim::is_meta", kQuery),
    facts_of("prim::is_mkldnn", kQuery),
    facts_of("prim::is_mps", kQuery),
    facts_of("prim::is_mtia", kQuery),
    facts_of("prim::is_nested", kQuery),
    facts_of("prim::is_quantized", kQuery),
    facts_of("prim::is_sparse", kQuery),
    facts_of("prim::is_sparse_csr", kQuery),
    facts_of("prim::is_vulkan", kQuery),
    facts_of("prim::is_xla", kQuery),
    facts_of("prim::is_xpu", kQuery),
};

}  // namespace

std::span<const Symbolic> sizes_symbolics() { return kRows; }

}  // namespace qcdq
