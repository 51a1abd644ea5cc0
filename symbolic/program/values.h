// Values of a torch model as they are handed in and out: nested ones, their text and names, and the
// mode in which a model runs.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/nn/module.h>

#include <string>
#include <utility>
#include <vector>

namespace qcdq {

/// Calls visit(leaf) for each value in a nesting of tuples, lists and dicts, in order.
template <typename F>
void for_each_leaf(const c10::IValue& value, F&& visit) {
  if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements()) for_each_leaf(element, visit);
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) for_each_leaf(element, visit);
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) for_each_leaf(entry.value(), visit);
  } else {
    visit(value);
  }
}

/// Tensors of a forward's result in order: tuples, lists and dicts are flattened, None is left out.
/// Throws std::runtime_error for other values.
std::vector<at::Tensor> flatten_result(const c10::IValue& result);

/// `like` with its tensors, in order, replaced by those from `next` on.
c10::IValue with_tensors(const c10::IValue& like, const std::vector<c10::IValue>& tensors,
                         size_t& next);

/// `tensor` with `size` elements along `axis`: its slices, repeated as often as needed.
at::Tensor resize_by_repeating(const at::Tensor& tensor, int64_t axis, int64_t size);

/// "3", "[1, 2]", "None": a value that is no tensor, for notes and messages.
std::string value_text(const c10::IValue& value);

/// An argument's name without the suffix that makes it unique in TorchScript: "x.1" -> "x".
/// qcdq::argument_names (qcdq/export.h) makes the names of a whole method of it.
std::string plain_name(const std::string& name);

/// Eval mode and no gradients for as long as it lives; each submodule then gets its own mode back.
class EvalMode {
 public:
  explicit EvalMode(const torch::jit::Module& module);
  explicit EvalMode(torch::nn::Module& module);
  ~EvalMode();
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  std::vector<std::pair<torch::jit::Module, bool>> script_modes_;
  std::vector<std::pair<torch::nn::Module*, bool>> modes_;
  at::NoGradGuard no_grad_;
};

}  // namespace qcdq
