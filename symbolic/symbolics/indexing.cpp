// Symbolic functions of ops that pick elements by index: select, index_select, index (and its
// writes, index_put), gather, topk, sort, roll, flip, nonzero, repeat. Slices are in
// symbolics/shapes.cpp, other writes in symbolics/scatter.cpp.
#include <numeric>

#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

using enum OpTraits;

Value concat(GraphBuilder& graph, const Values& parts, int64_t axis) {
  return parts.size() == 1 ? parts[0] : graph.op("Concat", parts, {{"axis", axis}});
}

// Row `row` of the [rank, n] that NonZero gives.
Value row_of(GraphBuilder& graph, const Value& rows, int64_t row) {
  return graph.op("Gather", {rows, graph.scalar(DType::kInt64, row)}, {{"axis", int64_t{0}}});
}

// One index tensor for each indexed dimension: x[i, None, mask] has i at 0 and, for a mask of rank
// 2, the two rows of NonZero(mask) at 2 and 3.
struct Indices {
  std::vector<int64_t> dims;
  Values values;
};

Indices indices_of(GraphBuilder& graph, NodeArgs& args) {
  Indices indices;
  int64_t dim = 0;
  for (const Value& index : args.tensors("indices")) {
    if (!index.present()) {  // None: the whole dimension
      ++dim;
      continue;
    }
    const TensorType type = graph.type(index);
    if (type.dtype != DType::kBool && type.dtype != DType::kUInt8) {
      indices.dims.push_back(dim++);
      indices.values.push_back(graph.cast(index, DType::kInt64));
      continue;
    }
    const int64_t rank = rank_of(graph, args, "indices", index);
    if (rank == 0)
      args.unsupported("indices", "a 0-d mask", "it adds a dimension", "use torch.where");
    const Value rows = graph.op("NonZero", {graph.cast(index, DType::kBool)});
    for (int64_t row = 0; row < rank; ++row) {
      indices.dims.push_back(dim++);
      indices.values.push_back(row_of(graph, rows, row));
    }
  }
  if (indices.dims.empty()) args.unsupported("indices", "[]", "expected at least one index");
  return indices;
}

bool consecutive(const std::vector<int64_t>& dims) {
  for (size_t i = 1; i < dims.size(); ++i) {
    if (dims[i] != dims[i - 1] + 1) return false;
  }
  return true;
}

// All indices in their common shape, as the [..., k] that GatherND and ScatterND take; `rank` gets
// the rank of that common shape.
Value stacked(GraphBuilder& graph, NodeArgs& args, const Indices& indices, int64_t& rank) {
  rank = 0;
  bool same = true;
  const TensorType first = graph.type(indices.values[0]);
  for (const Value& index : indices.values) {
    rank = std::max(rank, rank_of(graph, args, "indices", index));
    const TensorType type = graph.type(index);
    same &= (type.is_static() && first.is_static() && type.dims == first.dims) ||
            indices.values.size() == 1;
  }
  Value shape;
  if (!same) {
    Value sum = indices.values[0];
    for (size_t i = 1; i < indices.values.size(); ++i)
      sum = graph.op("Add", {sum, indices.values[i]});
    shape = graph.op("Shape", {sum});
  }
  Values parts;
  for (const Value& index : indices.values) {
    const Value whole = same ? index : graph.op("Expand", {index, shape});
    parts.push_back(emit_unsqueeze(graph, whole, {rank}));
  }
  return concat(graph, parts, rank);
}

// The indexed dimensions first, the others behind them.
std::vector<int64_t> indexed_first(const std::vector<int64_t>& indexed, int64_t rank) {
  std::vector<int64_t> order = indexed;
  for (int64_t d = 0; d < rank; ++d) {
    if (std::find(indexed.begin(), indexed.end(), d) == indexed.end()) order.push_back(d);
  }
  return order;
}

