// Biases in qdq_passes: behind a quantised input and a quantised weight a bias becomes int32 codes
// with scale = input scale * weight scale. ORT's integer kernels take the codes at that scale
// unchecked, so no other scale may ever be written (a peer's file goes from 99 % to 0 % accuracy),
// and a float bias is no escape: ORT quantises it itself.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "qcdq/affine.h"
#include "symbolic/qdq/match.h"
#include "symbolic/quantizer/opset_rules.h"

namespace qcdq {
namespace {

constexpr double kLargestCode = 2147483647.0;
// Two ways to compute input scale * weight scale may differ in the last bits.
constexpr double kSameScale = 1e-6;

struct Layer {
  OnnxNode* node;
  OnnxNode* bias_node;  // the node that takes the bias: `node`, or the Add behind a MatMul
  size_t bias_input;
  QuantizedValue input;
  IntegerConstant weight;
  std::vector<double> bias;
  std::optional<IntegerConstant> codes;  // the source's own int32 bias
};

std::optional<Layer> quantized_layer(const OnnxGraph& graph, const GraphIndex& index,
                                     OnnxNode& node) {
  if (!onnx_op_facts(node).takes_weight) return {};
  OnnxNode* bias_node = &node;
  size_t bias_input = 2;
  if (!onnx_op_facts(node).takes_bias) {
    bias_node = bias_add(graph, index, node);
    bias_input = 1;
    if (bias_node == nullptr) return {};
  }
  if (bias_node->inputs.size() <= bias_input || bias_node->inputs[bias_input].empty()) return {};
  const std::string& bias_value = bias_node->inputs[bias_input];
  if (node.op_type == "Gemm") {
    for (const char* name : {"alpha", "beta"}) {  // ORT fuses no other Gemm, so the bias may stay
      const Attribute* value = node.find(name);
      if (value != nullptr && std::get<float>(*value) != 1.0f) return {};
    }
  }
  auto input = quantized_value(graph, index, node.inputs[0]);
  auto weight = integer_constant(graph, index, node.inputs[1]);
  if (!input || !weight || !input->params.per_tensor()) return {};
  if (!is_8bit(input->params.storage) || !is_8bit(weight->params.storage)) return {};
  const QuantParams& params = weight->params;
  const int64_t axis = output_channel_axis(node);
  if (params.block_size > 0 || (params.per_channel() && params.axis != axis)) return {};
  auto bias = constant_values(graph, index, bias_value);
  if (!bias || bias->empty()) return {};
  Layer layer{&node, bias_node, bias_input, std::move(*input), std::move(*weight), std::move(*bias),
              {}};
  auto codes = integer_constant(graph, index, bias_value);
  if (codes && codes->params.storage == DType::kInt32 && codes->params.block_size == 0) {
    layer.codes = std::move(codes);
  }
  return layer;
}

// Whether the source quantised the bias with exactly these scales.
bool has_scales(const IntegerConstant& codes, const std::vector<float>& scales) {
  const std::vector<float>& own = codes.params.scale;
  for (size_t c = 0; c < std::max(scales.size(), own.size()); ++c) {
    const double want = scales[scales.size() == 1 ? 0 : c];
    const double have = own[own.size() == 1 ? 0 : c];
    if (std::abs(want - have) > kSameScale * want) return false;
  }
  return std::all_of(codes.params.zero_point.begin(), codes.params.zero_point.end(),
                     [](int64_t zero_point) { return zero_point == 0; });
}

// A channel whose codes all equal the zero point has weights of 0 at any scale: it gets one at
// which the bias fits.
void widen_dead_channels(QdqState& state, Layer& layer) {
  OnnxGraph& graph = state.graph;
  QuantParams& params = layer.weight.params;
  const float in = layer.input.params.scale[0];
  const int64_t axis = output_channel_axis(*layer.node);
  const auto channels = static_cast<int64_t>(layer.bias.size());
  std::vector<CodeRange> used;
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t s = params.per_tensor() ? 0 : c;
    const double scale = in * params.scale[s];
    const double code = round_half_even(std::abs(layer.bias[c]) / scale);
    if (code <= kLargestCode) continue;
    UnsupportedOp::Details details{.op = layer.node->torch_op,
                                   .argument = "bias",
                                   .value = "channel " + std::to_string(c),
                                   .opset = graph.opset,
                                   .reason = "its int32 code would be " + std::to_string(code) +
                                             ", past 2^31 (bias / (input scale * weight scale))",
                                   .hint = "raise the weight's scale in this channel",
                                   .where = layer.node->name};
    if (details.op.empty()) details.op = layer.node->op_type;
    if (used.empty()) {
      const TensorData& codes = *graph.initializer(layer.weight.codes);
      if (codes.dims[axis] != channels) throw UnsupportedOp(details);
      used = code_ranges(codes, axis, channels);
    }
    if (used[c].min != params.zero_point[s] || used[c].max != params.zero_point[s] ||
        !std::isfinite(layer.bias[c])) {
      throw UnsupportedOp(details);
    }
    if (graph.opset < least_opset(QuantFeature::kPerChannel)) {
      details.hint = "use opset 13, where this channel can have a scale of its own";
      throw UnsupportedOp(details);
    }
    if (params.per_tensor()) {
      params.dims = {channels};
      params.axis = axis;
      params.scale.assign(channels, params.scale[0]);
      params.zero_point.assign(channels, params.zero_point[0]);
    }
    // 2^24 codes are as fine as an f32 bias.
    params.scale[c] = static_cast<float>(std::abs(layer.bias[c]) / 16777216.0 / in);
  }
  if (used.empty()) return;
  // Never in place: another layer may share the DequantizeLinear, and its bias was made for the old
  // scales.
  const std::string base = layer.weight.codes.substr(0, layer.weight.codes.rfind("_quantized"));
  const TensorType type = graph.type(layer.weight.dq->outputs[0]);
  OnnxNode& dq = insert_node(graph, find_node(graph, *layer.node), "DequantizeLinear", base,
                             {layer.weight.codes}, type, *layer.weight.dq);
  set_quant_params(graph, dq, params, base);
  layer.node->inputs[1] = dq.outputs[0];
}

// The scale of the quantiser that the layer's output goes into, or 0.
float output_step(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& layer) {
  const OnnxNode* node = &layer;
  while (index.consumers(node->outputs[0]).size() == 1) {
    node = index.consumers(node->outputs[0])[0];
    if (node->op_type == "QuantizeLinear") {
      const auto params = quant_params(graph, *node);
      return params && params->per_tensor() ? params->scale[0] : 0.0f;
    }
    if (node->op_type != "Relu" && node->op_type != "Clip" && !moves_elements(*node)) break;
  }
  return 0.0f;
}

// A float bias between an input quantiser and an output quantiser, where the weight is not
// quantised: ORT 1.31 quantises both itself, the bias by Div, Round, Cast.
void note_missing_round(QdqState& state, const GraphIndex& index) {
  constexpr int64_t kRoundOpset = 11;
  if (state.graph.opset >= kRoundOpset) return;
  std::string first;
  int64_t layers = 0;
  for (OnnxNode& node : state.graph.nodes) {
    const OnnxOpFacts& facts = onnx_op_facts(node);
    if (!facts.takes_weight) continue;
    OnnxNode* bias_node = facts.takes_bias ? &node : bias_add(state.graph, index, node);
    const size_t bias = facts.takes_bias ? 2 : 1;
    if (bias_node == nullptr || bias_node->inputs.size() <= bias) continue;
    if (state.graph.initializer(bias_node->inputs[bias]) == nullptr ||
        !quantized_value(state.graph, index, node.inputs[0]) ||
        output_step(state.graph, index, *bias_node) == 0) {
      continue;
    }
    if (layers++ == 0) first = node.name;
  }
  if (layers == 0) return;
  state.notes.push_back(
      "with its optimisations on, ONNX Runtime does not load this file: it puts "
      "Round, which opset " +
      std::to_string(state.graph.opset) + " does not have, behind the float bias of " +
      std::to_string(layers) + (layers == 1 ? " layer" : " layers") + " between quantisers (" +
      first + "); export at opset 11 or newer, or quantise the weights too");
}

struct Report {
  int64_t layers = 0;
  std::string rounded;  // the float biases that became int32, one a line (kRoundedBiases)
  double steps = 0;     // largest change in output steps
  std::string at;
  double value = 0;  // largest change where there is no output quantiser
  std::string value_at;
};

/// The line of kRoundedBiases for a bias that had those values.
std::string rounded_bias_line(const std::string& name, const std::vector<double>& bias) {
  std::string line = name + "\t";
  for (size_t c = 0; c < bias.size(); ++c) {
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(bias[c])).ptr;
    line.append(c == 0 ? "" : " ").append(text, end);
  }
  return line + "\n";
}

