// The rules for ops on quantised tensors: each value becomes the float that its code stands for,
// and each op that computes new values is followed by a fake quantiser with the op's output scale.
// torch's kernels round an integer sum times a factor, we a float sum over a scale: a code close to
// a tie may come out one step apart. See quantized_rules.h.
#include "symbolic/quantized_rules.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "symbolic/node_place.h"
#include "symbolic/quantized_layers.h"
#include "symbolic/run_node.h"

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

bool has_relu(const std::string& name) { return name.ends_with("_relu"); }

std::string unqualified(const torch::jit::Node& node) { return node.kind().toUnqualString(); }

}  // namespace

std::pair<int64_t, int64_t> code_range(at::ScalarType dtype) {
  if (dtype == at::kQInt8) return {-128, 127};
  if (dtype == at::kQUInt8) return {0, 255};
  return {std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()};
}

QuantisedRules::Rule QuantisedRules::find_rule(const std::string& name) {
  using R = QuantisedRules;
  struct Family {
    Rule rule;
    const char* prefix;
    std::vector<const char*> names;
  };
  static const std::unordered_map<std::string, Rule> kTable = [] {
    const std::vector<Family> families = {
        {&R::quantize, "aten::", {"quantize_per_tensor"}},
        {&R::quantize_channels, "aten::", {"quantize_per_channel"}},
        {&R::dequantize, "aten::", {"dequantize"}},
        {&R::constant, "prim::", {"Constant"}},
        {&R::list, "prim::", {"ListConstruct"}},
        {&R::moves, "prim::", {"ListUnpack"}},
        {&R::linear, "quantized::", {"linear", "linear_relu"}},
        {&R::convolution,
         "quantized::",
         {"conv1d", "conv1d_relu", "conv2d", "conv2d_relu", "conv3d", "conv3d_relu",
          "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}},
        {&R::binary, "quantized::", {"add", "add_relu", "mul", "mul_relu", "matmul"}},
        {&R::scalar,
         "quantized::",
         {"add_scalar", "add_scalar_relu", "mul_scalar", "mul_scalar_relu"}},
        {&R::concatenate, "quantized::", {"cat", "cat_relu"}},
        {&R::concatenate, "aten::", {"cat"}},
        {&R::batch_norm,
         "quantized::",
         {"batch_norm", "batch_norm_relu", "batch_norm1d", "batch_norm1d_relu", "batch_norm2d",
          "batch_norm2d_relu", "batch_norm3d", "batch_norm3d_relu"}},
        {&R::instance_norm, "quantized::", {"instance_norm"}},
        {&R::unary,
         "quantized::",
         {"hardswish", "leaky_relu", "elu", "sigmoid", "softmax", "prelu", "layer_norm",
          "group_norm", "dropout"}},
        {&R::clamps, "quantized::", {"relu6", "clamp"}},
        {&R::moves, "quantized::", {"max_pool1d", "max_pool2d"}},
        {&R::keeps_params,
         "aten::",
         {"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "leaky_relu", "gelu",
          "mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
          "adaptive_avg_pool2d", "adaptive_avg_pool3d", "upsample_bilinear2d"}},
        {&R::moves,
         "aten::",
         {"view",
          "reshape",
          "_unsafe_view",
          "flatten",
          "unflatten",
          "transpose",
          "permute",
          "t",
          "contiguous",
          "clone",
          "detach",
          "alias",
          "squeeze",
          "unsqueeze",
          "slice",
          "select",
          "index_select",
          "expand",
          "expand_as",
          "chunk",
          "split",
          "split_with_sizes",
          "unbind",
          "max_pool1d",
          "max_pool2d",
          "max_pool3d",
          "pixel_shuffle",
          "dropout",
          "upsample_nearest1d",
          "upsample_nearest2d",
          "upsample_nearest3d",
          "reflection_pad1d",
          "reflection_pad2d"}},
        {&R::fixed_params, "aten::", {"sigmoid", "tanh", "hardsigmoid"}},
        {&R::query, "aten::", {"size", "dim", "numel", "len", "stride"}},
        {&R::answer, "aten::", {"q_scale", "q_zero_point"}}};
    std::unordered_map<std::string, Rule> table;
    for (const Family& family : families) {
      for (const char* one : family.names) table[std::string(family.prefix) + one] = family.rule;
    }
    return table;
  }();
  const auto found = kTable.find(name);
  return found == kTable.end() ? nullptr : found->second;
}

void QuantisedRules::apply(Node* node) {
  const bool takes = std::any_of(node->inputs().begin(), node->inputs().end(),
                                 [&](const JitValue* input) { return types_.contains(input); });
  const std::string name = node->kind().toQualString();
  const bool makes = name.starts_with("quantized::") || name.starts_with("aten::quantize_per_") ||
                     name == "prim::Constant";
  if (!takes && !makes) return;
  const Rule rule = find_rule(name);
  if (rule == nullptr) {
    refuse(node, "", "no float form is known for it on quantised tensors",
           "dequantize before it, or keep this part of the model in float");
  }
  try {
    (this->*rule)(node);
  } catch (const std::invalid_argument& fault) {
    refuse(node, "", fault.what());
  }
}

void QuantisedRules::finish() {
  for (const JitValue* output : graph_.outputs()) {
    if (!types_.contains(output)) continue;
    throw UnsupportedOp({.op = "output %" + output->debugName(),
                         .argument = "",
                         .value = "",
                         .opset = 0,
                         .reason = "the model returns a quantised tensor",
                         .hint = "end the model with a DeQuantStub, or x.dequantize()",
                         .where = ""});
  }
  for (Node* node : dequantizes_) {
    node->output()->replaceAllUsesWith(node->input(0));
    node->destroy();
  }
}

void QuantisedRules::quantize(Node* node) {
  QuantisedType type = output_type(node, "scale", "zero_point");
  type.dtype = static_cast<at::ScalarType>(static_cast<int64_t>(number(node, "dtype")));
  if (type.dtype != at::kQInt8 && type.dtype != at::kQUInt8) {
    refuse(node, "dtype", std::string(c10::toString(type.dtype)) + ", expected qint8 or quint8");
  }
  replace(node, node->input(0), type);
}

void QuantisedRules::quantize_channels(Node* node) {
  QuantisedType type;
  type.per_channel = true;
  type.dtype = static_cast<at::ScalarType>(static_cast<int64_t>(number(node, "dtype")));
  const auto [low, high] = code_range(type.dtype);
  JitValue* value = call(node, "aten::fake_quantize_per_channel_affine",
                         {node->input(0), node->namedInput("scales"),
                          node->namedInput("zero_points"), node->namedInput("axis"), low, high});
  node->output()->replaceAllUsesWith(value);
  types_[value] = type;
  node->destroy();
}

// Stays until finish(): a value that was quantised and its dequantised self are told apart by it.
void QuantisedRules::dequantize(Node* node) {
  if (node->output()->type()->kind() == c10::TypeKind::ListType) {
    refuse(node, "tensors", "a list of tensors is dequantised", "dequantize each tensor by itself");
  }
  dequantizes_.push_back(node);
}

void QuantisedRules::constant(Node* node) {
  const auto value = torch::jit::toIValue(node->output());
  if (!value || !value->isTensor() || !value->toTensor().defined()) return;
  const at::Tensor& tensor = value->toTensor();
  if (!tensor.is_quantized() || !node->hasUses()) return;
  QuantisedType type;
  type.dtype = tensor.scalar_type();
  type.per_channel = tensor.qscheme() != at::kPerTensorAffine;
  if (!type.per_channel) {
    type.scale = tensor.q_scale();
    type.zero_point = tensor.q_zero_point();
  }
  JitValue* result = dequantised(node, tensor, "constant");
  node->output()->replaceAllUsesWith(result);
  types_[result] = type;
}

void QuantisedRules::linear(Node* node) {
  input_type(node);
  const PackedLayer layer = unpack_linear(*torch::jit::toIValue(node->namedInput("W_prepack")));
  JitValue* weight = dequantised(node, layer.weight, "weight");
  JitValue* y = call(node, "aten::linear", {node->input(0), weight, bias_of(node, layer.bias)});
  replace(node, y, output_type(node, "Y_scale_i", "Y_zero_point_i"));
}

void QuantisedRules::convolution(Node* node) {
  input_type(node);
  if (!node->schema().argumentIndexWithName("packed_weight")) {
    refuse(node, "", "a form from before torch 1.6", "convert the model with a newer torch");
  }
  std::string name = unqualified(*node);
  if (has_relu(name)) name.resize(name.size() - 5);
  const PackedLayer layer =
      unpack_convolution(name, *torch::jit::toIValue(node->namedInput("packed_weight")));
  std::vector<NamedValue> arguments = {node->input(0), dequantised(node, layer.weight, "weight"),
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

void QuantisedRules::binary(Node* node) {
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
void QuantisedRules::scalar(Node* node) {
  QuantisedType type = input_type(node);
  const double other = number(node, "b");
  const auto [low, high] = code_range(type.dtype);
  JitValue* y = nullptr;
  if (unqualified(*node).starts_with("add")) {
    const double steps = std::nearbyint(other / type.scale);
    const double zero_point = static_cast<double>(type.zero_point) - steps;
    if (zero_point < static_cast<double>(low) || zero_point > static_cast<double>(high)) {
      refuse(node, "b",
             "moves the zero point to " + std::to_string(zero_point) +
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

void QuantisedRules::concatenate(Node* node) {
  Node* list = node->input(0)->node();
  if (list->kind() != torch::jit::prim::ListConstruct) {
    refuse(node, "qx", "a list whose length is known only at run time");
  }
  QuantisedType type;
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

void QuantisedRules::batch_norm(Node* node) {
  input_type(node);
  JitValue* y = call(node, "aten::batch_norm",
                     {node->input(0), node->namedInput("weight"), node->namedInput("bias"),
                      node->namedInput("mean"), node->namedInput("var"), false, 0.0,
                      node->namedInput("eps"), false});
  replace(node, y, output_type(node, "output_scale", "output_zero_point"));
}

void QuantisedRules::instance_norm(Node* node) {
  input_type(node);
  const c10::IValue none;
  JitValue* y = call(node, "aten::instance_norm",
                     {node->input(0), node->namedInput("weight"), node->namedInput("bias"), none,
                      none, true, 0.0, node->namedInput("eps"), false});
  replace(node, y, output_type(node, "output_scale", "output_zero_point"));
}

void QuantisedRules::unary(Node* node) {
  input_type(node);
  const Unary& spec = unary_op(unqualified(*node));
  std::vector<NamedValue> arguments = {node->input(0)};
  for (const char* name : spec.arguments) arguments.emplace_back(node->namedInput(name));
  replace(node, call(node, spec.op, arguments),
          output_type(node, "output_scale", "output_zero_point"));
}

void QuantisedRules::clamps(Node* node) {
  const QuantisedType type = input_type(node);
  JitValue* y = unqualified(*node) == "clamp"
                    ? call(node, "aten::clamp",
                           {node->input(0), node->namedInput("min"), node->namedInput("max")})
                    : call(node, "aten::hardtanh", {node->input(0), 0.0, 6.0});
  replace(node, y, type);
}

// An op of aten stays as it is; its result is rounded to the input's grid.
void QuantisedRules::keeps_params(Node* node) {
  const QuantisedType type = input_type(node);
  const torch::jit::WithInsertPoint guard(node->next());
  JitValue* y = node->output();
  JitValue* quantised = fake_quantised(node, y, type);
  y->replaceAllUsesAfterNodeWith(quantised->node(), quantised);
  types_[quantised] = type;
}

void QuantisedRules::moves(Node* node) {
  const QuantisedType type = types_.at(node->input(0));
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
void QuantisedRules::fixed_params(Node* node) {
  const QuantisedType input = input_type(node);
  const bool tanh = unqualified(*node) == "tanh";
  QuantisedType type{tanh ? 2.0 / 256 : 1.0 / 256, 0, input.dtype};
  if (input.dtype == at::kQUInt8 && tanh) type.zero_point = 128;
  if (input.dtype == at::kQInt8 && !tanh) type.zero_point = -128;
  const torch::jit::WithInsertPoint guard(node->next());
  JitValue* quantised = fake_quantised(node, node->output(), type);
  node->output()->replaceAllUsesAfterNodeWith(quantised->node(), quantised);
  types_[quantised] = type;
}

// Marked, so that an op without a rule for lists of quantised tensors is refused.
void QuantisedRules::list(Node* node) {
  for (const JitValue* input : node->inputs()) {
    if (const auto found = types_.find(input); found != types_.end()) {
      types_[node->output()] = QuantisedType(found->second);
      return;
    }
  }
}

void QuantisedRules::query(Node*) {}  // of shapes, which stay

void QuantisedRules::answer(Node* node) {
  const QuantisedType type = input_type(node);
  const torch::jit::WithInsertPoint guard(node);
  const c10::IValue value =
      unqualified(*node) == "q_scale" ? c10::IValue(type.scale) : c10::IValue(type.zero_point);
  node->output()->replaceAllUsesWith(graph_.insertConstant(value));
  node->destroy();
}

QuantisedType QuantisedRules::input_type(Node* node, size_t index) const {
  const auto found = types_.find(node->input(index));
  const std::string name = node->schema().arguments().at(index).name();
  if (found == types_.end()) refuse(node, name, "expected a quantised tensor");
  if (found->second.per_channel) {
    refuse(node, name, "quantised per channel, expected per tensor", "dequantize it before");
  }
  return found->second;
}

QuantisedType QuantisedRules::output_type(Node* node, const char* scale,
                                          const char* zero_point) const {
  QuantisedType type;
  if (const auto input = types_.find(node->input(0)); input != types_.end()) {
    type.dtype = input->second.dtype;
  }
  type.scale = number(node, scale);
  type.zero_point = static_cast<int64_t>(number(node, zero_point));
  return type;
}

double QuantisedRules::number(Node* node, const char* name) const {
  const auto value = constant_value(node->namedInput(name));
  if (value && value->isDouble()) return value->toDouble();
  if (value && value->isInt()) return static_cast<double>(value->toInt());
  if (value && value->isTensor() && value->toTensor().numel() == 1) {
    return value->toTensor().item<double>();
  }
  refuse(node, name, "is computed at run time, expected a constant",
         "quantise statically, with a calibrated scale");
}

torch::jit::Value* QuantisedRules::call(Node* origin, const char* op,
                                        std::vector<NamedValue> arguments) {
  const torch::jit::WithInsertPoint guard(origin);
  JitValue* result = graph_.insert(torch::jit::Symbol::fromQualString(op), arguments);
  result->node()->copyMetadata(origin);
  return result;
}

// At the graph's insert point, which may lie behind `origin`.
torch::jit::Value* QuantisedRules::fake_quantised(Node* origin, JitValue* value,
                                                  const QuantisedType& type) {
  const auto [low, high] = code_range(type.dtype);
  JitValue* result = graph_.insert(torch::jit::Symbol::aten("fake_quantize_per_tensor_affine"),
                                   {value, type.scale, type.zero_point, low, high});
  result->node()->copyMetadata(origin);
  return result;
}

torch::jit::Value* QuantisedRules::dequantised(Node* origin, const at::Tensor& tensor,
                                               const std::string& name) {
  if (!tensor.is_quantized()) refuse(origin, "", "its packed weight is float16, expected integers");
  const QuantisedCodes codes = codes_of(tensor);
  name_tensor(origin, codes.codes, name + "_quantized");
  const c10::IValue axis = codes.axis ? c10::IValue(*codes.axis) : c10::IValue();
  return call(
      origin, "qcdq_onnx::dequantize_codes",
      {c10::IValue(codes.codes), c10::IValue(codes.scale), c10::IValue(codes.zero_point), axis});
}

torch::jit::Value* QuantisedRules::bias_of(Node* origin, const std::optional<at::Tensor>& bias) {
  const torch::jit::WithInsertPoint guard(origin);
  if (!bias) return graph_.insertConstant(c10::IValue());
  name_tensor(origin, *bias, "bias");
  return graph_.insertConstant(*bias);
}

void QuantisedRules::name_tensor(Node* origin, const at::Tensor& tensor, const std::string& name) {
  const std::string path = module_path(*origin);
  program_.parameter_paths[tensor.const_data_ptr()] = path.empty() ? name : path + "." + name;
}

void QuantisedRules::replace(Node* node, JitValue* value, const QuantisedType& type) {
  const torch::jit::WithInsertPoint guard(node);
  const std::string name = unqualified(*node);
  if (has_relu(name) && name != "leaky_relu") value = call(node, "aten::relu", {value});
  JitValue* quantised = fake_quantised(node, value, type);
  node->output()->replaceAllUsesWith(quantised);
  types_[quantised] = type;
  node->destroy();
}

void QuantisedRules::refuse(Node* node, const std::string& argument, const std::string& reason,
                            const std::string& hint) const {
  std::string value;
  if (!argument.empty() && node->maybeSchema() != nullptr &&
      node->schema().argumentIndexWithName(argument)) {
    const auto constant = constant_value(node->namedInput(argument));
    if (constant && (constant->isDouble() || constant->isInt())) {
      value = constant->isInt() ? std::to_string(constant->toInt())
                                : std::to_string(constant->toDouble());
    }
  }
  throw UnsupportedOp({.op = op_name(*node),
                       .argument = argument,
                       .value = value,
                       .opset = 0,
                       .reason = reason,
                       .hint = hint,
                       .where = node_location(*node)});
}

}  // namespace qcdq