bool is_identity(const std::vector<int64_t>& order) {
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

Values index(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  const Indices indices = indices_of(graph, args);
  const int64_t first = indices.dims[0];
  if (indices.dims.size() == 1)
    return {graph.op("Gather", {x, indices.values[0]}, {{"axis", first}})};
  int64_t index_rank = 0;
  const Value at = stacked(graph, args, indices, index_rank);
  const std::vector<int64_t> order = indexed_first(indices.dims, rank);
  const Value source = is_identity(order) ? x : emit_transpose(graph, x, order);
  const Value y = graph.op("GatherND", {source, at});
  if (first == 0 || !consecutive(indices.dims)) return {y};
  // [index..., before, behind] -> [before, index..., behind]
  std::vector<int64_t> back;
  for (int64_t d = 0; d < first; ++d) back.push_back(index_rank + d);
  for (int64_t d = 0; d < index_rank; ++d) back.push_back(d);
  const int64_t result_rank = rank - static_cast<int64_t>(indices.dims.size()) + index_rank;
  for (int64_t d = index_rank + first; d < result_rank; ++d) back.push_back(d);
  return {graph.op("Transpose", {y}, {{"perm", back}})};
}

Values index_put(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const DType dtype = args.output_type().dtype;
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  const auto rank = static_cast<int64_t>(dims.size());
  const Value values = graph.cast(args.tensor("values"), dtype);
  const bool accumulate = args.boolean("accumulate");
  if (args.has("unsafe")) args.ignore("unsafe", "skips a check of the indices");
  // x[mask] = number
  const Values given = args.tensors("indices");
  const TensorType value_type = graph.type(values);
  const bool one =
      value_type.is_static() &&
      std::all_of(value_type.dims.begin(), value_type.dims.end(), [](int64_t d) { return d == 1; });
  if (!accumulate && one && given.size() == 1 && given[0].present() &&
      graph.type(given[0]).dtype == DType::kBool) {
    const int64_t mask_rank = rank_of(graph, args, "indices", given[0]);
    std::vector<int64_t> behind(static_cast<size_t>(rank - mask_rank));
    std::iota(behind.begin(), behind.end(), mask_rank);
    const Value mask = behind.empty() ? given[0] : emit_unsqueeze(graph, given[0], behind);
    return {graph.op("Where", {mask, emit_reshape(graph, values, {}), x})};
  }
  const Indices indices = indices_of(graph, args);
  const std::vector<int64_t> order = indexed_first(indices.dims, rank);
  if (!is_identity(order)) {
    args.unsupported("indices", "of dimension " + std::to_string(indices.dims.back()),
                     "writes by index are converted for the leading dimensions",
                     "transpose the tensor so that the indexed dimensions come first");
  }
  int64_t index_rank = 0;
  const Value at = stacked(graph, args, indices, index_rank);
  // The shape of what is written: the indices' own, then the dimensions behind the indexed ones.
  const auto indexed = static_cast<int64_t>(indices.dims.size());
  Values shape = {
      emit_slice(graph, graph.op("Shape", {at}), 0, graph.ints({0}), graph.ints({index_rank}), 1)};
  if (indexed < rank) {
    shape.push_back(
        emit_slice(graph, graph.op("Shape", {x}), 0, graph.ints({indexed}), graph.ints({rank}), 1));
  }
  const Value updates = graph.op("Expand", {values, concat(graph, shape, 0)});
  Attributes attributes;
  if (accumulate) attributes.emplace_back("reduction", std::string("add"));
  return {graph.op("ScatterND", {x, at, updates}, attributes)};
}

Values select(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  const int64_t dim = wrap_dim(args.integer("dim"), static_cast<int64_t>(dims.size()));
  Value index = args.integer_value("index");
  // Gather takes negative indices from opset 11 on.
  if (const TensorData* data = graph.constant_data(index); data != nullptr && dims[dim] >= 0) {
    const int64_t position = *static_cast<const int64_t*>(data->data.get());
    if (position < 0)
      index = graph.constant(TensorData::scalar<int64_t>(DType::kInt64, position + dims[dim]));
  }
  return {graph.op("Gather", {x, index}, {{"axis", dim}})};
}

Values index_select(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t dim = wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x));
  return {graph.op("Gather", {x, args.tensor("index")}, {{"axis", dim}})};
}

Values gather(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  args.ignore("sparse_grad", "only changes gradients");
  const int64_t dim = wrap_dim(args.integer("dim"), rank_of(graph, args, "self", x));
  return {graph.op("GatherElements", {x, args.tensor("index")}, {{"axis", dim}})};
}

Values topk(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  if (rank == 0) args.unsupported("self", "a 0-d tensor", "TopK needs a dimension");
  const int64_t dim = wrap_dim(args.integer("dim"), rank);
  const Value count = graph.op("Reshape", {args.integer_value("k"), graph.ints({1})});
  return graph.ops("TopK", {x, count}, 2,
                   {{"axis", dim},
                    {"largest", static_cast<int64_t>(args.boolean("largest"))},
                    {"sorted", static_cast<int64_t>(args.boolean("sorted"))}});
}

// TopK of a whole dimension; of equal elements it takes the first first, as a stable sort does.
Values sorted(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  if (dims.empty()) args.unsupported("self", "a 0-d tensor", "TopK needs a dimension");
  const int64_t dim = wrap_dim(args.integer("dim"), static_cast<int64_t>(dims.size()));
  if (args.has("stable")) args.ignore("stable", "TopK keeps the order of equal elements");
  const int64_t size = dims[static_cast<size_t>(dim)];
  const Value count = size >= 0 ? graph.ints({size})
                                : graph.op("Gather", {graph.op("Shape", {x}), graph.ints({dim})},
                                           {{"axis", int64_t{0}}});
  return graph.ops("TopK", {x, count}, 2,
                   {{"axis", dim},
                    {"largest", static_cast<int64_t>(args.boolean("descending"))},
                    {"sorted", int64_t{1}}});
}

