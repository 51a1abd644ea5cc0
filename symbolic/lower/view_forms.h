// The nodes by which a view is taken anew from a tensor, and by which a changed part is put back
// into the tensor that it is a part of. lower/mutation.cpp calls these.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <functional>
#include <string>
#include <vector>

namespace qcdq {

/// Makes nodes in front of `place`, with the source line and scope of `like`.
class NodeMaker {
 public:
  NodeMaker(torch::jit::Node* place, torch::jit::Node* like) : place_(place), like_(like) {}

  torch::jit::Value* op(const std::string& name, const std::vector<torch::jit::Value*>& inputs,
                        const c10::TypePtr& type = c10::TensorType::get()) const;
  torch::jit::Value* constant(const c10::IValue& value) const;
  torch::jit::Value* list(const std::vector<torch::jit::Value*>& elements,
                          const c10::TypePtr& element_type = c10::TensorType::get()) const;
  /// A node that has been created, and not inserted yet.
  torch::jit::Node* insert(torch::jit::Node* node) const;

 private:
  torch::jit::Node* place_;
  torch::jit::Node* like_;
};

/// A view: output `output` of the op `view`.
struct ViewStep {
  torch::jit::Node* view = nullptr;
  size_t output = 0;
};

/// The view of `source` in place of the op's own input.
torch::jit::Value* take_view(const NodeMaker& make, const ViewStep& step,
                             torch::jit::Value* source);

/// A part can be put back: the op's arguments are known as far as that needs.
bool can_put_back(const ViewStep& step);
/// `source` with `part` in the place of its view, for all but indexed views and elements of lists
/// by number.
torch::jit::Value* put_back(const NodeMaker& make, const ViewStep& step, torch::jit::Value* source,
                            torch::jit::Value* part);
/// Elements that no other op can put back: those that know their places only by number.
bool needs_positions(const ViewStep& step);

/// `source` with `part` in the places that `take` takes from a tensor of the shape of `source`
/// whose elements are their own positions.
torch::jit::Value* put_at_positions(
    const NodeMaker& make, torch::jit::Value* source, torch::jit::Value* part,
    const std::function<torch::jit::Value*(torch::jit::Value*)>& take);

/// The form in which the view is taken differs from the op itself: a view whose strides a
/// functional graph may not have, or an op without a form in ONNX.
bool has_own_form(const torch::jit::Node& view);

}  // namespace qcdq
