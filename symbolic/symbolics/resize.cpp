// Symbolic functions of upsample_* (what interpolate and nn.Upsample call): ONNX Resize in the
// coordinate mode that is torch's, and pixel_shuffle. Where the two round a nearest coordinate
// differently, torch's own indices are gathered.
#include <cmath>

#include "symbolic/graph/element_types.h"
#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

using enum OpTraits;

using Scales = std::vector<double>;

// Scale factors that were given for the spatial dimensions; empty where sizes decide. torch
// computes coordinates with a factor that was given, and with the ratio of the sizes otherwise.
Scales given_scales(GraphBuilder& graph, NodeArgs& args, size_t spatial) {
  Scales scales;
  if (args.has("scale_factors")) {  // .vec
    if (args.is_none("scale_factors")) return {};
    const TensorData factors = *graph.constant_data(args.tensor("scale_factors"));
    const auto* numbers = static_cast<const double*>(factors.data.get());
    return {numbers, numbers + factors.numel()};
  }
  static constexpr const char* kNames[3][3] = {
      {"scales"}, {"scales_h", "scales_w"}, {"scales_d", "scales_h", "scales_w"}};
  for (size_t d = 0; d < spatial; ++d) {
    const std::optional<double> scale = args.optional_real(kNames[spatial - 1][d]);
    if (scale) scales.push_back(*scale);
  }
  if (scales.size() != spatial) scales.clear();
  return scales;
}

bool sizes_given(NodeArgs& args) { return args.has("output_size") && !args.is_none("output_size"); }

// torch's nearest source of each output position (aten's UpSample.h), in float. A scale of 0 stands
// for the ratio of the sizes.
std::vector<int64_t> torch_nearest(int64_t in, int64_t out, double scale, bool exact) {
  const float step = scale > 0 ? static_cast<float>(1.0 / scale)
                               : static_cast<float>(in) / static_cast<float>(out);
  std::vector<int64_t> sources;
  for (int64_t i = 0; i < out; ++i) {
    const float position =
        exact ? (static_cast<float>(i) + 0.5F) * step : static_cast<float>(i) * step;
    sources.push_back(std::min(static_cast<int64_t>(std::floor(position)), in - 1));
  }
  return sources;
}

// What Resize computes: with mode asymmetric i / scale; with half_pixel (i + 0.5) / scale - 0.5,
// rounded half up.
std::vector<int64_t> onnx_nearest(int64_t in, int64_t out, double scale, bool exact) {
  const float factor =
      scale > 0 ? static_cast<float>(scale) : static_cast<float>(out) / static_cast<float>(in);
  std::vector<int64_t> sources;
  for (int64_t i = 0; i < out; ++i) {
    const float position = exact ? std::floor((static_cast<float>(i) + 0.5F) / factor - 0.5F + 0.5F)
                                 : std::floor(static_cast<float>(i) / factor);
    sources.push_back(std::clamp<int64_t>(static_cast<int64_t>(position), 0, in - 1));
  }
  return sources;
}

// The nearest indices gathered along each spatial dimension, where Resize would take others;
// nothing where both agree or sizes are dynamic.
std::optional<Value> gathered(GraphBuilder& graph, const Value& x, const std::vector<int64_t>& in,
                              const std::vector<int64_t>& out, const Scales& scales, bool exact) {
  bool differs = false;
  for (size_t d = 2; d < in.size(); ++d) {
    if (in[d] < 0 || out[d] < 0) return std::nullopt;
    const double scale = scales.empty() ? 0 : scales[d - 2];
    differs |=
        torch_nearest(in[d], out[d], scale, exact) != onnx_nearest(in[d], out[d], scale, exact);
  }
  if (!differs) return std::nullopt;
  Value y = x;
  for (size_t d = 2; d < in.size(); ++d) {
    const double scale = scales.empty() ? 0 : scales[d - 2];
    const Value indices = graph.ints(torch_nearest(in[d], out[d], scale, exact));
    y = graph.op("Gather", {y, indices}, {{"axis", static_cast<int64_t>(d)}});
  }
  return y;
}