Values argsort(GraphBuilder& graph, NodeArgs& args) { return {sorted(graph, args)[1]}; }

Values roll(GraphBuilder& graph, NodeArgs& args) {
  Value x = args.tensor("self");
  const std::vector<int64_t> sizes = dims_of(graph, args, "self", x);
  const std::vector<int64_t> shifts = args.ints("shifts");
  const std::vector<int64_t> dims = args.ints("dims");
  if (dims.size() != shifts.size()) {
    args.unsupported("dims", list_text(dims), "expected one for each shift",
                     "name the dimensions to roll");
  }
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t dim = wrap_dim(dims[i], static_cast<int64_t>(sizes.size()));
    const int64_t size = sizes[static_cast<size_t>(dim)];
    if (size < 0) {
      args.unsupported("dims", std::to_string(dims[i]), "rolls a dimension of dynamic size",
                       "drop the dynamic axis");
    }
    if (size == 0) continue;
    const int64_t shift = ((shifts[i] % size) + size) % size;
    if (shift == 0) continue;
    x = graph.op(
        "Concat",
        {emit_slice(graph, x, dim, size - shift, kEnd), emit_slice(graph, x, dim, 0, size - shift)},
        {{"axis", dim}});
  }
  return {x};
}

Values flip(GraphBuilder& graph, NodeArgs& args) {
  Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  for (int64_t dim : args.ints("dims")) {
    x = emit_slice(graph, x, wrap_dim(dim, rank), graph.ints({-1}), graph.ints({-kEnd}), -1);
  }
  return {x};
}

Values nonzero(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  if (rank_of(graph, args, "self", x) == 0)
    args.unsupported("self", "a 0-d tensor", "ONNX Runtime gives it a dimension");
  const Value rows = graph.op("NonZero", {x});
  return {graph.op("Transpose", {rows}, {{"perm", std::vector<int64_t>{1, 0}}})};
}

Values repeat(GraphBuilder& graph, NodeArgs& args) {
  Value x = args.tensor("self");
  const int64_t rank = rank_of(graph, args, "self", x);
  const TensorType output = args.output_type();
  if (!output.ranked) args.unsupported("repeats", "", "the rank of the result is not known");
  if (output.rank() > rank) {
    std::vector<int64_t> front(static_cast<size_t>(output.rank() - rank));
    std::iota(front.begin(), front.end(), 0);
    x = emit_unsqueeze(graph, x, front);
  }
  return {graph.op("Tile", {x, args.ints_value("repeats")})};
}

constexpr Symbolic kRows[] = {
    {"aten::index.Tensor", 11, index, "Gather, GatherND, NonZero, ...", kMovesElements},
    {"aten::index_put", 11, index_put, "ScatterND, Where, ...", kKeepsElementType},
    {"aten::select.int", 10, select, "Gather", kMovesElements},
    {"aten::index_select", 10, index_select, "Gather", kMovesElements},
    {"aten::gather", 11, gather, "GatherElements", kMovesElements},
    {"aten::topk", 11, topk, "TopK"},
    {"aten::sort", 11, sorted, "TopK"},
    {"aten::sort.stable", 11, sorted, "TopK"},
    {"aten::argsort", 11, argsort, "TopK"},
    {"aten::argsort.stable", 11, argsort, "TopK"},
    {"aten::roll", 10, roll, "Slice, Concat", kMovesElements},
    {"aten::flip", 10, flip, "Slice", kMovesElements},
    {"aten::nonzero", 10, nonzero, "NonZero, Transpose", kShapeFromData},
    {"aten::repeat", 10, repeat, "Tile", kMovesElements},
    facts_of("aten::argwhere", kShapeFromData),
    facts_of("aten::nonzero_numpy", kShapeFromData),
    facts_of("aten::masked_select", kShapeFromData),
    facts_of("aten::_unique", kShapeFromData),
    facts_of("aten::_unique2", kShapeFromData),
    facts_of("aten::unique_dim", kShapeFromData),
    facts_of("aten::unique_consecutive", kShapeFromData),
    facts_of("aten::unique_dim_consecutive", kShapeFromData),
    facts_of("aten::bincount", kShapeFromData),
    facts_of("aten::repeat_interleave.Tensor", kShapeFromData),
    facts_of("aten::repeat_interleave.self_Tensor", kShapeFromData),
    facts_of("torchvision::nms", kShapeFromData),
};

}  // namespace

std::span<const Symbolic> indexing_symbolics() { return kRows; }

}  // namespace qcdq
