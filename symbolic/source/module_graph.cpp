// Binding a module to its graph; see module_graph.h. freeze_module is not used: it clones the
// module (a second copy of the weights) and folds fake_quantize(weight).
#include "symbolic/source/module_graph.h"

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <stdexcept>

#include "symbolic/lower/passes.h"
#include "symbolic/program/run_node.h"
#include "symbolic/program/values.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using JitValue = torch::jit::Value;
using torch::jit::WithInsertPoint;
namespace prim = torch::jit::prim;

namespace {

/// Reads of attributes along GetAttr chains that start at self.
class AttributeReader {
 public:
  AttributeReader(Graph& graph, const torch::jit::Module& module)
      : graph_(graph), first_(*graph.nodes().begin()) {
    objects_[graph.inputs()[0]] = {module._ivalue(), ""};
  }

  void run() {
    find_writes(graph_.block());
    read(graph_.block());
  }
  const std::set<std::string>& written() const { return written_; }

 private:
  struct Object {
    c10::IValue value;
    std::string path;  // "layer1.0."
  };

  void find_writes(Block* block) {
    for (Node* node : block->nodes()) {
      for (Block* inner : node->blocks()) find_writes(inner);
      if (node->kind() == prim::SetAttr) written_.insert(node->s(torch::jit::attr::name));
    }
  }

  void read(Block* block) {
    for (auto it = block->nodes().begin(); it != block->nodes().end();) {
      Node* node = *it;
      ++it;
      for (Block* inner : node->blocks()) read(inner);
      if (node->kind() == prim::GetAttr) read_attribute(node);
    }
  }

  void read_attribute(Node* node) {
    const auto object = objects_.find(node->input());
    if (object == objects_.end()) return;
    const std::string& name = node->s(torch::jit::attr::name);
    const std::string path = object->second.path + name;
    c10::IValue value = object->second.value.toObject()->getAttr(name);
    if (value.isObject() && !value.isCustomClass()) {
      objects_[node->output()] = {std::move(value), path + "."};
      return;
    }
    if (name == "training" && value.isBool()) {
      value = false;  // export is of the eval mode, whatever mode the module is in
    } else if (written_.count(name) != 0) {
      return;
    }
    // One constant per tensor, in front of all nodes, however often it is read.
    const void* tensor = value.isTensor() ? value.toTensor().unsafeGetTensorImpl() : nullptr;
    JitValue*& constant = tensor != nullptr ? constants_[tensor] : unshared_;
    if (tensor == nullptr || constant == nullptr) {
      WithInsertPoint guard(first_);
      constant = insert(value);
      if (constant == nullptr) return;
      constant->node()->copyMetadata(node);
    }
    node->output()->replaceAllUsesWith(constant);
    if (node == first_) first_ = node->next();
    node->destroy();
  }

  JitValue* insert(const c10::IValue& value) {
    if (value.isTensor()) {
      // detach() shares the storage; a constant must not require a gradient.
      const auto constant = torch::jit::tryInsertConstant(graph_, value.toTensor().detach());
      return constant ? *constant : nullptr;
    }
    if (value.isTensorList()) {
      std::vector<JitValue*> elements;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        elements.push_back(graph_.insertConstant(tensor.detach()));
      }
      return graph_.insertNode(graph_.createList(c10::TensorType::get(), elements))->output();
    }
    if (value.isCustomClass()) {  // packed weights, which lower/quantized_tensors.cpp unpacks
      Node* node = graph_.insertNode(graph_.create(prim::Constant));
      node->ival_(torch::jit::attr::value, value);
      node->output()->setType(value.type());
      return node->output();
    }
    const auto constant = torch::jit::tryInsertConstant(graph_, value);
    return constant ? *constant : nullptr;
  }

  Graph& graph_;
  Node* first_;
  JitValue* unshared_ = nullptr;
  std::unordered_map<const void*, JitValue*> constants_;  // by TensorImpl
  std::unordered_map<JitValue*, Object> objects_;
  std::set<std::string> written_;
};

