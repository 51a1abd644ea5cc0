// Symbolic functions of ops that write a part of a tensor: scatter, and the functional forms of
// writes to slices (x[:, 0] = 0) that lower/mutation.cpp makes. index_put: symbolics/indexing.cpp.
#include <numeric>

#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

using enum OpTraits;

Values scatter(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const DType dtype = args.output_type().dtype;
  const int64_t dim = wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x));
  const Value at = args.tensor("index");
  Value updates;
  if (args.has("src")) {
    updates = graph.cast(args.tensor("src"), dtype);
    const TensorType wanted = graph.type(at);
    const TensorType type = graph.type(updates);
    if (!wanted.is_static() || wanted.dims != type.dims) {
      args.unsupported("src", list_text(type.dims),
                       "ONNX needs it in the shape of index, " + list_text(wanted.dims),
                       "slice src to the shape of index");
    }
  } else {
    const Value value = graph.scalar(dtype, stored_number(dtype, args.number("value")));
    updates = graph.op("Expand", {value, graph.op("Shape", {at})});
  }
  Attributes attributes = {{"axis", dim}};
  if (args.op().starts_with("aten::scatter_add"))
    attributes.emplace_back("reduction", std::string("add"));
  return {graph.op("ScatterElements", {x, at, updates}, attributes)};
}

// `self` with positions of one dimension replaced by those of `part`: [0, D) where it is not
// written, D + j where element j of `part` goes.
Value replaced(GraphBuilder& graph, const Value& x, const Value& by, int64_t dim,
               const std::vector<int64_t>& written, int64_t size) {
  if (written.empty()) return x;
  const auto count = static_cast<int64_t>(written.size());
  if (count == size && written.front() == 0) return by;
  const bool run = written.back() - written.front() + 1 == count;
  if (run) {
    Values parts;
    if (written.front() > 0) parts.push_back(emit_slice(graph, x, dim, 0, written.front()));
    parts.push_back(by);
    if (written.back() + 1 < size)
      parts.push_back(emit_slice(graph, x, dim, written.back() + 1, kEnd));
    return graph.op("Concat", parts, {{"axis", dim}});
  }
  std::vector<int64_t> order(static_cast<size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t j = 0; j < count; ++j)
    order[static_cast<size_t>(written[static_cast<size_t>(j)])] = size + j;
  const Value both = graph.op("Concat", {x, by}, {{"axis", dim}});
  return graph.op("Gather", {both, graph.ints(order)}, {{"axis", dim}});
}

// The size of dimension `dim`, which has to be known to tell what a write leaves.
int64_t fixed_size(const NodeArgs& args, const std::vector<int64_t>& dims, int64_t dim) {
  const int64_t size = dims[static_cast<size_t>(dim)];
  if (size < 0) {
    args.unsupported("dim", std::to_string(dim), "writes to a part of a dimension of dynamic size",
                     "drop the dynamic axis, or build the tensor with torch.cat");
  }
  return size;
}

Values slice_scatter(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  const Value by = graph.cast(args.tensor("src"), args.output_type().dtype);
  const int64_t dim = wrap_dim(args.integer("dim"), static_cast<int64_t>(dims.size()));
  const int64_t start = args.optional_integer("start").value_or(0);
  const int64_t end = args.optional_integer("end").value_or(kEnd);
  const int64_t step = args.integer("step");
  if (start == 0 && end == kEnd && step == 1) return {by};
  const int64_t size = fixed_size(args, dims, dim);
  const auto bounded = [&](int64_t at) {
    return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
  };
  std::vector<int64_t> written;
  for (int64_t at = bounded(start); at < bounded(end); at += step) written.push_back(at);
  return {replaced(graph, x, by, dim, written, size)};
}

Values select_scatter(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  const Value by = graph.cast(args.tensor("src"), args.output_type().dtype);
  const int64_t dim = wrap_dim(args.integer("dim"), static_cast<int64_t>(dims.size()));
  const int64_t size = fixed_size(args, dims, dim);
  return {replaced(graph, x, emit_unsqueeze(graph, by, {dim}), dim,
                   {wrap_dim(args.integer("index"), size)}, size)};
}

