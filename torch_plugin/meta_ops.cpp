// Meta kernels of the ops: the checks that need no values, and outputs of the right shape, type and
// strides. Sizes stay symbolic, so torch.compile and torch.export keep dynamic shapes.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "torch_plugin/checks.h"

namespace qcdq {
namespace {

using OptionalInt = std::optional<int64_t>;

at::Tensor quantize_meta(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                         int64_t quant_min, int64_t quant_max, at::ScalarType dtype,
                         OptionalInt axis, OptionalInt block_size) {
  check_quantize("quantize", x, scale, zero_point, quant_min, quant_max, dtype, axis, block_size);
  return at::empty_like(x, x.options().dtype(dtype));
}

at::Tensor dequantize_meta(const at::Tensor& q, const at::Tensor& scale,
                           const at::Tensor& zero_point, OptionalInt axis, OptionalInt block_size,
                           std::optional<at::ScalarType> dtype) {
  check_dequantize("dequantize", q, scale, zero_point, axis, block_size, dtype);
  return at::empty_like(q, q.options().dtype(dtype.value_or(scale.scalar_type())));
}

at::Tensor fake_quantize_meta(const at::Tensor& x, const at::Tensor& scale,
                              const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                              OptionalInt axis, OptionalInt block_size) {
  check_fake_quantize("fake_quantize", x, scale, zero_point, quant_min, quant_max, axis,
                      block_size);
  return at::empty_like(x);
}

at::Tensor fake_quantize_backward_meta(const at::Tensor& grad, const at::Tensor& x,
                                       const at::Tensor& scale, const at::Tensor& zero_point,
                                       int64_t quant_min, int64_t quant_max, OptionalInt axis,
                                       OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize_backward";
  check_fake_quantize(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size);
  check_grad(kOp, grad, x);
  return at::empty_like(x);
}

at::Tensor fake_quantize_learned_meta(const at::Tensor& x, const at::Tensor& scale,
                                      const at::Tensor& zero_point, int64_t quant_min,
                                      int64_t quant_max, OptionalInt axis, OptionalInt block_size,
                                      double grad_factor) {
  check_learned("fake_quantize_learned", x, scale, zero_point, quant_min, quant_max, axis,
                block_size, grad_factor);
  return at::empty_like(x);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_learned_backward_meta(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, OptionalInt axis,
    OptionalInt block_size, double grad_factor) {
  constexpr const char* kOp = "fake_quantize_learned_backward";
  check_learned(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
  check_grad(kOp, grad, x);
  const at::ScalarType zero_point_type =
      zero_point.is_floating_point() ? zero_point.scalar_type() : scale.scalar_type();
  return {at::empty_like(x), at::empty_symint(scale.sym_sizes(), scale.options()),
          at::empty_symint(zero_point.sym_sizes(), scale.options().dtype(zero_point_type))};
}

std::tuple<at::Tensor, at::Tensor> choose_qparams_meta(const at::Tensor& x, int64_t quant_min,
                                                       int64_t quant_max, bool symmetric,
                                                       OptionalInt axis, OptionalInt block_size) {
  const ParamShape granularity =
      check_choose("choose_qparams", x, quant_min, quant_max, symmetric, axis, block_size);
  const auto shape = qparams_shape(x, granularity);
  return {at::empty_symint(shape, x.options().dtype(at::kFloat)),
          at::empty_symint(shape, x.options().dtype(at::kInt))};
}

at::Tensor fake_quantize_dynamic_meta(const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                                      bool symmetric, OptionalInt axis, OptionalInt block_size) {
  check_choose("fake_quantize_dynamic", x, quant_min, quant_max, symmetric, axis, block_size);
  return at::empty_like(x);
}

TORCH_LIBRARY_IMPL(qcdq, Meta, m) {
  m.impl("quantize", TORCH_FN(quantize_meta));
  m.impl("dequantize", TORCH_FN(dequantize_meta));
  m.impl("fake_quantize", TORCH_FN(fake_quantize_meta));
  m.impl("fake_quantize_backward", TORCH_FN(fake_quantize_backward_meta));
  m.impl("fake_quantize_learned", TORCH_FN(fake_quantize_learned_meta));
  m.impl("fake_quantize_learned_backward", TORCH_FN(fake_quantize_learned_backward_meta));
  m.impl("choose_qparams", TORCH_FN(choose_qparams_meta));
  m.impl("fake_quantize_dynamic", TORCH_FN(fake_quantize_dynamic_meta));
}

}  // namespace
}  // namespace qcdq
