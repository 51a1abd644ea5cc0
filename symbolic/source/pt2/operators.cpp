// Targets of nodes to torch's registered operators; see source/pt2/operators.h.
#include "symbolic/source/pt2/operators.h"

#include <set>
#include <stdexcept>
#include <utility>

#include "symbolic/source/pt2/archive.h"
#include "symbolic/source/quantized_decomposed.h"

namespace qcdq {

using nlohmann::json;
using Operator = std::shared_ptr<torch::jit::Operator>;

namespace {

Operator named_operator(const Pt2Op& op) {
  const c10::Symbol symbol = c10::Symbol::fromQualString(op.name);
  auto all = torch::jit::getAllOperatorsFor(symbol);
  if (all.empty() && op.name.starts_with("quantized_decomposed::") &&
      register_quantized_decomposed()) {
    all = torch::jit::getAllOperatorsFor(symbol);
  }
  for (const Operator& one : all) {
    if (one->schema().overload_name() == op.overload) return one;
  }
  if (!all.empty()) {
    throw std::runtime_error(op.name + " has no overload '" + op.overload + "' in this torch");
  }
  throw std::runtime_error(op.name + " is not registered: load " +
                           (op.name.starts_with("qcdq::")
                                ? std::string("libqcdq_ops.so first")
                                : "the library that defines it first (qcdq export --plugin "
                                  "LIB.so)"));
}

bool is_number(const json& argument) {
  const std::string& kind = pt2_union(argument).first;
  return kind == "as_int" || kind == "as_float" || kind == "as_bool" || kind == "as_sym_int" ||
         kind == "as_sym_float";
}

/// x + 3 is add.Tensor with a number; TorchScript has add.Scalar for it.
Operator for_numbers(const Operator& found, const json& inputs, const std::string& name) {
  const auto& formals = found->schema().arguments();
  std::set<std::string> numbers;
  for (const c10::Argument& formal : formals) {
    const json* argument = pt2_given(inputs, formal.name());
    if (argument != nullptr && is_number(*argument) &&
        formal.type()->kind() == c10::TypeKind::TensorType) {
      numbers.insert(formal.name());
    }
  }
  if (numbers.empty()) return found;
  for (const Operator& other : torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(name))) {
    const auto& candidates = other->schema().arguments();
    bool same = candidates.size() == formals.size() &&
                other->schema().returns().size() == found->schema().returns().size();
    for (size_t i = 0; same && i < formals.size(); ++i) {
      const c10::TypePtr wanted = numbers.count(formals[i].name()) != 0
                                      ? c10::TypePtr(c10::NumberType::get())
                                      : formals[i].type();
      same = candidates[i].name() == formals[i].name() && *candidates[i].type() == *wanted;
    }
    if (same) return other;
  }
  return found;
}

}  // namespace

Pt2Op Pt2Op::of_target(const std::string& target) {
  const std::string path = target.substr(std::string("torch.ops.").size());
  const size_t first = path.find('.');
  const size_t last = path.rfind('.');
  if (first == std::string::npos || last == first) {
    throw std::runtime_error("the exported program is damaged: '" + target + "' names no op");
  }
  std::string name = path.substr(0, first) + "::" + path.substr(first + 1, last - first - 1);
  std::string overload = path.substr(last + 1);
  if (overload == "default") overload.clear();
  // Sizes as symbols are plain sizes here: aten::size.int.
  if (name.starts_with("aten::sym_")) name.erase(6, 4);
  // A fresh copy of a constant, which may be written to.
  if (name == "aten::lift_fresh_copy") name = "aten::clone";
  return {std::move(name), std::move(overload)};
}

bool Pt2Op::computes_nothing() const {
  return name.starts_with("aten::_assert_") || name.starts_with("aten::constrain_range") ||
         name.starts_with("aten::sym_constrain_range");
}

const json* pt2_given(const json& inputs, const std::string& name) {
  for (const json& input : inputs) {
    if (input.value("name", "") == name) return &pt2_member(input, "arg");
  }
  return nullptr;
}

Operator pt2_operator(const Pt2Op& op, const json& inputs) {
  return for_numbers(named_operator(op), inputs, op.name);
}

}  // namespace qcdq
