// run_qdq_passes (qdq/passes.h): the order of the pass families in qdq/*.cpp, between convert and
// check.
#include "symbolic/qdq/passes.h"

#include <set>

#include "symbolic/qdq/match.h"

namespace qcdq {
namespace {

void drop_identities(OnnxGraph& graph) {
  for (auto it = graph.nodes.begin(); it != graph.nodes.end();) {
    auto node = it++;
    if (node->op_type != "Identity" || !node->domain.empty() || graph.is_output(node->outputs[0])) {
      continue;
    }
    const std::string from = node->outputs[0];
    const std::string to = node->inputs[0];
    graph.nodes.erase(node);
    replace_uses(graph, from, to);
  }
}

// ORT reads int32 codes with zero point 0 only; it fails when the file is loaded.
void check_int32_zero_points(const OnnxGraph& graph) {
  for (const OnnxNode& node : graph.nodes) {
    if (node.op_type != "DequantizeLinear" || !node.domain.empty()) continue;
    const auto params = quant_params(graph, node);
    if (!params || params->storage != DType::kInt32) continue;
    for (int64_t zero_point : params->zero_point) {
      if (zero_point == 0) continue;
      throw UnsupportedOp({.op = node.torch_op.empty() ? node.op_type : node.torch_op,
                           .argument = "zero_point",
                           .value = std::to_string(zero_point),
                           .opset = graph.opset,
                           .reason = "ONNX Runtime dequantises int32 codes with zero point 0 only",
                           .hint = "use 8- or 16-bit codes, or a symmetric quantiser",
                           .where = node.name});
    }
  }
}

// Rewrites leave names like conv1.weight_scale_1 where conv1.weight_scale is free by now.
void tidy_names(OnnxGraph& graph) {
  std::set<std::string> taken(graph.inputs.begin(), graph.inputs.end());
  for (const OnnxNode& node : graph.nodes) {
    taken.insert(node.outputs.begin(), node.outputs.end());
    taken.merge(names_in_bodies(node));
  }
  std::unordered_map<std::string, std::string> renamed;
  for (const OnnxNode& node : graph.nodes) {
    if (node.op_type != "QuantizeLinear" && node.op_type != "DequantizeLinear" &&
        node.op_type != "Clip") {
      continue;  // other constants have names of the source's
    }
    for (const std::string& input : node.inputs) {
      if (graph.initializer(input) == nullptr) continue;
      std::string name = input;
      for (;;) {
        const size_t last = name.find_last_not_of("0123456789");
        if (last == std::string::npos || last + 1 == name.size() || name[last] != '_') break;
        const std::string shorter = name.substr(0, last);
        const bool suffix = shorter.ends_with("_scale") || shorter.ends_with("_zero_point") ||
                            shorter.ends_with("_quantized") || shorter.ends_with("_min") ||
                            shorter.ends_with("_max") || shorter.ends_with("_clip");
        if (!suffix || taken.contains(shorter) || graph.initializer(shorter) != nullptr) break;
        name = shorter;
      }
      if (name == input) continue;
      auto moved = graph.initializers.extract(input);
      moved.key() = name;
      graph.initializers.insert(std::move(moved));
      renamed.emplace(input, name);
    }
  }
  for (OnnxNode& node : graph.nodes) node.rename_uses(renamed);
}

void merge_equal_notes(std::vector<std::string>& notes) {
  std::vector<std::string> merged;
  std::set<std::string> seen;
  for (const std::string& note : notes) {
    if (seen.insert(note).second) merged.push_back(note);
  }
  notes = std::move(merged);
}

struct Pass {
  const char* name;
  void (*run)(QdqState&);
};

constexpr Pass kPasses[] = {
    {"drop identities", [](QdqState& state) { drop_identities(state.graph); }},
    {"fold constant quantizers", fold_constant_quantizers},
    {"fold weight views", fold_weight_views},
    {"fold batchnorm", fold_batchnorm},
    {"simplify quantizers", simplify_quantizers},
    {"quantize biases", quantize_biases},
    {"remove dead", [](QdqState& state) { remove_dead(state.graph); }},
    {"store weights as uint8", store_weights_as_uint8},
    {"note saturation", note_saturation},
    {"restore float weights", restore_float_weights},
    {"own quant params", own_quant_params},
    {"remove dead", [](QdqState& state) { remove_dead(state.graph); }},
    {"tidy names", [](QdqState& state) { tidy_names(state.graph); }},
    {"check int32 zero points", [](QdqState& state) { check_int32_zero_points(state.graph); }},
};

}  // namespace

void run_qdq_passes(OnnxGraph& graph, const EmissionOptions& options,
                    std::vector<std::string>& notes, GraphDump* dump) {
  QdqState state{graph, options, notes, {}};
  for (const Pass& pass : kPasses) {
    if (dump != nullptr) dump->start("qdq", pass.name);
    pass.run(state);
    if (dump != nullptr) dump->finish(picture_of(graph));
  }
  merge_equal_notes(notes);
}

}  // namespace qcdq
