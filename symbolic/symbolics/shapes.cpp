// Symbolic functions of ops that move elements: views, permutations, slices, concatenation, splits,
// padding. Picking by index: symbolics/indexing.cpp. Sizes that are known only at run time:
// symbolics/sizes.cpp.
#include <numeric>

#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

using enum OpTraits;

// Reshape to the recorded output where at most one of its dimensions is dynamic; false: the shape
// has to be computed.
std::optional<Value> reshape_to_recorded(GraphBuilder& graph, const NodeArgs& args,
                                         const Value& x) {
  const TensorType output = args.output_type();
  if (!output.ranked || std::count(output.dims.begin(), output.dims.end(), -1) > 1)
    return std::nullopt;
  const bool empty = std::find(output.dims.begin(), output.dims.end(), 0) != output.dims.end();
  if (empty && !output.is_static()) return std::nullopt;  // -1 beside 0 has no meaning
  const TensorType input = graph.type(x);
  if (output.is_static() && input.ranked && input.dims == output.dims) return x;
  return emit_reshape(graph, x, output.dims);
}

// Several values as the parts of one shape.
Value joined(GraphBuilder& graph, const Values& parts) {
  return parts.size() == 1 ? parts[0] : graph.op("Concat", parts, {{"axis", int64_t{0}}});
}

// Dimensions [from, to) of `x` as a 1-d value.
Value sizes_between(GraphBuilder& graph, const Value& x, int64_t from, int64_t to) {
  const Value shape = graph.op("Shape", {x});
  const Value start = graph.ints({from});
  return emit_slice(graph, shape, 0, start, graph.ints({to}), 1);
}

Value replaced_dims(GraphBuilder& graph, const Value& x, int64_t rank, int64_t from, int64_t to,
                    const Value& by) {
  Values parts;
  if (from > 0) parts.push_back(sizes_between(graph, x, 0, from));
  parts.push_back(by);
  if (to < rank) parts.push_back(sizes_between(graph, x, to, rank));
  return joined(graph, parts);
}

Values view(GraphBuilder& graph, NodeArgs& args) {
  if (args.has("dtype"))
    args.unsupported("dtype", "", "ONNX can't reinterpret the bits of a tensor");
  const Value x = args.tensor("self");
  const char* shape = args.has("size") ? "size" : "shape";
  if (std::optional<Value> y = reshape_to_recorded(graph, args, x)) {
    args.ignore(shape, "the recorded type of the output has it");
    return {*y};
  }
  return {graph.op("Reshape", {x, args.ints_value(shape)})};
}

// view_as, reshape_as
Values view_as(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const Value other = args.tensor("other");
  if (std::optional<Value> y = reshape_to_recorded(graph, args, x)) return {*y};
  return {graph.op("Reshape", {x, graph.op("Shape", {other})})};
}

Values flatten(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  const int64_t start = wrap_dim(args.integer("start_dim"), rank);
  const int64_t end = wrap_dim(args.integer("end_dim"), rank);
  if (std::optional<Value> y = reshape_to_recorded(graph, args, x)) return {*y};
  return {
      graph.op("Reshape", {x, replaced_dims(graph, x, rank, start, end + 1, graph.ints({-1}))})};
}

Values unflatten(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  const int64_t dim = wrap_dim(args.integer("dim"), rank);
  if (std::optional<Value> y = reshape_to_recorded(graph, args, x)) {
    args.ignore("sizes", "the recorded type of the output has them");
    return {*y};
  }
  return {graph.op("Reshape",
                   {x, replaced_dims(graph, x, rank, dim, dim + 1, args.ints_value("sizes"))})};
}

Values permute(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  std::vector<int64_t> dims = args.ints("dims");
  for (int64_t& dim : dims) dim = wrap_dim(dim, rank);
  return {emit_transpose(graph, x, dims)};
}

Values transposed(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  int64_t first = 0;
  int64_t second = 1;
  if (args.has("axis0")) {
    first = wrap_dim(args.integer("axis0"), rank);
    second = wrap_dim(args.integer("axis1"), rank);
  } else if (args.has("dim0")) {
    first = wrap_dim(args.integer("dim0"), rank);
    second = wrap_dim(args.integer("dim1"), rank);
  }
  if (rank < 2 || first == second) return {x};
  std::vector<int64_t> dims(rank);
  std::iota(dims.begin(), dims.end(), 0);
  std::swap(dims[first], dims[second]);
  return {emit_transpose(graph, x, dims)};
}

