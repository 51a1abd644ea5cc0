// Symbolic functions of convolutions and transposed convolutions. Inputs without a batch dimension,
// which torch allows and ONNX doesn't, get one and lose it again, as in symbolics/pooling.cpp.
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

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
  x = add_batch(graph, args, "input", x, spatial, added);

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
  return {drop_batch(graph, y, added)};
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
};

}  // namespace

std::span<const Symbolic> convolutions_symbolics() { return kRows; }

}  // namespace qcdq
