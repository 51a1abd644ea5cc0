// Which rule an op on quantised tensors has, and what all rules share; the rules themselves are in
// lower/quantized_rewrites.cpp. See quantized_rules.h.
#include "symbolic/lower/quantized_rules.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "symbolic/graph/element_types.h"
#include "symbolic/lower/packed_layers.h"
#include "symbolic/program/node_place.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::NamedValue;

std::pair<int64_t, int64_t> code_range(at::ScalarType dtype) {
  if (dtype == at::kQInt8) return {-128, 127};
  if (dtype == at::kQUInt8) return {0, 255};
  return {std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()};
}

QuantizedRules::Rule QuantizedRules::find_rule(const Node& node) {
  using R = QuantizedRules;
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
        {&R::fixed_params, "aten::", {"sigmoid", "tanh", "hardsigmoid"}},
        {&R::query, "aten::", {"size", "dim", "numel", "len", "stride"}},
        {&R::dynamic,
         "quantized::",
         {"linear_dynamic", "linear_relu_dynamic", "conv1d_dynamic", "conv2d_dynamic",
          "conv3d_dynamic", "linear_dynamic_fp16", "linear_relu_dynamic_fp16"}},
        {&R::dynamic, "aten::", {"quantize_per_tensor_dynamic"}},
        {&R::answer, "aten::", {"q_scale", "q_zero_point"}}};
    std::unordered_map<std::string, Rule> table;
    for (const Family& family : families) {
      for (const char* one : family.names) table[std::string(family.prefix) + one] = family.rule;
    }
    return table;
  }();
  if (const auto found = kTable.find(node.kind().toQualString()); found != kTable.end()) {
    return found->second;
  }
  const bool moves = has_traits(traits_of(node), OpTraits::kMovesElements);
  return moves ? &R::moves : nullptr;
}

void QuantizedRules::apply(Node* node) {
  const bool takes = std::any_of(node->inputs().begin(), node->inputs().end(),
                                 [&](const JitValue* input) { return types_.contains(input); });
  const std::string name = node->kind().toQualString();
  const bool makes = name.starts_with("quantized::") || name.starts_with("aten::quantize_per_") ||
                     name == "prim::Constant";
  if (!takes && !makes) return;
  const Rule rule = find_rule(*node);
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

void QuantizedRules::finish() {
  for (const JitValue* output : graph_.outputs()) {
    if (!types_.contains(output)) continue;
    throw UnsupportedOp({.op = "output %" + output->debugName(),
                         .reason = "the model returns a quantised tensor",
                         .hint = "end the model with a DeQuantStub, or x.dequantize()"});
  }
  for (Node* node : dequantizes_) {
    node->output()->replaceAllUsesWith(node->input(0));
    node->destroy();
  }
}

QuantizedType QuantizedRules::input_type(Node* node, size_t index) const {
  const auto found = types_.find(node->input(index));
  const std::string name = node->schema().arguments().at(index).name();
  if (found == types_.end()) refuse(node, name, "expected a quantised tensor");
  if (found->second.per_channel) {
    refuse(node, name, "quantised per channel, expected per tensor", "dequantize it before");
  }
  return found->second;
}

QuantizedType QuantizedRules::output_type(Node* node, const char* scale,
                                          const char* zero_point) const {
  QuantizedType type;
  if (const auto input = types_.find(node->input(0)); input != types_.end()) {
    type.dtype = input->second.dtype;
  }
  type.scale = number(node, scale);
  type.zero_point = static_cast<int64_t>(number(node, zero_point));
  return type;
}

double QuantizedRules::number(Node* node, const char* name) const {
  const auto value = constant_value(node->namedInput(name));
  if (value && value->isDouble()) return value->toDouble();
  if (value && value->isInt()) return static_cast<double>(value->toInt());
  if (value && value->isTensor() && value->toTensor().numel() == 1) {
    return value->toTensor().item<double>();
  }
  refuse(node, name, "is computed at run time, expected a constant",
         "quantise statically, with a calibrated scale");
}

torch::jit::Value* QuantizedRules::call(Node* origin, const char* op,
                                        std::vector<NamedValue> arguments) {
  const torch::jit::WithInsertPoint guard(origin);
  JitValue* result = graph_.insert(torch::jit::Symbol::fromQualString(op), arguments);
  result->node()->copyMetadata(origin);
  return result;
}

// At the graph's insert point, which may lie behind `origin`.
torch::jit::Value* QuantizedRules::fake_quantized(Node* origin, JitValue* value,
                                                  const QuantizedType& type) {
  const auto [low, high] = code_range(type.dtype);
  JitValue* result = graph_.insert(torch::jit::Symbol::aten("fake_quantize_per_tensor_affine"),
                                   {value, type.scale, type.zero_point, low, high});
  result->node()->copyMetadata(origin);
  return result;
}

torch::jit::Value* QuantizedRules::dequantized(Node* origin, const at::Tensor& tensor,
                                               const std::string& name) {
  if (!tensor.is_quantized()) refuse(origin, "", "its packed weight is float16, expected integers");
  const QuantizedCodes codes = codes_of(tensor);
  name_tensor(origin, codes.codes, name + "_quantized");
  const c10::IValue axis = codes.axis ? c10::IValue(*codes.axis) : c10::IValue();
  return call(
      origin, "qcdq_onnx::dequantize_codes",
      {c10::IValue(codes.codes), c10::IValue(codes.scale), c10::IValue(codes.zero_point), axis});
}

torch::jit::Value* QuantizedRules::bias_of(Node* origin, const std::optional<at::Tensor>& bias) {
  const torch::jit::WithInsertPoint guard(origin);
  if (!bias) return graph_.insertConstant(c10::IValue());
  name_tensor(origin, *bias, "bias");
  return graph_.insertConstant(*bias);
}

void QuantizedRules::name_tensor(Node* origin, const at::Tensor& tensor, const std::string& name) {
  const std::string path = module_path(*origin);
  program_.parameter_paths[tensor.const_data_ptr()] = path.empty() ? name : path + "." + name;
}

void QuantizedRules::replace(Node* node, JitValue* value, const QuantizedType& type) {
  const torch::jit::WithInsertPoint guard(node);
  const std::string name = node->kind().toUnqualString();
  if (name.ends_with("_relu") && name != "leaky_relu") value = call(node, "aten::relu", {value});
  JitValue* quantized = fake_quantized(node, value, type);
  node->output()->replaceAllUsesWith(quantized);
  types_[quantized] = type;
  node->destroy();
}

void QuantizedRules::refuse(Node* node, const std::string& argument, const std::string& reason,
                            const std::string& hint) const {
  std::string value;
  if (!argument.empty() && node->maybeSchema() != nullptr &&
      node->schema().argumentIndexWithName(argument)) {
    const auto constant = constant_value(node->namedInput(argument));
    if (constant && (constant->isDouble() || constant->isInt())) {
      value = number_text(constant->isInt() ? Number(constant->toInt()) : constant->toDouble());
    }
  }
  refuse_node(*node, reason, hint, argument, value);
}

}  // namespace qcdq
