// Symbolic functions of elementwise arithmetic, of where and masked_fill, of casts, and of what
// passes its input through. As in torch, inputs are cast to the type that torch's output was
// recorded with. Comparisons: symbolics/comparisons.cpp; activations: symbolics/activations.cpp.
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

using enum OpTraits;

// Argument `name` as a value of type dtype: a Tensor, or a Scalar that becomes a constant.
Value operand(GraphBuilder& graph, NodeArgs& args, std::string_view name, DType dtype,
              bool scalar) {
  if (scalar) return graph.scalar(dtype, cast_number(dtype, args.number(name)));
  return graph.cast(args.tensor(name), dtype);
}

// The same where torch stores the number, and does not compute with it.
Value stored_operand(GraphBuilder& graph, NodeArgs& args, std::string_view name, DType dtype,
                     bool scalar) {
  if (scalar) return graph.scalar(dtype, stored_number(dtype, args.number(name)));
  return graph.cast(args.tensor(name), dtype);
}

// An ONNX op of two values of type dtype; on booleans it is the logical op that torch computes.
Value emit_binary(GraphBuilder& graph, std::string op, DType dtype, const Value& x,
                  const Value& y) {
  if (dtype == DType::kBool) {
    if (op == "Add" || op == "Max") op = "Or";
    if (op == "Mul" || op == "Min") op = "And";
  }
  return graph.op(op, {x, y});
}

// y times the factor `name` of an addition.
Value multiplied(GraphBuilder& graph, NodeArgs& args, std::string_view name, DType dtype,
                 const Value& y) {
  const Number factor = args.number(name);
  if (to_double(factor) == 1) return y;
  return emit_binary(graph, "Mul", dtype, y, graph.scalar(dtype, stored_number(dtype, factor)));
}

// other * alpha as torch has it in dtype: an integer type keeps the low bits.
Number product(DType dtype, const Number& a, const Number& b) {
  const auto* x = std::get_if<int64_t>(&a);
  const auto* y = std::get_if<int64_t>(&b);
  if (is_floating(dtype) || x == nullptr || y == nullptr) return to_double(a) * to_double(b);
  return cast_number(dtype,
                     static_cast<int64_t>(static_cast<uint64_t>(*x) * static_cast<uint64_t>(*y)));
}

template <OpName kOp>
Values add_or_sub(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.output_type().dtype;
  const Value x = graph.cast(args.tensor("self"), dtype);
  const Value y =
      ends_with_scalar(args)
          ? graph.scalar(dtype, product(dtype, args.number("other"), args.number("alpha")))
          : multiplied(graph, args, "alpha", dtype, graph.cast(args.tensor("other"), dtype));
  return {emit_binary(graph, kOp.text, dtype, x, y)};
}

Values rsub(GraphBuilder& graph, NodeArgs& args) {  // other - alpha * self
  const DType dtype = args.output_type().dtype;
  const Value x = multiplied(graph, args, "alpha", dtype, graph.cast(args.tensor("self"), dtype));
  return {graph.op("Sub", {operand(graph, args, "other", dtype, ends_with_scalar(args)), x})};
}

template <OpName kOp>
Values binary(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.output_type().dtype;
  const Value x = graph.cast(args.tensor("self"), dtype);
  const Value y = operand(graph, args, "other", dtype, ends_with_scalar(args));
  return {emit_binary(graph, kOp.text, dtype, x, y)};
}

// x rounded towards zero.
Value truncated(GraphBuilder& graph, const Value& x) {
  return graph.op("Mul", {graph.op("Sign", {x}), graph.op("Floor", {graph.op("Abs", {x})})});
}

// True where the remainder is not 0 and its sign differs from the divisor's: where truncation and
// floor differ.
Value floor_is_below(GraphBuilder& graph, const Value& remainder, const Value& divisor,
                     DType dtype) {
  const Value zero = graph.scalar(dtype, 0);
  const Value negative = graph.op("Less", {remainder, zero});
  const Value opposite = graph.op("Xor", {negative, graph.op("Less", {divisor, zero})});
  const Value inexact = graph.op("Not", {graph.op("Equal", {remainder, zero})});
  return graph.op("And", {opposite, inexact});
}

