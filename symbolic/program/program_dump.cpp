// See program_dump.h.
#include "symbolic/program/program_dump.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/constants.h>

#include <charconv>
#include <optional>
#include <unordered_set>
#include <utility>

#include "symbolic/graph/message_text.h"
#include "symbolic/program/node_place.h"
#include "symbolic/program/tensors.h"

namespace qcdq {
namespace {

using torch::jit::Block;
using torch::jit::Node;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

constexpr size_t kPrintedElements = 16;  // of a list

std::string double_text(double value) {
  char buffer[64];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  (void)error;  // 64 bytes hold any double
  std::string text(buffer, end);
  // 1.0, not 1: a float is told from an int.
  return text.find_first_not_of("-0123456789") == std::string::npos ? text + ".0" : text;
}

/// A list or tuple of constants that nobody writes to: as good as a constant itself.
bool is_constant_list(const Node& node) {
  if (node.kind() != prim::ListConstruct && node.kind() != prim::TupleConstruct) return false;
  for (const JitValue* input : node.inputs()) {
    const bool tensor = input->type()->kind() == c10::TypeKind::TensorType;
    if (tensor || input->node()->kind() != prim::Constant) return false;
  }
  for (const torch::jit::Use& use : node.output()->uses()) {
    const c10::FunctionSchema* schema = use.user->maybeSchema();
    if (schema == nullptr || use.offset >= schema->arguments().size()) return false;
    const c10::AliasInfo* alias = schema->arguments()[use.offset].alias_info();
    if (alias != nullptr && alias->isWrite()) return false;
  }
  return true;
}

class ProgramText {
 public:
  ProgramText(const Program& program, const TypesById& types) : program_(program), types_(types) {}

  GraphPicture picture() {
    const torch::jit::Graph& graph = *program_.graph;
    for (const JitValue* input : graph.inputs()) {
      text_ += "input " + typed(input) + "\n";
    }
    print_nodes(graph.block(), "");
    for (const JitValue* output : graph.outputs()) {
      print_constant(output, "");
      text_ += "output " + typed(output) + "\n";
    }
    return {"torch", std::move(text_), std::move(nodes_by_op_)};
  }

 private:
  void print_nodes(const Block* block, const std::string& indent) {
    for (const Node* node : block->nodes()) {
      if (node->kind() == prim::Constant || is_constant_list(*node)) continue;  // with its user
      ++nodes_by_op_[node->kind().toQualString()];
      for (const JitValue* input : node->inputs()) print_constant(input, indent);
      text_ += indent + node_text(*node) + "\n";
      int number = 0;
      for (const Block* inner : node->blocks()) {
        std::string inputs;
        for (const JitValue* input : inner->inputs()) {
          inputs += (inputs.empty() ? "(" : ", ") + typed(input);
        }
        if (!inputs.empty()) inputs += ")";
        text_ += indent + "  block " + std::to_string(number++) + inputs + ":\n";
        print_nodes(inner, indent + "    ");
        std::string outputs;
        for (const JitValue* output : inner->outputs()) {
          print_constant(output, indent + "    ");
          outputs += (outputs.empty() ? " " : ", ") + value_text(output);
        }
        text_ += indent + "    return" + outputs + "\n";
      }
    }
  }

  std::string node_text(const Node& node) {
    std::string text;
    for (const JitValue* output : node.outputs()) {
      text += (text.empty() ? "" : ", ") + typed(output);
    }
    text += (text.empty() ? "" : " = ") + std::string(node.kind().toQualString()) +
            attributes_text(node) + "(";
    const c10::FunctionSchema* schema = node.maybeSchema();
    for (size_t i = 0; i < node.inputs().size(); ++i) {
      if (i > 0) text += ", ";
      if (schema != nullptr && i < schema->arguments().size()) {
        text += schema->arguments()[i].name() + "=";
      }
      text += value_text(node.input(i));
    }
    text += ")";
    const std::string place = place_text(module_path(node), source_line(node));
    return place.empty() ? text : text + "  # " + place;
  }

  /// Those of prim ops that say what is done; others are left out.
  static std::string attributes_text(const Node& node) {
    std::string text;
    for (const torch::jit::Symbol name : node.attributeNames()) {
      std::string value = "...";
      if (node.kindOf(name) == torch::jit::AttributeKind::s) value = "'" + node.s(name) + "'";
      if (node.kindOf(name) == torch::jit::AttributeKind::i) value = std::to_string(node.i(name));
      text += (text.empty() ? "[" : ", ") + std::string(name.toUnqualString()) + "=" + value;
    }
    return text.empty() ? text : text + "]";
  }