[[noreturn]] void refuse_attribute(const Node& node, const std::string& reason) {
  refuse_node(node, reason, "make the state an input and an output of the model");
}

void refuse_writes(Block* block) {
  for (Node* node : block->nodes()) {
    for (Block* inner : node->blocks()) refuse_writes(inner);
    if (node->kind() != prim::SetAttr) continue;
    refuse_attribute(*node, "the model changes its own attribute '" +
                                node->s(torch::jit::attr::name) + "' as it runs");
  }
}

void refuse_reads(Block* block) {
  for (Node* node : block->nodes()) {
    for (Block* inner : node->blocks()) refuse_reads(inner);
    if (node->kind() != prim::GetAttr) continue;
    const c10::TypePtr& type = node->output()->type();
    if (type->kind() == c10::TypeKind::ClassType && type->expectRef<c10::ClassType>().is_module()) {
      continue;  // a step on the way to an attribute that is named itself
    }
    refuse_attribute(*node, "attribute '" + node->s(torch::jit::attr::name) + "' is a " +
                                type->repr_str() + ", which can't become a constant");
  }
}

void refuse_calls(Block* block) {
  for (Node* node : block->nodes()) {
    for (Block* inner : node->blocks()) refuse_calls(inner);
    const bool call = node->kind() == prim::CallMethod || node->kind() == prim::CallFunction;
    if (!call && node->kind() != prim::fork && node->kind() != prim::ModuleContainerIndex) continue;
    refuse_node(*node, "the call can't be inlined: what it calls is known only at run time",
                "call the module directly, not through an interface or fork",
                node->hasAttribute(torch::jit::attr::name) ? "name" : "",
                node->hasAttribute(torch::jit::attr::name) ? node->s(torch::jit::attr::name) : "");
  }
}

std::string known_names(const std::vector<ProgramInput>& inputs) {
  std::string names;
  for (const ProgramInput& input : inputs) names += (names.empty() ? "" : ", ") + input.name;
  return names;
}

}  // namespace

void bind_module(const std::shared_ptr<Graph>& graph, const torch::jit::Module& module) {
  torch::jit::Inline(*graph);
  refuse_calls(graph->block());
  // Attributes that only the training branch writes (BatchNorm's counter) can be read once that
  // branch is gone, hence the second round.
  std::unordered_map<const void*, std::string> no_paths;
  for (size_t written = SIZE_MAX; written != 0;) {
    AttributeReader reader(*graph, module);
    reader.run();
    torch::jit::EliminateDeadCode(graph);
    if (reader.written().size() >= written) break;
    written = reader.written().size();
    if (written != 0) {
      fold_constants(graph, no_paths);
      torch::jit::EliminateDeadCode(graph);
    }
  }
  refuse_writes(graph->block());
  if (graph->inputs()[0]->hasUses()) refuse_reads(graph->block());
  if (graph->inputs()[0]->hasUses()) {
    throw std::runtime_error("the model uses itself as a value (" +
                             op_name(*graph->inputs()[0]->uses()[0].user) +
                             "), which can't be exported");
  }
  graph->eraseInput(0);
}

std::unordered_map<const void*, std::string> parameter_paths(const torch::jit::Module& module) {
  std::unordered_map<const void*, std::string> paths;
  const auto add = [&](const std::string& path, const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.numel() == 0) return;
    paths.emplace(tensor.const_data_ptr(), path);
  };
  for (const auto& attribute : module.named_attributes(/*recurse=*/true)) {
    if (attribute.value.isTensor()) {
      add(attribute.name, attribute.value.toTensor());
    } else if (attribute.value.isTensorList()) {
      const auto tensors = attribute.value.toTensorVector();
      for (size_t i = 0; i < tensors.size(); ++i) {
        add(attribute.name + "." + std::to_string(i), tensors[i]);
      }
    }
  }
  return paths;
}

