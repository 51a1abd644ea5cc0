// Symbolic functions of activations, softmax and dropout: ONNX's own op where the opset has it,
// else the composition that gives the same numbers. Arithmetic: symbolics/arithmetic.cpp.
#include <cmath>

#include "symbolic/graph/element_types.h"
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

using enum OpTraits;

Values relu(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  if (is_floating(graph.type(x).dtype)) return {graph.op("Relu", {x})};
  return {emit_clip(graph, x, 0, std::nullopt)};  // runtimes have no Relu of most integer types
}

Values relu6(GraphBuilder& graph, NodeArgs& args) {
  return {emit_clip(graph, args.tensor("self"), 0, 6)};
}

Values hardtanh(GraphBuilder& graph, NodeArgs& args) {
  const Value x = as_output(graph, args, args.tensor("self"));
  const auto bound = [&](const char* name) -> Number {
    const Number number = args.number(name);
    const auto* real = std::get_if<double>(&number);
    return real == nullptr || is_floating(graph.type(x).dtype) ? number : std::trunc(*real);
  };
  const Number lowest = bound("min_val");
  return {emit_clip(graph, x, lowest, bound("max_val"))};
}

Values leaky_relu(GraphBuilder& graph, NodeArgs& args) {
  return {graph.op("LeakyRelu", {args.tensor("self")},
                   {{"alpha", static_cast<float>(args.real("negative_slope"))}})};
}

Values prelu(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  Value slope = args.tensor("weight");
  const std::vector<int64_t> slope_dims = dims_of(graph, args, "weight", slope);
  // One slope per channel, which is dimension 1: [C] -> [C, 1, 1].
  if (slope_dims.size() == 1 && slope_dims[0] != 1 && rank > 2) {
    std::vector<int64_t> dims(rank - 1, 1);
    dims[0] = slope_dims[0];
    slope = emit_reshape(graph, slope, dims);
  }
  return {graph.op("PRelu", {x, slope})};
}

Values elu(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const double scale = args.real("scale");
  if (const double input_scale = args.real("input_scale"); input_scale != 1) {
    args.unsupported("input_scale", number_text(input_scale), "ONNX Elu scales no input");
  }
  const Value y = graph.op("Elu", {x}, {{"alpha", static_cast<float>(args.real("alpha"))}});
  if (scale == 1) return {y};
  return {graph.op("Mul", {y, graph.scalar(graph.type(x).dtype, scale)})};
}

Values gelu_activation(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const std::string approximate = args.string("approximate");
  if (approximate != "none" && approximate != "tanh")
    args.unsupported("approximate", approximate, "expected none or tanh");
  return {emit_gelu(graph, x, approximate)};
}

Values silu(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  return {graph.op("Mul", {x, graph.op("Sigmoid", {x})})};
}

Value hard_sigmoid(GraphBuilder& graph, const Value& x) {
  return graph.op("HardSigmoid", {x}, {{"alpha", 1.0F / 6.0F}, {"beta", 0.5F}});
}

Values hardsigmoid(GraphBuilder& graph, NodeArgs& args) {
  return {hard_sigmoid(graph, args.tensor("self"))};
}

Values hardswish(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  if (graph.opset() >= 14) return {graph.op("HardSwish", {x})};
  return {graph.op("Mul", {x, hard_sigmoid(graph, x)})};
}

// log(1 + exp(beta x)) / beta; x itself where beta x > threshold.
Values softplus(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const DType dtype = graph.type(x).dtype;
  const Value beta = graph.scalar(dtype, args.real("beta"));
  const Value scaled = graph.op("Mul", {x, beta});
  const Value smooth = graph.op("Div", {graph.op("Softplus", {scaled}), beta});
  const Value large = graph.op("Greater", {scaled, graph.scalar(dtype, args.real("threshold"))});
  return {graph.op("Where", {large, x, smooth})};
}

Values mish(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  return {graph.op("Mul", {x, graph.op("Tanh", {graph.op("Softplus", {x})})})};
}

Values log_sigmoid(GraphBuilder& graph, NodeArgs& args) {
  return {graph.op("Neg", {graph.op("Softplus", {graph.op("Neg", {args.tensor("self")})})})};
}

template <OpName kOp>
Values softmax_over(GraphBuilder& graph, NodeArgs& args) {
  Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  args.ignore("dtype", "the recorded type of the output says the same");
  x = as_output(graph, args, x);
  const int64_t dim = wrap_dim(args.integer("dim"), rank);
  if (rank == 0)
    args.unsupported("self", "a 0-d tensor", "ONNX softmax needs a dimension", "unsqueeze it");
  return {emit_softmax(graph, kOp.text, x, dim, rank)};
}

Values dropout(GraphBuilder& /*graph*/, NodeArgs& args) {
  if (args.boolean("train")) {
    args.unsupported("train", "True", "dropout would change the result at every run",
                     "put the module into eval mode");
  }
  args.ignore("p", "dropout does nothing in eval mode");
  return {args.tensor("input")};
}

constexpr Symbolic kRows[] = {
    {"aten::relu", 10, relu, "Relu, Clip"},
    {"aten::sigmoid", 10, unary<"Sigmoid">, "Sigmoid"},
    {"aten::tanh", 10, unary<"Tanh">, "Tanh"},
    {"aten::selu", 10, unary<"Selu">, "Selu"},
    {"aten::relu6", 10, relu6, "Clip"},
    {"aten::hardtanh", 10, hardtanh, "Clip"},
    {"aten::leaky_relu", 10, leaky_relu, "LeakyRelu"},
    {"aten::prelu", 10, prelu, "PRelu, Reshape"},
    {"aten::elu", 10, elu, "Elu, Mul"},
    {"aten::gelu", 10, gelu_activation, "Gelu; below 20: Erf, Tanh, Mul, ..."},
    {"aten::silu", 10, silu, "Sigmoid, Mul"},
    {"aten::hardsigmoid", 10, hardsigmoid, "HardSigmoid"},
    {"aten::hardswish", 10, hardswish, "HardSwish; below 14: HardSigmoid, Mul"},
    {"aten::softplus", 10, softplus, "Softplus, Where"},
    {"aten::mish", 10, mish, "Softplus, Tanh, Mul"},
    {"aten::log_sigmoid", 10, log_sigmoid, "Softplus, Neg"},
    {"aten::softmax.int", 10, softmax_over<"Softmax">, "Softmax"},
    {"aten::log_softmax.int", 10, softmax_over<"LogSoftmax">, "LogSoftmax"},
    {"aten::dropout", 10, dropout, "(no node)", kMovesElements},
    {"aten::feature_dropout", 10, dropout, "(no node)", kMovesElements},
    {"aten::alpha_dropout", 10, dropout, "(no node)", kMovesElements},
};

}  // namespace

std::span<const Symbolic> activations_symbolics() { return kRows; }

}  // namespace qcdq
