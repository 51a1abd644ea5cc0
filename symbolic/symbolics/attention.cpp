// Symbolic functions of attention: scaled_dot_product_attention and the fused encoder ops that a
// trace without gradients holds. All are composed of MatMul and Softmax, which every runtime has.
// Plain matrix products: symbolics/linear.cpp.
#include <cmath>
#include <limits>

#include "symbolic/graph/element_types.h"
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

Value swap_last_two(GraphBuilder& graph, const Value& x, int64_t rank) {
  std::vector<int64_t> order(static_cast<size_t>(rank));
  for (int64_t d = 0; d < rank; ++d) order[static_cast<size_t>(d)] = d;
  std::swap(order[static_cast<size_t>(rank - 2)], order[static_cast<size_t>(rank - 1)]);
  return emit_transpose(graph, x, order);
}

// Dimension `dim` of x, counted from the end, as a 0-d int64 value.
Value size_from_end(GraphBuilder& graph, const Value& x, int64_t rank, int64_t from_end) {
  const Value index = graph.scalar(DType::kInt64, rank - from_end);
  return graph.op("Gather", {graph.op("Shape", {x}), index}, {{"axis", int64_t{0}}});
}

// True where query i may look at key j: j <= i (aligned at the top left, as in torch).
Value causal_mask(GraphBuilder& graph, const Value& query, const Value& key, int64_t rank) {
  const int64_t length = graph.type(query).dims[static_cast<size_t>(rank - 2)];
  const int64_t key_rank = graph.type(key).rank();
  const int64_t keys = graph.type(key).dims[static_cast<size_t>(key_rank - 2)];
  if (length >= 0 && keys >= 0) {
    std::vector<uint8_t> allowed;
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t j = 0; j < keys; ++j) allowed.push_back(j <= i ? 1 : 0);
    }
    return graph.constant(
        TensorData::from<uint8_t>(DType::kBool, {length, keys}, std::move(allowed)));
  }
  const Value zero = graph.scalar(DType::kInt64, 0);
  const Value one = graph.scalar(DType::kInt64, 1);
  const Value rows = graph.op("Range", {zero, size_from_end(graph, query, rank, 2), one});
  const Value columns = graph.op("Range", {zero, size_from_end(graph, key, key_rank, 2), one});
  return graph.op("Less", {columns, graph.op("Add", {emit_unsqueeze(graph, rows, {1}), one})});
}

// A constant float mask that leaves every row a finite number needs no care for dead rows.
bool may_mask_a_row(const TensorData* mask) {
  if (mask == nullptr || mask->dtype != DType::kFloat32) return true;
  const std::shared_ptr<const void> held = mask->load();
  const auto* values = static_cast<const float*>(held.get());
  for (int64_t i = 0; i < mask->numel(); ++i) {
    if (std::isinf(values[i])) return true;
  }
  return false;
}

struct Masked {
  Value scores;
  bool dead_rows = false;  // a row may be masked as a whole: its weights are 0 in torch, not NaN
};

Masked masked(GraphBuilder& graph, const Value& scores, const Value& mask) {
  const DType dtype = graph.type(scores).dtype;
  if (graph.type(mask).dtype == DType::kBool) {
    return {graph.op("Where", {mask, scores, graph.scalar(dtype, kMinusInfinity)}), true};
  }
  return {graph.op("Add", {scores, graph.cast(mask, dtype)}),
          may_mask_a_row(graph.constant_data(mask))};
}

Value attention_weights(GraphBuilder& graph, const Masked& masked, int64_t rank) {
  const Value weights = emit_softmax(graph, "Softmax", masked.scores, rank - 1, rank);
  if (!masked.dead_rows) return weights;
  const DType dtype = graph.type(masked.scores).dtype;
  const Value highest = emit_reduce(graph, "ReduceMax", masked.scores, {rank - 1}, true);
  const Value dead = graph.op("Equal", {highest, graph.scalar(dtype, kMinusInfinity)});
  return graph.op("Where", {dead, graph.scalar(dtype, 0), weights});
}

Values scaled_dot_product_attention(GraphBuilder& graph, NodeArgs& args) {
  const Value query = args.tensor("query");
  const Value key = args.tensor("key");
  const Value value = args.tensor("value");
  const Value mask = args.optional_tensor("attn_mask");
  const bool causal = args.boolean("is_causal");
  if (const double dropout = args.real("dropout_p"); dropout != 0) {
    args.unsupported("dropout_p", number_text(dropout), "dropout is random",
                     "pass dropout_p=0.0 in eval mode");
  }
  if (args.has("enable_gqa") && args.boolean("enable_gqa")) {
    args.unsupported("enable_gqa", "True", "heads shared between queries are not expanded",
                     "repeat the heads of key and value: key.repeat_interleave(n, dim=-3)");
  }
  const std::vector<int64_t> dims = dims_of(graph, args, "query", query);
  const auto rank = static_cast<int64_t>(dims.size());
  const DType dtype = args.output_type().dtype;
  double scale = 0;
  if (const std::optional<double> given = args.optional_real("scale")) {
    scale = *given;
  } else if (dims.back() > 0) {
    scale = 1 / std::sqrt(static_cast<double>(dims.back()));
  } else {
    args.unsupported("query", list_text(dims), "the default scale needs a fixed last dimension",
                     "pass scale");
  }
  const Value scaled = graph.op("Mul", {query, graph.scalar(dtype, scale)});
  const Value scores =
      graph.op("MatMul", {scaled, swap_last_two(graph, key, rank_of(graph, args, "key", key))});
  Masked seen{scores, false};
  if (causal) {
    seen.scores = graph.op("Where", {causal_mask(graph, query, key, rank), scores,
                                     graph.scalar(dtype, kMinusInfinity)});
  } else if (mask.present()) {
    seen = masked(graph, scores, mask);
  }
  return {graph.op("MatMul", {attention_weights(graph, seen, rank), value})};
}

