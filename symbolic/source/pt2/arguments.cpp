// Arguments of a program's nodes, which the file writes as unions ({"as_ints": [2, 2]}), as values
// of the graph. See source/pt2/graph.h.
#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/constants.h>

#include <limits>
#include <stdexcept>
#include <string_view>

#include "symbolic/source/pt2/graph.h"

namespace qcdq {

using nlohmann::json;
using torch::jit::Graph;
using JitValue = torch::jit::Value;
using c10::TypeKind;

namespace {

[[noreturn]] void refuse(const std::string& op, const std::string& argument, const json& value,
                         const std::string& reason) {
  std::string text = value.dump();
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  throw UnsupportedOp({.op = op, .argument = argument, .value = text, .reason = reason});
}

c10::TypePtr without_optional(const c10::TypePtr& type) {
  const auto optional = type->cast<c10::OptionalType>();
  return optional ? optional->getElementType() : type;
}

int64_t memory_format(int64_t number) {
  constexpr at::MemoryFormat formats[] = {
      at::MemoryFormat::Preserve, at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast,
      at::MemoryFormat::ChannelsLast3d, at::MemoryFormat::Preserve};
  if (number < 0 || number > 4) {
    throw std::runtime_error("memory format number " + std::to_string(number) + " is unknown");
  }
  return static_cast<int64_t>(formats[number]);
}

class ArgumentReader {
 public:
  ArgumentReader(Graph& graph, const Pt2Values& values, const c10::Argument& formal,
                 const std::string& op)
      : graph_(graph), values_(values), formal_(formal), op_(op) {}

  JitValue* operator()(const json& argument) {
    const auto [kind, content] = pt2_union(argument);
    const c10::TypePtr type = without_optional(formal_.type());
    if (kind == "as_none") return graph_.insertConstant(c10::IValue());
    if (kind == "as_optional_tensor") return (*this)(content);
    if (kind == "as_tensor") return named(pt2_member(content, "name"));
    if (kind == "as_tensors" || kind == "as_optional_tensors") return tensors(content);
    if (kind == "as_int" || kind == "as_float" || kind == "as_bool") {
      if (type->kind() == TypeKind::ListType) return repeated(argument, type);
      return number(kind, content, type);
    }
    if (kind == "as_sym_int" || kind == "as_sym_float" || kind == "as_sym_bool") {
      if (type->kind() == TypeKind::ListType) return repeated(argument, type);
      return symbolic(content, type);
    }
    if (kind == "as_ints" || kind == "as_floats" || kind == "as_bools" || kind == "as_sym_ints" ||
        kind == "as_sym_floats" || kind == "as_sym_bools") {
      return list(content, type, argument);
    }
    if (kind == "as_string") return graph_.insertConstant(content.get<std::string>());
    if (kind == "as_strings") {
      c10::List<std::string> strings;
      for (const json& one : content) strings.push_back(one.get<std::string>());
      return graph_.insertConstant(strings);
    }
    if (kind == "as_scalar_type") {
      return graph_.insertConstant(static_cast<int64_t>(pt2_scalar_type(content)));
    }
    if (kind == "as_memory_format") {
      return graph_.insertConstant(memory_format(content.get<int64_t>()));
    }
    if (kind == "as_layout") {
      if (content.get<int64_t>() != 7) refuse(op_, formal_.name(), content, "a sparse layout");
      return graph_.insertConstant(static_cast<int64_t>(at::kStrided));
    }
    // Models exported on another device run here on the CPU.
    if (kind == "as_device") return graph_.insertConstant(at::Device(at::kCPU));
    refuse(op_, formal_.name(), argument, "arguments of the kind '" + kind + "' have no form here");
  }

 private:
  JitValue* named(const json& name) { return pt2_value(values_, name.get<std::string>()); }

  JitValue* tensors(const json& elements) {
    const c10::TypePtr type = without_optional(formal_.type());
    c10::TypePtr element = c10::TensorType::get();
    if (const auto list = type->cast<c10::ListType>()) element = list->getElementType();
    std::vector<JitValue*> result;
    for (const json& one : elements) {
      if (one.contains("as_none")) {
        result.push_back(graph_.insertConstant(c10::IValue()));
      } else {
        const json& tensor = one.contains("as_tensor") ? one.at("as_tensor") : one;
        result.push_back(named(pt2_member(tensor, "name")));
      }
    }
    return graph_.insertNode(graph_.createList(element, result))->output();
  }

