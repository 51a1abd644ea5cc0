// Symbolic functions of ops that make tensors: full, zeros, ones and their _like and new_ forms,
// arange, tril and triu. Shapes may be known only at run time.
#include "symbolic/graph/element_types.h"
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"

namespace qcdq {

namespace {

using enum OpTraits;

void ignore_options(NodeArgs& args) {
  for (const char* name :
       {"dtype", "layout", "device", "pin_memory", "memory_format", "requires_grad"}) {
    if (args.has(name))
      args.ignore(name, "the recorded type has the element type; the rest has no meaning in ONNX");
  }
}

// The shape of the output: as recorded, else that of `self`, or the argument `size`.
Value shape_of_output(GraphBuilder& graph, NodeArgs& args) {
  const bool size = args.has("size");
  const TensorType output = args.output_type();
  if (output.is_static()) {
    if (size) args.ignore("size", "the recorded type of the output has it");
    if (args.has("self")) args.ignore("self", "only its type and shape count");
    return graph.ints(output.dims);
  }
  if (!size) return graph.op("Shape", {args.tensor("self")});
  if (args.has("self")) args.ignore("self", "only its type counts");
  return args.ints_value("size");
}

Values filled(GraphBuilder& graph, NodeArgs& args, const Number& number) {
  ignore_options(args);
  const Value shape = shape_of_output(graph, args);
  const DType dtype = args.output_type().dtype;
  return {graph.op("ConstantOfShape", {shape},
                   {{"value", repeated_data(dtype, 1, stored_number(dtype, number))}})};
}

Values zeros(GraphBuilder& graph, NodeArgs& args) { return filled(graph, args, 0); }
Values ones(GraphBuilder& graph, NodeArgs& args) { return filled(graph, args, 1); }

Values full(GraphBuilder& graph, NodeArgs& args) {
  return filled(graph, args, args.number("fill_value"));
}

// fill: `self` with every element replaced; the element type stays.
Values fill(GraphBuilder& graph, NodeArgs& args) {
  if (args.op().ends_with(".Scalar")) return filled(graph, args, args.number("value"));
  const Value value = graph.cast(args.tensor("value"), args.output_type().dtype);
  return {graph.op("Expand", {value, shape_of_output(graph, args)})};
}

Values arange(GraphBuilder& graph, NodeArgs& args) {
  if (std::optional<TensorData> known = args.evaluate()) return {graph.constant(*std::move(known))};
  ignore_options(args);
  const DType dtype = args.output_type().dtype;
  const auto number = [&](const char* name, int64_t otherwise) {
    if (!args.has(name)) return graph.scalar(DType::kInt64, otherwise);
    const Value value = args.integer_value(name);
    if (graph.type(value).dtype != DType::kInt64) {
      args.unsupported(name, "a float", "a range of unknown length is converted for ints only");
    }
    return value;
  };
  const Value start = number("start", 0);
  const Value end = number("end", 0);
  return {graph.cast(graph.op("Range", {start, end, number("step", 1)}), dtype)};
}

template <int64_t kUpper>
Values triangle(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const Value diagonal = graph.scalar(DType::kInt64, args.integer("diagonal"));
  return {graph.op("Trilu", {x, diagonal}, {{"upper", kUpper}})};
}

constexpr Symbolic kRows[] = {
    {"aten::zeros", 10, zeros, "ConstantOfShape"},
    {"aten::zeros_like", 10, zeros, "ConstantOfShape"},
    {"aten::new_zeros", 10, zeros, "ConstantOfShape"},
    {"aten::zero", 10, zeros, "ConstantOfShape"},
    {"aten::ones", 10, ones, "ConstantOfShape"},
    {"aten::ones_like", 10, ones, "ConstantOfShape"},
    {"aten::new_ones", 10, ones, "ConstantOfShape"},
    {"aten::full", 10, full, "ConstantOfShape"},
    {"aten::full_like", 10, full, "ConstantOfShape", kKeepsElementType},
    {"aten::new_full", 10, full, "ConstantOfShape"},
    {"aten::fill", 10, fill, "ConstantOfShape, Expand", kKeepsElementType},
    {"aten::arange", 11, arange, "Range"},
    {"aten::tril", 14, triangle<0>, "Trilu"},
    {"aten::triu", 14, triangle<1>, "Trilu"},
    facts_of("aten::empty", kNeverFold),
    facts_of("aten::empty_like", kNeverFold),
    facts_of("aten::empty_strided", kNeverFold),
    facts_of("aten::empty_permuted", kNeverFold),
    facts_of("aten::empty_quantized", kNeverFold),
    facts_of("aten::new_empty", kNeverFold),
    facts_of("aten::new_empty_strided", kNeverFold),
};

}  // namespace

std::span<const Symbolic> creation_symbolics() { return kRows; }

}  // namespace qcdq
