// Autograd kernels of the ops: the straight-through estimator, the gradients of a learned scale and
// zero point (LSQ, LSQ+), and named refusals where no gradient is defined (docs/semantics.md).
// fake_quantize and fake_quantize_learned are graph nodes of their own, as torch's generated ones:
// torch::autograd::Function keeps its arguments in a dictionary, which costs a small tensor more
// than the arithmetic.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <qcdq/ops.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/library.h>

#include "torch_plugin/quant_node.h"

namespace qcdq {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalInt = std::optional<int64_t>;

at::Tensor fake_quantize_backward(const at::Tensor& grad, const at::Tensor& x,
                                  const at::Tensor& scale, const at::Tensor& zero_point,
                                  int64_t quant_min, int64_t quant_max, OptionalInt axis,
                                  OptionalInt block_size) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("qcdq::fake_quantize_backward", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, int64_t, int64_t, OptionalInt, OptionalInt)>();
  return op.call(grad, x, scale, zero_point, quant_min, quant_max, axis, block_size);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_learned_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, OptionalInt axis,
    OptionalInt block_size, double grad_factor) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("qcdq::fake_quantize_learned_backward", "")
          .typed<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
              const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
              int64_t, OptionalInt, OptionalInt, double)>();
  return op.call(grad, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
}

variable_list no_gradients(size_t count) { return variable_list(count); }

bool any_requires_grad(std::initializer_list<std::reference_wrapper<const at::Tensor>> tensors) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.requires_grad()) return true;
  }
  return false;
}

// One input: x.
class FakeQuantizeNode : public QuantNode {
 public:
  using QuantNode::QuantNode;
  std::string name() const override { return "QcdqFakeQuantizeBackward"; }
  bool is_learned() const override { return false; }
  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return no_gradients(1);
    const Inputs in = unpack();
    return {fake_quantize_backward(grads[0], in.x, in.scale, in.zero_point, arguments_.quant_min,
                                   arguments_.quant_max, arguments_.axis, arguments_.block_size)};
  }
};

// Three inputs: x, scale and, where it is floating, zero_point.
class FakeQuantizeLearnedNode : public QuantNode {
 public:
  using QuantNode::QuantNode;
  std::string name() const override { return "QcdqFakeQuantizeLearnedBackward"; }
  bool is_learned() const override { return true; }
  variable_list apply(variable_list&& grads) override {
    if (!grads[0].defined()) return no_gradients(3);
    const Inputs in = unpack();
    auto [grad_x, grad_scale, grad_zero_point] = fake_quantize_learned_backward(
        grads[0], in.x, in.scale, in.zero_point, arguments_.quant_min, arguments_.quant_max,
        arguments_.axis, arguments_.block_size, arguments_.grad_factor);
    if (!in.zero_point.is_floating_point()) grad_zero_point = at::Tensor();
    return {std::move(grad_x), std::move(grad_scale), std::move(grad_zero_point)};
  }
};

// torch 2.15 counts references to nodes inside of them, earlier ones outside.
template <typename NodeType, typename... Args>
auto make_node(Args&&... args) {
  using Pointer = decltype(torch::autograd::Edge::function);
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<torch::autograd::Node>>) {
    return std::make_shared<NodeType>(std::forward<Args>(args)...);
  } else {
    return c10::make_intrusive<NodeType>(std::forward<Args>(args)...);
  }
}

