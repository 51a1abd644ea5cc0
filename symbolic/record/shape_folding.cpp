// Folding by recorded shapes, and the taint analysis that tells a condition on shapes from one on
// data. See shape_folding.h.
#include "symbolic/record/shape_folding.h"

#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "symbolic/lower/aliases.h"
#include "symbolic/program/run_node.h"
#include "symbolic/program/tensors.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using JitValue = torch::jit::Value;
using torch::jit::WithInsertPoint;
namespace prim = torch::jit::prim;

namespace {

using Types = std::unordered_map<const JitValue*, TensorType>;

bool is_query(const Node& node) { return has_traits(traits_of(node), OpTraits::kQuery); }

/// Marks values that depend on the data of an input, and tensors whose shape does.
class Taint {
 public:
  Taint(Graph& graph, const Types& types) : types_(types) {
    for (const JitValue* input : graph.inputs()) data_.insert(input);
    // A write marks the memory that it goes to, and with that what was read before it in the order
    // of the graph: until no walk marks more.
    for (size_t marked = 0; marked != data_.size() + shape_.size();) {
      marked = data_.size() + shape_.size();
      walk(graph.block());
      if (!writes_) break;
    }
  }
  bool on_data(const JitValue* value) const { return data_.count(value) != 0; }
  const std::unordered_set<const JitValue*>& shaped_by_data() const { return shape_; }

 private:
  bool any(const Node& node, const std::unordered_set<const JitValue*>& marked) const {
    return std::any_of(node.inputs().begin(), node.inputs().end(),
                       [&](const JitValue* input) { return marked.count(input) != 0; });
  }

  void mark(const JitValue* value, bool data, bool shape) {
    if (data) data_.insert(value);
    if (shape) shape_.insert(value);
  }

  void carry(const JitValue* from, const JitValue* to) {
    mark(to, data_.count(from) != 0, shape_.count(from) != 0);
  }

  void walk(Block* block) {
    for (Node* node : block->nodes()) visit(node);
  }

  void visit(Node* node) {
    if (node->kind() == prim::If) {
      const bool condition = on_data(node->input(0));
      for (Block* branch : node->blocks()) {
        walk(branch);
        for (size_t i = 0; i < node->outputs().size(); ++i) {
          carry(branch->outputs()[i], node->output(i));
          mark(node->output(i), condition, condition);
        }
      }
      return;
    }
    if (node->kind() == prim::Loop) {
      visit_loop(node);
      return;
    }
    if (is_query(*node)) {
      const bool shape = shape_.count(node->input(0)) != 0;
      const bool argument =
          std::any_of(node->inputs().begin() + 1, node->inputs().end(),
                      [&](const JitValue* input) { return !is_tensor(input) && on_data(input); });
      for (const JitValue* output : node->outputs()) mark(output, shape || argument, shape);
      return;
    }
    const bool data = any(*node, data_);
    const bool shape =
        any(*node, shape_) || (data && (has_size_argument_on_data(*node) ||
                                        has_traits(traits_of(*node), OpTraits::kShapeFromData) ||
                                        is_masked_by_data(*node)));
    for (const JitValue* output : node->outputs()) mark(output, data, shape);
    for (size_t place : written_inputs(*node)) {
      writes_ = true;
      std::unordered_set<const JitValue*> seen;
      mark_memory(node->input(place), data, shape, seen);
    }
  }

  /// Marks a value that is written to, and all that it may be a part of.
  void mark_memory(const JitValue* value, bool data, bool shape,
                   std::unordered_set<const JitValue*>& seen) {
    if (!may_hold_tensors(value->type()) || !seen.insert(value).second) return;
    mark(value, data, shape);
    const Node* maker = value->node();
    const Node* owner = maker->owningBlock()->owningNode();
    const size_t place = value->offset();
    if (maker->kind() == prim::If) {
      for (const Block* branch : maker->blocks()) {
        mark_memory(branch->outputs()[place], data, shape, seen);
      }
    } else if (maker->kind() == prim::Loop) {
      mark_memory(maker->input(place + 2), data, shape, seen);
      mark_memory(maker->blocks()[0]->outputs()[place + 1], data, shape, seen);
    } else if (maker->kind() == prim::Param && owner != nullptr && place > 0) {
      mark_memory(owner->input(place + 1), data, shape, seen);
      mark_memory(maker->owningBlock()->outputs()[place], data, shape, seen);
    } else if (maker->kind() != prim::Param && may_share(*maker, place)) {
      for (const JitValue* input : maker->inputs()) mark_memory(input, data, shape, seen);
    }
  }

