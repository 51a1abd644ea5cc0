// The functions of symbolics/onnx_forms.h. Each builds the form that the target opset has.
#include "symbolic/symbolics/onnx_forms.h"

#include <cmath>
#include <numbers>
#include <numeric>

#include "symbolic/graph/element_types.h"
#include "symbolic/graph/graph_builder.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

Value emit_unsqueeze(GraphBuilder& graph, const Value& x, std::vector<int64_t> axes) {
  return graph.opset() >= 13 ? graph.op("Unsqueeze", {x, graph.ints(axes)})
                             : graph.op("Unsqueeze", {x}, {{"axes", axes}});
}

Value emit_squeeze(GraphBuilder& graph, const Value& x, std::vector<int64_t> axes) {
  return graph.opset() >= 13 ? graph.op("Squeeze", {x, graph.ints(axes)})
                             : graph.op("Squeeze", {x}, {{"axes", axes}});
}

Value emit_reduce(GraphBuilder& graph, std::string_view op, const Value& x,
                  const std::vector<int64_t>& axes, bool keepdims) {
  Attributes attributes = {{"keepdims", static_cast<int64_t>(keepdims)}};
  const int64_t axes_are_input_from = op == "ReduceSum" ? 13 : 18;
  if (axes.empty()) return graph.op(op, {x}, attributes);
  if (graph.opset() >= axes_are_input_from) return graph.op(op, {x, graph.ints(axes)}, attributes);
  attributes.emplace_back("axes", axes);
  return graph.op(op, {x}, attributes);
}

// A number of type dtype as an attribute, which is a float32: what opsets before 11 have.
static float float_attribute(GraphBuilder& graph, DType dtype, const Number& value) {
  const TensorData data = scalar_data(dtype, value);
  const double exact = Elements<double>(data)[0];
  const auto narrow = static_cast<float>(exact);
  if (narrow != exact && !std::isnan(exact)) {
    throw UnsupportedOp({.op = graph.state().torch_op,
                         .value = number_text(value),
                         .opset = graph.opset(),
                         .reason = "a number of type " + std::string(dtype_name(dtype)) +
                                   " that no float32 attribute holds",
                         .hint = "export with --opset 11 or newer"});
  }
  return narrow;
}

Value emit_clip(GraphBuilder& graph, const Value& x, std::optional<Number> lowest,
                std::optional<Number> highest) {
  const DType dtype = graph.type(x).dtype;
  if (!is_floating(dtype)) {
    const CodeRange range = integer_range(dtype);
    if (lowest && to_double(*lowest) < static_cast<double>(range.min)) lowest.reset();
    if (highest && to_double(*highest) > static_cast<double>(range.max)) highest.reset();
  }
  if (!lowest && !highest) return x;
  if (graph.opset() >= 11) {
    const Value low = lowest ? graph.scalar(dtype, *lowest) : Value{};
    const Value high = highest ? graph.scalar(dtype, *highest) : Value{};
    return graph.op("Clip", {x, low, high});
  }
  Attributes attributes;
  if (lowest) attributes.emplace_back("min", float_attribute(graph, dtype, *lowest));
  if (highest) attributes.emplace_back("max", float_attribute(graph, dtype, *highest));
  return graph.op("Clip", {x}, attributes);
}

Value emit_pad(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& pads,
               const std::string& mode, const Number& value) {
  const DType dtype = graph.type(x).dtype;
  const bool constant = mode == "constant";
  if (graph.opset() >= 11) {
    const Value fill = constant ? graph.scalar(dtype, stored_number(dtype, value)) : Value{};
    return graph.op("Pad", {x, graph.ints(pads), fill}, {{"mode", mode}});
  }
  Attributes attributes = {{"mode", mode}, {"pads", pads}};
  if (constant) attributes.emplace_back("value", float_attribute(graph, dtype, value));
  return graph.op("Pad", {x}, attributes);
}

Values emit_split(GraphBuilder& graph, const Value& x, int64_t axis,
                  const std::vector<int64_t>& sizes) {
  if (sizes.size() == 1) return {x};
  if (graph.opset() >= 13)
    return graph.ops("Split", {x, graph.ints(sizes)}, sizes.size(), {{"axis", axis}});
  return graph.ops("Split", {x}, sizes.size(), {{"axis", axis}, {"split", sizes}});
}

Value emit_reshape(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& dims) {
  Attributes attributes;
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) {
    if (graph.opset() < 14) {
      throw UnsupportedOp({.op = graph.state().torch_op,
                           .value = list_text(dims),
                           .opset = graph.opset(),
                           .reason = "makes an empty tensor: before opset 14 a 0 in the shape of "
                                     "Reshape means the input's size",
                           .hint = "export with --opset 14 or newer"});
    }
    attributes.emplace_back("allowzero", int64_t{1});
  }
  return graph.op("Reshape", {x, graph.ints(dims)}, attributes);
}

