// run_decompositions() writes torch's inner ops; this turns them back into the ops that they came
// from, so that a decomposed program and its original export alike. See source/pt2/graph.h.
#include <torch/csrc/jit/ir/constants.h>

#include <limits>
#include <optional>
#include <unordered_map>

#include "symbolic/program/run_node.h"
#include "symbolic/source/pt2/graph.h"

namespace qcdq {

using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Symbol;
using JitValue = torch::jit::Value;
using Values = std::vector<JitValue*>;

namespace {

JitValue* constant(Node* place, const c10::IValue& value) {
  torch::jit::WithInsertPoint guard(place);
  return place->owningGraph()->insertConstant(value);
}

/// A new node of one tensor in front of `place`.
JitValue* insert(Node* place, const char* op, const Values& inputs) {
  Node* made = place->owningGraph()->create(Symbol::fromQualString(op), inputs, 1);
  made->copyMetadata(place);
  made->insertBefore(place);
  return made->output();
}

/// Output `i` and those after it have no uses.
bool unused_from(const Node& node, size_t i) {
  for (; i < node.outputs().size(); ++i) {
    if (node.output(i)->hasUses()) return false;
  }
  return true;
}

bool is_constant(const JitValue* value, bool wanted) {
  const auto known = torch::jit::toIValue(value);
  return known && known->isBool() && known->toBool() == wanted;
}

/// The matrix whose transpose this is; null where it is none.
JitValue* transposed(const JitValue* value) {
  const Node* node = value->node();
  const std::string op = node->kind().toQualString();
  if (op == "aten::t") return node->input(0);
  if (op == "aten::permute") {
    const auto dims = torch::jit::toIValue(node->input(1));
    if (!dims || !dims->isIntList() || dims->toIntVector() != std::vector<int64_t>{1, 0}) {
      return nullptr;
    }
    return node->input(0);
  }
  if (op != "aten::transpose") return nullptr;
  const auto first = torch::jit::toIValue(node->input(1));
  const auto second = torch::jit::toIValue(node->input(2));
  const bool swapped = first && second && first->isInt() && second->isInt() &&
                       first->toInt() + second->toInt() == 1 &&
                       first->toInt() * second->toInt() == 0;
  return swapped ? node->input(0) : nullptr;
}

bool is_one(const JitValue* value) {
  const auto known = torch::jit::toIValue(value);
  return known && known->isScalar() && known->toScalar().toDouble() == 1;
}

/// What stands for the node's first output; null where the node stays.
using Rule = JitValue* (*)(Node*);

JitValue* batch_norm(Node* n) {
  const bool no_training = n->inputs().size() == 7;
  Values inputs(n->inputs().begin(), n->inputs().begin() + 5);
  inputs.push_back(no_training ? constant(n, false) : n->input(5));
  for (size_t i = no_training ? 5 : 6; i < n->inputs().size(); ++i) inputs.push_back(n->input(i));
  inputs.push_back(constant(n, false));
  return insert(n, "aten::batch_norm", inputs);
}

JitValue* batch_norm_or_without_statistics(Node* n) {
  if (n->inputs().size() != 6) return batch_norm(n);
  JitValue* none = constant(n, c10::IValue());
  return insert(n, "aten::batch_norm",
                {n->input(0), n->input(1), n->input(2), none, none, n->input(3), n->input(4),
                 n->input(5), constant(n, false)});
}

JitValue* convolution(Node* n) {
  Values inputs = n->inputs().vec();
  JitValue* off = constant(n, false);
  inputs.insert(inputs.end(), 4, off);  // choices of cuDNN
  return insert(n, "aten::_convolution", inputs);
}

JitValue* max_pool2d(Node* n) { return insert(n, "aten::max_pool2d", n->inputs().vec()); }
JitValue* max_pool3d(Node* n) { return insert(n, "aten::max_pool3d", n->inputs().vec()); }

JitValue* layer_norm(Node* n) {
  Values inputs = n->inputs().vec();
  inputs.push_back(constant(n, false));
  return insert(n, "aten::layer_norm", inputs);
}

JitValue* group_norm(Node* n) {
  return insert(
      n, "aten::group_norm",
      {n->input(0), n->input(6), n->input(1), n->input(2), n->input(7), constant(n, false)});
}

JitValue* softmax_of(Node* n, const char* op) {
  // half_to_float: the result of an f16 input is f32.
  if (!is_constant(n->input(2), false)) return nullptr;
  return insert(n, op, {n->input(0), n->input(1), constant(n, c10::IValue())});
}
JitValue* softmax(Node* n) { return softmax_of(n, "aten::softmax"); }
JitValue* log_softmax(Node* n) { return softmax_of(n, "aten::log_softmax"); }

/// A row of nothing but -inf, all of it masked, gives 0 instead of NaN.
JitValue* safe_softmax(Node* n) {
  const auto dim = torch::jit::toIValue(n->input(1));
  if (!dim || !dim->isInt()) return nullptr;
  JitValue* most =
      insert(n, "aten::amax",
             {n->input(0), constant(n, std::vector<int64_t>{dim->toInt()}), constant(n, true)});
  JitValue* masked =
      insert(n, "aten::eq", {most, constant(n, -std::numeric_limits<double>::infinity())});
  JitValue* plain = insert(n, "aten::softmax", n->inputs().vec());
  return insert(n, "aten::masked_fill", {plain, masked, constant(n, 0.0)});
}

JitValue* to_copy(Node* n) {
  JitValue* memory_format = n->input(6);
  if (n->input(1)->mustBeNone()) return insert(n, "aten::clone", {n->input(0), memory_format});
  return insert(n, "aten::to",
                {n->input(0), n->input(1), constant(n, false), constant(n, true), memory_format});
}

JitValue* attention_of_cpu(Node* n) {
  return insert(n, "aten::scaled_dot_product_attention",
                {n->input(0), n->input(1), n->input(2), n->input(5), n->input(3), n->input(4),
                 n->input(6), constant(n, false)});
}

JitValue* attention_of_math(Node* n) {
  if (!n->input(6)->mustBeNone()) return nullptr;  // a dropout mask
  return insert(n, "aten::scaled_dot_product_attention",
                {n->input(0), n->input(1), n->input(2), n->input(3), n->input(4), n->input(5),
                 n->input(7), n->input(8)});
}

JitValue* dropout(Node* n) { return is_constant(n->input(2), false) ? n->input(0) : nullptr; }

JitValue* average_pool2d(Node* n) {
  return insert(n, "aten::adaptive_avg_pool2d", n->inputs().vec());
}
JitValue* average_pool3d(Node* n) {
  return insert(n, "aten::adaptive_avg_pool3d", n->inputs().vec());
}
JitValue* index(Node* n) { return insert(n, "aten::index", n->inputs().vec()); }

/// addmm(bias, x, w^T) and mm(x, w^T): a Linear, whose weight is then found as such.
JitValue* linear(Node* n) {
  const bool biased = n->inputs().size() == 5;
  if (biased && (!is_one(n->input(3)) || !is_one(n->input(4)))) return nullptr;
  JitValue* weight = transposed(n->input(biased ? 2 : 1));
  if (weight == nullptr) return nullptr;
  JitValue* bias = biased ? n->input(0) : constant(n, c10::IValue());
  if (biased) {
    // addmm also adds a matrix or a number; a Linear's bias is one number per row of the weight.
    const JitValue* source = bias;
    while (has_traits(traits_of(*source->node()), OpTraits::kFakeQuantizes)) {
      source = source->node()->input(0);
    }
    const auto known = torch::jit::toIValue(source);
    if (!known || !known->isTensor() || known->toTensor().dim() != 1) return nullptr;
  }
  return insert(n, "aten::linear", {n->input(biased ? 1 : 0), weight, bias});
}

const std::unordered_map<std::string, Rule>& rules() {
  static const std::unordered_map<std::string, Rule> all = {
      {"aten::_native_batch_norm_legit_no_training", batch_norm},
      {"aten::_native_batch_norm_legit", batch_norm_or_without_statistics},
      {"aten::native_batch_norm", batch_norm},
      {"aten::convolution", convolution},
      {"aten::max_pool2d_with_indices", max_pool2d},
      {"aten::max_pool3d_with_indices", max_pool3d},
      {"aten::native_layer_norm", layer_norm},
      {"aten::native_group_norm", group_norm},
      {"aten::_softmax", softmax},
      {"aten::_log_softmax", log_softmax},
      {"aten::_safe_softmax", safe_softmax},
      {"aten::_to_copy", to_copy},
      {"aten::_scaled_dot_product_flash_attention_for_cpu", attention_of_cpu},
      {"aten::_scaled_dot_product_attention_math", attention_of_math},
      {"aten::native_dropout", dropout},
      {"aten::_adaptive_avg_pool2d", average_pool2d},
      {"aten::_adaptive_avg_pool3d", average_pool3d},
      {"aten::_unsafe_index", index},
      {"aten::addmm", linear},
      {"aten::mm", linear}};
  return all;
}

}  // namespace

void compose_pt2_ops(Graph& graph) {
  for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
    Node* node = *it;
    ++it;
    const auto rule = rules().find(node->kind().toQualString());
    if (rule == rules().end() || !unused_from(*node, 1)) continue;
    JitValue* result = rule->second(node);
    if (result == nullptr) continue;
    node->output(0)->replaceAllUsesWith(result);
    node->destroy();
  }
}

}  // namespace qcdq
