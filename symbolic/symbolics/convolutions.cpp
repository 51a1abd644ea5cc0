// Symbolic functions of layers: convolutions, linear layers and matrix products, normalisation,
// pooling, embedding. Inputs without a batch dimension, which torch allows and ONNX doesn't, get
// one and lose it again.
#include <numeric>

#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"

namespace qcdq {

namespace {

struct Convolution {
  bool transposed = false;
  std::vector<int64_t> output_padding;
  std::optional<std::string> padding;  // "same", "valid"
};

Values convolution(GraphBuilder& graph, NodeArgs& args, const Convolution& kind) {
  Value x = args.tensor("input");
  const Value weight = args.tensor("weight");
  const Value bias = args.optional_tensor("bias");
  const std::vector<int64_t> weight_dims = dims_of(graph, args, "weight", weight);
  const auto spatial = static_cast<int64_t>(weight_dims.size()) - 2;
  const std::vector<int64_t> kernel(weight_dims.begin() + 2, weight_dims.end());
  bool added = false;
  x = batched(graph, args, "input", x, spatial, added);

  const std::vector<int64_t> dilation = spread(args.ints("dilation"), spatial);
  std::vector<int64_t> begins(spatial, 0);
  std::vector<int64_t> ends(spatial, 0);
  if (!kind.padding) {
    begins = ends = spread(args.ints("padding"), spatial);
  } else if (*kind.padding == "same") {  // torch puts the odd element at the end
    for (int64_t d = 0; d < spatial; ++d) {
      const int64_t total = dilation[d] * (kernel[d] - 1);
      begins[d] = total / 2;
      ends[d] = total - begins[d];
    }
  } else if (*kind.padding != "valid") {
    args.unsupported("padding", *kind.padding, "expected same or valid");
  }
  Attributes attributes = {{"kernel_shape", kernel},
                           {"strides", spread(args.ints("stride"), spatial)},
                           {"pads", begins_and_ends(begins, ends)},
                           {"dilations", dilation},
                           {"group", args.integer("groups")}};
  if (kind.transposed)
    attributes.emplace_back("output_padding", spread(kind.output_padding, spatial));
  const Value y =
      graph.op(kind.transposed ? "ConvTranspose" : "Conv", {x, weight, bias}, attributes);
  return {unbatched(graph, y, added)};
}

Values convolution_any(GraphBuilder& graph,
                       NodeArgs& args) {  // aten::_convolution, what traces hold
  for (const char* name : {"benchmark", "deterministic", "cudnn_enabled", "allow_tf32"}) {
    if (args.has(name)) args.ignore(name, "chooses a CUDA kernel");
  }
  Convolution kind;
  kind.transposed = args.boolean("transposed");
  kind.output_padding = args.ints("output_padding");
  return convolution(graph, args, kind);
}

Values conv(GraphBuilder& graph, NodeArgs& args) { return convolution(graph, args, {}); }

Values conv_padding_mode(GraphBuilder& graph, NodeArgs& args) {
  Convolution kind;
  kind.padding = args.string("padding");
  return convolution(graph, args, kind);
}

Values conv_transpose(GraphBuilder& graph, NodeArgs& args) {
  Convolution kind;
  kind.transposed = true;
  kind.output_padding = args.ints("output_padding");
  return convolution(graph, args, kind);
}

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
      graph.op("MatMul", {x, weight_rank == 2 ? transpose(graph, weight, {1, 0}) : weight});
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
    return graph.op("InstanceNormalization",
                    {channels_second, weight.present() ? weight : filled(graph, dtype, dims[1], 1),
                     bias.present() ? bias : filled(graph, dtype, dims[1], 0)},
                    {{"epsilon", static_cast<float>(args.number("eps"))}});
  };
  if (dims[0] == 1 && rank > 2) return {normal(x)};
  std::vector<int64_t> swap(rank);
  std::iota(swap.begin(), swap.end(), 0);
  std::swap(swap[0], swap[1]);
  const Value channels_first = transpose(graph, x, swap);
  const Value y = normal(reshape(graph, channels_first, {1, dims[1], -1}));
  return {transpose(graph, graph.op("Reshape", {y, graph.op("Shape", {channels_first})}), swap)};
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
                   {x, weight.present() ? weight : filled(graph, dtype, channels, 1),
                    bias.present() ? bias : filled(graph, dtype, channels, 0), mean, variance},
                   {{"epsilon", static_cast<float>(args.number("eps"))}})};
}

