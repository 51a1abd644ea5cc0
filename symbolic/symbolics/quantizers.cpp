// Symbolic functions of the quantisers: qcdq's own ops and aten's fake-quantise family. They read
// and check the arguments; quantizer/emit.cpp chooses the nodes, and the passes of qdq/ fit them to
// their neighbours.
#include <cmath>

#include "qcdq/affine.h"
#include "symbolic/graph/element_types.h"
#include "symbolic/quantizer/emit.h"
#include "symbolic/symbolics/registry.h"

namespace qcdq {
namespace {

using enum OpTraits;

using Values = std::vector<Value>;

TensorData constant_tensor(NodeArgs& args, const char* name) {
  std::optional<TensorData> data = args.constant(name);
  if (!data) {
    args.unsupported(name, "",
                     "is computed from the model's inputs; ONNX's quantisers are exported with "
                     "constants only",
                     "freeze it into a buffer (eval mode), or use qcdq::fake_quantize_dynamic");
  }
  return *data;
}

// A flag tensor of aten's observers, as its only element.
bool flag(NodeArgs& args, const char* name) {
  const std::vector<double> values = read_numbers(constant_tensor(args, name));
  if (values.size() != 1 || (values[0] != 0 && values[0] != 1)) {
    args.unsupported(name, values.empty() ? "[]" : number_text(values[0]),
                     "expected one element, 0 or 1");
  }
  return values[0] == 1;
}

CodeRange range_of(NodeArgs& args) {
  const int64_t low = args.integer("quant_min"), high = args.integer("quant_max");
  return with_refusals(args, "x", [&] { return checked_range(low, high); });
}

using RoundZeroPoint = double (*)(double zero_point, CodeRange range);

double as_is(double zero_point, CodeRange) { return zero_point; }
// clamp(round_half_even(zp)): semantics.md's LSQ+, and aten's learnable ops.
double nearest(double zero_point, CodeRange range) {
  return std::min(std::max(round_half_even(zero_point), static_cast<double>(range.min)),
                  static_cast<double>(range.max));
}

// A quantiser whose scale and zero point are Tensor arguments; `axis` is nothing per tensor.
QuantizerRequest tensor_quantizer(NodeArgs& args, CodeRange range, std::optional<int64_t> axis,
                                  RoundZeroPoint round = as_is, int64_t block_size = 0) {
  QuantizerRequest quantizer;
  quantizer.range = range;
  const TensorData scale = constant_tensor(args, "scale");
  std::vector<double> zero_point = read_numbers(constant_tensor(args, "zero_point"));
  for (double& value : zero_point) value = round(value, range);
  quantizer.params = with_refusals(args, "x", [&] {
    return constant_params(read_numbers(scale), scale.dims, zero_point, range, axis, block_size);
  });
  return quantizer;
}

QuantizerRequest qcdq_quantizer(NodeArgs& args, CodeRange range, RoundZeroPoint round = as_is) {
  const std::optional<int64_t> axis = args.optional_integer("axis");
  const std::optional<int64_t> block_size = args.optional_integer("block_size");
  if (block_size && !axis)
    args.unsupported("block_size", std::to_string(*block_size), "needs an axis");
  if (block_size && *block_size < 1) {
    args.unsupported("block_size", std::to_string(*block_size), "expected at least 1");
  }
  return tensor_quantizer(args, range, axis, round, block_size.value_or(0));
}

Values fake_quantize(GraphBuilder& graph, NodeArgs& args) {
  return {emit_fake_quantize(graph, args, "x", qcdq_quantizer(args, range_of(args)))};
}

Values fake_quantize_learned(GraphBuilder& graph, NodeArgs& args) {
  args.ignore("grad_factor", "scales gradients only");
  return {emit_fake_quantize(graph, args, "x", qcdq_quantizer(args, range_of(args), nearest))};
}

Values quantize(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.optional_dtype("dtype").value_or(DType::kUndefined);
  return {emit_quantize(graph, args, "x", qcdq_quantizer(args, range_of(args)), dtype)};
}

Values dequantize(GraphBuilder& graph, NodeArgs& args) {
  args.ignore("dtype", "the recorded type of the output says it");
  const QuantizerRequest quantizer = qcdq_quantizer(args, integer_range(DType::kInt32));
  const DType dtype = args.output_type().dtype;
  return {emit_dequantize(graph, args, "q", quantizer.params,
                          dtype == DType::kUndefined ? DType::kFloat32 : dtype)};
}

// ONNX's DynamicQuantizeLinear, which knows one range only.
Values emit_dynamic(GraphBuilder& graph, NodeArgs& args, bool dequantize) {
  DynamicRequest request;
  request.range = range_of(args);
  request.is_symmetric = args.boolean("symmetric");
  request.axis = args.optional_integer("axis");
  request.block_size = args.optional_integer("block_size");
  request.opset = graph.opset();
  request.cast_f64 = emission(graph).cast_f64;
  request.dequantize = dequantize;
  const TensorType type = args.output_type(0);
  if (!dequantize && type.ranked && type.rank() == 1) request.qparams_rank = 1;
  const Value x = args.tensor("x");
  request.x = graph.type(x);
  const Fragment fragment = with_refusals(args, "x", [&] { return dynamic_fragment(request); });
  return emit_fragment(graph, fragment, x, quantizer_name(graph));
}

Values fake_quantize_dynamic(GraphBuilder& graph, NodeArgs& args) {
  return emit_dynamic(graph, args, true);
}

Values choose_qparams(GraphBuilder& graph, NodeArgs& args) {
  return emit_dynamic(graph, args, false);
}

QuantizerRequest aten_quantizer(QuantizerRequest quantizer) {
  quantizer.aten = true;
  return quantizer;
}

Values with_mask(const NodeArgs& args, Value y) {
  Values results = {std::move(y)};
  if (args.outputs() > 1) results.emplace_back();  // convert refuses a mask that is used
  return results;
}

Values aten_per_tensor(GraphBuilder& graph, NodeArgs& args) {
  QuantizerRequest quantizer;
  quantizer.aten = true;
  quantizer.range = range_of(args);
  const double scale = args.real("scale");
  const auto zero_point = static_cast<double>(args.integer("zero_point"));
  quantizer.params = with_refusals(args, "self", [&] {
    return constant_params({scale}, {}, {zero_point}, quantizer.range, std::nullopt, 0);
  });
  return with_mask(args, emit_fake_quantize(graph, args, "self", std::move(quantizer)));
}

Values aten_tensor_qparams(GraphBuilder& graph, NodeArgs& args) {
  if (args.has("fake_quant_enabled") && !flag(args, "fake_quant_enabled")) {
    for (const char* name : {"scale", "zero_point", "quant_min", "quant_max"}) {
      args.ignore(name, "fake quantisation is off");
    }
    return with_mask(args, args.tensor("self"));
  }
  const QuantizerRequest quantizer = tensor_quantizer(args, range_of(args), std::nullopt);
  return with_mask(args, emit_fake_quantize(graph, args, "self", aten_quantizer(quantizer)));
}

Values aten_per_channel(GraphBuilder& graph, NodeArgs& args) {
  const QuantizerRequest quantizer = tensor_quantizer(args, range_of(args), args.integer("axis"));
  return with_mask(args, emit_fake_quantize(graph, args, "self", aten_quantizer(quantizer)));
}

Values aten_learnable_per_tensor(GraphBuilder& graph, NodeArgs& args) {
  args.ignore("grad_factor", "scales gradients only");
  const QuantizerRequest quantizer = tensor_quantizer(args, range_of(args), std::nullopt, nearest);
  return {emit_fake_quantize(graph, args, "self", aten_quantizer(quantizer))};
}

Values aten_learnable_per_channel(GraphBuilder& graph, NodeArgs& args) {
  args.ignore("grad_factor", "scales gradients only");
  const QuantizerRequest quantizer =
      tensor_quantizer(args, range_of(args), args.integer("axis"), nearest);
  return {emit_fake_quantize(graph, args, "self", aten_quantizer(quantizer))};
}

// torch.ao's QAT modules; in eval mode their observers are off and the op is a plain fake
// quantiser.
Values aten_moving_average(GraphBuilder& graph, NodeArgs& args) {
  for (const char* name : {"running_min", "running_max", "averaging_const", "symmetric_quant"}) {
    args.ignore(name, "the observer's own; it is off");
  }
  if (flag(args, "observer_on")) {
    args.unsupported("observer_on", "1", "an observer that changes its scale has no form in ONNX",
                     "call torch.ao.quantization.disable_observer on the model before export");
  }
  const bool per_channel = args.boolean("per_row_fake_quant");
  const int64_t axis = args.integer("ch_axis");
  if (!flag(args, "fake_quant_on")) {
    for (const char* name : {"scale", "zero_point", "quant_min", "quant_max"}) {
      args.ignore(name, "fake quantisation is off");
    }
    return with_mask(args, args.tensor("self"));
  }
  const QuantizerRequest quantizer = tensor_quantizer(
      args, range_of(args), per_channel ? std::optional<int64_t>(axis) : std::nullopt);
  return with_mask(args, emit_fake_quantize(graph, args, "self", aten_quantizer(quantizer)));
}

constexpr Symbolic kRows[] = {
    {"qcdq::quantize", 10, quantize, "QuantizeLinear, Clip", kNeverFold},
    {"qcdq::dequantize", 10, dequantize, "DequantizeLinear", kNeverFold},
    {"qcdq::fake_quantize", 10, fake_quantize, "QuantizeLinear, Clip, DequantizeLinear",
     kFakeQuantizer},
    {"qcdq::fake_quantize_learned", 10, fake_quantize_learned,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"qcdq::choose_qparams", 11, choose_qparams, "DynamicQuantizeLinear"},
    {"qcdq::fake_quantize_dynamic", 11, fake_quantize_dynamic,
     "DynamicQuantizeLinear, DequantizeLinear", kFakeQuantizer},
    {"aten::fake_quantize_per_tensor_affine", 10, aten_per_tensor,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"aten::fake_quantize_per_tensor_affine.tensor_qparams", 10, aten_tensor_qparams,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"aten::fake_quantize_per_tensor_affine_cachemask", 10, aten_per_tensor,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", 10, aten_tensor_qparams,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"aten::fake_quantize_per_channel_affine", 13, aten_per_channel,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"aten::fake_quantize_per_channel_affine_cachemask", 13, aten_per_channel,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"aten::_fake_quantize_learnable_per_tensor_affine", 10, aten_learnable_per_tensor,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"aten::_fake_quantize_learnable_per_channel_affine", 13, aten_learnable_per_channel,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"aten::fused_moving_avg_obs_fake_quant", 10, aten_moving_average,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"aten::_fused_moving_avg_obs_fq_helper", 10, aten_moving_average,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    facts_of("aten::quantize_per_tensor", kNeverFold),
    facts_of("aten::quantize_per_channel", kNeverFold),
    facts_of("aten::quantize_per_tensor_dynamic", kNeverFold),
    facts_of("aten::dequantize", kNeverFold),
    facts_of("aten::_fused_moving_avg_obs_fq_helper_functional", kFakeQuantizer),
};

}  // namespace

std::span<const Symbolic> quantizers_symbolics() { return kRows; }

}  // namespace qcdq
