// See value_table.h.
#include "symbolic/convert/value_table.h"

#include <sstream>
#include <stdexcept>

#include "symbolic/program/run_node.h"
#include "symbolic/program/tensors.h"

namespace qcdq {

namespace prim = c10::prim;

namespace {

bool same_view(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() && a.strides() == b.strides();
}

}  // namespace

std::string short_text(const torch::jit::Value* value) {
  const std::optional<c10::IValue> constant = constant_value(value);
  if (!constant) return "%" + value->debugName() + " (known only at run time)";
  if (constant->isTensor()) {
    std::ostringstream text;
    text << "a " << c10::toString(constant->toTensor().scalar_type()) << " tensor of shape "
         << constant->toTensor().sizes();
    return text.str();
  }
  std::ostringstream text;
  text << *constant;
  constexpr size_t kLongest = 60;
  std::string line = text.str();
  if (line.size() > kLongest) line = line.substr(0, kLongest - 3) + "...";
  return line;
}

Value ValueTable::initializer(const at::Tensor& tensor) {
  const void* data = tensor.defined() && tensor.has_storage() ? tensor.const_data_ptr() : nullptr;
  auto [begin, end] = initializers_.equal_range(data);
  for (auto it = begin; it != end; ++it) {
    if (same_view(it->second.first, tensor)) return it->second.second;
  }
  auto path = program_.parameter_paths.find(data);
  const std::string name = path == program_.parameter_paths.end() ? "" : path->second;
  const Value value = graph_.constant(tensor_data(tensor), name);
  // Only what the module holds is shared: two literals that happen to have one address are not one
  // parameter.
  if (!name.empty()) initializers_.emplace(data, std::pair{tensor, value});
  return value;
}

Value ValueTable::get(const torch::jit::Value* value) {
  if (auto found = values_.find(value); found != values_.end()) return found->second;
  if (const std::optional<c10::IValue> constant = constant_value(value)) {
    Value made;
    if (constant->isTensor()) {
      made = initializer(constant->toTensor());
    } else if (constant->isInt() || constant->isBool()) {
      const int64_t number = constant->isInt() ? constant->toInt() : constant->toBool();
      return graph_.constant(TensorData::scalar<int64_t>(DType::kInt64, number));
    } else if (constant->isDouble()) {
      return graph_.scalar(DType::kFloat32, constant->toDouble());
    } else if (constant->isIntList()) {
      return graph_.ints(constant->toIntVector());
    } else if (constant->isDoubleList()) {
      const std::vector<double> numbers = constant->toDoubleVector();
      return graph_.constant(TensorData::from<double>(
          DType::kFloat64, {static_cast<int64_t>(numbers.size())}, numbers));
    } else {
      throw std::logic_error("%" + value->debugName() + " is no tensor and no number");
    }
    values_[value] = made;
    return made;
  }
  throw std::logic_error("%" + value->debugName() + " has not been converted");
}

std::optional<std::vector<Value>> ValueTable::list(const torch::jit::Value* value) {
  if (auto found = lists_.find(value); found != lists_.end()) return found->second;
  if (value->node()->kind() == prim::ListConstruct) {
    std::vector<Value> elements;
    for (const torch::jit::Value* input : value->node()->inputs())
      elements.push_back(input->mustBeNone() ? Value{} : get(input));
    return elements;
  }
  const std::optional<c10::IValue> constant = constant_value(value);
  if (!constant || !constant->isList()) return std::nullopt;
  std::vector<Value> elements;
  for (const c10::IValue& element : constant->toListRef()) {
    if (!element.isTensor() && !element.isNone()) return std::nullopt;
    elements.push_back(element.isTensor() && element.toTensor().defined()
                           ? initializer(element.toTensor())
                           : Value{});
  }
  return elements;
}

}  // namespace qcdq