void apply_dynamic_axes(std::vector<ProgramInput>& inputs,
                        const std::vector<DynamicAxis>& dynamic_axes) {
  std::map<std::string, std::pair<int64_t, int64_t>> sizes;  // symbol -> first and second size
  for (const DynamicAxis& dynamic : dynamic_axes) {
    const std::string name = "dynamic axis " + dynamic.input + ":" + std::to_string(dynamic.axis);
    const auto input = std::find_if(inputs.begin(), inputs.end(), [&](const ProgramInput& one) {
      return one.name == dynamic.input;
    });
    if (input == inputs.end()) {
      throw std::runtime_error(name + ": the model has no input '" + dynamic.input + "' (it has " +
                               known_names(inputs) + ")");
    }
    const at::Tensor& example = input->examples[0].toTensor();
    const int64_t axis = dynamic.axis < 0 ? dynamic.axis + example.dim() : dynamic.axis;
    if (axis < 0 || axis >= example.dim()) {
      throw std::runtime_error(name + ": axis out of range, the example has " +
                               std::to_string(example.dim()) + " dimensions");
    }
    if (dynamic.symbol.empty()) throw std::runtime_error(name + ": its symbol is empty");
    const int64_t size = example.size(axis);
    if (size == 0)
      throw std::runtime_error(name + ": the example's size is 0, expected at least 1");
    // A difference of its own for each symbol keeps equal sizes apart.
    const int64_t step = static_cast<int64_t>(sizes.size()) + 1;
    const auto [entry, added] = sizes.emplace(dynamic.symbol, std::pair(size, size + step));
    if (!added && entry->second.first != size) {
      throw std::runtime_error(name + ": symbol '" + dynamic.symbol + "' has size " +
                               std::to_string(entry->second.first) + " elsewhere, and " +
                               std::to_string(size) + " here");
    }
    if (input->symbols.empty()) input->symbols.resize(static_cast<size_t>(example.dim()));
    if (!input->symbols[static_cast<size_t>(axis)].empty()) {
      throw std::runtime_error(name + ": given twice");
    }
    input->symbols[static_cast<size_t>(axis)] = dynamic.symbol;
  }
  if (sizes.empty()) return;
  for (ProgramInput& input : inputs) {
    at::Tensor second = input.examples[0].toTensor();
    for (size_t axis = 0; axis < input.symbols.size(); ++axis) {
      if (input.symbols[axis].empty()) continue;
      second = resize_by_repeating(second, static_cast<int64_t>(axis),
                                   sizes.at(input.symbols[axis]).second);
    }
    input.examples.push_back(second);
  }
}

size_t expand_input(Program& program, size_t index, const c10::IValue& value,
                    const std::string& name) {
  Graph& graph = *program.graph;
  WithInsertPoint guard(*graph.nodes().begin());
  size_t count = 0;
  const std::function<JitValue*(const c10::IValue&)> make = [&](const c10::IValue& part) {
    if (part.isTensor()) {
      JitValue* leaf = graph.insertInput(index + ++count);
      leaf->setType(c10::TensorType::get());
      program.inputs.push_back({name + "_" + std::to_string(count - 1), {part}, {}});
      return leaf;
    }
    std::vector<JitValue*> elements;
    if (part.isTuple()) {
      for (const c10::IValue& element : part.toTupleRef().elements()) {
        elements.push_back(make(element));
      }
      return graph.insertNode(graph.createTuple(elements))->output();
    }
    if (!part.isTensorList()) {
      if (!part.isNone()) {
        program.notes.push_back("a part of input '" + name + "' is no tensor: fixed to " +
                                value_text(part));
      }
      return graph.insertConstant(part);
    }
    for (const c10::IValue& element : part.toListRef()) elements.push_back(make(element));
    return graph.insertNode(graph.createList(c10::TensorType::get(), elements))->output();
  };
  JitValue* whole = make(value);
  graph.inputs()[index]->replaceAllUsesWith(whole);
  graph.eraseInput(index);
  return count;
}

void bind_input(Graph& graph, size_t index, const c10::IValue& value) {
  WithInsertPoint guard(*graph.nodes().begin());
  JitValue* input = graph.inputs()[index];
  if (input->hasUses()) input->replaceAllUsesWith(graph.insertConstant(value));
  graph.eraseInput(index);
}

}  // namespace qcdq