  /// An int or int[] from data, where the op asks for one: a size, an index, a count. A Scalar is
  /// an operand.
  bool has_size_argument_on_data(const Node& node) const {
    const c10::FunctionSchema* schema = node.maybeSchema();
    for (size_t i = 0; i < node.inputs().size(); ++i) {
      const JitValue* input = node.inputs()[i];
      if (is_tensor(input) || !on_data(input) ||
          input->type()->isSubtypeOf(*c10::ListType::ofTensors()) ||
          input->type()->isSubtypeOf(*c10::ListType::ofOptionalTensors())) {
        continue;
      }
      const bool operand = schema != nullptr && i < schema->arguments().size() &&
                           schema->arguments()[i].type()->kind() == c10::TypeKind::NumberType;
      if (!operand) return true;
    }
    return false;
  }

  /// x[mask] with a mask that depends on data.
  bool is_masked_by_data(const Node& node) const {
    if (node.kind() != torch::jit::aten::index || node.inputs().size() != 2) return false;
    for (const JitValue* index : node.input(1)->node()->inputs()) {
      if (!on_data(index)) continue;
      const auto type = types_.find(index);
      if (type == types_.end() || type->second.dtype == DType::kBool ||
          type->second.dtype == DType::kUInt8) {
        return true;
      }
    }
    return false;
  }

  void visit_loop(Node* node) {
    Block* body = node->blocks()[0];
    // Twice: what the first pass marks at the body's end comes in again at its start.
    for (int pass = 0; pass < 2; ++pass) {
      const bool count =
          on_data(node->input(0)) || on_data(node->input(1)) || on_data(body->outputs()[0]);
      mark(body->inputs()[0], count, count);
      for (size_t i = 0; i < node->outputs().size(); ++i) {
        carry(node->input(i + 2), body->inputs()[i + 1]);
        carry(body->outputs()[i + 1], body->inputs()[i + 1]);
      }
      walk(body);
      for (size_t i = 0; i < node->outputs().size(); ++i) {
        carry(body->inputs()[i + 1], node->output(i));
        carry(body->outputs()[i + 1], node->output(i));
        mark(node->output(i), count, count);
      }
    }
  }

  const Types& types_;
  std::unordered_set<const JitValue*> data_;
  std::unordered_set<const JitValue*> shape_;
  bool writes_ = false;
};

/// The constant (or list) that answers a query on a tensor of this type, or nullptr.
JitValue* answer(Graph& graph, Node* node, const TensorType& type) {
  const std::string_view kind = node->kind().toQualString();
  if (kind == "aten::dim" && type.ranked) return graph.insertConstant(type.rank());
  if (kind == "prim::device") return graph.insertConstant(c10::Device(c10::kCPU));
  const auto scalar_type = scalar_type_of(type.dtype);
  if (kind == "prim::is_cpu") return graph.insertConstant(true);
  if ((kind.starts_with("prim::is_") && scalar_type) || kind == "prim::requires_grad") {
    return graph.insertConstant(false);  // dense, unquantised, on the CPU
  }
  if (kind == "prim::dtype" && scalar_type) {
    return graph.insertConstant(static_cast<int64_t>(*scalar_type));
  }
  if (kind == "aten::is_floating_point" && scalar_type) {
    return graph.insertConstant(c10::isFloatingType(*scalar_type));
  }
  if (kind == "aten::is_complex" && scalar_type) {
    return graph.insertConstant(c10::isComplexType(*scalar_type));
  }
  if (!type.ranked) return nullptr;
  if (kind == "aten::numel" && type.is_static()) {
    int64_t count = 1;
    for (int64_t dim : type.dims) count *= dim;
    return graph.insertConstant(count);
  }
  if (kind == "aten::len" && !type.dims.empty() && type.dims[0] >= 0) {
    return graph.insertConstant(type.dims[0]);
  }
  if (kind == "aten::_shape_as_tensor" && type.is_static()) {
    return graph.insertConstant(at::tensor(type.dims, at::kLong));
  }
  if (kind != "aten::size") return nullptr;
  if (node->inputs().size() == 2) {
    const auto index = torch::jit::toIValue(node->input(1));
    if (!index || !index->isInt()) return nullptr;
    const int64_t dim = index->toInt() < 0 ? index->toInt() + type.rank() : index->toInt();
    if (dim < 0 || dim >= type.rank() || type.dims[static_cast<size_t>(dim)] < 0) return nullptr;
    return graph.insertConstant(type.dims[static_cast<size_t>(dim)]);
  }
  // All sizes as a list: one element each, so that x.size()[1] folds even where x.size()[0] is
  // dynamic.
  std::vector<JitValue*> sizes;
  for (size_t i = 0; i < type.dims.size(); ++i) {
    if (type.dims[i] >= 0) {
      sizes.push_back(graph.insertConstant(type.dims[i]));
      continue;
    }
    JitValue* index = graph.insertConstant(static_cast<int64_t>(i));
    Node* size = graph.create(torch::jit::aten::size, {node->input(0), index}, 1);
    size->copyMetadata(node);
    size->output()->setType(c10::IntType::get());
    sizes.push_back(graph.insertNode(size)->output());
  }
  return graph.insertNode(graph.createList(c10::IntType::get(), sizes))->output();
}

/// type_as of a tensor that has that type already: lower() casts what in-place ops made.
bool is_same_type_cast(const Node& node, const Types& types) {
  static const torch::jit::Symbol type_as = torch::jit::Symbol::fromQualString("aten::type_as");
  if (node.kind() != type_as) return false;
  const auto from = types.find(node.input(0));
  const auto to = types.find(node.input(1));
  return from != types.end() && to != types.end() && from->second.dtype == to->second.dtype &&
         to->second.dtype != DType::kUndefined;
}

bool fold_block(Graph& graph, Block* block, const Types& types) {
  bool changed = false;
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    Node* node = *it;
    ++it;
    for (Block* inner : node->blocks()) changed |= fold_block(graph, inner, types);
    if (is_same_type_cast(*node, types)) {
      node->output()->replaceAllUsesWith(node->input(0));
      node->destroy();
      changed = true;
      continue;
    }
    if (!is_query(*node) || node->outputs().size() != 1) continue;
    const auto type = types.find(node->input(0));
    if (type == types.end()) continue;
    WithInsertPoint guard(node);
    JitValue* value = answer(graph, node, type->second);
    if (value == nullptr) continue;
    node->output()->replaceAllUsesWith(value);
    node->destroy();
    changed = true;
  }
  return changed;
}

