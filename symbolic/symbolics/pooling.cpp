// Symbolic functions of pooling: max, average and adaptive average over one to three dimensions.
// Inputs without a batch dimension get one, as in symbolics/convolutions.cpp.
#include <numeric>

#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

using enum OpTraits;

struct Window {
  std::vector<int64_t> kernel, stride, padding, dilation;
  std::vector<int64_t> end_padding;  // padding + what ceil_mode adds
  bool adds_at_end = false;
  bool unknown_size = false;  // ceil_mode and a dynamic size
};

// Reads the arguments that all pools share. ceil_mode becomes padding at the end, as much as the
// recorded output size needs: runtimes disagree about ONNX's own ceil_mode.
Window window_of(NodeArgs& args, const std::vector<int64_t>& input, int64_t spatial) {
  Window window;
  window.kernel = spread(args.ints("kernel_size"), spatial);
  window.stride = spread(args.ints("stride"), spatial);
  if (window.stride.empty()) window.stride = window.kernel;
  window.padding = spread(args.ints("padding"), spatial);
  window.dilation = args.has("dilation") ? spread(args.ints("dilation"), spatial)
                                         : std::vector<int64_t>(spatial, 1);
  window.end_padding = window.padding;
  if (!args.boolean("ceil_mode")) return window;
  const TensorType output = args.output_type();
  for (int64_t d = 0; d < spatial; ++d) {
    const int64_t size = input[input.size() - spatial + d];
    const int64_t windows = output.ranked ? output.dims[output.dims.size() - spatial + d] : -1;
    if (size < 0 || windows < 0) {
      window.unknown_size = true;
      continue;
    }
    const int64_t covered =
        (windows - 1) * window.stride[d] + window.dilation[d] * (window.kernel[d] - 1) + 1;
    const int64_t missing = covered - (size + 2 * window.padding[d]);
    if (missing <= 0) continue;
    window.end_padding[d] += missing;
    window.adds_at_end = true;
  }
  return window;
}

template <int64_t kSpatial>
Values max_pool(GraphBuilder& graph, NodeArgs& args) {
  bool added = false;
  const Value x = add_batch(graph, args, "self", args.tensor("self"), kSpatial, added);
  const Window window = window_of(args, dims_of(graph, args, "self", x), kSpatial);
  Attributes attributes = {{"kernel_shape", window.kernel},
                           {"strides", window.stride},
                           {"pads", begins_and_ends(window.padding, window.end_padding)},
                           {"dilations", window.dilation}};
  if (window.unknown_size) attributes.emplace_back("ceil_mode", int64_t{1});
  return {drop_batch(graph, graph.op("MaxPool", {x}, attributes), added)};
}

template <int64_t kSpatial>
Values avg_pool(GraphBuilder& graph, NodeArgs& args) {
  if (args.has("divisor_override") && !args.is_none("divisor_override")) {
    args.unsupported("divisor_override", std::to_string(args.integer("divisor_override")),
                     "ONNX AveragePool divides by the window's size", "divide after a sum instead");
  }
  bool added = false;
  Value x = add_batch(graph, args, "self", args.tensor("self"), kSpatial, added);
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  Window window = window_of(args, dims, kSpatial);
  if (window.unknown_size)
    args.unsupported("ceil_mode", "True", "needs a fixed input size", "drop the dynamic axis");
  bool include_pad = args.boolean("count_include_pad");
  if (window.adds_at_end && include_pad) {
    // The divisor counts torch's own padding but not what ceil_mode adds: the padding becomes part
    // of the input.
    std::vector<int64_t> begins(dims.size(), 0);
    std::copy(window.padding.begin(), window.padding.end(), begins.end() - kSpatial);
    if (std::any_of(begins.begin(), begins.end(), [](int64_t p) { return p != 0; })) {
      x = emit_pad(graph, x, begins_and_ends(begins, begins), "constant", 0);
    }
    for (int64_t d = 0; d < kSpatial; ++d) window.end_padding[d] -= window.padding[d];
    window.padding.assign(kSpatial, 0);
    include_pad = false;
  }
  const Value y = graph.op("AveragePool", {x},
                           {{"kernel_shape", window.kernel},
                            {"strides", window.stride},
                            {"pads", begins_and_ends(window.padding, window.end_padding)},
                            {"count_include_pad", static_cast<int64_t>(include_pad)}});
  return {drop_batch(graph, y, added)};
}

