// Which nodes a quantiser becomes (quant_emission.h). The one place of the exporter that chooses
// storage types; qdq_passes rewrite what depends on the neighbours.
#include "symbolic/quant_emission.h"

#include <algorithm>
#include <utility>

#include "symbolic/opset_rules.h"

namespace qcdq {
namespace {

std::string text(CodeRange range) {
  return "[" + std::to_string(range.min) + ", " + std::to_string(range.max) + "]";
}

bool fits(CodeRange range, DType storage) {
  const CodeRange full = storage_range(storage);
  return range.min >= full.min && range.max <= full.max;
}

int64_t rank_of(const GraphBuilder& graph, const Value& x) {
  const TensorType type = graph.type(x);
  return type.ranked ? type.rank() : -1;
}

// Negative axes count from the end; ONNX takes them too, the passes don't.
void normalise_axis(const GraphBuilder& graph, NodeArgs& args, const Value& x,
                    QuantParams& params) {
  if (params.per_tensor()) return;
  const int64_t rank = rank_of(graph, x);
  if (params.axis < 0 && rank >= 0) params.axis += rank;
  if (params.axis < 0 || (rank >= 0 && params.axis >= rank)) {
    args.unsupported(args.has("ch_axis") ? "ch_axis" : "axis", std::to_string(params.axis),
                     rank < 0 ? "a negative axis of a tensor of unknown rank"
                              : "the tensor has " + std::to_string(rank) + " dimensions");
  }
  if (params.block_size > 0) return;
  const TensorType type = graph.type(x);
  const auto count = static_cast<int64_t>(params.scale.size());
  if (type.ranked && type.dims[params.axis] >= 0 && type.dims[params.axis] != count) {
    args.unsupported("scale", std::to_string(count) + " elements",
                     "axis " + std::to_string(params.axis) + " has " +
                         std::to_string(type.dims[params.axis]) + " channels");
  }
}

Value linear_node(GraphBuilder& graph, const char* op, const Value& x, const QuantParams& params,
                  const std::string& base) {
  const Value scale = graph.constant(
      TensorData::from<float>(DType::kFloat32, params.dims, params.scale), base + "_scale");
  const Value zero_point = graph.constant(integers(params.storage, params.dims, params.zero_point),
                                          base + "_zero_point");
  Attributes attributes;
  if (!params.per_tensor()) attributes.emplace_back("axis", params.axis);
  if (params.block_size > 0) attributes.emplace_back("block_size", params.block_size);
  return graph.op(op, {x, scale, zero_point}, attributes);
}

Value integer_clip(GraphBuilder& graph, const Value& codes, DType storage, CodeRange range,
                   const std::string& base) {
  return graph.op("Clip",
                  {codes, graph.constant(integers(storage, {}, {range.min}), base + "_clip_min"),
                   graph.constant(integers(storage, {}, {range.max}), base + "_clip_max")});
}

// Clips x to the values of the range's ends, in place of a Clip on codes: the ends divide back to
// their own codes, so the codes are the same.
Value float_clip(GraphBuilder& graph, NodeArgs& args, const Value& x, const QuantParams& params,
                 CodeRange range, const std::string& base) {
  std::vector<float> low, high;
  for (size_t c = 0; c < params.scale.size(); ++c) {
    low.push_back(static_cast<float>(range.min - params.zero_point[c]) * params.scale[c]);
    high.push_back(static_cast<float>(range.max - params.zero_point[c]) * params.scale[c]);
  }
  if (params.per_tensor()) {
    if (graph.opset() < 11) return graph.op("Clip", {x}, {{"min", low[0]}, {"max", high[0]}});
    return graph.op(
        "Clip",
        {x, graph.constant(TensorData::scalar<float>(DType::kFloat32, low[0]), base + "_clip_min"),
         graph.constant(TensorData::scalar<float>(DType::kFloat32, high[0]), base + "_clip_max")});
  }
  const int64_t rank = rank_of(graph, x);
  if (params.block_size > 0 || rank < 0) {
    args.unsupported("block_size", std::to_string(params.block_size),
                     "a range of 9 to 15 bits needs a Clip per block, which ONNX lacks",
                     "use the full 16-bit range, or 8 bits");
  }
  std::vector<int64_t> dims(static_cast<size_t>(rank - params.axis), 1);
  dims[0] = static_cast<int64_t>(params.scale.size());
  const Value raised = graph.op(
      "Max", {x, graph.constant(TensorData::from<float>(DType::kFloat32, dims, std::move(low)),
                                base + "_clip_min")});
  return graph.op(
      "Min",
      {raised, graph.constant(TensorData::from<float>(DType::kFloat32, dims, std::move(high)),
                              base + "_clip_max")});
}

// Q and, where the range is narrower than its storage, a Clip. `params` and `range` are those of
// the stored codes.
Value quantize_and_clip(GraphBuilder& graph, NodeArgs& args, Value x, const QuantParams& params,
                        CodeRange range, const std::string& base) {
  const bool narrow = range != storage_range(params.storage);
  const bool on_codes =
      is_8bit(params.storage) && graph.opset() >= least_opset(QuantFeature::kIntegerClip);
  if (narrow && !on_codes) x = float_clip(graph, args, x, params, range, base);
  Value codes = linear_node(graph, "QuantizeLinear", x, params, base);
  return narrow && on_codes ? integer_clip(graph, codes, params.storage, range, base) : codes;
}

void shift_codes(Quantizer& quantizer, int64_t shift) {
  quantizer.range.min += shift;
  quantizer.range.max += shift;
  for (int64_t& zero_point : quantizer.params.zero_point) zero_point += shift;
}

void require_codes(const GraphBuilder& graph, const NodeArgs& args, DType storage,
                   CodeRange range) {
  const int64_t least = least_opset_for_codes(storage);
  if (least == 0) {
    args.unsupported("quant_max", text(range),
                     "an activation of more than 16 bits has no QuantizeLinear type",
                     "leave it in float, or use 16 bits");
  }
  if (graph.opset() < least) {
    args.unsupported("quant_max", text(range),
                     "codes of more than 8 bits need opset " + std::to_string(least),
                     "export with --opset " + std::to_string(least) + ", or use 8 bits");
  }
}

// The codes of a constant x in their storage type; aten's own result decides where aten computes
// them.
TensorData constant_codes(GraphBuilder& graph, NodeArgs& args, const char* name,
                          const TensorData& x, const Quantizer& quantizer) {
  if (x.dtype == DType::kFloat64 && !emission(graph).cast_f64) {
    args.unsupported(name, "float64", "ONNX has no 64-bit QuantizeLinear",
                     "export with --cast-f64 to quantise through float32");
  }
  if (quantizer.aten) {
    if (const std::optional<TensorData> y = args.evaluate()) {
      std::optional<TensorData> codes = recover_codes(*y, quantizer.params, quantizer.range);
      if (!codes) {
        args.unsupported("scale", "", "aten's fake-quantised weight isn't on the grid of its scale",
                         "check that weight and scale are finite, and the scale a float32");
      }
      return *codes;
    }
  }
  return quantize_constant(x, quantizer.params, quantizer.range);
}

}  // namespace

CodeStorage activation_storage(CodeRange range, bool keep_sign) {
  if (keep_sign) {
    for (DType storage : {DType::kUInt8, DType::kInt8}) {
      if (fits(range, storage) && (storage == DType::kInt8) == (range.min < 0)) return {storage, 0};
    }
  }
  const CodeRange moved{0, range.max - range.min};
  if (fits(moved, DType::kUInt8)) return {DType::kUInt8, -range.min};
  if (keep_sign && fits(range, DType::kInt16)) return {DType::kInt16, 0};
  if (fits(moved, DType::kUInt16)) return {DType::kUInt16, -range.min};
  return {DType::kUndefined, 0};
}

DType constant_storage(CodeRange range, int64_t opset) {
  if (fits(range, DType::kInt8)) return DType::kInt8;
  if (fits(range, DType::kUInt8)) return DType::kUInt8;
  if (opset >= least_opset(QuantFeature::kInt16)) {
    if (fits(range, DType::kInt16)) return DType::kInt16;
    if (fits(range, DType::kUInt16)) return DType::kUInt16;
  }
  return DType::kInt32;
}

std::string quantizer_name(const GraphBuilder& graph) {
  const std::string& scope = graph.state().scope;
  return scope.empty() ? "quantizer" : scope;
}

void require_opset(const GraphBuilder& graph, const NodeArgs& args, const QuantParams& params) {
  if (params.per_tensor()) return;
  const QuantFeature feature =
      params.block_size > 0 ? QuantFeature::kBlocked : QuantFeature::kPerChannel;
  const int64_t least = least_opset(feature);
  if (graph.opset() >= least) return;
  args.unsupported(args.has("ch_axis") ? "ch_axis" : "axis", std::to_string(params.axis),
                   std::string(feature_name(feature)) + " need opset " + std::to_string(least),
                   "export with --opset " + std::to_string(least) + " or newer");
}

Value as_float32(GraphBuilder& graph, NodeArgs& args, const char* name, const Value& x) {
  const DType dtype = graph.type(x).dtype;
  if (dtype == DType::kFloat64 && !emission(graph).cast_f64) {
    args.unsupported(name, "float64", "ONNX has no 64-bit QuantizeLinear",
                     "export with --cast-f64 to quantise through float32");
  }
  if (dtype == DType::kUndefined || dtype == DType::kFloat32) return x;
  if (!is_floating(dtype)) {
    args.unsupported(name, std::string(dtype_name(dtype)), "only floating tensors are quantised");
  }
  return graph.cast(x, DType::kFloat32);
}

Value emit_fake_quantize(GraphBuilder& graph, NodeArgs& args, const char* name,
                         Quantizer quantizer) {
  const Value x = args.tensor(name);
  const DType dtype = graph.type(x).dtype;
  QuantParams& params = quantizer.params;
  normalise_axis(graph, args, x, params);
  require_opset(graph, args, params);
  Value y;
  if (const TensorData* constant = graph.constant_data(x)) {
    const TensorData data = *constant;
    params.storage = constant_storage(quantizer.range, graph.opset());
    const bool floats = emission(graph).qdq_weights && is_8bit(params.storage);
    Value codes;
    if (floats) {
      // The passes find the codes again; aten's own result stands in for its x, on which division
      // gives aten's codes.
      Value source = as_float32(graph, args, name, x);
      if (quantizer.aten) {
        const TensorData found = constant_codes(graph, args, name, data, quantizer);
        source = graph.constant(dequantize_constant(found, params), x.name);
      }
      codes = quantize_and_clip(graph, args, source, params, quantizer.range, x.name);
    } else {
      codes =
          graph.constant(constant_codes(graph, args, name, data, quantizer), x.name + "_quantized");
    }
    y = linear_node(graph, "DequantizeLinear", codes, params, x.name);
  } else {
    const CodeStorage stored =
        activation_storage(quantizer.range, emission(graph).signed_activations);
    require_codes(graph, args, stored.storage, quantizer.range);
    shift_codes(quantizer, stored.shift);
    params.storage = stored.storage;
    const std::string base = quantizer_name(graph);
    const Value codes = quantize_and_clip(graph, args, as_float32(graph, args, name, x), params,
                                          quantizer.range, base);
    y = linear_node(graph, "DequantizeLinear", codes, params, base);
    if (quantizer.aten) {
      add_note(graph,
               "aten's fake quantisers multiply by 1/scale where ONNX divides: activation codes at "
               "rounding "
               "ties may differ by one step (qcdq::fake_quantize divides)");
    }
  }
  return dtype == DType::kUndefined ? y : graph.cast(y, dtype);
}

Value emit_quantize(GraphBuilder& graph, NodeArgs& args, const char* name, Quantizer quantizer,
                    DType dtype) {
  const Value x = args.tensor(name);
  QuantParams& params = quantizer.params;
  normalise_axis(graph, args, x, params);
  require_opset(graph, args, params);
  if (const TensorData* constant = graph.constant_data(x)) {
    const TensorData data = *constant;
    params.storage = dtype;
    return graph.constant(constant_codes(graph, args, name, data, quantizer),
                          x.name + "_quantized");
  }
  const int64_t least = least_opset_for_codes(dtype);
  params.storage = dtype;
  if (least == 0 || graph.opset() < least) {  // stored narrower, then cast to what the source names
    const CodeStorage stored = activation_storage(quantizer.range, true);
    require_codes(graph, args, stored.storage, quantizer.range);
    if (stored.shift != 0) {
      args.unsupported("dtype", std::string(dtype_name(dtype)),
                       "codes " + text(quantizer.range) + " fit no type of QuantizeLinear",
                       "use a range that int8, uint8, int16 or uint16 holds");
    }
    params.storage = stored.storage;
  }
  const Value codes = quantize_and_clip(graph, args, as_float32(graph, args, name, x), params,
                                        quantizer.range, quantizer_name(graph));
  return graph.cast(codes, dtype);
}

Value emit_dequantize(GraphBuilder& graph, NodeArgs& args, const char* name, QuantParams params,
                      DType dtype) {
  Value codes = args.tensor(name);
  normalise_axis(graph, args, codes, params);
  require_opset(graph, args, params);
  params.storage = graph.type(codes).dtype;
  const int64_t least = least_opset_for_codes(params.storage);
  if (params.storage != DType::kInt32 && (least == 0 || graph.opset() < least)) {
    params.storage = DType::kInt32;
    if (const TensorData* constant = graph.constant_data(codes)) {
      std::vector<int64_t> values;
      for (double code : numbers(*constant)) values.push_back(static_cast<int64_t>(code));
      codes = graph.constant(integers(DType::kInt32, constant->dims, values), codes.name);
    } else {
      codes = graph.cast(codes, DType::kInt32);
    }
  }
  std::string base = quantizer_name(graph);
  if (graph.constant_data(codes) != nullptr) {
    base = codes.name.substr(0, codes.name.rfind("_quantized"));
  }
  const CodeRange full = storage_range(params.storage);
  for (int64_t zero_point : params.zero_point) {
    if (full.holds(zero_point)) continue;
    args.unsupported("zero_point", std::to_string(zero_point),
                     "outside the codes' type " + std::string(dtype_name(params.storage)));
  }
  return graph.cast(linear_node(graph, "DequantizeLinear", codes, params, base), dtype);
}

}  // namespace qcdq
