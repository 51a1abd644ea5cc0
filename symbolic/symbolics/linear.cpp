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
  // Gemm's C is optional from opset 11.
  if (rank_of(graph, args, "input", x) == 2 && weight_rank == 2 &&
      (bias.present() || graph.opset() >= 11)) {
    return {graph.op("Gemm", {x, weight, bias}, {{"transB", int64_t{1}}})};
  }
  const Value product =
      graph.op("MatMul", {x, weight_rank == 2 ? emit_transpose(graph, weight, {1, 0}) : weight});
  if (!bias.present()) return {product};
  return {graph.op("Add", {product, bias})};
}

Values addmm(GraphBuilder& graph, NodeArgs& args) {
  const Value c = args.tensor("self");
  const Value a = args.tensor("mat1");
  const Value b = args.tensor("mat2");
  Attributes attributes;
  if (const double alpha = args.number("alpha"); alpha != 1)
    attributes.emplace_back("alpha", static_cast<float>(alpha));
  if (const double beta = args.number("beta"); beta != 1)
    attributes.emplace_back("beta", static_cast<float>(beta));
  return {graph.op("Gemm", {a, b, c}, attributes)};
}

Values matmul(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  return {graph.op("MatMul", {x, args.tensor(args.has("other") ? "other" : "mat2")})};
}

// beta * self + alpha * batch1 @ batch2
Values baddbmm(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.output_type().dtype;
  Value product = graph.op("MatMul", {args.tensor("batch1"), args.tensor("batch2")});
  if (const double alpha = args.number("alpha"); alpha != 1)
    product = graph.op("Mul", {product, graph.scalar(dtype, alpha)});
  const double beta = args.number("beta");
  Value added = args.tensor("self");
  if (beta == 0) return {product};  // self is not read: NaN in it does not spread
  if (beta != 1) added = graph.op("Mul", {added, graph.scalar(dtype, beta)});
  return {graph.op("Add", {added, product})};
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
    {"aten::addmm", 10, addmm, "Gemm"},
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
