// See lower/view_forms.h. Only ops that have symbolic functions are made, as far as there are some.
#include "symbolic/lower/view_forms.h"

#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/constants.h>

#include <optional>
#include <string_view>

#include "symbolic/lower/aliases.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::Node;
using torch::jit::Symbol;
using JitValue = torch::jit::Value;
using torch::jit::WithInsertPoint;
namespace prim = torch::jit::prim;

JitValue* NodeMaker::op(const std::string& name, const std::vector<JitValue*>& inputs,
                        const c10::TypePtr& type) const {
  Node* node = place_->owningGraph()->create(Symbol::fromQualString(name), inputs, 1);
  node->output()->setType(type);
  return insert(node)->output();
}

JitValue* NodeMaker::constant(const c10::IValue& value) const {
  const WithInsertPoint guard(place_);
  return place_->owningGraph()->insertConstant(value);
}

JitValue* NodeMaker::list(const std::vector<JitValue*>& elements,
                          const c10::TypePtr& element_type) const {
  return insert(place_->owningGraph()->createList(element_type, elements))->output();
}

Node* NodeMaker::insert(Node* node) const {
  node->copyMetadata(like_);
  return node->insertBefore(place_);
}

namespace {

std::string functional_kind(const Node& view) {
  std::string name = view.kind().toQualString();
  if (changes_own_shape(view)) name.pop_back();
  return name;
}

/// The op on another source, all else as it is.
JitValue* same_op(const NodeMaker& make, const ViewStep& step, JitValue* source) {
  Node* view = step.view;
  Node* again = view->owningGraph()->create(Symbol::fromQualString(functional_kind(*view)),
                                            view->outputs().size());
  for (size_t i = 0; i < view->inputs().size(); ++i) {
    again->addInput(i == 0 ? source : view->input(i));
  }
  for (size_t i = 0; i < view->outputs().size(); ++i) {
    const JitValue* output = view->output(i);
    again->output(i)->setType(is_tensor(output) ? c10::TypePtr(c10::TensorType::get())
                                                : output->type());
  }
  return make.insert(again)->output(step.output);
}

/// A tensor of the shape of `source` that holds 0, 1, 2, ...
JitValue* positions_of(const NodeMaker& make, JitValue* source) {
  JitValue* none = make.constant(c10::IValue());
  JitValue* count = make.op("aten::numel", {source}, c10::IntType::get());
  JitValue* numbers = make.op("aten::arange", {count, none, none, none, none});
  JitValue* size = make.op("aten::size", {source}, c10::ListType::ofInts());
  return make.op("aten::reshape", {numbers, size});
}

JitValue* flat(const NodeMaker& make, JitValue* value) {
  return make.op("aten::reshape", {value, make.constant(std::vector<int64_t>{-1})});
}

JitValue* one_index(const NodeMaker& make, JitValue* index) {
  return make.list({index}, c10::OptionalType::ofTensor());
}

/// Expand and elements of lists have symbolic functions, and know no strides.
bool is_picked(const Node& view) {
  const std::string_view name = view.kind().toQualString();
  return name == "aten::diagonal" || name == "aten::unfold" || name == "aten::as_strided";
}

std::optional<std::vector<int64_t>> constant_ints(const JitValue* value) {
  const auto known = constant_value(value);
  if (!known || !known->isIntList()) return std::nullopt;
  return known->toIntVector();
}

JitValue* moved_back(const NodeMaker& make, Node& view, JitValue* part) {
  const std::string name = functional_kind(view);
  if (name == "aten::permute") {
    const std::vector<int64_t> dims = *constant_ints(view.input(1));
    const auto rank = static_cast<int64_t>(dims.size());
    std::vector<int64_t> back(dims.size());
    for (int64_t i = 0; i < rank; ++i) {
      const int64_t from = dims[static_cast<size_t>(i)];
      back[static_cast<size_t>(from < 0 ? from + rank : from)] = i;
    }
    return make.op(name, {part, make.constant(back)});
  }
  std::vector<JitValue*> inputs = view.inputs().vec();
  inputs[0] = part;
  if (name == "aten::movedim" || name == "aten::moveaxis") std::swap(inputs[1], inputs[2]);
  return make.op(name, inputs);
}

/// Start, end and step of a slice or a narrow.
std::vector<JitValue*> slice_bounds(const NodeMaker& make, const Node& view) {
  if (view.kind() == torch::jit::aten::slice) return {view.input(2), view.input(3), view.input(4)};
  const int64_t start = torch::jit::toIValue(view.input(2))->toInt();
  const int64_t end = start + torch::jit::toIValue(view.input(3))->toInt();
  const bool to_last = start < 0 && end == 0;
  return {view.input(2), make.constant(to_last ? c10::IValue() : c10::IValue(end)),
          make.constant(1)};
}

/// The dimension of chunk, split and unbind: their last argument.
JitValue* parted_dim(Node& view) { return view.inputs()[view.inputs().size() - 1]; }

}  // namespace