Values unsqueeze_dim(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  return {emit_unsqueeze(graph, x,
                         {wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x) + 1)})};
}

Values squeeze_dims(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  const auto rank = static_cast<int64_t>(dims.size());
  std::vector<int64_t> asked;
  if (args.has("dim")) {
    asked = args.ints("dim");
    for (int64_t& dim : asked) dim = wrap_dim(dim, rank);
  } else {
    asked.resize(rank);
    std::iota(asked.begin(), asked.end(), 0);
  }
  std::vector<int64_t> axes;
  for (int64_t dim : asked) {
    if (rank == 0) continue;
    if (dims[dim] < 0) {
      args.unsupported(args.has("dim") ? "dim" : "self", std::to_string(dim),
                       "is a dynamic dimension: whether it goes depends on its size",
                       args.has("dim") ? "select(dim, 0) takes a dimension that is always 1 away"
                                       : "name the dimensions to squeeze");
    }
    if (dims[dim] == 1) axes.push_back(dim);
  }
  if (axes.empty()) return {x};
  return {emit_squeeze(graph, x, axes)};
}

// Where it gives its input as it is, shape_folding.cpp has dropped it.
Values as_strided(GraphBuilder& graph, NodeArgs& args) {
  const std::vector<int64_t> dims = dims_of(graph, args, "self", args.tensor("self"));
  const auto offset = args.optional_integer("storage_offset");
  args.unsupported("stride",
                   list_text(args.ints("stride")) + " with size " + list_text(args.ints("size")) +
                       " and storage_offset " + (offset ? std::to_string(*offset) : "None") +
                       " of a tensor of size " + list_text(dims),
                   "picks elements by their place in memory, which ONNX doesn't have",
                   "write it with view, permute, slice, unfold or expand");
}

Values cat(GraphBuilder& graph, NodeArgs& args) {
  const TensorType output = args.output_type();
  Values parts;
  for (const Value& part : args.tensors("tensors")) {
    const TensorType type = graph.type(part);
    const bool legacy_empty = type.rank() == 1 && type.ranked && type.dims[0] == 0 &&
                              output.rank() != 1;  // torch skips these
    if (!legacy_empty) parts.push_back(graph.cast(part, output.dtype));
  }
  const int64_t dim = args.integer("dim");
  if (parts.size() == 1) return parts;
  if (!output.ranked) args.unsupported("tensors", "", "are tensors whose rank is not known");
  return {graph.op("Concat", parts, {{"axis", wrap_dim(dim, output.rank())}})};
}

Values stack(GraphBuilder& graph, NodeArgs& args) {
  const TensorType output = args.output_type();
  if (!output.ranked) args.unsupported("tensors", "", "are tensors whose rank is not known");
  const int64_t dim = wrap_dim(args.integer("dim"), output.rank());
  Values parts;
  for (const Value& part : args.tensors("tensors")) {
    parts.push_back(emit_unsqueeze(graph, graph.cast(part, output.dtype), {dim}));
  }
  if (parts.size() == 1) return parts;
  return {graph.op("Concat", parts, {{"axis", dim}})};
}

// An int argument as a 1-element value; constants stay constants.
Value one_element(GraphBuilder& graph, NodeArgs& args, std::string_view name) {
  const Value value = args.integer_value(name);
  const TensorData* data = graph.constant_data(value);
  if (data == nullptr) return graph.op("Reshape", {value, graph.ints({1})});
  return graph.ints({*static_cast<const int64_t*>(data->data.get())});
}

int64_t element(const GraphBuilder& graph, const Value& value) {
  return *static_cast<const int64_t*>(graph.constant_data(value)->data.get());
}

