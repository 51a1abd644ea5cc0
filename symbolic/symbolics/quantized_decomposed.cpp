// Symbolic functions of models that are quantised already: quantized_decomposed::* (PT2E, torchao,
// FX's decomposed form) and the packed weights of quantized::* layers, which
// lower/quantized_tensors.cpp has made constants. The emission is that of qcdq's own quantisers
// (quantizer/emit.h).
#include <algorithm>

#include "symbolic/graph/element_types.h"
#include "symbolic/quantizer/emit.h"
#include "symbolic/symbolics/registry.h"

namespace qcdq {
namespace {

using enum OpTraits;

using Values = std::vector<Value>;

constexpr const char* kTies =
    "quantized_decomposed multiplies by 1/scale where ONNX divides: activation codes at rounding "
    "ties may differ by one step";

std::vector<double> known_numbers(NodeArgs& args, const char* name) {
  const std::optional<TensorData> data = args.constant(name);
  if (!data) {
    args.unsupported(name, "", "is computed from the model's inputs, expected a constant",
                     "quantise statically: a calibrated scale is a constant of the model");
  }
  return read_numbers(*data);
}

// None stands for zeros, as many as there are scales.
std::vector<double> zero_points(NodeArgs& args, size_t count) {
  if (args.is_none("zero_points")) return std::vector<double>(count, 0);
  return known_numbers(args, "zero_points");
}

CodeRange range_of(NodeArgs& args, DType storage = DType::kUndefined) {
  const int64_t low = args.integer("quant_min");
  const int64_t high = args.integer("quant_max");
  const CodeRange range = with_refusals(args, "input", [&] { return checked_range(low, high); });
  if (storage == DType::kUndefined) return range;
  if (is_floating(storage) || storage == DType::kBool || dtype_bits(storage) > 32) {
    args.unsupported("dtype", std::string(dtype_name(storage)),
                     "codes are integers of 8 to 32 bits");
  }
  const CodeRange full = integer_range(storage);
  if (!full.holds(range.min) || !full.holds(range.max)) {
    const bool low_out = !full.holds(range.min);
    args.unsupported(low_out ? "quant_min" : "quant_max",
                     std::to_string(low_out ? range.min : range.max),
                     "outside the codes' type " + std::string(dtype_name(storage)));
  }
  return range;
}

QuantParams per_tensor_params(NodeArgs& args, CodeRange range) {
  const double scale = args.real("scale");
  const double zero_point = args.real("zero_point");
  return with_refusals(args, "input", [&] {
    return constant_params({scale}, {}, {zero_point}, range, std::nullopt, 0);
  });
}

QuantParams per_channel_params(NodeArgs& args, CodeRange range) {
  const std::vector<double> scale = known_numbers(args, "scales");
  const std::vector<double> zero_point = zero_points(args, scale.size());
  const int64_t axis = args.integer("axis");
  return with_refusals(args, "input", [&] {
    return constant_params(scale, {static_cast<int64_t>(scale.size())}, zero_point, range, axis, 0);
  });
}

// A constant's codes are those that the op itself computes; others are computed by ONNX.
Value quantize(GraphBuilder& graph, NodeArgs& args, QuantizerRequest quantizer, DType dtype) {
  const Value x = args.tensor("input");
  if (graph.constant_data(x) != nullptr) {
    if (const std::optional<TensorData> codes = args.evaluate()) {
      return graph.constant(*codes, x.name + "_quantized");
    }
  }
  add_note(graph, kTies);
  return emit_quantize(graph, args, "input", std::move(quantizer), dtype);
}

Values quantize_per_tensor(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.optional_dtype("dtype").value_or(DType::kUndefined);
  QuantizerRequest quantizer{.params = {}, .range = range_of(args, dtype), .aten = true};
  quantizer.params = per_tensor_params(args, quantizer.range);
  return {quantize(graph, args, std::move(quantizer), dtype)};
}

Values quantize_per_channel(GraphBuilder& graph, NodeArgs& args) {
  const DType dtype = args.optional_dtype("dtype").value_or(DType::kUndefined);
  QuantizerRequest quantizer{.params = {}, .range = range_of(args, dtype), .aten = true};
  quantizer.params = per_channel_params(args, quantizer.range);
  return {quantize(graph, args, std::move(quantizer), dtype)};
}

Value dequantize(GraphBuilder& graph, NodeArgs& args, QuantParams params) {
  for (const char* name : {"quant_min", "quant_max"}) {
    args.ignore(name, "the codes are in their range already");
  }
  for (const char* name : {"dtype", "out_dtype", "output_dtype"}) {
    if (args.has(name)) args.ignore(name, "the recorded types of codes and result say it");
  }
  const DType dtype = args.output_type().dtype;
  return emit_dequantize(graph, args, "input", std::move(params),
                         dtype == DType::kUndefined ? DType::kFloat32 : dtype);
}

Values dequantize_per_tensor(GraphBuilder& graph, NodeArgs& args) {
  return {dequantize(graph, args, per_tensor_params(args, integer_range(DType::kInt32)))};
}

Values dequantize_per_channel(GraphBuilder& graph, NodeArgs& args) {
  return {dequantize(graph, args, per_channel_params(args, integer_range(DType::kInt32)))};
}

// Blocks along the last of two dimensions: scales are [rows, groups].
Values dequantize_per_channel_group(GraphBuilder& graph, NodeArgs& args) {
  const std::optional<TensorData> scales = args.constant("scales");
  if (!scales) known_numbers(args, "scales");
  const std::vector<double> scale = read_numbers(*scales);
  const std::vector<double> zero_point = zero_points(args, scale.size());
  const int64_t group_size = args.integer("group_size");
  QuantParams params = with_refusals(args, "input", [&] {
    return constant_params(scale, scales->dims, zero_point, integer_range(DType::kInt32), 1,
                           group_size);
  });
  return {dequantize(graph, args, std::move(params))};
}

Values fake_quant_per_channel(GraphBuilder& graph, NodeArgs& args) {
  QuantizerRequest quantizer{.params = {}, .range = range_of(args), .aten = true};
  quantizer.params = per_channel_params(args, quantizer.range);
  return {emit_fake_quantize(graph, args, "input", std::move(quantizer))};
}

Values convert_element_type(GraphBuilder& graph, NodeArgs& args) {
  const std::optional<DType> dtype = args.optional_dtype("dtype");
  return {graph.cast(args.tensor("input"), dtype.value_or(DType::kUndefined))};
}

Values dynamic_qparams(GraphBuilder&, NodeArgs& args) {
  args.unsupported("input", "", "a scale that is chosen from the data at run time has no form here",
                   "quantise activations statically, or use qcdq::fake_quantize_dynamic");
}

// The weight of a quantized::* layer, unpacked by lower/quantized_tensors.cpp.
Values dequantize_codes(GraphBuilder& graph, NodeArgs& args) {
  const std::vector<double> scale = known_numbers(args, "scale");
  const std::vector<double> zero_point = known_numbers(args, "zero_point");
  const std::optional<int64_t> axis = args.optional_integer("axis");
  QuantParams params = with_refusals(args, "codes", [&] {
    return constant_params(scale, {static_cast<int64_t>(scale.size())}, zero_point,
                           integer_range(DType::kInt32), axis, 0);
  });
  return {emit_dequantize(graph, args, "codes", std::move(params), DType::kFloat32)};
}

constexpr Symbolic kRows[] = {
    {"quantized_decomposed::quantize_per_tensor", 10, quantize_per_tensor, "QuantizeLinear, Clip",
     kNeverFold},
    {"quantized_decomposed::dequantize_per_tensor", 10, dequantize_per_tensor, "DequantizeLinear",
     kNeverFold},
    {"quantized_decomposed::quantize_per_channel", 13, quantize_per_channel, "QuantizeLinear, Clip",
     kNeverFold},
    {"quantized_decomposed::dequantize_per_channel", 13, dequantize_per_channel, "DequantizeLinear",
     kNeverFold},
    {"quantized_decomposed::dequantize_per_channel_group", 21, dequantize_per_channel_group,
     "DequantizeLinear", kNeverFold},
    {"quantized_decomposed::fake_quant_per_channel", 13, fake_quant_per_channel,
     "QuantizeLinear, Clip, DequantizeLinear", kFakeQuantizer},
    {"quantized_decomposed::convert_element_type", 10, convert_element_type, "Cast"},
    {"quantized_decomposed::choose_qparams", 10, dynamic_qparams, "(refused)"},
    {"quantized_decomposed::choose_qparams_symmetric", 10, dynamic_qparams, "(refused)"},
    {"quantized_decomposed::choose_qparams_per_token", 10, dynamic_qparams, "(refused)"},
    {"quantized_decomposed::choose_qparams_per_token_asymmetric", 10, dynamic_qparams, "(refused)"},
    {"qcdq_onnx::dequantize_codes", 10, dequantize_codes, "DequantizeLinear", kNeverFold},
};

}  // namespace

std::span<const Symbolic> quantized_decomposed_symbolics() { return kRows; }

}  // namespace qcdq