Value emit_slice(GraphBuilder& graph, const Value& x, int64_t axis, const Value& start,
                 const Value& end, int64_t step) {
  return graph.op("Slice", {x, start, end, graph.ints({axis}), graph.ints({step})});
}

Value emit_slice(GraphBuilder& graph, const Value& x, int64_t axis, int64_t start, int64_t end) {
  return emit_slice(graph, x, axis, graph.ints({start}), graph.ints({end}), 1);
}

Value emit_transpose(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& permutation) {
  return graph.op("Transpose", {x}, {{"perm", permutation}});
}

Value emit_softmax(GraphBuilder& graph, std::string_view op, const Value& x, int64_t axis,
                   int64_t rank) {
  if (graph.opset() >= 13 || axis == rank - 1) return graph.op(op, {x}, {{"axis", axis}});
  std::vector<int64_t> swap(rank);
  std::iota(swap.begin(), swap.end(), 0);
  std::swap(swap[axis], swap[rank - 1]);
  const Value last = emit_transpose(graph, x, swap);
  return emit_transpose(graph, graph.op(op, {last}, {{"axis", rank - 1}}), swap);
}

Value emit_layer_norm(GraphBuilder& graph, const Value& x, int64_t rank,
                      const std::vector<int64_t>& shape, const Value& weight, const Value& bias,
                      double epsilon) {
  const DType dtype = graph.type(x).dtype;
  if (graph.opset() >= 17) {
    const int64_t elements =
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    Value scale = weight;
    if (!scale.present()) {
      scale = constant_of(graph, dtype, elements, 1);
      if (shape.size() > 1) scale = emit_reshape(graph, scale, shape);
    }
    return graph.op(
        "LayerNormalization", {x, scale, bias},
        {{"axis", -static_cast<int64_t>(shape.size())}, {"epsilon", static_cast<float>(epsilon)}});
  }
  std::vector<int64_t> axes(shape.size());
  std::iota(axes.begin(), axes.end(), rank - static_cast<int64_t>(shape.size()));
  const Value centred = graph.op("Sub", {x, emit_reduce(graph, "ReduceMean", x, axes, true)});
  const Value variance =
      emit_reduce(graph, "ReduceMean", graph.op("Mul", {centred, centred}), axes, true);
  const Value deviation =
      graph.op("Sqrt", {graph.op("Add", {variance, graph.scalar(dtype, epsilon)})});
  Value y = graph.op("Div", {centred, deviation});
  if (weight.present()) y = graph.op("Mul", {y, weight});
  if (bias.present()) y = graph.op("Add", {y, bias});
  return y;
}

// 0.5 x (1 + erf(x / sqrt 2)), or with tanh: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
Value emit_gelu(GraphBuilder& graph, const Value& x, const std::string& approximate) {
  if (graph.opset() >= 20) return graph.op("Gelu", {x}, {{"approximate", approximate}});
  const DType dtype = graph.type(x).dtype;
  const auto number = [&](double value) { return graph.scalar(dtype, value); };
  Value inner;
  if (approximate == "none") {
    inner = graph.op("Erf", {graph.op("Div", {x, number(std::numbers::sqrt2)})});
  } else {
    const Value cube = graph.op("Mul", {graph.op("Mul", {x, x}), x});
    const Value sum = graph.op("Add", {x, graph.op("Mul", {cube, number(0.044715)})});
    inner = graph.op("Tanh", {graph.op("Mul", {sum, number(std::sqrt(2 / std::numbers::pi))})});
  }
  const Value weighted = graph.op("Mul", {x, graph.op("Add", {inner, number(1)})});
  return graph.op("Mul", {weighted, number(0.5)});
}

Value constant_of(GraphBuilder& graph, DType dtype, int64_t count, const Number& value) {
  return graph.constant(repeated_data(dtype, count, value));
}

std::vector<int64_t> begins_and_ends(const std::vector<int64_t>& begins,
                                     const std::vector<int64_t>& ends) {
  std::vector<int64_t> pads = begins;
  pads.insert(pads.end(), ends.begin(), ends.end());
  return pads;
}

Value add_batch(GraphBuilder& graph, const NodeArgs& args, std::string_view name, const Value& x,
                int64_t spatial, bool& added) {
  added = rank_of(graph, args, name, x) == spatial + 1;
  return added ? emit_unsqueeze(graph, x, {0}) : x;
}

Value drop_batch(GraphBuilder& graph, const Value& y, bool added) {
  return added ? emit_squeeze(graph, y, {0}) : y;
}

}  // namespace qcdq