Value affine(GraphBuilder& graph, const Value& x, const Value& weight, const Value& bias) {
  return graph.op("Add", {graph.op("MatMul", {x, emit_transpose(graph, weight, {1, 0})}), bias});
}

struct Heads {
  Value output;   // [batch, length, width]
  Value weights;  // [batch, heads, length, length]
};

// Self-attention over [batch, length, width] as torch's fused ops compute it: one product for
// query, key and value.
Heads self_attention(GraphBuilder& graph, NodeArgs& args, const Value& x, int64_t heads) {
  const int64_t width = args.integer("embed_dim");
  const Value packed = affine(graph, x, args.tensor("qkv_weight"), args.tensor("qkv_bias"));
  const Values parts = emit_split(graph, packed, 2, {width, width, width});
  Values split_heads;  // each [batch, heads, length, width / heads]
  for (const Value& part : parts) {
    const Value apart = graph.op("Reshape", {part, graph.ints({0, 0, heads, width / heads})});
    split_heads.push_back(
        graph.op("Transpose", {apart}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}}));
  }
  const DType dtype = graph.type(x).dtype;
  const double scale = 1 / std::sqrt(static_cast<double>(width) / static_cast<double>(heads));
  const Value scaled = graph.op("Mul", {split_heads[0], graph.scalar(dtype, scale)});
  const Value keys =
      graph.op("Transpose", {split_heads[1]}, {{"perm", std::vector<int64_t>{0, 1, 3, 2}}});
  const Value weights = emit_softmax(graph, "Softmax", graph.op("MatMul", {scaled, keys}), 3, 4);
  const Value mixed = graph.op("Transpose", {graph.op("MatMul", {weights, split_heads[2]})},
                               {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
  const Value joined = graph.op("Reshape", {mixed, graph.ints({0, 0, width})});
  return {affine(graph, joined, args.tensor("proj_weight"), args.tensor("proj_bias")), weights};
}

void refuse_fused_mask(NodeArgs& args) {
  if (!args.is_none("mask")) {
    args.unsupported("mask", "a tensor", "the fused form of masked attention has no conversion",
                     "script the module, or trace it with torch.backends.mha.set_fastpath_enabled"
                     "(False)");
  }
  args.ignore("mask_type", "there is no mask");
}

Values native_multi_head_attention(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("query");
  if (args.tensor("key").name != x.name || args.tensor("value").name != x.name) {
    args.unsupported("key", "another tensor than query",
                     "the fused form is converted for self-attention only",
                     "script the module, or trace it with gradients enabled");
  }
  refuse_fused_mask(args);
  const bool wanted = args.boolean("need_weights");
  const bool average = args.boolean("average_attn_weights");
  const Heads heads = self_attention(graph, args, x, args.integer("num_head"));
  if (!wanted) return {heads.output, Value{}};
  return {heads.output,
          average ? emit_reduce(graph, "ReduceMean", heads.weights, {1}, false) : heads.weights};
}

Values encoder_layer(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("src");
  const int64_t width = args.integer("embed_dim");
  const int64_t heads = args.integer("num_heads");
  const bool norm_first = args.boolean("norm_first");
  const double epsilon = args.real("eps");
  refuse_fused_mask(args);
  const auto norm = [&](const Value& value, const char* weight, const char* bias) {
    return emit_layer_norm(graph, value, 3, {width}, args.tensor(weight), args.tensor(bias),
                           epsilon);
  };
  const auto feed_forward = [&](const Value& value) {
    const Value wide = affine(graph, value, args.tensor("ffn_weight_1"), args.tensor("ffn_bias_1"));
    const Value active =
        args.boolean("use_gelu") ? emit_gelu(graph, wide, "none") : graph.op("Relu", {wide});
    return affine(graph, active, args.tensor("ffn_weight_2"), args.tensor("ffn_bias_2"));
  };
  if (norm_first) {
    const Value seen =
        self_attention(graph, args, norm(x, "norm_weight_1", "norm_bias_1"), heads).output;
    const Value y = graph.op("Add", {x, seen});
    return {graph.op("Add", {y, feed_forward(norm(y, "norm_weight_2", "norm_bias_2"))})};
  }
  const Value y = norm(graph.op("Add", {x, self_attention(graph, args, x, heads).output}),
                       "norm_weight_1", "norm_bias_1");
  return {norm(graph.op("Add", {y, feed_forward(y)}), "norm_weight_2", "norm_bias_2")};
}

constexpr Symbolic kRows[] = {
    {"aten::scaled_dot_product_attention", 11, scaled_dot_product_attention,
     "MatMul, Softmax, Where, ..."},
    {"aten::_native_multi_head_attention", 11, native_multi_head_attention,
     "MatMul, Softmax, Split, ..."},
    {"aten::_transformer_encoder_layer_fwd", 11, encoder_layer,
     "MatMul, Softmax, LayerNormalization, ..."},
};

}  // namespace

std::span<const Symbolic> attention_symbolics() { return kRows; }

}  // namespace qcdq
