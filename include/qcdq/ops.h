// The ops of libqcdq_ops.so for C++ callers. Each function calls its registered op through torch's
// dispatcher, so that autograd, tracing, Meta tensors and other devices work as for any torch op.
// The numbers: qcdq/affine.h and docs/semantics.md. The schemas: torch_plugin/library.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <qcdq/api.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace qcdq {

// What scale and zero_point look like, in every function below:
//  * no axis (per tensor): one element each, of any rank;
//  * axis (per channel; negative counts from the end): 1-d, x.size(axis) elements;
//  * axis and block_size (blocked along axis): the shape of x, with size(axis) divided by
//    block_size and rounded up; the last block may be shorter.
// x: f32, f16, bf16 or f64, of any strides and any rank, empty tensors included. scale: f32 or x's
// type, finite and > 0. zero_point: any integer type, within [quant_min, quant_max]. quant_min <
// quant_max, both within int32. Anything else throws c10::ValueError, which names the argument, its
// value and what was expected. Values of scale and zero_point are checked by the CPU kernels.

/// The integer codes of x: clamp(round_half_even(x / scale) + zero_point, quant_min, quant_max)
/// stored as dtype (int8, uint8, int16, uint16 or int32, which must hold the range). x's shape.
/// No gradient.
///
///     auto q = qcdq::quantize(x, scale, zero_point, -128, 127, at::kChar);
QCDQ_API at::Tensor quantize(const at::Tensor& x, const at::Tensor& scale,
                             const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                             at::ScalarType dtype, std::optional<int64_t> axis = std::nullopt,
                             std::optional<int64_t> block_size = std::nullopt);

/// The values of codes: (q - zero_point) * scale, in dtype (f32, f16, bf16 or f64; scale's own type
/// if not given). q: int8, uint8, int16, uint16 or int32. zero_point must fit q's type. A backward
/// through it throws: learn a scale with fake_quantize_learned.
///
///     auto y = qcdq::dequantize(q, scale, zero_point);
QCDQ_API at::Tensor dequantize(const at::Tensor& q, const at::Tensor& scale,
                               const at::Tensor& zero_point,
                               std::optional<int64_t> axis = std::nullopt,
                               std::optional<int64_t> block_size = std::nullopt,
                               std::optional<at::ScalarType> dtype = std::nullopt);

/// dequantize(quantize(x)) in x's type. Gradient of x: straight-through estimator, the incoming
/// gradient where quant_min <= round_half_even(x / scale) + zero_point <= quant_max, 0 elsewhere;
/// scale and zero_point get none.
///
///     auto y = qcdq::fake_quantize(x, scale, zero_point, 0, 255);
QCDQ_API at::Tensor fake_quantize(const at::Tensor& x, const at::Tensor& scale,
                                  const at::Tensor& zero_point, int64_t quant_min,
                                  int64_t quant_max, std::optional<int64_t> axis = std::nullopt,
                                  std::optional<int64_t> block_size = std::nullopt);

/// fake_quantize with gradients for scale (LSQ, arXiv:1902.08153) and zero_point (LSQ+,
/// arXiv:2004.09576), each multiplied by grad_factor. zero_point may be floating (f32 or x's type;
/// only then it gets a gradient): the one used is clamp(round_half_even(zero_point), quant_min,
/// quant_max). Gradient sums have the same bits for any number of threads.
///
///     auto y = qcdq::fake_quantize_learned(x, scale, zero_point, -8, 7, std::nullopt,
///                                          std::nullopt, 1.0 / std::sqrt(x.numel() * 7.0));
QCDQ_API at::Tensor fake_quantize_learned(const at::Tensor& x, const at::Tensor& scale,
                                          const at::Tensor& zero_point, int64_t quant_min,
                                          int64_t quant_max,
                                          std::optional<int64_t> axis = std::nullopt,
                                          std::optional<int64_t> block_size = std::nullopt,
                                          double grad_factor = 1.0);

/// Scale (f32) and zero point (int32) from the smallest and largest value of x, as ONNX
/// DynamicQuantizeLinear for [0, 255] and by the same formula for other ranges; symmetric: absmax /
/// quant_max and 0. NaN is ignored. Shapes: 0-d per tensor, else as listed above. No gradient.
///
///     auto [scale, zero_point] = qcdq::choose_qparams(weight, -127, 127, /*symmetric=*/true, 0);
QCDQ_API std::tuple<at::Tensor, at::Tensor> choose_qparams(
    const at::Tensor& x, int64_t quant_min, int64_t quant_max, bool symmetric = false,
    std::optional<int64_t> axis = std::nullopt, std::optional<int64_t> block_size = std::nullopt);

/// fake_quantize with the parameters that choose_qparams finds in x itself, at every call.
/// Gradient: straight-through, the parameters taken as constants.
///
///     auto y = qcdq::fake_quantize_dynamic(x, 0, 255);
QCDQ_API at::Tensor fake_quantize_dynamic(const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                                          bool symmetric = false,
                                          std::optional<int64_t> axis = std::nullopt,
                                          std::optional<int64_t> block_size = std::nullopt);

/// Saves memory in training. y: the result of a convolution or a linear layer, returned as it is.
/// What its backward keeps of results of fake_quantize and fake_quantize_learned is dropped, and
/// computed again when it is needed, from what these ops keep themselves. The gradients have the
/// same bits; quantised inputs and weights then cost no memory beside the float ones, at the price
/// of a second forward of the quantisers. Changes nothing where nothing of the kind is kept (no
/// gradient, float operands). The layers of modules.h call it.
///
///     auto y = qcdq::recompute_quantized(at::conv2d(x, qcdq::fake_quantize(weight, ...)));
QCDQ_API at::Tensor recompute_quantized(const at::Tensor& y);

}  // namespace qcdq