class FakeQuantizeDynamic : public torch::autograd::Function<FakeQuantizeDynamic> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, int64_t quant_min,
                            int64_t quant_max, bool symmetric, OptionalInt axis,
                            OptionalInt block_size) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({x});
    ctx->saved_data["quant_min"] = quant_min;
    ctx->saved_data["quant_max"] = quant_max;
    ctx->saved_data["symmetric"] = symmetric;
    ctx->saved_data["axis"] = axis;
    ctx->saved_data["block_size"] = block_size;
    return fake_quantize_dynamic(x, quant_min, quant_max, symmetric, axis, block_size);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result = no_gradients(6);
    if (!grads[0].defined()) return result;
    const at::Tensor x = ctx->get_saved_variables()[0];
    const int64_t quant_min = ctx->saved_data["quant_min"].toInt();
    const int64_t quant_max = ctx->saved_data["quant_max"].toInt();
    const OptionalInt axis = ctx->saved_data["axis"].toOptional<int64_t>();
    const OptionalInt block_size = ctx->saved_data["block_size"].toOptional<int64_t>();
    // Found again from x: cheaper than a second output that would change the op's schema.
    const auto [scale, zero_point] = choose_qparams(
        x, quant_min, quant_max, ctx->saved_data["symmetric"].toBool(), axis, block_size);
    result[0] = fake_quantize_backward(grads[0], x, scale, zero_point, quant_min, quant_max, axis,
                                       block_size);
    return result;
  }
};

// Forward works; a backward through it throws, where a silent absence of gradients would not be
// seen.
class DequantizeFunction : public torch::autograd::Function<DequantizeFunction> {
 public:
  static at::Tensor forward(AutogradContext*, const at::Tensor& q, const at::Tensor& scale,
                            const at::Tensor& zero_point, OptionalInt axis, OptionalInt block_size,
                            std::optional<at::ScalarType> dtype) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return dequantize(q, scale, zero_point, axis, block_size, dtype);
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    TORCH_CHECK_NOT_IMPLEMENTED(false,
                                "qcdq::dequantize: scale requires a gradient, but dequantize has "
                                "none; learn a scale with qcdq::fake_quantize_learned");
  }
};

[[noreturn]] void refuse_double_backward(const char* op) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "qcdq::", op, ": double backward is not supported");
}

class FakeQuantizeBackwardFunction
    : public torch::autograd::Function<FakeQuantizeBackwardFunction> {
 public:
  static at::Tensor forward(AutogradContext*, const at::Tensor& grad, const at::Tensor& x,
                            const at::Tensor& scale, const at::Tensor& zero_point,
                            int64_t quant_min, int64_t quant_max, OptionalInt axis,
                            OptionalInt block_size) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return fake_quantize_backward(grad, x, scale, zero_point, quant_min, quant_max, axis,
                                  block_size);
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    refuse_double_backward("fake_quantize");
  }
};

class FakeQuantizeLearnedBackward : public torch::autograd::Function<FakeQuantizeLearnedBackward> {
 public:
  static variable_list forward(AutogradContext*, const at::Tensor& grad, const at::Tensor& x,
                               const at::Tensor& scale, const at::Tensor& zero_point,
                               int64_t quant_min, int64_t quant_max, OptionalInt axis,
                               OptionalInt block_size, double grad_factor) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [grad_x, grad_scale, grad_zero_point] = fake_quantize_learned_backward(
        grad, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
    return {grad_x, grad_scale, grad_zero_point};
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    refuse_double_backward("fake_quantize_learned");
  }
};

at::Tensor quantize_autograd(const at::Tensor& x, const at::Tensor& scale,
                             const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                             at::ScalarType dtype, OptionalInt axis, OptionalInt block_size) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;  // integers carry no gradient
  return quantize(x, scale, zero_point, quant_min, quant_max, dtype, axis, block_size);
}

at::Tensor dequantize_autograd(const at::Tensor& q, const at::Tensor& scale,
                               const at::Tensor& zero_point, OptionalInt axis,
                               OptionalInt block_size, std::optional<at::ScalarType> dtype) {
  if (any_requires_grad({scale})) {
    return DequantizeFunction::apply(q, scale, zero_point, axis, block_size, dtype);
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return dequantize(q, scale, zero_point, axis, block_size, dtype);
}

at::Tensor fake_quantize_autograd(const at::Tensor& x, const at::Tensor& scale,
                                  const at::Tensor& zero_point, int64_t quant_min,
                                  int64_t quant_max, OptionalInt axis, OptionalInt block_size) {
  at::Tensor y;
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    y = fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, block_size);
  }
  if (any_requires_grad({x})) {
    const Arguments arguments{quant_min, quant_max, axis, block_size};
    torch::autograd::set_history(
        y, make_node<FakeQuantizeNode>(torch::autograd::collect_next_edges(x), x, scale, zero_point,
                                       arguments));
  }
  return y;
}