// Means over one axis of x. Output o takes the inputs from floor(o * size / count) up to
// ceil((o + 1) * size / count), as torch does; where these windows differ in size no AveragePool
// has them, so x is multiplied by a constant matrix. Windows of several axes are products of these.
Value adaptive_mean(GraphBuilder& graph, Value x, int64_t rank, int64_t axis, int64_t size,
                    int64_t count) {
  std::vector<double> shares(size * count, 0.0);  // [size, count]
  for (int64_t o = 0; o < count; ++o) {
    const int64_t begin = o * size / count;
    const int64_t end = ((o + 1) * size + count - 1) / count;
    for (int64_t i = begin; i < end; ++i) {
      shares[i * count + o] = 1.0 / static_cast<double>(end - begin);
    }
  }
  const DType dtype = graph.type(x).dtype;
  const Value matrix =
      dtype == DType::kFloat64
          ? graph.constant(TensorData::from<double>(dtype, {size, count}, std::move(shares)))
          : graph.cast(graph.constant(TensorData::from<float>(DType::kFloat32, {size, count},
                                                              {shares.begin(), shares.end()})),
                       dtype);
  std::vector<int64_t> axis_last(rank);
  std::iota(axis_last.begin(), axis_last.end(), 0);
  std::swap(axis_last[axis], axis_last[rank - 1]);
  const bool moves = axis != rank - 1;
  if (moves) x = emit_transpose(graph, x, axis_last);
  const Value y = graph.op("MatMul", {x, matrix});
  return moves ? emit_transpose(graph, y, axis_last) : y;
}

template <int64_t kSpatial>
Values adaptive_avg_pool(GraphBuilder& graph, NodeArgs& args) {
  bool added = false;
  const Value original = args.tensor("self");
  Value x = add_batch(graph, args, "self", original, kSpatial, added);
  const std::vector<int64_t> dims = dims_of(graph, args, "self", x);
  const std::vector<int64_t> counts = spread(args.ints("output_size"), kSpatial);
  if (std::all_of(counts.begin(), counts.end(), [](int64_t count) { return count == 1; })) {
    return {drop_batch(graph, graph.op("GlobalAveragePool", {x}), added)};
  }
  const std::vector<int64_t> sizes(dims.end() - kSpatial, dims.end());
  const auto fixed = [](int64_t size) { return size > 0; };
  if (!std::all_of(sizes.begin(), sizes.end(), fixed) ||
      !std::all_of(counts.begin(), counts.end(), fixed)) {
    args.unsupported("output_size", list_text(counts),
                     "the windows depend on the input's size, and it is " + list_text(sizes) +
                         ", where -1 is not fixed",
                     "drop the dynamic axis, or choose 1");
  }
  if (sizes == counts) return {original};
  std::vector<int64_t> kernel(kSpatial);
  bool equal = true;
  for (int64_t d = 0; d < kSpatial; ++d) {
    kernel[d] = sizes[d] / counts[d];
    equal = equal && sizes[d] % counts[d] == 0;
  }
  if (equal) {
    x = graph.op("AveragePool", {x}, {{"kernel_shape", kernel}, {"strides", kernel}});
    return {drop_batch(graph, x, added)};
  }
  const int64_t rank = static_cast<int64_t>(dims.size());
  for (int64_t d = 0; d < kSpatial; ++d) {
    if (sizes[d] == counts[d]) continue;
    x = adaptive_mean(graph, x, rank, rank - kSpatial + d, sizes[d], counts[d]);
  }
  return {drop_batch(graph, x, added)};
}

constexpr Symbolic kRows[] = {
    {"aten::max_pool1d", 10, max_pool<1>, "MaxPool", kMovesElements},
    {"aten::max_pool2d", 10, max_pool<2>, "MaxPool", kMovesElements},
    {"aten::max_pool3d", 10, max_pool<3>, "MaxPool", kMovesElements},
    {"aten::avg_pool1d", 10, avg_pool<1>, "AveragePool, Pad"},
    {"aten::avg_pool2d", 10, avg_pool<2>, "AveragePool, Pad"},
    {"aten::avg_pool3d", 10, avg_pool<3>, "AveragePool, Pad"},
    {"aten::adaptive_avg_pool1d", 10, adaptive_avg_pool<1>,
     "GlobalAveragePool, AveragePool, MatMul"},
    {"aten::adaptive_avg_pool2d", 10, adaptive_avg_pool<2>,
     "GlobalAveragePool, AveragePool, MatMul"},
    {"aten::adaptive_avg_pool3d", 10, adaptive_avg_pool<3>,
     "GlobalAveragePool, AveragePool, MatMul"},
};

}  // namespace

std::span<const Symbolic> pooling_symbolics() { return kRows; }

}  // namespace qcdq
