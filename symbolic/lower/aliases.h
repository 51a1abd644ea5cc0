// What the ops of a graph say about shared memory: which take a view, which write, which may hand
// their input on. lower/decide_aliases.cpp and lower/mutation.cpp follow tensors by it.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <vector>

namespace qcdq {

/// How an op's result lies in the memory of its first input.
enum class View {
  kNone,      // not a view, or one that can't be taken anew
  kSame,      // the same elements in the same shape
  kReshaped,  // the same elements in the same order
  kMoved,     // the dimensions in another order
  kSlice,
  kSelect,
  kIndexed,  // elements at any place, which a run of the op on positions tells
  kParts,    // a list: consecutive parts of one dimension
  kUnbound,  // a list: all selections of one dimension
  kElement   // an element of such a list
};

/// Ops that change a tensor's own shape (unsqueeze_) count as the view that they take.
View view_of(const torch::jit::Node& node);
/// unsqueeze_, transpose_ and the like: they write no element.
bool changes_own_shape(const torch::jit::Node& node);
/// The result is its input, or a copy of it: the input's place in memory decides (reshape).
bool may_copy(const torch::jit::Node& node);
/// Output `index` may share memory with the inputs.
bool may_share(const torch::jit::Node& node, size_t index);
/// Places of the inputs that the op writes to.
std::vector<size_t> written_inputs(const torch::jit::Node& node);
/// A value of this type is a tensor, or may hold one.
bool may_hold_tensors(const c10::TypePtr& type);
bool is_tensor(const torch::jit::Value* value);
/// A cast of the static type: its result is its input.
bool is_type_cast(const torch::jit::Node& node);

}  // namespace qcdq
