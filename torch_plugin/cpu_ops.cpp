// CPU kernels of the elementwise ops: quantize, dequantize, fake_quantize and its backward. The ops
// that reduce (learned gradients, choose_qparams) are in cpu_reduce_ops.cpp.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "torch_plugin/checks.h"
#include "torch_plugin/cpu_tensors.h"
#include "torch_plugin/kernels/cpu_kernels.h"

namespace qcdq {
namespace {

at::Tensor quantize_cpu(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                        int64_t quant_min, int64_t quant_max, at::ScalarType dtype,
                        OptionalInt axis, OptionalInt block_size) {
  constexpr const char* kOp = "quantize";
  const ParamShape granularity =
      check_quantize(kOp, x, scale, zero_point, quant_min, quant_max, dtype, axis, block_size);
  const at::Tensor dense = make_dense(x);
  QParams qparams =
      prepare_qparams(kOp, dense, granularity, scale, zero_point, quant_min, quant_max);
  tile_short_runs(&qparams);
  at::Tensor codes = empty_as(dense, dtype);
  with_float_type(x.scalar_type(), [&](auto element) {
    using X = decltype(element);
    visit_params<X>(qparams, [&](const auto& params) {
      with_code_type(dtype, [&](auto code) {
        using Code = decltype(code);
        parallel_runs(qparams.layout, params,
                      [&](int64_t offset, const RunRange& runs, const auto& q) {
                        quantize_runs(elements_of<X>(dense) + offset,
                                      mutable_elements_of<Code>(codes) + offset, runs, q);
                      });
      });
    });
  });
  return codes;
}

at::Tensor dequantize_cpu(const at::Tensor& q, const at::Tensor& scale,
                          const at::Tensor& zero_point, OptionalInt axis, OptionalInt block_size,
                          std::optional<at::ScalarType> dtype) {
  constexpr const char* kOp = "dequantize";
  const ParamShape granularity =
      check_dequantize(kOp, q, scale, zero_point, axis, block_size, dtype);
  const at::ScalarType value_type = dtype.value_or(scale.scalar_type());
  const at::ScalarType code_type = q.scalar_type();
  const at::Tensor dense = make_dense(q);
  const CodeRange range = range_of_storage_type(code_type);
  // Differences of 8- and 16-bit codes are exact in f32; those of int32 codes need f64.
  const bool wide = value_type == at::kDouble || code_type == at::kInt;
  QParams qparams = prepare_qparams(
      dense, scale, zero_point,
      {kOp, granularity, value_type, range.min, range.max, wide, "the range of q's type"});
  tile_short_runs(&qparams);
  at::Tensor y = empty_as(dense, value_type);
  with_float_type(value_type, [&](auto element) {
    using X = decltype(element);
    visit_params<X>(qparams, [&](const auto& params) {
      with_code_type(code_type, [&](auto code) {
        using Code = decltype(code);
        using Params = std::decay_t<decltype(params)>;
        // int32 codes are wide: this pair never meets.
        if constexpr (sizeof(Code) < 4 || !std::is_same_v<Params, KernelParams<float, float>>) {
          parallel_runs(qparams.layout, params,
                        [&](int64_t offset, const RunRange& runs, const auto& moved) {
                          dequantize_runs(elements_of<Code>(dense) + offset,
                                          mutable_elements_of<X>(y) + offset, runs, moved);
                        });
        }
      });
    });
  });
  return y;
}

at::Tensor fake_quantize_cpu(const at::Tensor& x, const at::Tensor& scale,
                             const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                             OptionalInt axis, OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize";
  const ParamShape granularity =
      check_fake_quantize(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size);
  const at::Tensor dense = make_dense(x);
  return fake_quantize_dense(
      dense, prepare_qparams(kOp, dense, granularity, scale, zero_point, quant_min, quant_max));
}

at::Tensor fake_quantize_backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                                      const at::Tensor& scale, const at::Tensor& zero_point,
                                      int64_t quant_min, int64_t quant_max, OptionalInt axis,
                                      OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize_backward";
  const ParamShape granularity =
      check_fake_quantize(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size);
  check_grad(kOp, grad, x);
  const at::Tensor dense = make_dense(x);
  const at::Tensor dense_grad = with_strides_of(dense, grad);
  QParams qparams =
      prepare_qparams(kOp, dense, granularity, scale, zero_point, quant_min, quant_max);
  tile_short_runs(&qparams);
  at::Tensor grad_x = empty_as(dense, x.scalar_type());
  with_float_type(x.scalar_type(), [&](auto element) {
    using X = decltype(element);
    visit_params<X>(qparams, [&](const auto& params) {
      parallel_runs(qparams.layout, params,
                    [&](int64_t offset, const RunRange& runs, const auto& q) {
                      fake_quantize_backward_runs(elements_of<X>(dense_grad) + offset,
                                                  elements_of<X>(dense) + offset,
                                                  mutable_elements_of<X>(grad_x) + offset, runs, q);
                    });
    });
  });
  return grad_x;
}

TORCH_LIBRARY_IMPL(qcdq, CPU, m) {
  m.impl("quantize", TORCH_FN(quantize_cpu));
  m.impl("dequantize", TORCH_FN(dequantize_cpu));
  m.impl("fake_quantize", TORCH_FN(fake_quantize_cpu));
  m.impl("fake_quantize_backward", TORCH_FN(fake_quantize_backward_cpu));
}

}  // namespace
}  // namespace qcdq
