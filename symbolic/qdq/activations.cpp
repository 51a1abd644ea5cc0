// Activation quantisers in qdq_passes: a Relu or Clip before one becomes the range of its codes,
// casts of codes and int8 storage that only a DequantizeLinear sees are rewritten to what ORT
// fuses, and every Q/DQ pair gets initializers of its own.
#include <algorithm>
#include <cmath>

#include "qcdq/affine.h"
#include "symbolic/qdq/match.h"
#include "symbolic/quantizer/opset_rules.h"

namespace qcdq {
namespace {

bool is_q(const OnnxNode& node) { return node.domain.empty() && node.op_type == "QuantizeLinear"; }
bool is_dq(const OnnxNode& node) {
  return node.domain.empty() && node.op_type == "DequantizeLinear";
}

// An integer Clip right behind a QuantizeLinear, its only user; nullptr where there is none.
OnnxNode* code_clip(const OnnxGraph& graph, const GraphIndex& index, const OnnxNode& q) {
  const auto& users = index.consumers(q.outputs[0]);
  if (users.size() != 1 || graph.is_output(q.outputs[0]) || users[0]->op_type != "Clip" ||
      !users[0]->domain.empty() || !clip_bounds(graph, *users[0])) {
    return nullptr;
  }
  return users[0];
}

CodeRange clipped_range(const OnnxGraph& graph, const OnnxNode* clip, DType storage) {
  CodeRange range = integer_range(storage);
  if (clip == nullptr) return range;
  const auto bounds = *clip_bounds(graph, *clip);
  range.min = std::max(range.min, static_cast<int64_t>(std::max<double>(bounds.first, range.min)));
  range.max = std::min(range.max, static_cast<int64_t>(std::min<double>(bounds.second, range.max)));
  return range;
}

void set_clip_range(OnnxGraph& graph, OnnxNode& clip, DType storage, CodeRange range,
                    const std::string& base) {
  clip.inputs.resize(1);
  clip.inputs.push_back(
      graph.add_initializer(base + "_min", pack_integers(storage, {}, {range.min})));
  clip.inputs.push_back(
      graph.add_initializer(base + "_max", pack_integers(storage, {}, {range.max})));
}

std::string stem(const OnnxNode& q) { return q.name.substr(0, q.name.rfind("/QuantizeLinear")); }

/// What taking a float Clip or Relu away from before a quantiser asks of its codes.
struct Bypass {
  OnnxNode* q;
  OnnxNode* clip;  // the codes' own Clip, or nullptr
  DType storage;
  CodeRange range;  // of the codes afterwards
  bool new_clip;
};

// Quantisation is monotone, so Q(clip(x, lo, hi)) = clip(Q(x), Q(lo), Q(hi)): the float op can go
// where the codes can be clipped instead (or already are).
std::optional<Bypass> bypass(const QdqState& state, const GraphIndex& index, OnnxNode& q,
                             std::pair<double, double> bounds) {
  const OnnxGraph& graph = state.graph;
  const auto params = quant_params(graph, q);
  if (!params || params->block_size > 0) return {};
  OnnxNode* clip = code_clip(graph, index, q);
  const CodeRange full = integer_range(params->storage);
  const CodeRange range = clipped_range(graph, clip, params->storage);
  std::optional<CodeRange> wanted;
  for (size_t c = 0; c < params->scale.size(); ++c) {
    const auto code = [&](double x) {
      return quantize_one(static_cast<float>(x), params->scale[c], params->zero_point[c], full.min,
                          full.max);
    };
    const CodeRange channel{std::max(range.min, code(bounds.first)),
                            std::min(range.max, code(bounds.second))};
    if (wanted && *wanted != channel) return {};
    wanted = channel;
  }
  if (!wanted || wanted->min > wanted->max) return {};
  Bypass result{&q, clip, params->storage, *wanted, false};
  if (*wanted == range) return result;
  if (clip != nullptr) return result;
  // ORT fuses through a Clip on uint8 codes, not on int8 ones; 16-bit Clips it doesn't run.
  if (params->storage != DType::kUInt8 || graph.opset < least_opset(QuantFeature::kIntegerClip)) {
    return {};
  }
  result.new_clip = true;
  return result;
}

void apply(QdqState& state, const Bypass& bypass, const std::string& x) {
  OnnxGraph& graph = state.graph;
  OnnxNode& q = *bypass.q;
  q.inputs[0] = x;
  const std::string base = stem(q) + "_clip";
  if (bypass.clip != nullptr) {
    if (clipped_range(graph, bypass.clip, bypass.storage) != bypass.range) {
      set_clip_range(graph, *bypass.clip, bypass.storage, bypass.range, base);
    }
  } else if (bypass.new_clip) {
    const std::string codes = q.outputs[0];
    OnnxNode& clip = insert_node(graph, std::next(find_node(graph, q)), "Clip", stem(q), {codes},
                                 graph.type(codes), q);
    // The Clip takes over the name that users know, graph outputs included.
    std::swap(clip.outputs[0], q.outputs[0]);
    clip.inputs[0] = q.outputs[0];
    set_clip_range(graph, clip, bypass.storage, bypass.range, base);
  }
}

bool move_into_codes(QdqState& state, const GraphIndex& index, OnnxGraph::NodeIt node) {
  OnnxGraph& graph = state.graph;
  const auto bounds = clip_bounds(graph, *node);
  const std::string& output = node->outputs[0];
  if (!bounds || graph.is_output(output)) return false;
  const DType dtype = graph.type(node->inputs[0]).dtype;
  if (dtype != DType::kFloat32 && dtype != DType::kUndefined) return false;
  std::vector<Bypass> all;
  for (OnnxNode* user : index.consumers(output)) {
    if (!is_q(*user) || user->inputs[0] != output) return false;
    auto found = bypass(state, index, *user, *bounds);
    if (!found) return false;
    all.push_back(*found);
  }
  if (all.empty()) return false;
  for (const Bypass& one : all) apply(state, one, node->inputs[0]);
  graph.nodes.erase(node);
  return true;
}

// Clip(Relu(x)) and Clip(Clip(x)) in float are one Clip.
bool merge_float_clips(QdqState& state, const GraphIndex& index, OnnxGraph::NodeIt node) {
  OnnxGraph& graph = state.graph;
  const auto first = clip_bounds(graph, *node);
  const std::string& output = node->outputs[0];
  if (!first || graph.is_output(output) || index.uses(output) != 1) return false;
  OnnxNode& clip = *index.consumers(output)[0];
  if (clip.op_type != "Clip" || clip.inputs[0] != output) return false;
  const auto& users = index.consumers(clip.outputs[0]);
  const auto second = clip_bounds(graph, clip);
  if (!second || users.size() != 1 || !is_q(*users[0])) return false;
  const double min = std::clamp(first->first, second->first, second->second);
  const double max = std::clamp(first->second, second->first, second->second);
  if (std::pair(min, max) != *second) return false;  // the second alone doesn't do it
  clip.inputs[0] = node->inputs[0];
  graph.nodes.erase(node);
  return true;
}

bool drop_full_clip(QdqState& state, const GraphIndex& index, OnnxGraph::NodeIt node) {
  OnnxGraph& graph = state.graph;
  if (node->op_type != "Clip" || graph.is_output(node->outputs[0])) return false;
  const OnnxNode* q = index.producer(node->inputs[0]);
  if (q == nullptr || !is_q(*q)) return false;
  const auto params = quant_params(graph, *q);
  const auto bounds = clip_bounds(graph, *node);
  if (!params || !bounds) return false;
  const CodeRange full = integer_range(params->storage);
  if (bounds->first > static_cast<double>(full.min) ||
      bounds->second < static_cast<double>(full.max)) {
    return false;
  }
  const std::string from = node->outputs[0];
  const std::string to = node->inputs[0];
  graph.nodes.erase(node);
  replace_uses(graph, from, to);
  return true;
}

// Q -> [Clip] -> Cast -> DQ: the cast to the type that the source named has no effect on the value.
bool drop_code_cast(QdqState& state, const GraphIndex& index, OnnxGraph::NodeIt cast) {
  OnnxGraph& graph = state.graph;
  if (cast->op_type != "Cast" || graph.is_output(cast->outputs[0])) return false;
  const OnnxNode* q = index.producer(cast->inputs[0]);
  if (q != nullptr && q->op_type == "Clip") q = index.producer(q->inputs[0]);
  if (q == nullptr || !is_q(*q)) return false;
  const auto stored = quant_params(graph, *q);
  if (!stored) return false;
  const CodeRange range = integer_range(stored->storage);
  std::vector<std::pair<OnnxNode*, QuantParams>> users;
  for (OnnxNode* user : index.consumers(cast->outputs[0])) {
    auto params = is_dq(*user) ? quant_params(graph, *user) : std::nullopt;
    if (!params) return false;
    for (int64_t zero_point : params->zero_point) {
      if (!range.holds(zero_point)) return false;
    }
    params->storage = stored->storage;
    users.emplace_back(user, std::move(*params));
  }
  if (users.empty()) return false;
  for (auto& [user, params] : users) {
    user->inputs[0] = cast->inputs[0];
    set_quant_params(graph, *user, params, stem(*q));
  }
  graph.nodes.erase(cast);
  return true;
}

// Q(int8) -> [Clip] -> DQ -> ... as uint8: the same values, and ORT fuses it at every number of
// users.
bool store_unsigned(QdqState& state, const GraphIndex& index, OnnxGraph::NodeIt q) {
  OnnxGraph& graph = state.graph;
  if (!is_q(*q)) return false;
  auto params = quant_params(graph, *q);
  if (!params || params->storage != DType::kInt8 || params->block_size > 0) return false;
  OnnxNode* clip = code_clip(graph, index, *q);
  const CodeRange range = clipped_range(graph, clip, DType::kInt8);
  const int64_t shift = -range.min;
  const std::string& codes = clip != nullptr ? clip->outputs[0] : q->outputs[0];
  if (graph.is_output(codes)) return false;
  const CodeRange full = integer_range(DType::kUInt8);
  const auto shifted = [&](QuantParams p) -> std::optional<QuantParams> {
    p.storage = DType::kUInt8;
    for (int64_t& zero_point : p.zero_point) {
      zero_point += shift;
      if (!full.holds(zero_point)) return std::nullopt;
    }
    return p;
  };
  std::vector<std::pair<OnnxNode*, QuantParams>> users;
  for (OnnxNode* user : index.consumers(codes)) {
    const auto own = is_dq(*user) ? quant_params(graph, *user) : std::nullopt;
    auto moved = own ? shifted(*own) : std::nullopt;
    if (!moved) return false;
    users.emplace_back(user, std::move(*moved));
  }
  auto moved = shifted(*params);
  if (users.empty() || !moved) return false;
  set_quant_params(graph, *q, *moved, stem(*q));
  std::erase_if(q->attributes, [](const auto& a) { return a.first == "output_dtype"; });
  graph.types[q->outputs[0]].dtype = DType::kUInt8;
  if (clip != nullptr) {
    graph.types[clip->outputs[0]].dtype = DType::kUInt8;
    set_clip_range(graph, *clip, DType::kUInt8, {0, range.max + shift}, stem(*q) + "_clip");
  }
  for (auto& [user, own] : users) set_quant_params(graph, *user, own, stem(*q));
  return true;
}

// Whether what only moves elements stands behind `value`, and something other than a quantiser
// behind that.
bool is_moved(const GraphIndex& index, const OnnxGraph& graph, const std::string& value,
              bool moved) {
  if (moved && graph.is_output(value)) return true;
  for (const OnnxNode* user : index.consumers(value)) {
    if (moves_elements(*user)) {
      if (is_moved(index, graph, user->outputs[0], true)) return true;
    } else if ((moved && !is_q(*user)) || bias_add(graph, index, *user) != nullptr) {
      return true;
    }
  }
  return false;
}

// From opset 21 on ORT 1.31 can't load an int8 pair before MaxPool, Reshape or Transpose (it copies
// the pair behind them with output_dtype, then changes the zero point to uint8). It reshapes before
// a MatMul with a bias, too.
bool store_moved_unsigned(QdqState& state, const GraphIndex& index, OnnxGraph::NodeIt q) {
  OnnxGraph& graph = state.graph;
  if (!is_q(*q)) return false;
  const OnnxNode* clip = code_clip(graph, index, *q);
  const std::string& codes = clip != nullptr ? clip->outputs[0] : q->outputs[0];
  for (const OnnxNode* user : index.consumers(codes)) {
    if (!is_dq(*user) || !is_moved(index, graph, user->outputs[0], false)) continue;
    const std::string name = q->name;
    if (!store_unsigned(state, index, q)) return false;
    state.notes.push_back(
        name +
        ": stored as uint8, because from opset 21 on ONNX Runtime can't load int8 "
        "codes before MaxPool, Reshape or Transpose");
    return true;
  }
  return false;
}

}  // namespace

void rewrite_until_stable(QdqState& state, Rewrite rewrite) {
  bool changed = true;
  while (changed) {
    changed = false;
    const GraphIndex index(state.graph);
    for (auto it = state.graph.nodes.begin(); it != state.graph.nodes.end(); ++it) {
      changed = rewrite(state, index, it);
      if (changed) break;  // the node may be gone, and the index is out of date
    }
  }
}

void simplify_quantizers(QdqState& state) {
  rewrite_until_stable(state, drop_code_cast);
  if (!state.options.signed_activations) {
    rewrite_until_stable(state, store_unsigned);
  } else if (state.graph.opset >= least_opset(QuantFeature::kOutputDtype)) {
    rewrite_until_stable(state, store_moved_unsigned);
  }
  rewrite_until_stable(state, merge_float_clips);
  rewrite_until_stable(state, move_into_codes);
  rewrite_until_stable(state, drop_full_clip);
}

void own_quant_params(QdqState& state) {
  OnnxGraph& graph = state.graph;
  const GraphIndex index(graph);
  std::unordered_map<std::string, const OnnxNode*> owner;  // initializer -> first node of its pair
  for (OnnxNode& node : graph.nodes) {
    const OnnxNode* pair = nullptr;
    if (is_q(node)) {
      pair = &node;
    } else if (is_dq(node)) {
      pair = index.producer(node.inputs[0]);
      if (pair != nullptr && pair->op_type == "Clip") pair = index.producer(pair->inputs[0]);
      if (pair == nullptr || !is_q(*pair)) pair = &node;
    }
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const TensorData* data = graph.initializer(node.inputs[i]);
      if (data == nullptr || (pair != nullptr && i == 0)) continue;
      const auto [found, first] = owner.emplace(node.inputs[i], pair);
      if (first || found->second == pair) continue;
      node.inputs[i] = graph.add_initializer(node.inputs[i], TensorData(*data));
      owner.emplace(node.inputs[i], pair);
    }
  }
}

}  // namespace qcdq
