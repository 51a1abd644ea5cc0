// The rules for ops on quantised tensors: each value becomes the float that its code stands for,
// and each op that computes new values is followed by a fake quantiser with the op's output scale.
// torch's kernels round an integer sum times a factor, we a float sum over a scale: a code close to
// a tie may come out one step apart. Which op has which rule: quantized_rules.cpp.
#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/constants.h>

#include <cmath>

#include "symbolic/graph/element_types.h"
#include "symbolic/lower/packed_layers.h"
#include "symbolic/lower/quantized_rules.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::NamedValue;

namespace {

/// quantized::<name>(x, ..., output_scale, output_zero_point) as aten's op, and the arguments that
/// it takes after x.
struct Unary {
  const char* op;
  std::vector<const char*> arguments;
};

const Unary& unary_op(const std::string& name) {
  static const std::unordered_map<std::string, Unary> kUnary = {
      {"hardswish", {"aten::hardswish", {}}},
      {"leaky_relu", {"aten::leaky_relu", {"negative_slope"}}},
      {"elu", {"aten::elu", {"alpha", "scale", "input_scale"}}},
      {"sigmoid", {"aten::sigmoid", {}}},
      {"softmax", {"aten::softmax", {"dim"}}},
      {"prelu", {"aten::prelu", {"weight"}}},
      {"layer_norm", {"aten::layer_norm", {"normalized_shape", "weight", "bias", "eps"}}},
      {"group_norm", {"aten::group_norm", {"num_groups", "weight", "bias", "eps"}}},
      {"dropout", {"aten::detach", {}}}};
  return kUnary.at(name);
}

std::string unqualified(const torch::jit::Node& node) { return node.kind().toUnqualString(); }

}  // namespace

void QuantizedRules::quantize(Node* node) {
  QuantizedType type = output_type(node, "scale", "zero_point");
  type.dtype = static_cast<at::ScalarType>(static_cast<int64_t>(number(node, "dtype")));
  if (type.dtype != at::kQInt8 && type.dtype != at::kQUInt8) {
    refuse(node, "dtype", std::string(c10::toString(type.dtype)) + ", expected qint8 or quint8");
  }
  replace(node, node->input(0), type);
}

// aten's fake quantiser takes float32 scales and int32 zero points.
void QuantizedRules::quantize_channels(Node* node) {
  QuantizedType type;
  type.per_channel = true;
  type.dtype = static_cast<at::ScalarType>(static_cast<int64_t>(number(node, "dtype")));
  const auto scales = torch::jit::toIValue(node->namedInput("scales"));
  const auto zero_points = torch::jit::toIValue(node->namedInput("zero_points"));
  if (!scales) refuse(node, "scales", "is computed at run time, expected a constant");
  if (!zero_points) refuse(node, "zero_points", "is computed at run time, expected a constant");
  const auto [low, high] = code_range(type.dtype);
  JitValue* value = call(
      node, "aten::fake_quantize_per_channel_affine",
      {node->input(0), c10::IValue(scales->toTensor().to(at::kFloat)),
       c10::IValue(zero_points->toTensor().to(at::kInt)), node->namedInput("axis"), low, high});
  node->output()->replaceAllUsesWith(value);
  types_[value] = type;
  node->destroy();
}

// Stays until finish(): a value that was quantised and its dequantised self are told apart by it.
void QuantizedRules::dequantize(Node* node) {
  if (node->output()->type()->kind() == c10::TypeKind::ListType) {
    refuse(node, "tensors", "a list of tensors is dequantised", "dequantize each tensor by itself");
  }
  dequantizes_.push_back(node);
}

void QuantizedRules::constant(Node* node) {
  const auto value = torch::jit::toIValue(node->output());
  if (!value || !value->isTensor() || !value->toTensor().defined()) return;
  const at::Tensor& tensor = value->toTensor();
  if (!tensor.is_quantized() || !node->hasUses()) return;
  QuantizedType type;
  type.dtype = tensor.scalar_type();
  type.per_channel = tensor.qscheme() != at::kPerTensorAffine;
  if (!type.per_channel) {
    type.scale = tensor.q_scale();
    type.zero_point = tensor.q_zero_point();
  }
  JitValue* result = dequantized(node, tensor, "constant");
  node->output()->replaceAllUsesWith(result);
  types_[result] = type;
}