void quantize_bias(QdqState& state, const GraphIndex& index, Layer layer, Report& report) {
  OnnxGraph& graph = state.graph;
  OnnxNode& node = *layer.node;
  std::string& bias_value = layer.bias_node->inputs[layer.bias_input];
  const float in = layer.input.params.scale[0];
  std::vector<float> scales;
  for (float scale : layer.weight.params.scale) scales.push_back(in * scale);
  const bool own_codes = layer.codes && has_scales(*layer.codes, scales);
  if (!own_codes && scales.size() > 1 && layer.bias.size() == 1) {
    layer.bias.resize(scales.size(), layer.bias[0]);  // Gemm broadcasts its C
  }
  if (scales.size() > 1 && scales.size() != layer.bias.size()) return;
  std::vector<int64_t> codes;
  if (own_codes) {
    for (double code : read_numbers(*graph.initializer(layer.codes->codes))) {
      codes.push_back(static_cast<int64_t>(code));
    }
  } else {
    widen_dead_channels(state, layer);
    scales.clear();
    for (float scale : layer.weight.params.scale) scales.push_back(in * scale);
    ++report.layers;
    const float step = output_step(graph, index, *layer.bias_node);
    for (size_t c = 0; c < layer.bias.size(); ++c) {
      const double scale = scales[scales.size() == 1 ? 0 : c];
      const double code = round_half_even(layer.bias[c] / scale);
      codes.push_back(static_cast<int64_t>(code));
      const double change = std::abs(code * scale - layer.bias[c]);
      if (step > 0 && change / step >= report.steps) {
        report.steps = change / step;
        report.at = node.name;
      } else if (step == 0 && change >= report.value) {
        report.value = change;
        report.value_at = node.name;
      }
    }
  }
  std::string base = layer.codes ? layer.codes->codes : bias_value;
  if (base.find("_quantized") == std::string::npos) base += "_quantized";
  const std::string stem = base.substr(0, base.rfind("_quantized"));
  const auto count = static_cast<int64_t>(codes.size());
  QuantParams params;
  params.storage = DType::kInt32;
  params.axis = 0;
  if (scales.size() > 1) params.dims = {count};
  params.zero_point.assign(scales.size(), 0);
  params.scale = std::move(scales);
  const std::string name =
      graph.add_initializer(base, pack_integers(DType::kInt32, {count}, codes));
  OnnxNode& dq = insert_node(graph, find_node(graph, node), "DequantizeLinear", stem, {name},
                             {DType::kFloat32, true, {count}, {}}, node);
  set_quant_params(graph, dq, params, stem);
  bias_value = dq.outputs[0];
  if (!own_codes) report.rounded += rounded_bias_line(bias_value, layer.bias);
}

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

}  // namespace

void quantize_biases(QdqState& state) {
  const GraphIndex index(state.graph);
  Report report;
  for (OnnxNode& node : state.graph.nodes) {
    if (auto layer = quantized_layer(state.graph, index, node)) {
      quantize_bias(state, index, std::move(*layer), report);
    }
  }
  note_missing_round(state, GraphIndex(state.graph));
  if (report.layers == 0) return;
  // Verification puts the floats back to tell what rounding them did from what is wrong.
  state.graph.metadata.emplace_back(kRoundedBiases, std::move(report.rounded));
  std::string note = std::to_string(report.layers) + " float bias" +
                     (report.layers == 1 ? "" : "es") +
                     " became int32 at input scale * weight scale";
  if (!report.at.empty()) {
    note += "; largest change " + number_text(report.steps) + " output steps, at " + report.at;
  }
  if (!report.value_at.empty()) {
    note += "; where no quantiser follows, largest change " + number_text(report.value) + ", at " +
            report.value_at;
  }
  state.notes.push_back(std::move(note));
}

}  // namespace qcdq
