// BatchNormalization behind a Conv, ConvTranspose or Gemm (qdq/passes.cpp). Quantised weights keep
// their codes: the factor gamma / sigma goes into the DequantizeLinear scale, because a
// BatchNormalization that stays keeps the layer in float in ORT. Float weights are multiplied when
// the file is written. torch.ao's QAT layers divide by the factor first and add their bias after:
// behind a quantised weight Div, Mul and Add by a constant per channel fold in the same way.
#include <algorithm>
#include <cmath>
#include <limits>

#include "symbolic/qdq/match.h"
#include "symbolic/quantizer/opset_rules.h"

namespace qcdq {
namespace {

/// y = x * factor + shift per channel.
struct Affine {
  std::vector<double> factor;
  std::vector<double> shift;
};

// Div, Mul and Add with one constant per channel of the layer's output, which has the channels
// along axis 1.
std::optional<Affine> arithmetic_affine(const OnnxGraph& graph, const OnnxNode& node) {
  const TensorType type = graph.type(node.inputs[0]);
  const TensorData* data = graph.initializer(node.inputs[1]);
  if (data == nullptr || data->dtype != DType::kFloat32 || !type.ranked || type.rank() < 2) {
    return {};
  }
  const auto channel = static_cast<size_t>(type.rank() - 1);  // counted from the last dimension
  const size_t rank = data->dims.size();
  if (rank < channel || rank > channel + 1 || data->numel() < 2) return {};
  if (data->dims[rank - channel] != data->numel() || type.dims[1] != data->numel()) return {};
  Affine affine;
  for (const double value : read_numbers(*data)) {
    const bool adds = node.op_type == "Add";
    affine.factor.push_back(adds ? 1 : node.op_type == "Div" ? 1 / value : value);
    affine.shift.push_back(adds ? value : 0);
    if (!std::isfinite(affine.factor.back()) || !std::isfinite(affine.shift.back())) return {};
  }
  return affine;
}

std::optional<Affine> affine_of(const OnnxGraph& graph, const OnnxNode& bn) {
  if (bn.op_type != "BatchNormalization") return arithmetic_affine(graph, bn);
  if (bn.int_attribute("training_mode", 0) != 0 || bn.inputs.size() != 5) return {};
  std::vector<std::vector<double>> values;
  for (size_t i = 1; i < 5; ++i) {
    const TensorData* data = graph.initializer(bn.inputs[i]);
    if (data == nullptr || data->dtype != DType::kFloat32) return {};
    values.push_back(read_numbers(*data));
    if (values.back().size() != values.front().size()) return {};
  }
  const Attribute* epsilon = bn.find("epsilon");
  const double eps = epsilon == nullptr ? 1e-5 : std::get<float>(*epsilon);
  Affine affine;
  for (size_t c = 0; c < values[0].size(); ++c) {
    const double factor = values[0][c] / std::sqrt(values[3][c] + eps);
    affine.factor.push_back(factor);
    affine.shift.push_back(values[1][c] - values[2][c] * factor);
    if (!std::isfinite(factor) || !std::isfinite(affine.shift.back())) return {};
  }
  return affine;
}

// The layer's bias after the fold, or nothing where its old bias isn't a constant per channel.
std::optional<std::vector<float>> folded_bias(const OnnxGraph& graph, const GraphIndex& index,
                                              const OnnxNode& layer, const Affine& affine) {
  std::vector<double> bias(affine.factor.size(), 0.0);
  if (layer.inputs.size() > 2 && !layer.inputs[2].empty()) {
    const auto old = constant_values(graph, index, layer.inputs[2]);
    if (!old || old->size() != bias.size()) return {};
    bias = *old;
  }
  std::vector<float> folded;
  for (size_t c = 0; c < bias.size(); ++c) {
    folded.push_back(static_cast<float>(bias[c] * affine.factor[c] + affine.shift[c]));
  }
  return folded;
}

TensorData scaled_weight(const TensorData& weight, int64_t axis, std::vector<double> factor) {
  TensorData result{weight.dtype, weight.dims, nullptr, nullptr};
  result.produce = [weight, axis, factor = std::move(factor)] {
    const int64_t numel = weight.numel();
    std::shared_ptr<float[]> out(new float[static_cast<size_t>(numel)]);
    const std::shared_ptr<const void> loaded = weight.load();
    const float* from = static_cast<const float*>(loaded.get());
    int64_t inner = 1;
    for (size_t i = axis + 1; i < weight.dims.size(); ++i) inner *= weight.dims[i];
    const auto channels = static_cast<int64_t>(factor.size());
    for (int64_t row = 0; row * inner < numel; ++row) {
      const double f = factor[row % channels];
      for (int64_t i = row * inner; i < (row + 1) * inner; ++i) {
        out[i] = static_cast<float>(from[i] * f);
      }
    }
    return std::shared_ptr<const void>(out, out.get());
  };
  return result;
}

struct ScaledCodes {
  TensorData codes;
  QuantParams params;
};

// The codes and per-channel scales of weight * factor; `why` says what stands in the way.
std::optional<ScaledCodes> scaled_codes(const TensorData& codes, const QuantParams& params,
                                        int64_t axis, const std::vector<double>& factor,
                                        std::string& why) {
  const auto channels = static_cast<int64_t>(factor.size());
  if (params.block_size > 0) {
    why = "its weight scales are blocked";
    return {};
  }
  if (params.per_channel() && params.axis != axis) {
    why = "its weight scales lie along axis " + std::to_string(params.axis) +
          ", not along the output channels";
    return {};
  }
  const CodeRange full = integer_range(params.storage);
  const std::vector<CodeRange> used = code_ranges(codes, axis, channels);
  ScaledCodes result{codes, params};
  result.params.dims = {channels};
  result.params.axis = axis;
  std::vector<int64_t> sign(factor.size(), 1), offset(factor.size(), 0);
  bool same = true;
  for (size_t c = 0; c < factor.size(); ++c) {
    const size_t from = params.per_tensor() ? 0 : c;
    const int64_t zero_point = params.zero_point[from];
    double scale = static_cast<double>(params.scale[from]) * std::abs(factor[c]);
    if (scale > std::numeric_limits<float>::max()) {
      why = "the scale of channel " + std::to_string(c) + " overflows float32";
      return {};
    }
    if (scale < std::numeric_limits<float>::min()) {  // gamma is 0: the channel is its bias
      sign[c] = 0;
      offset[c] = zero_point;
      scale = params.scale[from];
      same = false;
    } else if (factor[c] < 0) {
      // -(code - zp) = (2 zp - code) - zp: exact as long as the mirrored codes exist (narrow
      // range).
      if (!full.holds(2 * zero_point - used[c].min) || !full.holds(2 * zero_point - used[c].max)) {
        why = "gamma of channel " + std::to_string(c) +
              " is negative and the weight's range isn't symmetric (use a narrow range)";
        return {};
      }
      sign[c] = -1;
      offset[c] = 2 * zero_point;
      same = false;
    }
    if (c < result.params.scale.size()) {
      result.params.scale[c] = static_cast<float>(scale);
      result.params.zero_point[c] = zero_point;
    } else {
      result.params.scale.push_back(static_cast<float>(scale));
      result.params.zero_point.push_back(zero_point);
    }
  }
  if (!same) result.codes = transform_codes(codes, axis, sign, offset, params.storage);
  return result;
}

void set_bias(OnnxGraph& graph, OnnxNode& layer, std::vector<float> bias,
              const std::string& weight) {
  layer.inputs.resize(3);
  const std::string base = graph.initializer(layer.inputs[2]) != nullptr
                               ? layer.inputs[2]
                               : weight.substr(0, weight.rfind(".weight")) + ".bias";
  const auto channels = static_cast<int64_t>(bias.size());
  layer.inputs[2] = graph.add_initializer(
      base, TensorData::from<float>(DType::kFloat32, {channels}, std::move(bias)));
}

bool fold(QdqState& state, const GraphIndex& index, OnnxGraph::NodeIt bn) {
  OnnxGraph& graph = state.graph;
  OnnxNode* layer = index.producer(bn->inputs[0]);
  if (layer == nullptr || index.uses(bn->inputs[0]) != 1 || bn->outputs.size() != 1) return false;
  if (!onnx_op_facts(*layer).takes_bias) return false;
  if (layer->op_type == "Gemm") {
    for (const char* name : {"alpha", "beta"}) {
      const Attribute* value = layer->find(name);
      if (value != nullptr && std::get<float>(*value) != 1.0f) return false;
    }
  }
  const auto weight = integer_constant(graph, index, layer->inputs[1]);
  const TensorData* float_weight = graph.initializer(layer->inputs[1]);
  if (!weight && (float_weight == nullptr || float_weight->dtype != DType::kFloat32)) return false;
  const bool arithmetic = bn->op_type != "BatchNormalization";
  const std::optional<Affine> affine = affine_of(graph, *bn);
  if (arithmetic && (!weight || !affine)) return false;
  const int64_t axis = output_channel_axis(*layer);
  const TensorData& tensor = weight ? *graph.initializer(weight->codes) : *float_weight;
  std::string why;
  if (!affine) {
    why = "its statistics aren't finite constants";
  } else if (axis < 0) {
    why = "a grouped ConvTranspose has no weight axis for its output channels";
  } else if (tensor.dims[axis] != static_cast<int64_t>(affine->factor.size())) {
    why = "the channels differ";
  } else if (weight && graph.opset < least_opset(QuantFeature::kPerChannel)) {
    why = "per-channel weight scales need opset 13";
  }
  std::optional<ScaledCodes> scaled;
  std::optional<std::vector<float>> bias;
  if (why.empty()) {
    bias = folded_bias(graph, index, *layer, *affine);
    if (!bias) why = "the layer's bias isn't a constant per channel";
  }
  if (why.empty() && weight) {
    scaled = scaled_codes(tensor, weight->params, axis, affine->factor, why);
  }
  if (!why.empty()) {
    if (weight && !arithmetic) {
      state.notes.push_back(bn->name + ": left behind quantised layer " + layer->name +
                            ", which keeps the layer in float in ONNX Runtime: " + why);
    }
    return false;
  }
  const bool scales = std::any_of(affine->factor.begin(), affine->factor.end(),
                                  [](double factor) { return factor != 1; });
  std::string base = layer->inputs[1];
  if (weight && !scales) {
    base = weight->codes.substr(0, weight->codes.rfind("_quantized"));
  } else if (weight) {
    base = weight->codes.substr(0, weight->codes.rfind("_quantized"));
    const bool shared = index.uses(weight->codes) > 1 || index.uses(weight->dq->outputs[0]) > 1;
    const bool changed = scaled->codes.data != tensor.data;
    std::string codes = weight->codes;
    if (changed) codes = graph.add_initializer(weight->codes, std::move(scaled->codes));
    if (auto origin = state.origins.find(weight->codes); origin != state.origins.end()) {
      if (changed) {
        state.origins[codes] = {std::nullopt, origin->second.range};
      } else {
        origin->second.x = std::nullopt;
      }
    }
    OnnxNode* dq = weight->dq;
    if (shared) {
      dq = &insert_node(graph, find_node(graph, *layer), "DequantizeLinear", base, {codes},
                        graph.type(weight->dq->outputs[0]), *weight->dq);
      layer->inputs[1] = dq->outputs[0];
    }
    dq->inputs[0] = codes;
    set_quant_params(graph, *dq, scaled->params, base);
  } else {
    TensorData folded = scaled_weight(*float_weight, axis, affine->factor);
    if (index.uses(layer->inputs[1]) == 1) {
      graph.initializers[layer->inputs[1]] = std::move(folded);
    } else {
      layer->inputs[1] = graph.add_initializer(layer->inputs[1], std::move(folded));
    }
  }
  set_bias(graph, *layer, std::move(*bias), base);
  graph.types.erase(layer->outputs[0]);
  layer->outputs[0] = bn->outputs[0];
  graph.nodes.erase(bn);
  return true;
}

}  // namespace

void fold_batchnorm(QdqState& state) {
  // A fold removes nodes that the index points at, so each one starts over with a new index, and
  // the notes of nodes that can't fold are those of the last round.
  bool changed = true;
  std::vector<std::string> notes;
  while (changed) {
    changed = false;
    notes = state.notes;
    const GraphIndex index(state.graph);
    for (auto it = state.graph.nodes.begin(); it != state.graph.nodes.end();) {
      auto bn = it++;
      const bool known = bn->op_type == "BatchNormalization" || bn->op_type == "Div" ||
                         bn->op_type == "Mul" || bn->op_type == "Add";
      if (!known || !bn->domain.empty()) continue;
      if (fold(state, index, bn)) {
        changed = true;
        break;
      }
    }
    if (changed) state.notes = notes;
  }
}

}  // namespace qcdq
