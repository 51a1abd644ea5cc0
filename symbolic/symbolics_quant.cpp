// Symbolic functions of the quantisers: qcdq's own ops and aten's fake-quantise family. They read
// and check the arguments; quant_emission.cpp chooses the nodes, and qdq_passes fit them to their
// neighbours.
#include <cmath>

#include "qcdq/affine.h"
#include "symbolic/opset_rules.h"
#include "symbolic/quant_emission.h"
#include "symbolic/registry.h"

namespace qcdq {
namespace {

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
  const std::vector<double> values = numbers(constant_tensor(args, name));
  if (values.size() != 1 || (values[0] != 0 && values[0] != 1)) {
    args.unsupported(name, values.empty() ? "[]" : std::to_string(values[0]),
                     "expected one element, 0 or 1");
  }
  return values[0] == 1;
}

CodeRange range_of(NodeArgs& args) {
  const CodeRange range{args.integer("quant_min"), args.integer("quant_max")};
  if (range.min >= range.max) {
    args.unsupported("quant_min", std::to_string(range.min),
                     "expected less than quant_max = " + std::to_string(range.max));
  }
  const CodeRange full = storage_range(DType::kInt32);
  if (range.min < full.min || range.max > full.max) {
    args.unsupported("quant_max", std::to_string(range.max), "codes have at most 32 bits");
  }
  return range;
}

void set_scale(NodeArgs& args, Quantizer& quantizer, std::vector<double> scale) {
  quantizer.params.scale.clear();
  for (double value : scale) {
    const auto narrow = static_cast<float>(value);
    if (!(narrow > 0) || !std::isfinite(narrow)) {
      args.unsupported("scale", std::to_string(value), "expected a finite float32 > 0");
    }
    quantizer.params.scale.push_back(narrow);
  }
}

void set_zero_point(NodeArgs& args, Quantizer& quantizer, const std::vector<double>& zero_point) {
  QuantParams& params = quantizer.params;
  params.zero_point.clear();
  for (double value : zero_point) {
    const bool inside = value >= static_cast<double>(quantizer.range.min) &&
                        value <= static_cast<double>(quantizer.range.max);
    if (value != std::floor(value) || !inside) {
      args.unsupported("zero_point", std::to_string(value),
                       "expected an integer in [" + std::to_string(quantizer.range.min) + ", " +
                           std::to_string(quantizer.range.max) + "]");
    }
    params.zero_point.push_back(static_cast<int64_t>(value));
  }
  if (params.zero_point.size() == 1)
    params.zero_point.resize(params.scale.size(), params.zero_point[0]);
  if (params.zero_point.size() != params.scale.size()) {
    args.unsupported("zero_point", std::to_string(params.zero_point.size()) + " elements",
                     "expected as many as scale has, " + std::to_string(params.scale.size()));
  }
}

using RoundZeroPoint = double (*)(double zero_point, CodeRange range);

double as_is(double zero_point, CodeRange) { return zero_point; }
// clamp(round_half_even(zp)): semantics.md's LSQ+, and aten's learnable ops.
double nearest(double zero_point, CodeRange range) {
  return std::min(std::max(round_half_even(zero_point), static_cast<double>(range.min)),
                  static_cast<double>(range.max));
}
// A quantiser whose scale and zero point are Tensor arguments; `axis` is nothing per tensor.
Quantizer tensor_quantizer(NodeArgs& args, CodeRange range, std::optional<int64_t> axis,
                           RoundZeroPoint round = as_is, int64_t block_size = 0) {
  Quantizer quantizer;
  quantizer.range = range;
  const TensorData scale = constant_tensor(args, "scale");
  if (!axis && scale.numel() != 1) {
    args.unsupported("scale", std::to_string(scale.numel()) + " elements",
                     "expected one: the quantiser is per tensor");
  }
  if (block_size == 0 && axis && scale.dims.size() > 1) {
    args.unsupported("scale", std::to_string(scale.dims.size()) + " dimensions",
                     "expected one scale per channel");
  }
  set_scale(args, quantizer, numbers(scale));
  if (axis) {
    quantizer.params.dims =
        block_size > 0 ? scale.dims : std::vector<int64_t>{static_cast<int64_t>(scale.numel())};
    quantizer.params.axis = *axis;
    quantizer.params.block_size = block_size;
  }
  std::vector<double> zero_point = numbers(constant_tensor(args, "zero_point"));
  for (double& value : zero_point) value = round(value, range);
  set_zero_point(args, quantizer, zero_point);
  return quantizer;
}

Quantizer qcdq_quantizer(NodeArgs& args, CodeRange range, RoundZeroPoint round = as_is) {
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
  const Quantizer quantizer = qcdq_quantizer(args, storage_range(DType::kInt32));
  const DType dtype = args.output_type().dtype;
  return {emit_dequantize(graph, args, "q", quantizer.params,
                          dtype == DType::kUndefined ? DType::kFloat32 : dtype)};
}

// y, scale and zero point of ONNX's DynamicQuantizeLinear, which knows one range only.
Values dynamic_quantize(GraphBuilder& graph, NodeArgs& args) {
  const CodeRange range = range_of(args);
  const char* hint = "use the range [0, 255], asymmetric, per tensor, or a static quantiser";
  if (range != storage_range(DType::kUInt8)) {
    args.unsupported("quant_max", std::to_string(range.max),
                     "ONNX quantises dynamically to [0, 255] only", hint);
  }
  if (args.boolean("symmetric")) {
    args.unsupported("symmetric", "True", "ONNX quantises dynamically with a zero point only",
                     hint);
  }
  for (const char* name : {"axis", "block_size"}) {
    if (const auto value = args.optional_integer(name)) {
      args.unsupported(name, std::to_string(*value), "ONNX quantises dynamically per tensor only",
                       hint);
    }
  }
  const int64_t least = least_opset(QuantFeature::kDynamicQuantize);
  if (graph.opset() < least) {
    args.unsupported("", "", "DynamicQuantizeLinear needs opset " + std::to_string(least));
  }
  const Value x = as_float32(graph, args, "x", args.tensor("x"));
  return graph.ops("DynamicQuantizeLinear", {x}, 3);
}

Values fake_quantize_dynamic(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = graph.type(args.tensor("x")).dtype;
  const Values quantized = dynamic_quantize(graph, args);
  const Value y = graph.op("DequantizeLinear", quantized);
  return {dtype == DType::kUndefined ? y : graph.cast(y, dtype)};
}

Values choose_qparams(GraphBuilder& graph, NodeArgs& args) {
  const Values quantized = dynamic_quantize(graph, args);
  Values results = {quantized[1], graph.cast(quantized[2], DType::kInt32)};
  for (size_t i = 0; i < results.size(); ++i) {
    const TensorType type = args.output_type(i);
    if (type.ranked && type.rank() == 1)
      results[i] = graph.op("Reshape", {results[i], graph.ints({1})});
  }
  return results;
}

Quantizer aten_quantizer(Quantizer quantizer) {
  quantizer.aten = true;
  return quantizer;
}

Values with_mask(const NodeArgs& args, Value y) {
  Values results = {std::move(y)};
  if (args.outputs() > 1) results.emplace_back();  // convert refuses a mask that is used
  return results;
}

Values aten_per_tensor(GraphBuilder& graph, NodeArgs& args) {
  Quantizer quantizer;
  quantizer.aten = true;
  quantizer.range = range_of(args);
  set_scale(args, quantizer, {args.number("scale")});
  set_zero_point(args, quantizer, {static_cast<double>(args.integer("zero_point"))});
  return with_mask(args, emit_fake_quantize(graph, args, "self", std::move(quantizer)));
}

Values aten_tensor_qparams(GraphBuilder& graph, NodeArgs& args) {
  if (args.has("fake_quant_enabled") && !flag(args, "fake_quant_enabled")) {
    for (const char* name : {"scale", "zero_point", "quant_min", "quant_max"}) {
      args.ignore(name, "fake quantisation is off");
    }
    return with_mask(args, args.tensor("self"));
  }
  const Quantizer quantizer = tensor_quantizer(args, range_of(args), std::nullopt);
  return with_mask(args, emit_fake_quantize(graph, args, "self", aten_quantizer(quantizer)));
}

Values aten_per_channel(GraphBuilder& graph, NodeArgs& args) {
  const Quantizer quantizer = tensor_quantizer(args, range_of(args), args.integer("axis"));
  return with_mask(args, emit_fake_quantize(graph, args, "self", aten_quantizer(quantizer)));
}

Values aten_learnable_per_tensor(GraphBuilder& graph, NodeArgs& args) {
  args.ignore("grad_factor", "scales gradients only");
  const Quantizer quantizer = tensor_quantizer(args, range_of(args), std::nullopt, nearest);
  return {emit_fake_quantize(graph, args, "self", aten_quantizer(quantizer))};
}

Values aten_learnable_per_channel(GraphBuilder& graph, NodeArgs& args) {
  args.ignore("grad_factor", "scales gradients only");
  const Quantizer quantizer = tensor_quantizer(args, range_of(args), args.integer("axis"), nearest);
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
  const Quantizer quantizer = tensor_quantizer(
      args, range_of(args), per_channel ? std::optional<int64_t>(axis) : std::nullopt);
  return with_mask(args, emit_fake_quantize(graph, args, "self", aten_quantizer(quantizer)));
}

constexpr Symbolic kRows[] = {
    {"qcdq::quantize", 10, quantize, "QuantizeLinear, Clip"},
    {"qcdq::dequantize", 10, dequantize, "DequantizeLinear"},
    {"qcdq::fake_quantize", 10, fake_quantize, "QuantizeLinear, Clip, DequantizeLinear"},
    {"qcdq::fake_quantize_learned", 10, fake_quantize_learned,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"qcdq::choose_qparams", 11, choose_qparams, "DynamicQuantizeLinear"},
    {"qcdq::fake_quantize_dynamic", 11, fake_quantize_dynamic,
     "DynamicQuantizeLinear, DequantizeLinear"},
    {"aten::fake_quantize_per_tensor_affine", 10, aten_per_tensor,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"aten::fake_quantize_per_tensor_affine.tensor_qparams", 10, aten_tensor_qparams,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"aten::fake_quantize_per_tensor_affine_cachemask", 10, aten_per_tensor,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", 10, aten_tensor_qparams,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"aten::fake_quantize_per_channel_affine", 13, aten_per_channel,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"aten::fake_quantize_per_channel_affine_cachemask", 13, aten_per_channel,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"aten::_fake_quantize_learnable_per_tensor_affine", 10, aten_learnable_per_tensor,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"aten::_fake_quantize_learnable_per_channel_affine", 13, aten_learnable_per_channel,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"aten::fused_moving_avg_obs_fake_quant", 10, aten_moving_average,
     "QuantizeLinear, Clip, DequantizeLinear"},
    {"aten::_fused_moving_avg_obs_fq_helper", 10, aten_moving_average,
     "QuantizeLinear, Clip, DequantizeLinear"},
};

}  // namespace

std::span<const Symbolic> quant_symbolics() { return kRows; }

}  // namespace qcdq
