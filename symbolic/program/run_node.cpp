// Interpretation of single graph nodes, and their names and places for messages.
// See run_node.h; interpreter.cpp has the loop over a whole graph.
#include "symbolic/program/run_node.h"

#include <ATen/core/ivalue.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/scope.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <stdexcept>
#include <utility>

#include "qcdq/symbolic.h"
#include "symbolic/graph/message_text.h"
#include "symbolic/program/node_place.h"
#include "symbolic/symbolics/registry.h"

namespace qcdq {

using torch::jit::Node;
using torch::jit::Stack;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

namespace {

c10::IValue make_list(const Node& node, const Stack& elements) {
  c10::impl::GenericList list(node.output()->type()->expectRef<c10::ListType>().getElementType());
  list.reserve(elements.size());
  for (const c10::IValue& element : elements) list.push_back(element);
  return list;
}

c10::IValue make_dict(const Node& node, const Stack& elements) {
  const auto& type = node.output()->type()->expectRef<c10::DictType>();
  c10::impl::GenericDict dict(type.getKeyType(), type.getValueType());
  for (size_t i = 0; i + 1 < elements.size(); i += 2) {
    dict.insert_or_assign(elements[i], elements[i + 1]);
  }
  return dict;
}

bool is_instance(const Node& node, const c10::IValue& value) {
  for (const c10::TypePtr& type : node.tys(torch::jit::attr::types)) {
    if (value.type()->isSubtypeOf(*type)) return true;
  }
  return false;
}

}  // namespace

Stack run_node(Node& node, Stack stack) {
  switch (node.kind()) {
    case prim::Constant:
      return {*torch::jit::toIValue(node.output())};
    case prim::Uninitialized:
      return {c10::IValue()};
    case prim::ListConstruct:
      return {make_list(node, stack)};
    case prim::TupleConstruct:
      return {c10::ivalue::Tuple::create(std::move(stack))};
    case prim::DictConstruct:
      return {make_dict(node, stack)};
    case prim::unchecked_cast:
    case prim::unchecked_unwrap_optional:
      return stack;
    case prim::isinstance:
      return {is_instance(node, stack.at(0))};
    case prim::ListUnpack: {
      const c10::List<c10::IValue> list = stack.at(0).toList();
      if (list.size() != node.outputs().size()) {
        throw std::runtime_error("expected a list of " + std::to_string(node.outputs().size()) +
                                 " elements, got " + std::to_string(list.size()));
      }
      Stack outputs;
      for (size_t i = 0; i < list.size(); ++i) outputs.push_back(list.get(i));
      return outputs;
    }
    case prim::TupleUnpack: {
      const auto tuple = stack.at(0).toTuple();
      return Stack(tuple->elements().begin(), tuple->elements().end());
    }
    case prim::TupleIndex: {
      const auto tuple = stack.at(0).toTuple();
      int64_t index = stack.at(1).toInt();
      if (index < 0) index += static_cast<int64_t>(tuple->size());
      return {tuple->elements().at(index)};
    }
    case prim::RaiseException:
      throw std::runtime_error("the model raises: " + (stack.empty() || !stack[0].isString()
                                                           ? std::string("an exception")
                                                           : stack[0].toStringRef()));
    default:
      break;
  }
  const torch::jit::Operator* op = node.maybeOperator();
  if (op == nullptr) throw std::runtime_error(op_name(node) + " has no registered operator");
  if (op->schema().is_vararg()) stack.emplace_back(static_cast<int64_t>(node.inputs().size()));
  op->getOperation (&node)(stack);
  return stack;
}

std::optional<c10::IValue> constant_value(const JitValue* value) {
  if (auto constant = torch::jit::toIValue(value)) return constant;
  const Node* node = value->node();
  if (node->kind() != prim::ListConstruct && node->kind() != prim::TupleConstruct) return {};
  Stack elements;
  for (const JitValue* input : node->inputs()) {
    auto element = constant_value(input);
    if (!element) return {};
    elements.push_back(std::move(*element));
  }
  if (node->kind() == prim::ListConstruct) return make_list(*node, elements);
  return c10::ivalue::Tuple::create(std::move(elements));
}

std::string op_name(const Node& node) {
  std::string name = node.kind().toQualString();
  if (const c10::FunctionSchema* schema = node.maybeSchema()) {
    if (!schema->overload_name().empty()) name += "." + schema->overload_name();
  }
  return name;
}

OpTraits traits_of(const Node& node) {
  const c10::FunctionSchema* schema = node.maybeSchema();
  return op_traits(node.kind().toQualString(), schema == nullptr ? "" : schema->overload_name());
}

std::string node_location(const Node& node) {
  return place_text(module_path(node), source_line(node));
}

void refuse_node(const Node& node, std::string reason, std::string hint, std::string argument,
                 std::string value) {
  throw UnsupportedOp({.op = op_name(node),
                       .argument = std::move(argument),
                       .value = std::move(value),
                       .reason = std::move(reason),
                       .hint = std::move(hint),
                       .where = node_location(node)});
}

std::string first_line(const std::exception& error) {
  const auto* c10_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = c10_error ? c10_error->what_without_backtrace() : error.what();
  // TorchScript puts its own traceback in front and the cause last.
  if (const size_t cause = text.rfind("RuntimeError: "); cause != std::string::npos) {
    text.erase(0, cause + 14);
  }
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "unknown error";
  return text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace qcdq