Values slice_tensor(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  const int64_t dim = wrap_dim(args.integer("dim"), static_cast<int64_t>(dims.size()));
  const Value start = args.is_none("start") ? graph.ints({0}) : one_element(graph, args, "start");
  const Value end = args.is_none("end") ? graph.ints({kEnd}) : one_element(graph, args, "end");
  const int64_t step = args.integer("step");
  const bool from_first = graph.constant_data(start) != nullptr && element(graph, start) == 0;
  const bool to_last =
      graph.constant_data(end) != nullptr &&
      (element(graph, end) == kEnd || (dims[dim] >= 0 && element(graph, end) >= dims[dim]));
  if (from_first && to_last && step == 1) return {x};
  return {emit_slice(graph, x, dim, start, end, step)};
}

Values narrow(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t dim = wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x));
  const int64_t start = args.integer("start");
  const int64_t end = start + args.integer("length");
  return {emit_slice(graph, x, dim, start, start < 0 && end == 0 ? kEnd : end)};
}

Values expand(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  if (args.has("implicit")) args.ignore("implicit", "says only who asked for the expansion");
  if (args.has("other"))
    return {graph.op("Expand", {x, graph.op("Shape", {args.tensor("other")})})};
  const TensorType output = args.output_type();
  if (output.is_static()) {
    args.ignore("size", "the recorded type of the output has it");
    const TensorType input = graph.type(x);
    if (input.ranked && input.dims == output.dims) return {x};
    return {graph.op("Expand", {x, graph.ints(output.dims)})};
  }
  // -1 keeps a dimension: 1 does so in ONNX.
  const Value size = args.ints_value("size");
  if (const TensorData* data = graph.constant_data(size)) {
    const auto* first = static_cast<const int64_t*>(data->data.get());
    std::vector<int64_t> dims(first, first + data->numel());
    for (int64_t& dim : dims) dim = std::max<int64_t>(dim, 1);
    return {graph.op("Expand", {x, graph.ints(dims)})};
  }
  const Value keeps = graph.op("Less", {size, graph.ints({0})});
  return {graph.op("Expand", {x, graph.op("Where", {keeps, graph.ints({1}), size})})};
}

// chunk, split, split_with_sizes: the recorded outputs have the sizes.
Values split_recorded(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t dim = wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x));
  for (const char* name : {"chunks", "split_size", "split_sizes"}) {
    if (args.has(name)) args.ignore(name, "the recorded types of the outputs have the sizes");
  }
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < args.outputs(); ++i) {
    const TensorType type = args.output_type(i);
    if (!type.ranked || type.dims[dim] < 0) {
      args.unsupported("dim", std::to_string(dim), "splits a dimension of dynamic size",
                       "drop the dynamic axis");
    }
    sizes.push_back(type.dims[dim]);
  }
  return emit_split(graph, x, dim, sizes);
}

Values unbind(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t dim = wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x));
  Values parts;
  for (size_t i = 0; i < args.outputs(); ++i) {
    parts.push_back(graph.op("Gather", {x, graph.scalar(DType::kInt64, static_cast<int64_t>(i))},
                             {{"axis", dim}}));
  }
  return parts;
}

// torch lists (begin, end) from the last dimension backwards.
std::vector<int64_t> onnx_pads(const NodeArgs& args, const std::vector<int64_t>& pads,
                               int64_t rank) {
  if (pads.size() % 2 != 0 || static_cast<int64_t>(pads.size()) > 2 * rank) {
    args.unsupported("pad", list_text(pads),
                     "expected two numbers for each of the last dimensions");
  }
  std::vector<int64_t> onnx(2 * rank, 0);
  for (size_t i = 0; i < pads.size() / 2; ++i) {
    const int64_t dim = rank - 1 - static_cast<int64_t>(i);
    onnx[dim] = pads[2 * i];
    onnx[dim + rank] = pads[2 * i + 1];
  }
  return onnx;
}

Values padded(GraphBuilder& graph, NodeArgs& args, const Value& x,
              std::string_view rank_of_argument, const char* pads, const std::string& mode,
              const Number& value) {
  const std::vector<int64_t> onnx =
      onnx_pads(args, args.ints(pads), rank_of(graph, args, rank_of_argument, x));
  const bool crops = std::any_of(onnx.begin(), onnx.end(), [](int64_t p) { return p < 0; });
  if (crops && mode != "constant")
    args.unsupported(pads, list_text(onnx), "negative padding with mode " + mode);
  if (std::all_of(onnx.begin(), onnx.end(), [](int64_t p) { return p == 0; })) return {x};
  return {emit_pad(graph, x, onnx, mode, value)};
}