Value resize(GraphBuilder& graph, NodeArgs& args, const Value& x, const Scales& scales,
             const Attributes& attributes) {
  const TensorType output = args.output_type();
  const std::vector<int64_t> in = dims_of(graph, args, args.has("input") ? "input" : "self", x);
  // Opset 11 insists on inputs that later opsets leave out.
  const Value none = graph.opset() >= 13
                         ? Value{}
                         : graph.constant(TensorData::from<float>(DType::kFloat32, {0}, {}));
  if (!scales.empty()) {
    if (sizes_given(args)) args.ignore("output_size", "follows from the scale factors");
    std::vector<float> factors = {1, 1};
    for (size_t d = 0; d < scales.size(); ++d) {
      const auto factor = static_cast<float>(scales[d]);
      factors.push_back(factor);
      const int64_t size = in[d + 2];
      if (size >= 0 && output.ranked && output.dims[d + 2] >= 0 &&
          static_cast<int64_t>(std::floor(static_cast<float>(size) * factor)) !=
              output.dims[d + 2]) {
        args.unsupported("scale_factor", number_text(scales[d]),
                         "ONNX rounds the output size of this factor otherwise than torch",
                         "pass the size, or recompute_scale_factor=True");
      }
    }
    const auto count = static_cast<int64_t>(factors.size());
    const Value factor_input =
        graph.constant(TensorData::from<float>(DType::kFloat32, {count}, std::move(factors)));
    return graph.op("Resize", {x, none, factor_input}, attributes);
  }
  Value sizes;
  if (output.is_static()) {
    args.ignore("output_size", "the recorded type of the output has it");
    sizes = graph.ints(output.dims);
  } else {
    const Value batch_and_channels =
        emit_slice(graph, graph.op("Shape", {x}), 0, graph.ints({0}), graph.ints({2}), 1);
    sizes = graph.op("Concat", {batch_and_channels, args.ints_value("output_size")},
                     {{"axis", int64_t{0}}});
  }
  return graph.op("Resize", {x, none, none, sizes}, attributes);
}

Value input_of(NodeArgs& args) { return args.tensor(args.has("input") ? "input" : "self"); }

template <bool kExact>
Values nearest(GraphBuilder& graph, NodeArgs& args) {
  const Value x = input_of(args);
  const std::vector<int64_t> in = dims_of(graph, args, args.has("input") ? "input" : "self", x);
  const TensorType output = args.output_type();
  const Scales scales = given_scales(graph, args, in.size() - 2);
  if (output.is_static()) {
    if (const std::optional<Value> y = gathered(graph, x, in, output.dims, scales, kExact)) {
      if (args.has("output_size"))
        args.ignore("output_size", "the recorded type of the output has it");
      return {*y};
    }
  }
  const char* coordinates = kExact ? "half_pixel" : "asymmetric";
  const char* rounding = kExact ? "round_prefer_ceil" : "floor";
  return {resize(graph, args, x, scales,
                 {{"mode", std::string("nearest")},
                  {"coordinate_transformation_mode", std::string(coordinates)},
                  {"nearest_mode", std::string(rounding)}})};
}

template <OpName kMode>
Values interpolated(GraphBuilder& graph, NodeArgs& args) {
  const Value x = input_of(args);
  const size_t rank = dims_of(graph, args, args.has("input") ? "input" : "self", x).size();
  const bool corners = args.boolean("align_corners");
  const Scales scales = given_scales(graph, args, rank - 2);
  Attributes attributes = {
      {"mode", std::string(kMode.text)},
      {"coordinate_transformation_mode", std::string(corners ? "align_corners" : "half_pixel")}};
  if (std::string_view(kMode.text) == "cubic") attributes.emplace_back("cubic_coeff_a", -0.75F);
  return {resize(graph, args, x, scales, attributes)};
}

// [N, C r^2, H, W] -> [N, C, H r, W r]
Values pixel_shuffle(GraphBuilder& graph, NodeArgs& args) {
  const Value x = args.tensor("self");
  if (rank_of(graph, args, "self", x) != 4)
    args.unsupported("self", "%" + x.name, "expected [batch, channels, height, width]");
  return {graph.op("DepthToSpace", {x},
                   {{"blocksize", args.integer("upscale_factor")}, {"mode", std::string("CRD")}})};
}

constexpr Symbolic kRows[] = {
    {"aten::upsample_nearest1d", 11, nearest<false>, "Resize", kMovesElements},
    {"aten::upsample_nearest2d", 11, nearest<false>, "Resize", kMovesElements},
    {"aten::upsample_nearest3d", 11, nearest<false>, "Resize", kMovesElements},
    {"aten::_upsample_nearest_exact1d", 11, nearest<true>, "Resize", kMovesElements},
    {"aten::_upsample_nearest_exact2d", 11, nearest<true>, "Resize", kMovesElements},
    {"aten::_upsample_nearest_exact3d", 11, nearest<true>, "Resize", kMovesElements},
    {"aten::upsample_linear1d", 11, interpolated<"linear">, "Resize"},
    {"aten::upsample_bilinear2d", 11, interpolated<"linear">, "Resize"},
    {"aten::upsample_trilinear3d", 11, interpolated<"linear">, "Resize"},
    {"aten::upsample_bicubic2d", 11, interpolated<"cubic">, "Resize"},
    {"aten::pixel_shuffle", 11, pixel_shuffle, "DepthToSpace", kMovesElements},
};

}  // namespace

std::span<const Symbolic> resize_symbolics() { return kRows; }

}  // namespace qcdq