void QuantizedRules::linear(Node* node) {
  input_type(node);
  const PackedLayer layer = unpack_linear(*torch::jit::toIValue(node->namedInput("W_prepack")));
  JitValue* weight = dequantized(node, layer.weight, "weight");
  JitValue* y = call(node, "aten::linear", {node->input(0), weight, bias_of(node, layer.bias)});
  replace(node, y, output_type(node, "Y_scale_i", "Y_zero_point_i"));
}

void QuantizedRules::convolution(Node* node) {
  input_type(node);
  if (!node->schema().argumentIndexWithName("packed_weight")) {
    refuse(node, "", "a form from before torch 1.6", "convert the model with a newer torch");
  }
  std::string name = unqualified(*node);
  if (name.ends_with("_relu")) name.resize(name.size() - 5);
  const PackedLayer layer =
      unpack_convolution(name, *torch::jit::toIValue(node->namedInput("packed_weight")));
  std::vector<NamedValue> arguments = {node->input(0), dequantized(node, layer.weight, "weight"),
                                       bias_of(node, layer.bias), c10::IValue(layer.stride),
                                       c10::IValue(layer.padding)};
  if (name.starts_with("conv_transpose")) {
    arguments.emplace_back(c10::IValue(layer.output_padding));
    arguments.emplace_back(c10::IValue(layer.groups));
    arguments.emplace_back(c10::IValue(layer.dilation));
  } else {
    arguments.emplace_back(c10::IValue(layer.dilation));
    arguments.emplace_back(c10::IValue(layer.groups));
  }
  replace(node, call(node, ("aten::" + name).c_str(), arguments),
          output_type(node, "output_scale", "output_zero_point"));
}

void QuantizedRules::binary(Node* node) {
  if (!node->input(1)->type()->isSubtypeOf(*c10::TensorType::get())) return scalar(node);
  if (!node->schema().argumentIndexWithName("scale")) {
    refuse(node, "", "the form that writes to `out`", "use the form with scale and zero_point");
  }
  input_type(node, 0);
  input_type(node, 1);
  const std::string name = unqualified(*node);
  const std::string op = "aten::" + name.substr(0, name.find('_'));
  replace(node, call(node, op.c_str(), {node->input(0), node->input(1)}),
          output_type(node, "scale", "zero_point"));
}

// The kernels keep the codes and move the parameters.
void QuantizedRules::scalar(Node* node) {
  QuantizedType type = input_type(node);
  const double other = number(node, "b");
  const auto [low, high] = code_range(type.dtype);
  JitValue* y = nullptr;
  if (unqualified(*node).starts_with("add")) {
    const double steps = std::nearbyint(other / type.scale);
    const double zero_point = static_cast<double>(type.zero_point) - steps;
    if (zero_point < static_cast<double>(low) || zero_point > static_cast<double>(high)) {
      refuse(node, "b",
             "moves the zero point to " + number_text(zero_point) +
                 ", out of the codes' range: torch requantises, which has no form here",
             "use quantized::add with a tensor");
    }
    type.zero_point = static_cast<int64_t>(zero_point);
    y = call(node, "aten::add", {node->input(0), c10::IValue(steps * type.scale)});
  } else {
    if (other == 0) refuse(node, "b", "is 0, expected another number");
    type.scale *= std::abs(other);
    if (other < 0) type.zero_point = high - (type.zero_point - low);
    y = call(node, "aten::mul", {node->input(0), c10::IValue(other)});
  }
  replace(node, y, type);
}

void QuantizedRules::concatenate(Node* node) {
  Node* list = node->input(0)->node();
  if (list->kind() != torch::jit::prim::ListConstruct) {
    refuse(node, "qx", "a list whose length is known only at run time");
  }
  QuantizedType type;
  for (size_t i = list->inputs().size(); i-- > 0;) {
    const auto found = types_.find(list->input(i));
    if (found == types_.end() || found->second.per_channel) {
      refuse(node, "tensors", "element " + std::to_string(i) + " isn't quantised per tensor");
    }
    type = found->second;  // without parameters of its own the result has the first tensor's
  }
  if (!node->kind().is_aten() && !node->namedInput("scale")->mustBeNone()) {
    const at::ScalarType dtype = type.dtype;
    type = output_type(node, "scale", "zero_point");
    type.dtype = dtype;
  }
  replace(node, call(node, "aten::cat", {node->input(0), node->namedInput("dim")}), type);
}

