// See values.h.
#include "symbolic/program/values.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cctype>
#include <sstream>
#include <stdexcept>

namespace qcdq {

std::vector<at::Tensor> flatten_result(const c10::IValue& result) {
  std::vector<at::Tensor> tensors;
  for_each_leaf(result, [&](const c10::IValue& value) {
    if (value.isTensor()) {
      tensors.push_back(value.toTensor());
    } else if (!value.isNone()) {
      throw std::runtime_error("an output of the model is a " + value.type()->repr_str() +
                               ", expected a Tensor, or a tuple, list or dict of them");
    }
  });
  return tensors;
}

c10::IValue with_tensors(const c10::IValue& like, const std::vector<c10::IValue>& tensors,
                         size_t& next) {
  if (like.isTensor()) return tensors.at(next++);
  if (like.isTuple()) {
    std::vector<c10::IValue> elements;
    for (const c10::IValue& element : like.toTupleRef().elements()) {
      elements.push_back(with_tensors(element, tensors, next));
    }
    return c10::ivalue::Tuple::create(std::move(elements));
  }
  if (!like.isTensorList()) return like;
  c10::List<at::Tensor> list;
  for (size_t i = 0; i < like.toTensorList().size(); ++i) {
    list.push_back(tensors.at(next++).toTensor());
  }
  return list;
}

at::Tensor resize_by_repeating(const at::Tensor& tensor, int64_t axis, int64_t size) {
  const at::Tensor index = at::arange(size, at::kLong).remainder(tensor.size(axis));
  return tensor.index_select(axis, index);
}

std::string value_text(const c10::IValue& value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

std::string plain_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos || dot == 0 || dot + 1 == name.size()) return name;
  const bool digits = std::all_of(name.begin() + static_cast<std::ptrdiff_t>(dot) + 1, name.end(),
                                  [](unsigned char c) { return std::isdigit(c) != 0; });
  return digits ? name.substr(0, dot) : name;
}

EvalMode::EvalMode(const torch::jit::Module& module) {
  for (torch::jit::Module one : module.modules()) {
    if (!one.hasattr("training")) continue;
    script_modes_.emplace_back(one, one.is_training());
    one.setattr("training", false);
  }
}

EvalMode::EvalMode(torch::nn::Module& module) {
  modes_.emplace_back(&module, module.is_training());
  for (const auto& one : module.modules(/*include_self=*/false)) {
    modes_.emplace_back(one.get(), one->is_training());
  }
  module.eval();
}

EvalMode::~EvalMode() {
  for (auto& [module, training] : script_modes_) module.setattr("training", training);
  // train() goes down to the children, so parents come before them.
  for (const auto& [module, training] : modes_) {
    if (module->is_training() != training) module->train(training);
  }
}

}  // namespace qcdq
