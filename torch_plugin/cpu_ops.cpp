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
  const Granularity granularity =
      check_quantize(kOp, x, scale, zero_point, quant_min, quant_max, dtype, axis, block_size);

  const at::ScalarType compute = compute_type(x.scalar_type());
  const at::Tensor dense = make_dense(x, compute);
  const QParams qparams =
      prepare_qparams(dense, memory_order(dense), granularity, scale, zero_point, compute);
  check_qparam_values(kOp, qparams, quant_min, quant_max);
  at::Tensor codes = at::empty_like(dense, dense.options().dtype(dtype));
  with_compute_type(compute, [&](auto t) {
    with_code_type(dtype, [&](auto c) {
      using T = decltype(t);
      using Code = decltype(c);
      const T* from = dense.const_data_ptr<T>();
      Code* to = codes.mutable_data_ptr<Code>();
      parallel_runs(qparams.layout, [&](ParamLayout::Run run) {
        quantize_run(from + run.offset, to + run.offset, run.count,
                     run_params<T>(qparams, run.param, run.param_step, quant_min, quant_max));
      });
    });
  });
  return codes;
}

at::Tensor dequantize_cpu(const at::Tensor& q, const at::Tensor& scale,
                          const at::Tensor& zero_point, OptionalInt axis, OptionalInt block_size,
                          std::optional<at::ScalarType> dtype) {
  constexpr const char* kOp = "dequantize";
  const Granularity granularity =
      check_dequantize(kOp, q, scale, zero_point, axis, block_size, dtype);
  const at::ScalarType value_type = dtype.value_or(scale.scalar_type());

  const at::ScalarType compute = compute_type(value_type);
  const at::Tensor dense = make_dense(q, q.scalar_type());
  const QParams qparams =
      prepare_qparams(dense, memory_order(dense), granularity, scale, zero_point, compute);
  const CodeRange range = range_of_storage_type(q.scalar_type());
  with_compute_type(compute, [&](auto t) { check_scale_values<decltype(t)>(kOp, qparams.scale); });
  check_zero_point_values(kOp, qparams.zero_point, range.lowest, range.highest,
                          "the range of q's type");
  at::Tensor y = at::empty_like(dense, dense.options().dtype(compute));
  with_compute_type(compute, [&](auto t) {
    with_code_type(q.scalar_type(), [&](auto c) {
      using T = decltype(t);
      using Code = decltype(c);
      const Code* from = dense.const_data_ptr<Code>();
      T* to = y.mutable_data_ptr<T>();
      parallel_runs(qparams.layout, [&](ParamLayout::Run run) {
        dequantize_run(
            from + run.offset, to + run.offset, run.count,
            run_params<T>(qparams, run.param, run.param_step, range.lowest, range.highest));
      });
    });
  });
  return y.to(value_type);
}

at::Tensor fake_quantize_cpu(const at::Tensor& x, const at::Tensor& scale,
                             const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                             OptionalInt axis, OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize";
  const Granularity granularity =
      check_fake_quantize(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size);

  const at::ScalarType compute = compute_type(x.scalar_type());
  const at::Tensor dense = make_dense(x, compute);
  const QParams qparams =
      prepare_qparams(dense, memory_order(dense), granularity, scale, zero_point, compute);
  check_qparam_values(kOp, qparams, quant_min, quant_max);
  return fake_quantize_dense(dense, qparams, quant_min, quant_max).to(x.scalar_type());
}

at::Tensor fake_quantize_backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                                      const at::Tensor& scale, const at::Tensor& zero_point,
                                      int64_t quant_min, int64_t quant_max, OptionalInt axis,
                                      OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize_backward";
  const Granularity granularity =
      check_fake_quantize(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size);
  check_grad(kOp, grad, x);

  const at::ScalarType compute = compute_type(x.scalar_type());
  const at::Tensor dense = make_dense(x, compute);
  at::Tensor dense_grad = grad.to(compute);
  if (dense_grad.strides() != dense.strides()) {
    dense_grad = at::empty_like(dense).copy_(dense_grad);
  }
  const QParams qparams =
      prepare_qparams(dense, memory_order(dense), granularity, scale, zero_point, compute);
  check_qparam_values(kOp, qparams, quant_min, quant_max);
  at::Tensor grad_x = at::empty_like(dense);
  with_compute_type(compute, [&](auto t) {
    using T = decltype(t);
    const T* from_grad = dense_grad.const_data_ptr<T>();
    const T* from = dense.const_data_ptr<T>();
    T* to = grad_x.mutable_data_ptr<T>();
    parallel_runs(qparams.layout, [&](ParamLayout::Run run) {
      fake_quantize_backward_run(
          from_grad + run.offset, from + run.offset, to + run.offset, run.count,
          run_params<T>(qparams, run.param, run.param_step, quant_min, quant_max));
    });
  });
  return grad_x.to(x.scalar_type());
}

TORCH_LIBRARY_IMPL(qcdq, CPU, m) {
  m.impl("quantize", TORCH_FN(quantize_cpu));
  m.impl("dequantize", TORCH_FN(dequantize_cpu));
  m.impl("fake_quantize", TORCH_FN(fake_quantize_cpu));
  m.impl("fake_quantize_backward", TORCH_FN(fake_quantize_backward_cpu));
}

}  // namespace
}  // namespace qcdq
