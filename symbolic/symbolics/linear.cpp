// Symbolic functions of linear layers, matrix products and embedding, which picks rows of a matrix.
// Attention, which is made of such products: symbolics/attention.cpp.
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

Values linear(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("input");
  const Value weight = args.tensor("weight");
  const Value bias = args.optional_tensor("bias");
  const int64_t weight_rank = rank_of(graph, args, "weight", weight);
  // Gemm's C is optional from opset 11. Runtimes have MatMul of integers, and no Gemm of them.
  if (rank_of(graph, args, "input", x) == 2 && weight_rank == 2 &&
      is_floating(graph.type(x).dtype) && (bias.present() || graph.opset() >= 11)) {
    return {graph.op("Gemm", {x, weight, bias}, {{"transB", int64_t{1}}})};
  }
  const Value product =
      graph.op("MatMul", {x, weight_rank == 2 ? emit_transpose(graph, weight, {1, 0}) : weight});
  if (!bias.present()) return {product};
  return {graph.op("Add", {product, bias})};
}

// beta * self + alpha * a @ b
Values product_and_sum(GraphBuilder& graph, NodeArgs& args, const Value& a, const Value& b) {
  const DType dtype = args.output_type().dtype;
  const auto times = [&](const Value& x, const Number& factor) {
    if (to_double(factor) == 1) return x;
    return graph.op("Mul", {x, graph.scalar(dtype, stored_number(dtype, factor))});
  };
  const Value added = args.tensor("self");
  const Number beta = args.number("beta");
  const Value product = times(graph.op("MatMul", {a, b}), args.number("alpha"));
  if (to_double(beta) == 0) return {product};  // self is not read: NaN in it does not spread
  return {graph.op("Add", {times(added, beta), product})};
}

Values addmm(GraphBuilder& graph, NodeArgs& args) {
  const Value a = args.tensor("mat1");
  const Value b = args.tensor("mat2");
  const double alpha = args.real("alpha");
  const double beta = args.real("beta");
  const auto narrow_alpha = static_cast<float>(alpha);
  const auto narrow_beta = static_cast<float>(beta);
  const DType dtype = args.output_type().dtype;
  const bool exact = dtype != DType::kFloat64 || (narrow_alpha == alpha && narrow_beta == beta);
  if (!is_floating(dtype) || !exact) return product_and_sum(graph, args, a, b);
  Attributes attributes;
  if (alpha != 1) attributes.emplace_back("alpha", narrow_alpha);
  if (beta != 1) attributes.emplace_back("beta", narrow_beta);
  return {graph.op("Gemm", {a, b, args.tensor("self")}, attributes)};
}

Values matmul(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  return {graph.op("MatMul", {x, args.tensor(args.has("other") ? "other" : "mat2")})};
}

Values baddbmm(GraphBuilder& graph, NodeArgs& args) {
  const Value a = args.tensor("batch1");
  return product_and_sum(graph, args, a, args.tensor("batch2"));
}

Values einsum(GraphBuilder& graph, NodeArgs& args) {
  std::string equation = args.string("equation");
  std::erase(equation, ' ');
  args.ignore("path", "the order of the products doesn't change the result");
  return {graph.op("Einsum", args.tensors("tensors"), {{"equation", equation}})};
}

Values embedding(GraphBuilder& graph, NodeArgs& args) {
  args.ignore("padding_idx", "only changes gradients");
  args.ignore("scale_grad_by_freq", "only changes gradients");
  args.ignore("sparse", "only changes gradients");
  const Value weight = args.tensor("weight");
  return {graph.op("Gather", {weight, args.tensor("indices")}, {{"axis", int64_t{0}}})};
}

constexpr Symbolic kRows[] = {
    {"aten::linear", 10, linear, "Gemm, MatMul, Add"},
    {"aten::addmm", 10, addmm, "Gemm; of integers: MatMul, Mul, Add"},
    {"aten::matmul", 10, matmul, "MatMul"},
    {"aten::mm", 10, matmul, "MatMul"},
    {"aten::bmm", 10, matmul, "MatMul"},
    {"aten::baddbmm", 10, baddbmm, "MatMul, Mul, Add"},
    {"aten::einsum", 12, einsum, "Einsum"},
    {"aten::embedding", 10, embedding, "Gather"},
};

}  // namespace

std::span<const Symbolic> linear_symbolics() { return kRows; }

}  // namespace qcdq