// ATen's floor division. For floats it starts from fmod and not from x / y: 1 // 0.1 is 9, floor(1
// / 0.1) is 10.
Value floor_divided(GraphBuilder& graph, const Value& x, const Value& y, DType dtype) {
  if (!is_floating(dtype)) {
    const Value quotient = graph.op("Div", {x, y});  // truncates
    const Value remainder = graph.op("Sub", {x, graph.op("Mul", {quotient, y})});
    return graph.op("Sub",
                    {quotient, graph.cast(floor_is_below(graph, remainder, y, dtype), dtype)});
  }
  const Value remainder = graph.op("Mod", {x, y}, {{"fmod", int64_t{1}}});
  const Value exact = graph.op("Div", {graph.op("Sub", {x, remainder}), y});
  const Value quotient =
      graph.op("Sub", {exact, graph.cast(floor_is_below(graph, remainder, y, dtype), dtype)});
  const Value below = graph.op("Floor", {quotient});
  const Value off_by_one =
      graph.op("Greater", {graph.op("Sub", {quotient, below}), graph.scalar(dtype, 0.5)});
  const Value result = graph.op("Add", {below, graph.cast(off_by_one, dtype)});
  // x // 0 is x / 0 in ATen: inf or nan
  return graph.op(
      "Where", {graph.op("Equal", {y, graph.scalar(dtype, 0)}), graph.op("Div", {x, y}), result});
}

Values div(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.output_type().dtype;
  const Value x = graph.cast(args.tensor("self"), dtype);
  const bool scalar = ends_with_scalar(args) || args.op().ends_with(".Scalar_mode");
  const Value y = operand(graph, args, "other", dtype, scalar);
  const std::optional<std::string> mode =
      args.has("rounding_mode") ? args.optional_string("rounding_mode") : std::nullopt;
  if (!mode) return {graph.op("Div", {x, y})};
  if (*mode == "floor") return {floor_divided(graph, x, y, dtype)};
  if (*mode != "trunc") args.unsupported("rounding_mode", *mode, "expected trunc or floor");
  const Value quotient = graph.op("Div", {x, y});
  return {is_floating(dtype) ? truncated(graph, quotient) : quotient};
}

Values floor_divide(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.output_type().dtype;
  const Value x = graph.cast(args.tensor("self"), dtype);
  return {
      floor_divided(graph, x, operand(graph, args, "other", dtype, ends_with_scalar(args)), dtype)};
}

Values remainder(GraphBuilder& graph, NodeArgs& args) {  // the sign of the divisor
  const DType dtype = args.output_type().dtype;
  const Value x = graph.cast(args.tensor("self"), dtype);
  const Value y = operand(graph, args, "other", dtype, ends_with_scalar(args));
  if (!is_floating(dtype)) return {graph.op("Mod", {x, y})};
  const Value rest = graph.op("Mod", {x, y}, {{"fmod", int64_t{1}}});
  const Value below = floor_is_below(graph, rest, y, dtype);
  return {graph.op("Where", {below, graph.op("Add", {rest, y}), rest})};
}

Values pow(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.output_type().dtype;
  if (args.op().ends_with(".Scalar")) {  // a number to the power of a tensor
    const Value base = operand(graph, args, "self", dtype, true);
    return {graph.op("Pow", {base, graph.cast(args.tensor("exponent"), dtype)})};
  }
  const Value x = graph.cast(args.tensor("self"), dtype);
  const bool scalar = args.op().ends_with(".Tensor_Scalar");
  return {graph.op("Pow", {x, stored_operand(graph, args, "exponent", dtype, scalar)})};
}

Values rsqrt(GraphBuilder& graph, NodeArgs& args) {
  return {
      graph.op("Reciprocal", {graph.op("Sqrt", {as_output(graph, args, args.tensor("self"))})})};
}

Values clamp(GraphBuilder& graph, NodeArgs& args) {
  Value x = as_output(graph, args, args.tensor("self"));
  const bool has_min = args.has("min") && !args.is_none("min");
  const bool has_max = args.has("max") && !args.is_none("max");
  if (args.op().ends_with(".Tensor")) {
    if (has_min) x = graph.op("Max", {x, as_output(graph, args, args.tensor("min"))});
    if (has_max) x = graph.op("Min", {x, as_output(graph, args, args.tensor("max"))});
    return {x};
  }
  return {emit_clip(graph, x, has_min ? std::optional(args.number("min")) : std::nullopt,
                    has_max ? std::optional(args.number("max")) : std::nullopt)};
}

// where(condition): the indices of what is true, one tensor for each dimension.
Values where_true(GraphBuilder& graph, NodeArgs& args) {
  const Value condition = args.tensor("condition");
  const int64_t rank = rank_of(graph, args, "condition", condition);
  if (rank == 0) args.unsupported("condition", "a 0-d tensor", "ONNX Runtime gives it a dimension");
  const Value rows = graph.op("NonZero", {condition});
  Values indices;
  for (int64_t row = 0; row < rank; ++row) {
    indices.push_back(
        graph.op("Gather", {rows, graph.scalar(DType::kInt64, row)}, {{"axis", int64_t{0}}}));
  }
  return indices;
}

