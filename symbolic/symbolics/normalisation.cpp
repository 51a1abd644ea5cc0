// Symbolic functions of normalisation: over the batch, a layer, groups of channels or each
// instance. Running statistics are those of eval mode. The composition of LayerNormalization before
// opset 17 is layer_norm of symbolics/onnx_forms.h, which attention.cpp shares.
#include <numeric>

#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

// Batch normalisation without running statistics, in eval mode too: instance normalisation with
// the batch among the spatial dimensions. A batch of one needs no more than that (what
// instance_norm becomes in run_decompositions).
Values batch_norm_of_batch(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("input");
  const std::vector<int64_t> dims = dims_of(graph, args, "input", x);
  const auto rank = static_cast<int64_t>(dims.size());
  if (dims[1] < 0)
    args.unsupported("input", list_text(dims),
                     "expected [batch, channels, ...] with fixed channels");
  args.ignore("training", "without running statistics, those of the batch are used anyway");
  args.ignore("momentum", "there are no running statistics");
  args.ignore("cudnn_enabled", "chooses a CUDA kernel");
  const DType dtype = graph.type(x).dtype;
  const Value weight = args.optional_tensor("weight");
  const Value bias = args.optional_tensor("bias");
  const auto normal = [&](const Value& channels_second) {
    return graph.op(
        "InstanceNormalization",
        {channels_second, weight.present() ? weight : constant_of(graph, dtype, dims[1], 1),
         bias.present() ? bias : constant_of(graph, dtype, dims[1], 0)},
        {{"epsilon", static_cast<float>(args.real("eps"))}});
  };
  if (dims[0] == 1 && rank > 2) return {normal(x)};
  std::vector<int64_t> swap(rank);
  std::iota(swap.begin(), swap.end(), 0);
  std::swap(swap[0], swap[1]);
  const Value channels_first = emit_transpose(graph, x, swap);
  const Value y = normal(emit_reshape(graph, channels_first, {1, dims[1], -1}));
  return {
      emit_transpose(graph, graph.op("Reshape", {y, graph.op("Shape", {channels_first})}), swap)};
}

Values batch_norm(GraphBuilder& graph, NodeArgs& args) {
  if (args.is_none("running_mean") && args.is_none("running_var"))
    return batch_norm_of_batch(graph, args);
  if (args.boolean("training")) {
    args.unsupported("training", "True",
                     "batch normalisation would use the statistics of the batch",
                     "put the module into eval mode");
  }
  const Value x = args.tensor("input");
  const Value mean = args.tensor("running_mean");
  const Value variance = args.tensor("running_var");
  const int64_t channels = dims_of(graph, args, "running_mean", mean)[0];
  const DType dtype = graph.type(mean).dtype;
  const Value weight = args.optional_tensor("weight");
  const Value bias = args.optional_tensor("bias");
  args.ignore("momentum", "running statistics are frozen");
  args.ignore("cudnn_enabled", "chooses a CUDA kernel");
  return {graph.op("BatchNormalization",
                   {x, weight.present() ? weight : constant_of(graph, dtype, channels, 1),
                    bias.present() ? bias : constant_of(graph, dtype, channels, 0), mean, variance},
                   {{"epsilon", static_cast<float>(args.real("eps"))}})};
}

Values normalized_layer(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("input");
  const std::vector<int64_t> shape = args.ints("normalized_shape");
  const Value weight = args.optional_tensor("weight");
  const Value bias = args.optional_tensor("bias");
  const double epsilon = args.real("eps");
  args.ignore("cudnn_enable", "chooses a CUDA kernel");
  const int64_t rank = rank_of(graph, args, "input", x);
  return {emit_layer_norm(graph, x, rank, shape, weight, bias, epsilon)};
}

// [C] -> [C, 1, 1] for an input of that rank.
Value per_channel(GraphBuilder& graph, const Value& x, int64_t channels, int64_t rank) {
  if (rank == 2) return x;
  std::vector<int64_t> dims(rank - 1, 1);
  dims[0] = channels;
  return emit_reshape(graph, x, dims);
}

// Groups become the channels of an instance normalisation without scale and bias, which follow by
// themselves.
Values group_norm(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("input");
  const int64_t groups = args.integer("num_groups");
  const Value weight = args.optional_tensor("weight");
  const Value bias = args.optional_tensor("bias");
  args.ignore("cudnn_enabled", "chooses a CUDA kernel");
  const std::vector<int64_t> dims = dims_of(graph, args, "input", x);
  const auto rank = static_cast<int64_t>(dims.size());
  const DType dtype = graph.type(x).dtype;
  if (dims[1] < 0)
    args.unsupported("input", "a dynamic number of channels", "the groups need a fixed one");
  const Value grouped = graph.op("Reshape", {x, graph.ints({0, groups, -1})});
  const Value normal = graph.op(
      "InstanceNormalization",
      {grouped, constant_of(graph, dtype, groups, 1), constant_of(graph, dtype, groups, 0)},
      {{"epsilon", static_cast<float>(args.real("eps"))}});
  Value y = graph.op("Reshape", {normal, graph.op("Shape", {x})});
  if (weight.present()) y = graph.op("Mul", {y, per_channel(graph, weight, dims[1], rank)});
  if (bias.present()) y = graph.op("Add", {y, per_channel(graph, bias, dims[1], rank)});
  return {y};
}

Values instance_norm(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("input");
  const std::vector<int64_t> dims = dims_of(graph, args, "input", x);
  const DType dtype = graph.type(x).dtype;
  if (dims.size() < 3 || dims[1] < 0)
    args.unsupported("input", list_text(dims),
                     "expected [batch, channels, ...] with fixed channels");
  const Value weight = args.optional_tensor("weight");
  const Value bias = args.optional_tensor("bias");
  const Value scale = weight.present() ? weight : constant_of(graph, dtype, dims[1], 1);
  const Value shift = bias.present() ? bias : constant_of(graph, dtype, dims[1], 0);
  const Attributes epsilon = {{"epsilon", static_cast<float>(args.real("eps"))}};
  args.ignore("momentum", "running statistics are frozen");
  args.ignore("cudnn_enabled", "chooses a CUDA kernel");
  if (args.boolean("use_input_stats")) {
    args.ignore("running_mean", "the input's own statistics are used");
    args.ignore("running_var", "the input's own statistics are used");
    return {graph.op("InstanceNormalization", {x, scale, shift}, epsilon)};
  }
  return {graph.op("BatchNormalization",
                   {x, scale, shift, args.tensor("running_mean"), args.tensor("running_var")},
                   epsilon)};
}

constexpr Symbolic kRows[] = {
    {"aten::batch_norm", 10, batch_norm,
     "BatchNormalization; without statistics: InstanceNormalization, ..."},
    {"aten::layer_norm", 10, normalized_layer, "LayerNormalization; below 17: ReduceMean, ..."},
    {"aten::group_norm", 10, group_norm, "InstanceNormalization, Reshape, Mul, Add"},
    {"aten::instance_norm", 10, instance_norm, "InstanceNormalization"},
};

}  // namespace

std::span<const Symbolic> normalisation_symbolics() { return kRows; }

}  // namespace qcdq
