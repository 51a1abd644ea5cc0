// Arithmetic on sizes: FX writes Python's operators, TorchScript has ops on ints and floats for
// them. See source/pt2/graph.h.
#include <torch/csrc/jit/ir/ir.h>

#include "symbolic/source/pt2/graph.h"

namespace qcdq {

using torch::jit::Graph;
using torch::jit::Symbol;
using JitValue = torch::jit::Value;
using c10::TypeKind;

JitValue* pt2_size_op(Graph& graph, const std::string& target,
                      const std::vector<JitValue*>& operands) {
  static const std::unordered_map<std::string, const char*> names = {
      {"_operator.add", "aten::add"},
      {"_operator.sub", "aten::sub"},
      {"_operator.mul", "aten::mul"},
      {"_operator.floordiv", "aten::floordiv"},
      {"_operator.truediv", "aten::div"},
      {"_operator.mod", "aten::remainder"},
      {"_operator.pow", "aten::pow"},
      {"_operator.neg", "aten::neg"},
      {"_operator.eq", "aten::eq"},
      {"_operator.ne", "aten::ne"},
      {"_operator.lt", "aten::lt"},
      {"_operator.le", "aten::le"},
      {"_operator.gt", "aten::gt"},
      {"_operator.ge", "aten::ge"},
      {"_operator.and_", "aten::__and__"},
      {"_operator.or_", "aten::__or__"},
      {"_operator.lshift", "aten::__lshift__"},
      {"_operator.rshift", "aten::__rshift__"},
      {"_operator.getitem", "aten::__getitem__"},
      {"torch.sym_not", "aten::__not__"},
      {"torch.sym_max", "prim::max"},
      {"torch.sym_min", "prim::min"},
      {"torch.sym_int", "aten::Int"},
      {"torch.sym_float", "aten::Float"},
      {"torch.sym_sqrt", "aten::sqrt"},
      {"torch._sym_sqrt", "aten::sqrt"},
      {"math.trunc", "aten::Int"}};
  if (target == "_operator.pos" && operands.size() == 1) return operands[0];
  const auto found = names.find(target);
  if (found == names.end()) return nullptr;
  const std::vector<torch::jit::NamedValue> arguments(operands.begin(), operands.end());
  const auto is_int = [](const JitValue* value) {
    return value->type()->kind() == TypeKind::IntType;
  };
  // Already what is asked for: TorchScript has no Int of an int.
  if (operands.size() == 1 && std::string_view(found->second) == "aten::Int" &&
      is_int(operands[0])) {
    return operands[0];
  }
  JitValue* result = graph.insert(Symbol::fromQualString(found->second), arguments);
  // TorchScript's power of ints is a float, Python's an int.
  if (target == "_operator.pow" && is_int(operands.at(0)) && is_int(operands.at(1)) &&
      !is_int(result)) {
    result = graph.insert(Symbol::fromQualString("aten::Int"), {result});
  }
  return result;
}

}  // namespace qcdq