  JitValue* number(const std::string& kind, const json& content, const c10::TypePtr& type) {
    const bool is_bool = kind == "as_bool";
    switch (type->kind()) {
      case TypeKind::FloatType:
        return graph_.insertConstant(is_bool ? content.get<bool>() : pt2_float(content));
      case TypeKind::BoolType:
        return graph_.insertConstant(is_bool ? content.get<bool>() : pt2_float(content) != 0);
      case TypeKind::IntType:
        if (kind == "as_float") break;
        return graph_.insertConstant(is_bool ? int64_t{content.get<bool>()}
                                             : content.get<int64_t>());
      case TypeKind::TensorType:
        return wrapped(kind, content);
      default:
        if (is_bool) return graph_.insertConstant(content.get<bool>());
        if (kind == "as_int") return graph_.insertConstant(content.get<int64_t>());
        return graph_.insertConstant(pt2_float(content));
    }
    refuse(op_, formal_.name(), content, "expected " + type->repr_str());
  }

  /// A number where the op takes a tensor and has no overload for numbers: it must not decide the
  /// result's type.
  JitValue* wrapped(const std::string& kind, const json& content) {
    at::Tensor tensor = kind == "as_bool"  ? at::scalar_tensor(content.get<bool>(), at::kBool)
                        : kind == "as_int" ? at::scalar_tensor(content.get<int64_t>(), at::kLong)
                                           : at::scalar_tensor(pt2_float(content), at::kDouble);
    tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
    return graph_.insertConstant(tensor);
  }

  JitValue* symbolic(const json& content, const c10::TypePtr& type) {
    if (content.contains("as_name")) {
      JitValue* value = named(content.at("as_name"));
      if (type->kind() == TypeKind::FloatType && value->type()->kind() == TypeKind::IntType) {
        return graph_.insert(torch::jit::Symbol::fromQualString("aten::Float"), {value});
      }
      if (type->kind() == TypeKind::TensorType) {
        torch::jit::Node* node = graph_.create(torch::jit::prim::NumToTensor, {value}, 1);
        return graph_.insertNode(node)->output();
      }
      return value;
    }
    const auto [kind, number_content] = pt2_union(content);
    return number(kind, number_content, type);
  }

  /// One number for int[N] stands for N of them.
  JitValue* repeated(const json& argument, const c10::TypePtr& type) {
    const auto length = static_cast<size_t>(formal_.N().value_or(1));
    json elements = json::array();
    const auto [kind, content] = pt2_union(argument);
    for (size_t i = 0; i < length; ++i) elements.push_back(content);
    return list(elements, type, argument);
  }

  JitValue* list(const json& content, const c10::TypePtr& type, const json& whole) {
    const auto list_type = type->cast<c10::ListType>();
    if (!list_type) refuse(op_, formal_.name(), whole, "expected " + type->repr_str());
    if (content.size() == 1 && formal_.N().value_or(1) > 1) {
      json elements = json::array();
      for (int i = 0; i < *formal_.N(); ++i) elements.push_back(content[0]);
      return list(elements, type, whole);
    }
    const c10::TypePtr& element = list_type->getElementType();
    bool constant = true;
    std::vector<JitValue*> elements;
    for (const json& one : content) {
      if (one.is_object()) {
        elements.push_back(symbolic(one, element));
        constant &= !one.contains("as_name");
      } else {
        elements.push_back(number(one.is_boolean()          ? "as_bool"
                                  : one.is_number_integer() ? "as_int"
                                                            : "as_float",
                                  one, element));
      }
    }
    torch::jit::Node* made = graph_.insertNode(graph_.createList(element, elements));
    if (!constant) return made->output();
    JitValue* value = constant_list(elements, element);
    if (value == nullptr) return made->output();
    made->destroy();
    return value;
  }

  JitValue* constant_list(const std::vector<JitValue*>& elements, const c10::TypePtr& element) {
    c10::impl::GenericList list(element);
    for (const JitValue* one : elements) {
      const auto constant = torch::jit::toIValue(one);
      if (!constant) return nullptr;
      list.push_back(*constant);
    }
    return torch::jit::tryInsertConstant(graph_, c10::IValue(list)).value_or(nullptr);
  }

  Graph& graph_;
  const Pt2Values& values_;
  const c10::Argument& formal_;
  const std::string& op_;
};

}  // namespace

double pt2_float(const json& content) {
  if (content.is_number()) return content.get<double>();
  const std::string text = content.get<std::string>();
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  throw std::runtime_error("the exported program is damaged: '" + text + "' is no number");
}

JitValue* pt2_value(const Pt2Values& values, const std::string& name) {
  const auto found = values.find(name);
  if (found == values.end()) {
    throw std::runtime_error("the exported program is damaged: '" + name +
                             "' is used and made by no node");
  }
  return found->second;
}

JitValue* pt2_argument(Graph& graph, const Pt2Values& values, const json& argument,
                       const c10::Argument& formal, const std::string& op) {
  return ArgumentReader(graph, values, formal, op)(argument);
}

JitValue* pt2_number(Graph& graph, const Pt2Values& values, const json& argument,
                     const std::string& op) {
  static const c10::Argument any("operand", c10::NumberType::get());
  return ArgumentReader(graph, values, any, op)(argument);
}

}  // namespace qcdq