at::Tensor fake_quantize_learned_autograd(const at::Tensor& x, const at::Tensor& scale,
                                          const at::Tensor& zero_point, int64_t quant_min,
                                          int64_t quant_max, OptionalInt axis,
                                          OptionalInt block_size, double grad_factor) {
  at::Tensor y;
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    y = fake_quantize_learned(x, scale, zero_point, quant_min, quant_max, axis, block_size,
                              grad_factor);
  }
  if (any_requires_grad({x, scale, zero_point})) {
    const Arguments arguments{quant_min, quant_max, axis, block_size, grad_factor};
    torch::autograd::set_history(y, make_node<FakeQuantizeLearnedNode>(
                                        torch::autograd::collect_next_edges(x, scale, zero_point),
                                        x, scale, zero_point, arguments));
  }
  return y;
}

std::tuple<at::Tensor, at::Tensor> choose_qparams_autograd(const at::Tensor& x, int64_t quant_min,
                                                           int64_t quant_max, bool symmetric,
                                                           OptionalInt axis,
                                                           OptionalInt block_size) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;  // a statistic: a constant for autograd
  return choose_qparams(x, quant_min, quant_max, symmetric, axis, block_size);
}

at::Tensor fake_quantize_dynamic_autograd(const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                                          bool symmetric, OptionalInt axis,
                                          OptionalInt block_size) {
  if (any_requires_grad({x})) {
    return FakeQuantizeDynamic::apply(x, quant_min, quant_max, symmetric, axis, block_size);
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return fake_quantize_dynamic(x, quant_min, quant_max, symmetric, axis, block_size);
}

at::Tensor fake_quantize_backward_autograd(const at::Tensor& grad, const at::Tensor& x,
                                           const at::Tensor& scale, const at::Tensor& zero_point,
                                           int64_t quant_min, int64_t quant_max, OptionalInt axis,
                                           OptionalInt block_size) {
  if (any_requires_grad({grad})) {
    return FakeQuantizeBackwardFunction::apply(grad, x, scale, zero_point, quant_min, quant_max,
                                               axis, block_size);
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return fake_quantize_backward(grad, x, scale, zero_point, quant_min, quant_max, axis, block_size);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_learned_backward_autograd(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, OptionalInt axis,
    OptionalInt block_size, double grad_factor) {
  if (any_requires_grad({grad, x, scale, zero_point})) {
    const variable_list result = FakeQuantizeLearnedBackward::apply(
        grad, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
    return {result[0], result[1], result[2]};
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return fake_quantize_learned_backward(grad, x, scale, zero_point, quant_min, quant_max, axis,
                                        block_size, grad_factor);
}

TORCH_LIBRARY_IMPL(qcdq, Autograd, m) {
  m.impl("quantize", TORCH_FN(quantize_autograd));
  m.impl("dequantize", TORCH_FN(dequantize_autograd));
  m.impl("fake_quantize", TORCH_FN(fake_quantize_autograd));
  m.impl("fake_quantize_learned", TORCH_FN(fake_quantize_learned_autograd));
  m.impl("choose_qparams", TORCH_FN(choose_qparams_autograd));
  m.impl("fake_quantize_dynamic", TORCH_FN(fake_quantize_dynamic_autograd));
  m.impl("fake_quantize_backward", TORCH_FN(fake_quantize_backward_autograd));
  m.impl("fake_quantize_learned_backward", TORCH_FN(fake_quantize_learned_backward_autograd));
}

}  // namespace
}  // namespace qcdq
