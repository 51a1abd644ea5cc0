// Quantisers into the exporter's graph (quantizer/emit.h): the codes of constants, and the nodes
// of quantizer/nodes.cpp for the rest; qdq_passes rewrite what depends on the neighbours.
#include "symbolic/quantizer/emit.h"

#include <map>
#include <utility>

#include "symbolic/graph/element_types.h"
#include "symbolic/quantizer/codes.h"
#include "symbolic/quantizer/opset_rules.h"

namespace qcdq {
namespace {

FragmentRequest request_for(const GraphBuilder& graph, QuantOp op, const Value& x,
                            const QuantParams& params, CodeRange range) {
  FragmentRequest request;
  request.op = op;
  request.x = graph.type(x);
  request.params = params;
  request.range = range;
  request.opset = graph.opset();
  request.signed_activations = emission(graph).signed_activations;
  request.cast_f64 = emission(graph).cast_f64;
  return request;
}

Value emit(GraphBuilder& graph, NodeArgs& args, const char* name, const FragmentRequest& request,
           const Value& x, const std::string& base) {
  const Fragment fragment = with_refusals(args, name, [&] { return quantizer_fragment(request); });
  return emit_fragment(graph, fragment, x, base)[0];
}

// The codes of a constant x in their storage type; aten's own result decides where aten computes
// them.
TensorData constant_codes(GraphBuilder& graph, NodeArgs& args, const char* name,
                          const TensorData& x, const QuantizerRequest& quantizer) {
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

std::string quantizer_name(const GraphBuilder& graph) {
  const std::string& scope = graph.state().scope;
  return scope.empty() ? "quantizer" : scope;
}

void refuse_quantizer(const NodeArgs& args, const QuantRefusal& refusal, const char* x_name) {
  std::string argument = refusal.argument;
  if (argument == "x") argument = x_name;
  if (argument == "axis" && args.has("ch_axis")) argument = "ch_axis";
  args.unsupported(argument, refusal.value, refusal.reason, refusal.hint);
}

std::vector<Value> emit_fragment(GraphBuilder& graph, const Fragment& fragment, const Value& x,
                                 const std::string& base) {
  std::map<std::string, Value> values = {{"x", x}};
  for (const FragmentNode& node : fragment.nodes) {
    std::vector<Value> inputs;
    for (const FragmentValue& input : node.inputs) {
      inputs.push_back(input.constant ? graph.constant(*input.constant, base + "_" + input.name)
                                      : values.at(input.name));
    }
    const std::vector<Value> results =
        graph.ops(node.op_type, inputs, node.results.size(), node.attributes);
    for (size_t i = 0; i < results.size(); ++i) values[node.results[i]] = results[i];
  }
  std::vector<Value> results;
  for (const std::string& name : fragment.results) results.push_back(values.at(name));
  return results;
}

Value emit_fake_quantize(GraphBuilder& graph, NodeArgs& args, const char* name,
                         QuantizerRequest quantizer) {
  const Value x = args.tensor(name);
  const DType dtype = graph.type(x).dtype;
  QuantParams& params = quantizer.params;
  with_refusals(args, name, [&] { fit_params(params, graph.type(x), graph.opset()); });
  const TensorData* constant = graph.constant_data(x);
  if (constant == nullptr) {
    if (quantizer.aten) {
      add_note(graph,
               "aten's fake quantisers multiply by 1/scale where ONNX divides: activation codes at "
               "rounding ties may differ by one step (qcdq::fake_quantize divides)");
    }
    return emit(graph, args, name,
                request_for(graph, QuantOp::kFakeQuantize, x, params, quantizer.range), x,
                quantizer_name(graph));
  }
  const TensorData data = *constant;
  params.storage = constant_storage(quantizer.range, graph.opset());
  if (emission(graph).qdq_weights && is_8bit(params.storage)) {
    // The passes find the codes again; aten's own result stands in for its x, on which division
    // gives aten's codes.
    Value source = x;
    if (quantizer.aten) {
      const TensorData found = constant_codes(graph, args, name, data, quantizer);
      source = graph.constant(dequantize_constant(found, params), x.name);
    }
    FragmentRequest request =
        request_for(graph, QuantOp::kFakeQuantize, source, params, quantizer.range);
    request.is_weight = true;
    const Value y = emit(graph, args, name, request, source, x.name);
    return dtype == DType::kUndefined ? y : graph.cast(y, dtype);
  }
  const Value codes =
      graph.constant(constant_codes(graph, args, name, data, quantizer), x.name + "_quantized");
  FragmentRequest request =
      request_for(graph, QuantOp::kDequantize, codes, params, quantizer.range);
  request.dtype = dtype;
  return emit(graph, args, name, request, codes, x.name);
}

Value emit_quantize(GraphBuilder& graph, NodeArgs& args, const char* name,
                    QuantizerRequest quantizer, DType dtype) {
  const Value x = args.tensor(name);
  QuantParams& params = quantizer.params;
  with_refusals(args, name, [&] { fit_params(params, graph.type(x), graph.opset()); });
  if (const TensorData* constant = graph.constant_data(x)) {
    const TensorData data = *constant;
    params.storage = dtype;
    return graph.constant(constant_codes(graph, args, name, data, quantizer),
                          x.name + "_quantized");
  }
  FragmentRequest request = request_for(graph, QuantOp::kQuantize, x, params, quantizer.range);
  request.dtype = dtype;
  return emit(graph, args, name, request, x, quantizer_name(graph));
}

Value emit_dequantize(GraphBuilder& graph, NodeArgs& args, const char* name, QuantParams params,
                      DType dtype) {
  Value codes = args.tensor(name);
  std::string base = quantizer_name(graph);
  if (const TensorData* constant = graph.constant_data(codes)) {
    base = codes.name.substr(0, codes.name.rfind("_quantized"));
    const int64_t least = least_opset_for_codes(constant->dtype);
    if (constant->dtype != DType::kInt32 && (least == 0 || graph.opset() < least)) {
      std::vector<int64_t> values;
      for (double code : read_numbers(*constant)) values.push_back(static_cast<int64_t>(code));
      codes = graph.constant(pack_integers(DType::kInt32, constant->dims, values), codes.name);
    }
  }
  FragmentRequest request =
      request_for(graph, QuantOp::kDequantize, codes, params, integer_range(DType::kInt32));
  request.dtype = dtype;
  return emit(graph, args, name, request, codes, base);
}

}  // namespace qcdq