Values normalized_layer(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("input");
  const std::vector<int64_t> shape = args.ints("normalized_shape");
  const Value weight = args.optional_tensor("weight");
  const Value bias = args.optional_tensor("bias");
  const double epsilon = args.number("eps");
  args.ignore("cudnn_enable", "chooses a CUDA kernel");
  const int64_t rank = rank_of(graph, args, "input", x);
  return {qcdq::layer_norm(graph, x, rank, shape, weight, bias, epsilon)};
}

// [C] -> [C, 1, 1] for an input of that rank.
Value per_channel(GraphBuilder& graph, const Value& x, int64_t channels, int64_t rank) {
  if (rank == 2) return x;
  std::vector<int64_t> dims(rank - 1, 1);
  dims[0] = channels;
  return reshape(graph, x, dims);
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
  const Value normal =
      graph.op("InstanceNormalization",
               {grouped, filled(graph, dtype, groups, 1), filled(graph, dtype, groups, 0)},
               {{"epsilon", static_cast<float>(args.number("eps"))}});
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
  const Value scale = weight.present() ? weight : filled(graph, dtype, dims[1], 1);
  const Value shift = bias.present() ? bias : filled(graph, dtype, dims[1], 0);
  const Attributes epsilon = {{"epsilon", static_cast<float>(args.number("eps"))}};
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

Values embedding(GraphBuilder& graph, NodeArgs& args) {
  args.ignore("padding_idx", "only changes gradients");
  args.ignore("scale_grad_by_freq", "only changes gradients");
  args.ignore("sparse", "only changes gradients");
  const Value weight = args.tensor("weight");
  return {graph.op("Gather", {weight, args.tensor("indices")}, {{"axis", int64_t{0}}})};
}

constexpr Symbolic kRows[] = {
    {"aten::_convolution", 10, convolution_any, "Conv, ConvTranspose"},
    {"aten::conv1d", 10, conv, "Conv"},
    {"aten::conv2d", 10, conv, "Conv"},
    {"aten::conv3d", 10, conv, "Conv"},
    {"aten::conv1d.padding", 10, conv_padding_mode, "Conv"},
    {"aten::conv2d.padding", 10, conv_padding_mode, "Conv"},
    {"aten::conv3d.padding", 10, conv_padding_mode, "Conv"},
    {"aten::conv_transpose1d", 10, conv_transpose, "ConvTranspose"},
    {"aten::conv_transpose2d.input", 10, conv_transpose, "ConvTranspose"},
    {"aten::conv_transpose3d.input", 10, conv_transpose, "ConvTranspose"},
    {"aten::linear", 10, linear, "Gemm, MatMul, Add"},
    {"aten::addmm", 10, addmm, "Gemm"},
    {"aten::matmul", 10, matmul, "MatMul"},
    {"aten::mm", 10, matmul, "MatMul"},
    {"aten::bmm", 10, matmul, "MatMul"},
    {"aten::batch_norm", 10, batch_norm,
     "BatchNormalization; without statistics: InstanceNormalization, ..."},
    {"aten::layer_norm", 10, normalized_layer, "LayerNormalization; below 17: ReduceMean, ..."},
    {"aten::group_norm", 10, group_norm, "InstanceNormalization, Reshape, Mul, Add"},
    {"aten::instance_norm", 10, instance_norm, "InstanceNormalization"},
    {"aten::embedding", 10, embedding, "Gather"},
};

}  // namespace

std::span<const Symbolic> nn_symbolics() { return kRows; }

}  // namespace qcdq