Values where(GraphBuilder& graph, NodeArgs& args) {
  if (!args.has("self")) return where_true(graph, args);
  const DType dtype = args.output_type().dtype;
  const Value condition = graph.cast(args.tensor("condition"), DType::kBool);
  const std::string op = args.op();
  const bool scalars = op.ends_with(".Scalar");
  const bool self = scalars || op.ends_with(".ScalarSelf");
  const bool other = scalars || op.ends_with(".ScalarOther");
  const Value x = stored_operand(graph, args, "self", dtype, self);
  const Value y = stored_operand(graph, args, "other", dtype, other);
  return {graph.op("Where", {condition, x, y})};
}

Values masked_fill(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.output_type().dtype;
  const Value x = graph.cast(args.tensor("self"), dtype);
  const Value mask = graph.cast(args.tensor("mask"), DType::kBool);
  const Value value = stored_operand(graph, args, "value", dtype, ends_with_scalar(args));
  return {graph.op("Where", {mask, value, x})};
}

// aten::to in all its overloads, type_as: the recorded element type is what they ask for.
Values to(GraphBuilder& graph, NodeArgs& args) {
  for (const char* name : {"dtype", "layout", "device", "pin_memory", "non_blocking", "copy",
                           "memory_format", "other"}) {
    if (args.has(name))
      args.ignore(
          name,
          "the recorded type has the element type; devices and layouts have no meaning in ONNX");
  }
  return {as_output(graph, args, args.tensor("self"))};
}

Values pass_through(GraphBuilder& /*graph*/, NodeArgs& args) {
  for (const char* name : {"memory_format", "implicit"}) {
    if (args.has(name)) args.ignore(name, "ONNX tensors are dense");
  }
  return {args.tensor("self")};
}

constexpr Symbolic kRows[] = {
    {"aten::abs", 10, unary<"Abs">, "Abs"},
    {"aten::neg", 10, unary<"Neg">, "Neg"},
    {"aten::exp", 10, unary<"Exp">, "Exp"},
    {"aten::log", 10, unary<"Log">, "Log"},
    {"aten::sqrt", 10, unary<"Sqrt">, "Sqrt"},
    {"aten::erf", 10, unary<"Erf">, "Erf"},
    {"aten::sin", 10, unary<"Sin">, "Sin"},
    {"aten::cos", 10, unary<"Cos">, "Cos"},
    {"aten::floor", 10, unary<"Floor">, "Floor"},
    {"aten::ceil", 10, unary<"Ceil">, "Ceil"},
    {"aten::sign", 10, unary<"Sign">, "Sign"},
    {"aten::reciprocal", 10, unary<"Reciprocal">, "Reciprocal"},
    {"aten::round", 11, unary<"Round">, "Round"},
    {"aten::rsqrt", 10, rsqrt, "Sqrt, Reciprocal"},
    {"aten::add", 10, add_or_sub<"Add">, "Add, Mul"},
    {"aten::sub", 10, add_or_sub<"Sub">, "Sub, Mul"},
    {"aten::rsub", 10, rsub, "Sub, Mul"},
    {"aten::mul", 10, binary<"Mul">, "Mul"},
    {"aten::div", 10, div, "Div, ..."},
    {"aten::floor_divide", 10, floor_divide, "Div, Mod, Where, ..."},
    {"aten::remainder", 10, remainder, "Mod, Where, ..."},
    {"aten::pow", 10, pow, "Pow"},
    {"aten::maximum", 10, binary<"Max">, "Max"},
    {"aten::minimum", 10, binary<"Min">, "Min"},
    {"aten::max.other", 10, binary<"Max">, "Max"},
    {"aten::min.other", 10, binary<"Min">, "Min"},
    {"aten::clamp", 10, clamp, "Clip, Max, Min"},
    {"aten::clamp_min", 10, clamp, "Clip, Max, Min"},
    {"aten::clamp_max", 10, clamp, "Clip, Max, Min"},
    {"aten::where", 10, where, "NonZero, Gather", kShapeFromData},
    {"aten::where.self", 10, where, "Where"},
    {"aten::where.ScalarSelf", 10, where, "Where"},
    {"aten::where.ScalarOther", 10, where, "Where"},
    {"aten::where.Scalar", 10, where, "Where"},
    {"aten::masked_fill", 10, masked_fill, "Where", kKeepsElementType},
    {"aten::to", 10, to, "Cast", kMayCopy},
    {"aten::type_as", 10, to, "Cast"},
    {"aten::contiguous", 10, pass_through, "(no node)", kMovesElements | kMayCopy},
    {"aten::clone", 10, pass_through, "(no node)", kMovesElements},
    {"aten::detach", 10, pass_through, "(no node)", kMovesElements},
    {"aten::alias", 10, pass_through, "(no node)", kMovesElements},
    {"aten::positive", 10, pass_through, "(no node)", kMovesElements},
    {"aten::lift_fresh", 10, pass_through, "(no node)", kMovesElements},
};

}  // namespace

std::span<const Symbolic> arithmetic_symbolics() { return kRows; }

}  // namespace qcdq