/// What all runs agree on for an If or Loop; -1 where they differ or one did not reach it.
int64_t agreed(const Node* node, const std::vector<Run>& runs) {
  int64_t result = -1;
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto seen = runs[i].control.find(node);
    if (seen == runs[i].control.end() || (i > 0 && seen->second != result)) return -1;
    result = seen->second;
  }
  return result;
}

class ControlFixer {
 public:
  ControlFixer(Graph& graph, const std::vector<Run>& runs, const Types& types)
      : graph_(graph), runs_(runs), taint_(graph, types) {}

  int run(Block* block) {
    int fixed = 0;
    for (Node* node : block->nodes()) {
      if (node->kind() == prim::If) {
        fixed += fix_if(node) ? 1 : 0;
      } else if (node->kind() == prim::Loop) {
        fixed += fix_loop(node) ? 1 : 0;
      }
      for (Block* inner : node->blocks()) fixed += run(inner);
    }
    return fixed;
  }

 private:
  bool fix_if(Node* node) {
    const int64_t taken = agreed(node, runs_);
    if ((taken != 1 && taken != 2) || torch::jit::toIValue(node->input(0)) ||
        taint_.on_data(node->input(0))) {
      return false;
    }
    WithInsertPoint guard(node);
    node->replaceInput(0, graph_.insertConstant(taken == 1));
    return true;
  }

  bool fix_loop(Node* node) {
    const int64_t trips = agreed(node, runs_);
    Block* body = node->blocks()[0];
    if (trips < 0 || taint_.on_data(node->input(0)) || taint_.on_data(node->input(1)) ||
        taint_.on_data(body->outputs()[0])) {
      return false;
    }
    const auto known = torch::jit::toIValue(node->input(0));
    const auto first = torch::jit::toIValue(node->input(1));
    const auto next = torch::jit::toIValue(body->outputs()[0]);
    if (known && known->toInt() == trips && first && first->toBool() && next && next->toBool()) {
      return false;
    }
    WithInsertPoint guard(node);
    JitValue* always = graph_.insertConstant(true);
    node->replaceInput(0, graph_.insertConstant(trips));
    node->replaceInput(1, always);
    body->replaceOutput(0, always);
    return true;
  }

  Graph& graph_;
  const std::vector<Run>& runs_;
  const Taint taint_;
};

bool drop_strided_identities(Block* block, const std::vector<Run>& runs) {
  bool changed = false;
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    Node* node = *it;
    ++it;
    for (Block* inner : node->blocks()) changed |= drop_strided_identities(inner, runs);
    if (node->kind() != torch::jit::aten::as_strided) continue;
    const bool identity = std::all_of(runs.begin(), runs.end(), [&](const Run& run) {
      const auto seen = run.strided_identity.find(node);
      return seen != run.strided_identity.end() && seen->second;
    });
    if (!identity) continue;
    node->output()->replaceAllUsesWith(node->input(0));
    node->destroy();
    changed = true;
  }
  return changed;
}

}  // namespace

bool fold_shape_queries(Graph& graph, const Types& types) {
  return fold_block(graph, graph.block(), types);
}

int fix_control_flow(Graph& graph, const std::vector<Run>& runs, const Types& types) {
  return ControlFixer(graph, runs, types).run(graph.block());
}

bool drop_strided_identities(Graph& graph, const std::vector<Run>& runs) {
  return drop_strided_identities(graph.block(), runs);
}

std::vector<const JitValue*> shaped_by_data(Graph& graph, const Types& types) {
  const Taint taint(graph, types);
  std::vector<const JitValue*> tensors;
  for (const JitValue* value : taint.shaped_by_data()) {
    if (is_tensor(value)) tensors.push_back(value);
  }
  return tensors;
}

}  // namespace qcdq