bool has_own_form(const Node& view) {
  const std::string_view name = view.kind().toQualString();
  return name == "aten::view" || name == "aten::view_as" || name == "aten::_unsafe_view" ||
         name == "aten::narrow" || is_picked(view);
}

JitValue* take_view(const NodeMaker& make, const ViewStep& step, JitValue* source) {
  const Node& view = *step.view;
  const std::string_view name = view.kind().toQualString();
  if (name == "aten::view" || name == "aten::_unsafe_view") {
    return make.op("aten::reshape", {source, view.input(1)});
  }
  if (name == "aten::view_as") {
    return make.op("aten::reshape_as", {source, view.input(1)});
  }
  if (name == "aten::narrow") {
    std::vector<JitValue*> inputs = {source, view.input(1)};
    for (JitValue* bound : slice_bounds(make, view)) inputs.push_back(bound);
    return make.op("aten::slice", inputs);
  }
  if (is_picked(view)) {
    JitValue* places = same_op(make, step, positions_of(make, source));
    return make.op("aten::index", {flat(make, source), one_index(make, places)});
  }
  return same_op(make, step, source);
}

bool needs_positions(const ViewStep& step) {
  return view_of(*step.view) == View::kIndexed ||
         (view_of(*step.view) == View::kElement && step.view->kind() != prim::ListUnpack);
}

bool can_put_back(const ViewStep& step) {
  const View view = view_of(*step.view);
  if (view == View::kNone) return false;
  const bool permutes = view == View::kMoved && step.view->kind() == torch::jit::aten::permute;
  return !permutes || constant_ints(step.view->input(1)).has_value();
}

JitValue* put_back(const NodeMaker& make, const ViewStep& step, JitValue* source, JitValue* part) {
  Node& view = *step.view;
  switch (view_of(view)) {
    case View::kReshaped:
      return make.op("aten::reshape_as", {part, source});
    case View::kMoved:
      return moved_back(make, view, part);
    case View::kSlice: {
      std::vector<JitValue*> inputs = {source, part, view.input(1)};
      for (JitValue* bound : slice_bounds(make, view)) inputs.push_back(bound);
      return make.op("aten::slice_scatter", inputs);
    }
    case View::kSelect:
      return make.op("aten::select_scatter", {source, part, view.input(1), view.input(2)});
    case View::kElement: {  // `source` is the list
      Node* unpacked =
          view.owningGraph()->create(prim::ListUnpack, {source}, view.outputs().size());
      std::vector<JitValue*> elements;
      for (JitValue* output : make.insert(unpacked)->outputs()) {
        output->setType(c10::TensorType::get());
        elements.push_back(output);
      }
      elements[step.output] = part;
      return make.list(elements);
    }
    case View::kParts:
      return make.op("aten::cat", {part, parted_dim(view)});
    case View::kUnbound:
      return make.op("aten::stack", {part, parted_dim(view)});
    default:
      return part;
  }
}

JitValue* put_at_positions(const NodeMaker& make, JitValue* source, JitValue* part,
                           const std::function<JitValue*(JitValue*)>& take) {
  JitValue* places = flat(make, take(positions_of(make, source)));
  JitValue* changed = make.op("aten::index_put", {flat(make, source), one_index(make, places),
                                                  flat(make, part), make.constant(false)});
  return make.op("aten::reshape_as", {changed, source});
}

}  // namespace qcdq