Values pad_mode(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const std::string mode = args.string("mode");
  const Number value = args.optional_number("value").value_or(0);
  if (mode == "constant") return padded(graph, args, x, "self", "pad", "constant", value);
  if (mode == "reflect") return padded(graph, args, x, "self", "pad", "reflect", 0);
  if (mode == "replicate") return padded(graph, args, x, "self", "pad", "edge", 0);
  args.unsupported("mode", mode, "qcdq knows constant, reflect and replicate");
}

Values constant_pad(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  return padded(graph, args, x, "self", "pad", "constant", args.number("value"));
}

template <OpName kMode>
Values border_pad(GraphBuilder& graph, NodeArgs& args) {
  return padded(graph, args, args.tensor("self"), "self", "padding", kMode.text, 0);
}

constexpr Symbolic kRows[] = {
    {"aten::view", 10, view, "Reshape", kMovesElements},
    {"aten::reshape", 10, view, "Reshape", kMovesElements | kMayCopy},
    {"aten::_unsafe_view", 10, view, "Reshape", kMovesElements},
    {"aten::view_as", 10, view_as, "Reshape", kMovesElements},
    {"aten::reshape_as", 10, view_as, "Reshape", kMovesElements | kMayCopy},
    {"aten::flatten.using_ints", 10, flatten, "Reshape", kMovesElements | kMayCopy},
    {"aten::unflatten.int", 10, unflatten, "Reshape", kMovesElements},
    {"aten::permute", 10, permute, "Transpose", kMovesElements},
    {"aten::transpose.int", 10, transposed, "Transpose", kMovesElements},
    {"aten::swapaxes", 10, transposed, "Transpose", kMovesElements},
    {"aten::swapdims", 10, transposed, "Transpose", kMovesElements},
    {"aten::t", 10, transposed, "Transpose", kMovesElements},
    {"aten::as_strided", 10, as_strided, "(no node)", kMovesElements},
    {"aten::unsqueeze", 10, unsqueeze_dim, "Unsqueeze", kMovesElements},
    {"aten::squeeze", 10, squeeze_dims, "Squeeze", kMovesElements},
    {"aten::squeeze.dim", 10, squeeze_dims, "Squeeze", kMovesElements},
    {"aten::squeeze.dims", 10, squeeze_dims, "Squeeze", kMovesElements},
    {"aten::cat", 10, cat, "Concat"},
    {"aten::concat", 10, cat, "Concat"},
    {"aten::stack", 10, stack, "Unsqueeze, Concat"},
    {"aten::slice.Tensor", 10, slice_tensor, "Slice", kMovesElements},
    {"aten::narrow", 10, narrow, "Slice", kMovesElements},
    {"aten::expand", 10, expand, "Expand", kMovesElements},
    {"aten::expand_as", 10, expand, "Expand", kMovesElements},
    {"aten::chunk", 10, split_recorded, "Split", kMovesElements},
    {"aten::split.Tensor", 10, split_recorded, "Split", kMovesElements},
    {"aten::split.sizes", 10, split_recorded, "Split", kMovesElements},
    {"aten::split_with_sizes", 10, split_recorded, "Split", kMovesElements},
    {"aten::unbind.int", 10, unbind, "Gather", kMovesElements},
    {"aten::pad", 10, pad_mode, "Pad"},
    {"aten::constant_pad_nd", 10, constant_pad, "Pad"},
    {"aten::reflection_pad1d", 10, border_pad<"reflect">, "Pad", kMovesElements},
    {"aten::reflection_pad2d", 10, border_pad<"reflect">, "Pad", kMovesElements},
    {"aten::replication_pad1d", 10, border_pad<"edge">, "Pad", kMovesElements},
    {"aten::replication_pad2d", 10, border_pad<"edge">, "Pad", kMovesElements},
    {"aten::replication_pad3d", 10, border_pad<"edge">, "Pad", kMovesElements},
    facts_of("aten::ravel", kMovesElements | kMayCopy),
};

}  // namespace

std::span<const Symbolic> shapes_symbolics() { return kRows; }

}  // namespace qcdq
