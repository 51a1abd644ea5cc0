// Tables of ops by what they do with memory; see lower/aliases.h.
#include "symbolic/lower/aliases.h"

#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::Node;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

namespace {

const std::unordered_map<std::string_view, View>& views() {
  static const std::unordered_map<std::string_view, View> all = {
      {"aten::alias", View::kSame},
      {"aten::contiguous", View::kSame},
      {"aten::detach", View::kSame},
      {"aten::lift_fresh", View::kSame},
      {"aten::positive", View::kSame},
      {"aten::to", View::kSame},
      {"aten::type_as", View::kSame},
      {"prim::data", View::kSame},
      {"aten::_unsafe_view", View::kReshaped},
      {"aten::flatten", View::kReshaped},
      {"aten::ravel", View::kReshaped},
      {"aten::reshape", View::kReshaped},
      {"aten::reshape_as", View::kReshaped},
      {"aten::squeeze", View::kReshaped},
      {"aten::unflatten", View::kReshaped},
      {"aten::unsqueeze", View::kReshaped},
      {"aten::view", View::kReshaped},
      {"aten::view_as", View::kReshaped},
      {"aten::mT", View::kMoved},
      {"aten::moveaxis", View::kMoved},
      {"aten::movedim", View::kMoved},
      {"aten::numpy_T", View::kMoved},
      {"aten::permute", View::kMoved},
      {"aten::swapaxes", View::kMoved},
      {"aten::swapdims", View::kMoved},
      {"aten::t", View::kMoved},
      {"aten::transpose", View::kMoved},
      {"aten::narrow", View::kSlice},
      {"aten::slice", View::kSlice},
      {"aten::select", View::kSelect},
      {"aten::as_strided", View::kIndexed},
      {"aten::broadcast_to", View::kIndexed},
      {"aten::diagonal", View::kIndexed},
      {"aten::expand", View::kIndexed},
      {"aten::expand_as", View::kIndexed},
      {"aten::unfold", View::kIndexed},
      {"aten::chunk", View::kParts},
      {"aten::split", View::kParts},
      {"aten::split_with_sizes", View::kParts},
      {"aten::tensor_split", View::kParts},
      {"aten::unsafe_chunk", View::kParts},
      {"aten::unsafe_split", View::kParts},
      {"aten::unsafe_split_with_sizes", View::kParts},
      {"aten::unbind", View::kUnbound},
      {"aten::__getitem__", View::kElement},
      {"prim::ListUnpack", View::kElement}};
  return all;
}

/// Ops that may return their input, or a view of it, though their schema says nothing of it.
bool hides_sharing(const Node& node) {
  static const std::unordered_set<std::string_view> all = {"aten::_unsafe_view",
                                                           "aten::alpha_dropout",
                                                           "aten::atleast_1d",
                                                           "aten::atleast_2d",
                                                           "aten::atleast_3d",
                                                           "aten::broadcast_tensors",
                                                           "aten::cartesian_prod",
                                                           "aten::chain_matmul",
                                                           "aten::dequantize",
                                                           "aten::dropout",
                                                           "aten::einsum",
                                                           "aten::feature_alpha_dropout",
                                                           "aten::feature_dropout",
                                                           "aten::meshgrid",
                                                           "aten::pixel_shuffle",
                                                           "aten::pixel_unshuffle",
                                                           "aten::sum_to_size",
                                                           "aten::type_as",
                                                           "aten::unsafe_chunk",
                                                           "aten::unsafe_split",
                                                           "aten::unsafe_split_with_sizes",
                                                           "aten::channel_shuffle",
                                                           "aten::native_channel_shuffle"};
  return all.count(node.kind().toQualString()) != 0;
}

bool names_dimensions(const Node& node) {
  const c10::FunctionSchema* schema = node.maybeSchema();
  return schema != nullptr && schema->overload_name().find("Dimname") != std::string::npos;
}

}  // namespace

bool is_tensor(const JitValue* value) { return value->type()->kind() == c10::TypeKind::TensorType; }

bool changes_own_shape(const Node& node) {
  static constexpr std::array<std::string_view, 6> kOps = {"aten::squeeze_",   "aten::unsqueeze_",
                                                           "aten::transpose_", "aten::t_",
                                                           "aten::swapaxes_",  "aten::swapdims_"};
  return std::find(kOps.begin(), kOps.end(), node.kind().toQualString()) != kOps.end();
}

View view_of(const Node& node) {
  std::string_view name = node.kind().toQualString();
  if (changes_own_shape(node)) name.remove_suffix(1);
  const auto found = views().find(name);
  if (found == views().end() || names_dimensions(node)) return View::kNone;
  const View view = found->second;
  const auto inputs = node.inputs();
  if (view == View::kElement) {
    const bool list =
        !inputs.empty() && inputs[0]->type()->isSubtypeOf(*c10::ListType::ofTensors());
    if (!list || node.kind() == prim::ListUnpack) return list ? view : View::kNone;
    const auto index = torch::jit::toIValue(inputs[1]);
    return index && index->isInt() && index->toInt() >= 0 ? view : View::kNone;
  }
  if (inputs.empty() || !is_tensor(inputs[0])) return View::kNone;
  // Bits as another type.
  if (name == "aten::view" && inputs[1]->type()->kind() != c10::TypeKind::ListType) {
    return View::kNone;
  }
  if (name == "aten::narrow") {
    const auto start = torch::jit::toIValue(inputs[2]);
    const auto length = torch::jit::toIValue(inputs[3]);
    return start && start->isInt() && length && length->isInt() ? view : View::kNone;
  }
  return view;
}

bool may_copy(const Node& node) {
  if (node.outputs().size() != 1 || !is_tensor(node.output())) return false;
  if (node.kind() == torch::jit::Symbol::fromQualString("aten::_unsafe_view")) return false;
  return hides_sharing(node) || has_traits(traits_of(node), OpTraits::kMayCopy);
}

bool may_share(const Node& node, size_t index) {
  if (!may_hold_tensors(node.output(index)->type())) return false;
  const c10::FunctionSchema* schema = node.maybeSchema();
  if (schema == nullptr || schema->is_varret() || index >= schema->returns().size()) return true;
  return schema->returns()[index].alias_info() != nullptr || hides_sharing(node);
}

std::vector<size_t> written_inputs(const Node& node) {
  std::vector<size_t> places;
  const c10::FunctionSchema* schema = node.maybeSchema();
  if (schema == nullptr || !schema->is_mutable()) return places;
  for (size_t i = 0; i < schema->arguments().size() && i < node.inputs().size(); ++i) {
    const c10::AliasInfo* info = schema->arguments()[i].alias_info();
    if (info != nullptr && info->isWrite()) places.push_back(i);
  }
  return places;
}

bool may_hold_tensors(const c10::TypePtr& type) {
  const c10::TypeKind kind = type->kind();
  if (kind == c10::TypeKind::TensorType || kind == c10::TypeKind::AnyType ||
      kind == c10::TypeKind::ClassType || kind == c10::TypeKind::VarType) {
    return true;
  }
  const auto inner = type->containedTypes();
  return std::any_of(inner.begin(), inner.end(), may_hold_tensors);
}

bool is_type_cast(const Node& node) {
  return node.kind() == prim::unchecked_cast || node.kind() == prim::unchecked_unwrap_optional ||
         node.kind() == torch::jit::aten::_unwrap_optional;
}

}  // namespace qcdq