  std::string typed(const JitValue* value) const {
    const auto known = types_.find(value->unique());
    if (known != types_.end() && known->second.dtype != DType::kUndefined) {
      return value_text(value) + ": " + type_text(known->second);
    }
    // A static type of a trace has the sizes of the trace, which may be wrong by now.
    const bool tensor = value->type()->kind() == c10::TypeKind::TensorType;
    return value_text(value) + ": " + (tensor ? "Tensor" : value->type()->repr_str());
  }

  std::string value_text(const JitValue* value) const {
    if (value->node()->kind() == prim::Constant) {
      const auto constant = torch::jit::toIValue(value);
      if (constant && constant->isTensor()) return tensor_name(constant->toTensor(), value);
      if (constant) return constant_text(*constant);
    }
    if (is_constant_list(*value->node())) {
      std::vector<c10::IValue> elements;
      for (const JitValue* input : value->node()->inputs()) {
        elements.push_back(*torch::jit::toIValue(input));
      }
      const bool tuple = value->node()->kind() == prim::TupleConstruct;
      return list_text(elements, tuple ? "(" : "[", tuple ? ")" : "]");
    }
    return "%" + value->debugName();
  }

  std::string tensor_name(const at::Tensor& tensor, const JitValue* value) const {
    const std::string* path = path_of(tensor);
    return "%" + (path != nullptr ? *path : value->debugName());
  }

  /// Where in the module the tensor lies; nullptr where it is none of its own.
  const std::string* path_of(const at::Tensor& tensor) const {
    if (!tensor.defined() || !tensor.has_storage()) return nullptr;
    const auto path = program_.parameter_paths.find(tensor.const_data_ptr());
    return path == program_.parameter_paths.end() ? nullptr : &path->second;
  }

  std::string constant_text(const c10::IValue& value) const {
    if (value.isNone()) return "None";
    if (value.isBool()) return value.toBool() ? "True" : "False";
    if (value.isInt()) return std::to_string(value.toInt());
    if (value.isDouble()) return double_text(value.toDouble());
    if (value.isString()) return "'" + value.toStringRef() + "'";
    if (value.isDevice()) return "'" + value.toDevice().str() + "'";
    if (value.isTensor()) {
      const std::string* path = path_of(value.toTensor());
      return path != nullptr ? "%" + *path : "<tensor>";
    }
    if (value.isList()) return list_text(value.toListRef().vec(), "[", "]");
    if (value.isTuple()) return list_text(value.toTupleRef().elements().vec(), "(", ")");
    return "<" + value.tagKind() + ">";
  }

  std::string list_text(const std::vector<c10::IValue>& values, const char* open,
                        const char* close) const {
    std::string text = open;
    for (size_t i = 0; i < values.size() && i < kPrintedElements; ++i) {
      text += (i > 0 ? ", " : "") + constant_text(values[i]);
    }
    if (values.size() > kPrintedElements) {
      text += ", ... " + std::to_string(values.size()) + " in all";
    }
    return text + close;
  }

  /// The line of a constant tensor, before its first user.
  void print_constant(const JitValue* value, const std::string& indent) {
    if (value->node()->kind() != prim::Constant) return;
    const auto constant = torch::jit::toIValue(value);
    if (!constant || !constant->isTensor() || !constant->toTensor().defined()) return;
    const at::Tensor& tensor = constant->toTensor();
    const std::string name = tensor_name(tensor, value);
    if (!printed_.insert(name).second) return;
    text_ += indent + tensor_text(tensor, name) + "\n";
  }

  std::string tensor_text(const at::Tensor& tensor, const std::string& name) const {
    const DType dtype = dtype_of(tensor.scalar_type());
    if (dtype == DType::kUndefined) {
      return name + ": " + c10::toString(tensor.scalar_type()) + " of " +
             std::to_string(tensor.dim()) + " dimensions";
    }
    if (path_of(tensor) != nullptr) {
      return name + ": " + type_text({dtype, true, tensor.sizes().vec(), {}});
    }
    return initializer_text(name.substr(1), tensor_data(tensor));
  }

  const Program& program_;
  const TypesById& types_;
  std::string text_;
  std::map<std::string, int64_t> nodes_by_op_;
  std::unordered_set<std::string> printed_;
};

}  // namespace

GraphPicture picture_of(const Program& program, const TypesById& types) {
  return ProgramText(program, types).picture();
}

void ProgramDump::keep_types() {
  types_.clear();
  for (const auto& [value, type] : program_.types) types_.emplace(value->unique(), type);
}

}  // namespace qcdq