void QuantizedRules::batch_norm(Node* node) {
  input_type(node);
  JitValue* y = call(node, "aten::batch_norm",
                     {node->input(0), node->namedInput("weight"), node->namedInput("bias"),
                      node->namedInput("mean"), node->namedInput("var"), false, 0.0,
                      node->namedInput("eps"), false});
  replace(node, y, output_type(node, "output_scale", "output_zero_point"));
}

void QuantizedRules::instance_norm(Node* node) {
  input_type(node);
  const c10::IValue none;
  JitValue* y = call(node, "aten::instance_norm",
                     {node->input(0), node->namedInput("weight"), node->namedInput("bias"), none,
                      none, true, 0.0, node->namedInput("eps"), false});
  replace(node, y, output_type(node, "output_scale", "output_zero_point"));
}

void QuantizedRules::unary(Node* node) {
  input_type(node);
  const Unary& spec = unary_op(unqualified(*node));
  std::vector<NamedValue> arguments = {node->input(0)};
  for (const char* name : spec.arguments) arguments.emplace_back(node->namedInput(name));
  replace(node, call(node, spec.op, arguments),
          output_type(node, "output_scale", "output_zero_point"));
}

void QuantizedRules::clamps(Node* node) {
  const QuantizedType type = input_type(node);
  JitValue* y = unqualified(*node) == "clamp"
                    ? call(node, "aten::clamp",
                           {node->input(0), node->namedInput("min"), node->namedInput("max")})
                    : call(node, "aten::hardtanh", {node->input(0), 0.0, 6.0});
  replace(node, y, type);
}

// An op of aten stays as it is; its result is rounded to the input's grid.
void QuantizedRules::keeps_params(Node* node) {
  const QuantizedType type = input_type(node);
  const torch::jit::WithInsertPoint guard(node->next());
  JitValue* y = node->output();
  JitValue* quantized = fake_quantized(node, y, type);
  y->replaceAllUsesAfterNodeWith(quantized->node(), quantized);
  types_[quantized] = type;
}

void QuantizedRules::moves(Node* node) {
  const auto found = types_.find(node->input(0));
  if (found == types_.end()) return;  // view_as(x, other): only the other one is quantised
  const QuantizedType type = found->second;
  const std::string name = node->kind().toQualString();
  if (type.per_channel && name != "aten::contiguous" && name != "aten::clone" &&
      name != "aten::detach") {
    refuse(node, "", "a per-channel quantised tensor is reshaped", "dequantize it before");
  }
  if (name.starts_with("quantized::")) {
    std::vector<NamedValue> arguments(node->inputs().begin(), node->inputs().end());
    JitValue* y = call(node, ("aten::" + unqualified(*node)).c_str(), arguments);
    node->output()->replaceAllUsesWith(y);
    types_[y] = type;
    node->destroy();
    return;
  }
  for (JitValue* output : node->outputs()) types_[output] = type;
}

// Those whose kernels choose the output's grid by the type of the codes.
void QuantizedRules::fixed_params(Node* node) {
  const QuantizedType input = input_type(node);
  const bool tanh = unqualified(*node) == "tanh";
  QuantizedType type{tanh ? 2.0 / 256 : 1.0 / 256, 0, input.dtype};
  if (input.dtype == at::kQUInt8 && tanh) type.zero_point = 128;
  if (input.dtype == at::kQInt8 && !tanh) type.zero_point = -128;
  const torch::jit::WithInsertPoint guard(node->next());
  JitValue* quantized = fake_quantized(node, node->output(), type);
  node->output()->replaceAllUsesAfterNodeWith(quantized->node(), quantized);
  types_[quantized] = type;
}

// Marked, so that an op without a rule for lists of quantised tensors is refused.
void QuantizedRules::list(Node* node) {
  for (const JitValue* input : node->inputs()) {
    if (const auto found = types_.find(input); found != types_.end()) {
      types_[node->output()] = QuantizedType(found->second);
      return;
    }
  }
}

void QuantizedRules::dynamic(Node* node) {
  refuse(node, "", "its activation's scale is chosen from the data at run time",
         "quantise statically, or use qcdq::fake_quantize_dynamic");
}

void QuantizedRules::query(Node*) {}  // of shapes, which stay

void QuantizedRules::answer(Node* node) {
  const QuantizedType type = input_type(node);
  const torch::jit::WithInsertPoint guard(node);
  const c10::IValue value =
      unqualified(*node) == "q_scale" ? c10::IValue(type.scale) : c10::IValue(type.zero_point);
  node->output()->replaceAllUsesWith(graph_.insertConstant(value));
  node->destroy();
}

}  // namespace qcdq