// The elements of `source`, one after the other, where `mask` is true.
Values masked_scatter(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const Value shape = graph.op("Shape", {x});
  const Value mask = graph.op("Expand", {args.tensor("mask"), shape});
  const Value source =
      emit_reshape(graph, graph.cast(args.tensor("source"), args.output_type().dtype), {-1});
  const Value places = graph.cast(emit_reshape(graph, mask, {-1}), DType::kInt64);
  const Value count = graph.op("CumSum", {places, graph.scalar(DType::kInt64, 0)});
  // -1 in front of the first, which no place takes.
  const Value taken = graph.op("Sub", {count, graph.scalar(DType::kInt64, 1)});
  const Value values = graph.op("Gather", {source, taken}, {{"axis", int64_t{0}}});
  return {graph.op("Where", {mask, graph.op("Reshape", {values, shape}), x})};
}

// The positions `index` of one dimension replaced by a number.
Values index_fill(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  if (dims.empty()) args.unsupported("self", "a 0-d tensor", "expected one with dimensions");
  const int64_t dim = wrap_dim(args.integer("dim"), static_cast<int64_t>(dims.size()));
  const int64_t size = fixed_size(args, dims, dim);
  const Value index = emit_reshape(graph, graph.cast(args.tensor("index"), DType::kInt64), {-1});
  const Value one =
      graph.op("Expand", {graph.scalar(DType::kInt64, 1), graph.op("Shape", {index})});
  const Value none = constant_of(graph, DType::kInt64, size, 0);
  const Value filled = graph.op("ScatterElements", {none, index, one}, {{"axis", int64_t{0}}});
  std::vector<int64_t> along(dims.size(), 1);
  along[static_cast<size_t>(dim)] = size;
  const Value mask = emit_reshape(graph, graph.cast(filled, DType::kBool), along);
  const DType dtype = args.output_type().dtype;
  const Value value = args.op().ends_with("Tensor") ? graph.cast(args.tensor("value"), dtype)
                                                    : graph.scalar(dtype, args.number("value"));
  return {graph.op("Where", {mask, value, x})};
}

// copy: `src` in the shape and element type of `self`.
Values copy(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  args.ignore("non_blocking", "concerns devices");
  const Value source = graph.cast(args.tensor("src"), args.output_type().dtype);
  const TensorType wanted = args.output_type();
  if (wanted.is_static()) {
    if (graph.type(source).ranked && graph.type(source).dims == wanted.dims) return {source};
    return {graph.op("Expand", {source, graph.ints(wanted.dims)})};
  }
  return {graph.op("Expand", {source, graph.op("Shape", {x})})};
}

constexpr Symbolic kRows[] = {
    {"aten::scatter.src", 11, scatter, "ScatterElements", kKeepsElementType},
    {"aten::scatter.value", 11, scatter, "ScatterElements, Expand", kKeepsElementType},
    {"aten::scatter_add", 16, scatter, "ScatterElements", kKeepsElementType},
    {"aten::slice_scatter", 10, slice_scatter, "Slice, Concat, Gather", kKeepsElementType},
    {"aten::select_scatter", 10, select_scatter, "Slice, Concat, Unsqueeze", kKeepsElementType},
    {"aten::masked_scatter", 11, masked_scatter, "CumSum, Gather, Where", kKeepsElementType},
    {"aten::copy", 10, copy, "Expand, Cast", kKeepsElementType},
    facts_of("aten::scatter.reduce", kKeepsElementType),
    facts_of("aten::scatter.value_reduce", kKeepsElementType),
    facts_of("aten::scatter_reduce", kKeepsElementType),
    facts_of("aten::index_add", kKeepsElementType),
    facts_of("aten::index_copy", kKeepsElementType),
    {"aten::index_fill.int_Scalar", 11, index_fill, "ScatterElements, Where", kKeepsElementType},
    {"aten::index_fill.int_Tensor", 11, index_fill, "ScatterElements, Where", kKeepsElementType},
};

}  // namespace

std::span<const Symbolic> scatter_symbolics() { return kRows; }

}  // namespace qcdq
