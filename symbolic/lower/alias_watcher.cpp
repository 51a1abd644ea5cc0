// See lower/alias_watcher.h.
#include "symbolic/lower/alias_watcher.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <unordered_set>

#include "symbolic/lower/aliases.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::Node;
using torch::jit::Stack;

namespace {

/// Places in memory of a tensor's elements, sorted.
std::vector<int64_t> places_of(const at::Tensor& tensor) {
  std::vector<int64_t> places = {tensor.storage_offset() * tensor.element_size()};
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    std::vector<int64_t> next;
    next.reserve(places.size() * static_cast<size_t>(tensor.size(d)));
    for (int64_t place : places) {
      for (int64_t i = 0; i < tensor.size(d); ++i) {
        next.push_back(place + i * tensor.stride(d) * tensor.element_size());
      }
    }
    places.swap(next);
  }
  std::sort(places.begin(), places.end());
  return places;
}

bool same_elements(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.strides() == b.strides() &&
         a.storage_offset() == b.storage_offset() && a.scalar_type() == b.scalar_type();
}

bool overlaps(const at::Tensor& a, const at::Tensor& b) {
  if (!a.is_alias_of(b)) return false;
  const std::vector<int64_t> first = places_of(a);
  const std::vector<int64_t> second = places_of(b);
  std::vector<int64_t> both;
  std::set_intersection(first.begin(), first.end(), second.begin(), second.end(),
                        std::back_inserter(both));
  return !both.empty();
}

template <typename F>
void for_each_tensor(const c10::IValue& value, const F& visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined() && value.toTensor().has_storage()) visit(value.toTensor());
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) for_each_tensor(element, visit);
  }
}

/// Each element depends on elements in its own place alone, so that an operand may be the tensor
/// that is written to.
bool is_pointwise(const Node& node) {
  static const std::unordered_set<std::string_view> all = {
      "add",   "sub",         "mul",         "div",     "pow",        "copy",        "clamp",
      "clip",  "clamp_min",   "clamp_max",   "maximum", "minimum",    "masked_fill", "where",
      "fmod",  "remainder",   "lerp",        "addcmul", "addcdiv",    "atan2",       "eq",
      "ne",    "lt",          "gt",          "le",      "ge",         "logical_and", "logical_or",
      "xlogy", "logical_xor", "bitwise_and", "fill",    "true_divide"};
  std::string_view name = node.kind().toUnqualString();
  if (name.ends_with('_')) name.remove_suffix(1);
  return all.count(name) != 0;
}

}  // namespace

void AliasWatcher::before(const Node& node, const Stack& inputs) {
  const std::vector<size_t> written =
      asked_.count(&node) ? written_inputs(node) : std::vector<size_t>();
  for (size_t place : written) {
    if (!inputs[place].isTensor()) continue;
    const at::Tensor& target = inputs[place].toTensor();
    seen_[&node].sizes = target.sizes().vec();
    check_target(node, target);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (i == place) continue;
      for_each_tensor(inputs[i],
                      [&](const at::Tensor& operand) { check_operand(node, target, operand); });
    }
  }
}

void AliasWatcher::after(const Node& node, const Stack& inputs, Stack& outputs) {
  if (copied_.count(&node) != 0) {  // the run must not change the model's own tensors
    if (outputs[0].isTensor()) outputs[0] = outputs[0].toTensor().clone();
    return;
  }
  if (asked_.count(&node) == 0) return;
  Seen& seen = seen_[&node];
  const std::vector<size_t> written = written_inputs(node);
  for (size_t place : written) {
    if (!inputs[place].isTensor()) continue;
    seen.resized |= inputs[place].toTensor().sizes() != at::IntArrayRef(seen.sizes);
  }
  if (!written.empty() || !outputs[0].isTensor()) return;
  const at::Tensor& output = outputs[0].toTensor();
  bool shared = false;
  for (const c10::IValue& input : inputs) {
    for_each_tensor(input, [&](const at::Tensor& tensor) { shared |= output.is_alias_of(tensor); });
  }
  (shared ? seen.shared : seen.copied) = true;
  if (!inputs[0].isTensor()) return;
  const at::Tensor& input = inputs[0].toTensor();
  seen.rank = input.dim();
  if (node.kind() != torch::jit::aten::as_strided) return;
  seen.identity &= same_elements(input, output);
  if (!same_elements(input, output) && (!input.is_contiguous() || input.storage_offset() != 0)) {
    refuse(node, "picks elements by their place in memory, of a tensor that is not dense",
           "write it with view, permute, slice, unfold or expand");
  }
}

const Seen* AliasWatcher::find(const Node* node) const {
  const auto found = seen_.find(node);
  return found == seen_.end() ? nullptr : &found->second;
}

void AliasWatcher::throw_refusals() const {
  if (!refusals_.empty()) throw UnsupportedOp(refusals_);
}

void AliasWatcher::refuse(const Node& node, const char* reason, const char* hint) {
  if (!refused_.insert(&node).second) return;
  refusals_.push_back(
      {.op = op_name(node), .reason = reason, .hint = hint, .where = node_location(node)});
}

void AliasWatcher::check_target(const Node& node, const at::Tensor& target) {
  const std::vector<int64_t> places = places_of(target);
  if (std::adjacent_find(places.begin(), places.end()) == places.end()) return;
  refuse(node, "writes to a tensor that has several elements in one place of memory",
         "clone() it first");
}

void AliasWatcher::check_operand(const Node& node, const at::Tensor& target,
                                 const at::Tensor& operand) {
  if (!overlaps(target, operand)) return;
  if (same_elements(target, operand) && is_pointwise(node)) return;
  refuse(node, "reads memory that it writes to, in an order that torch leaves open",
         "clone() what it reads");
}

}  // namespace qcdq
