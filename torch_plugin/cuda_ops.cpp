// CUDA kernels of the ops (libqcdq_cuda.so): checks, outputs and the order of parameters, then one
// or two launches on the current stream (kernels/cuda). Nothing reads GPU memory back, so that a
// call neither waits for the GPU nor breaks the capture of a CUDA graph; values of scale and
// zero_point are therefore not checked (docs/semantics.md). Loaded by load_cuda.cpp.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <qcdq/affine.h>
#include <torch/library.h>

#include "torch_plugin/checks.h"
#include "torch_plugin/dense_tensors.h"
#include "torch_plugin/kernels/cuda/cuda_kernels.h"

namespace qcdq {
namespace {

cuda::FloatType float_type(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return cuda::FloatType::kF16;
    case at::kBFloat16:
      return cuda::FloatType::kBF16;
    case at::kDouble:
      return cuda::FloatType::kF64;
    default:
      return cuda::FloatType::kF32;
  }
}

cuda::CodeType code_type(at::ScalarType type) {
  switch (type) {
    case at::kChar:
      return cuda::CodeType::kInt8;
    case at::kByte:
      return cuda::CodeType::kUint8;
    case at::kShort:
      return cuda::CodeType::kInt16;
    case at::kUInt16:
      return cuda::CodeType::kUint16;
    default:
      return cuda::CodeType::kInt32;
  }
}

void check_launch(const char* op, cudaError_t status) {
  TORCH_CHECK(status == cudaSuccess, "qcdq::", op,
              ": the CUDA kernel did not start: ", cudaGetErrorString(status));
}

at::Tensor empty_like_dense(const at::Tensor& dense, at::ScalarType type) {
  return at::empty_like(dense, dense.options().dtype(type));
}

// Blocked parameters follow the dimensions of x; kernels take them in the order of its memory.
at::Tensor in_memory_order(const at::Tensor& param, const at::Tensor& dense,
                           const ParamShape& granularity) {
  if (!granularity.block_size || dense.is_contiguous()) return param.contiguous();
  return param.permute(memory_order(dense)).contiguous();
}

// A contiguous tensor for values in the order of x's memory that are to get the shape `sizes`.
at::Tensor empty_in_memory_order(at::IntArrayRef sizes, const at::Tensor& dense,
                                 const ParamShape& granularity, at::ScalarType type) {
  const at::TensorOptions options = dense.options().dtype(type).memory_format(std::nullopt);
  if (!granularity.block_size || dense.is_contiguous()) return at::empty(sizes, options);
  c10::SmallVector<int64_t, 6> permuted;
  for (const int64_t dim : memory_order(dense)) permuted.push_back(sizes[dim]);
  return at::empty(permuted, options);
}

// What empty_in_memory_order made, filled, in the dimensions of x.
at::Tensor in_order_of_dims(const at::Tensor& arranged, const at::Tensor& dense,
                            const ParamShape& granularity) {
  if (!granularity.block_size || dense.is_contiguous()) return arranged;
  const auto order = memory_order(dense);
  c10::SmallVector<int64_t, 6> inverse(order.size());
  for (size_t i = 0; i < order.size(); ++i) inverse[order[i]] = static_cast<int64_t>(i);
  return arranged.permute(inverse).contiguous();
}

// The tensors behind a cuda::Call: scale and zero point in types that the kernels read.
struct PreparedCall {
  at::Tensor scale;
  at::Tensor zero_point;
  cuda::Call call;
};

PreparedCall prepare(const at::Tensor& dense, const ParamShape& granularity,
                     at::ScalarType value_type, const at::Tensor& scale,
                     const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                     bool wide) {
  PreparedCall p;
  const bool f64 = value_type == at::kDouble;
  // f16 and bf16 are exact in f32. f64 data may come with an f32 or an f64 scale.
  const bool keep_scale = scale.scalar_type() == at::kFloat || f64;
  p.scale = in_memory_order(keep_scale ? scale : scale.to(at::kFloat), dense, granularity);
  at::ScalarType zero_point_type = at::kInt;  // all valid ones are within int32
  if (zero_point.is_floating_point()) {
    zero_point_type = zero_point.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  }
  p.zero_point = in_memory_order(zero_point.to(zero_point_type), dense, granularity);

  const auto array = [](const at::Tensor& t) {
    const auto type = t.scalar_type();
    return cuda::ParamArray{t.const_data_ptr(), type == at::kInt      ? cuda::ParamType::kInt32
                                                : type == at::kDouble ? cuda::ParamType::kFloat64
                                                                      : cuda::ParamType::kFloat32};
  };
  p.call = {layout_of(dense, granularity),
            {array(p.scale), array(p.zero_point), quant_min, quant_max},
            wide ? cuda::Accumulator::kDouble : cuda::Accumulator::kFloat,
            c10::cuda::getCurrentCUDAStream().stream()};
  return p;
}

PreparedCall prepare(const at::Tensor& dense, const ParamShape& granularity,
                     const at::Tensor& scale, const at::Tensor& zero_point, int64_t quant_min,
                     int64_t quant_max) {
  const at::ScalarType type = dense.scalar_type();
  return prepare(dense, granularity, type, scale, zero_point, quant_min, quant_max,
                 type == at::kDouble || needs_wide_accumulator(quant_min, quant_max));
}

at::Tensor quantize_cuda(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                         int64_t quant_min, int64_t quant_max, at::ScalarType dtype,
                         OptionalInt axis, OptionalInt block_size) {
  constexpr const char* kOp = "quantize";
  const ParamShape granularity =
      check_quantize(kOp, x, scale, zero_point, quant_min, quant_max, dtype, axis, block_size);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = make_dense(x);
  const PreparedCall p = prepare(dense, granularity, scale, zero_point, quant_min, quant_max);
  at::Tensor codes = empty_like_dense(dense, dtype);
  check_launch(kOp, cuda::quantize(p.call, float_type(x.scalar_type()), code_type(dtype),
                                   dense.const_data_ptr(), codes.mutable_data_ptr()));
  return codes;
}

at::Tensor dequantize_cuda(const at::Tensor& q, const at::Tensor& scale,
                           const at::Tensor& zero_point, OptionalInt axis, OptionalInt block_size,
                           std::optional<at::ScalarType> dtype) {
  constexpr const char* kOp = "dequantize";
  const ParamShape granularity =
      check_dequantize(kOp, q, scale, zero_point, axis, block_size, dtype);
  const at::ScalarType value_type = dtype.value_or(scale.scalar_type());
  const c10::cuda::CUDAGuard guard(q.device());
  const at::Tensor dense = make_dense(q);
  const CodeRange range = range_of_storage_type(q.scalar_type());
  // Differences of 8- and 16-bit codes are exact in f32; those of int32 codes need f64.
  const bool wide = value_type == at::kDouble || q.scalar_type() == at::kInt;
  const PreparedCall p =
      prepare(dense, granularity, value_type, scale, zero_point, range.min, range.max, wide);
  at::Tensor y = empty_like_dense(dense, value_type);
  check_launch(kOp, cuda::dequantize(p.call, float_type(value_type), code_type(q.scalar_type()),
                                     dense.const_data_ptr(), y.mutable_data_ptr()));
  return y;
}

at::Tensor run_fake_quantize(const char* op, const at::Tensor& dense, const cuda::Call& call) {
  at::Tensor y = empty_like_dense(dense, dense.scalar_type());
  check_launch(op, cuda::fake_quantize(call, float_type(dense.scalar_type()),
                                       dense.const_data_ptr(), y.mutable_data_ptr()));
  return y;
}

at::Tensor fake_quantize_cuda(const at::Tensor& x, const at::Tensor& scale,
                              const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                              OptionalInt axis, OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize";
  const ParamShape granularity =
      check_fake_quantize(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = make_dense(x);
  const PreparedCall p = prepare(dense, granularity, scale, zero_point, quant_min, quant_max);
  return run_fake_quantize(kOp, dense, p.call);
}

at::Tensor fake_quantize_backward_cuda(const at::Tensor& grad, const at::Tensor& x,
                                       const at::Tensor& scale, const at::Tensor& zero_point,
                                       int64_t quant_min, int64_t quant_max, OptionalInt axis,
                                       OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize_backward";
  const ParamShape granularity =
      check_fake_quantize(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size);
  check_grad(kOp, grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = make_dense(x);
  const at::Tensor dense_grad = with_strides_of(dense, grad);
  const PreparedCall p = prepare(dense, granularity, scale, zero_point, quant_min, quant_max);
  at::Tensor grad_x = empty_like_dense(dense, x.scalar_type());
  check_launch(kOp, cuda::fake_quantize_backward(
                        p.call, float_type(x.scalar_type()), dense_grad.const_data_ptr(),
                        dense.const_data_ptr(), grad_x.mutable_data_ptr()));
  return grad_x;
}

at::Tensor fake_quantize_learned_cuda(const at::Tensor& x, const at::Tensor& scale,
                                      const at::Tensor& zero_point, int64_t quant_min,
                                      int64_t quant_max, OptionalInt axis, OptionalInt block_size,
                                      double grad_factor) {
  constexpr const char* kOp = "fake_quantize_learned";
  const ParamShape granularity =
      check_learned(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = make_dense(x);
  const PreparedCall p = prepare(dense, granularity, scale, zero_point, quant_min, quant_max);
  return run_fake_quantize(kOp, dense, p.call);
}

at::Tensor slots_for(const at::Tensor& dense, const ParamLayout& layout) {
  return at::empty({cuda::slot_bytes(layout, float_type(dense.scalar_type()))},
                   dense.options().dtype(at::kByte).memory_format(std::nullopt));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_learned_backward_cuda(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, OptionalInt axis,
    OptionalInt block_size, double grad_factor) {
  constexpr const char* kOp = "fake_quantize_learned_backward";
  const ParamShape granularity =
      check_learned(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
  check_grad(kOp, grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = make_dense(x);
  const at::Tensor dense_grad = with_strides_of(dense, grad);
  const PreparedCall p = prepare(dense, granularity, scale, zero_point, quant_min, quant_max);
  const at::ScalarType zero_point_type =
      zero_point.is_floating_point() ? zero_point.scalar_type() : scale.scalar_type();
  at::Tensor grad_x = empty_like_dense(dense, x.scalar_type());
  at::Tensor grad_scale =
      empty_in_memory_order(scale.sizes(), dense, granularity, scale.scalar_type());
  at::Tensor grad_zero_point =
      empty_in_memory_order(zero_point.sizes(), dense, granularity, zero_point_type);
  at::Tensor slots = slots_for(dense, p.call.layout);
  check_launch(kOp, cuda::learned_backward(
                        p.call, float_type(x.scalar_type()), dense_grad.const_data_ptr(),
                        dense.const_data_ptr(), grad_x.mutable_data_ptr(), slots.mutable_data_ptr(),
                        {p.call.params.scale, grad_factor, float_type(scale.scalar_type()),
                         float_type(zero_point_type), grad_scale.mutable_data_ptr(),
                         grad_zero_point.mutable_data_ptr()}));
  return {grad_x, in_order_of_dims(grad_scale, dense, granularity),
          in_order_of_dims(grad_zero_point, dense, granularity)};
}

// Scale and zero point of each parameter, in the order of x's memory.
std::tuple<at::Tensor, at::Tensor> choose_in_memory_order(const char* op, const at::Tensor& dense,
                                                          int64_t quant_min, int64_t quant_max,
                                                          bool symmetric,
                                                          const ParamShape& granularity) {
  const ParamLayout layout = layout_of(dense, granularity);
  const auto shape = C10_AS_INTARRAYREF_SLOW_ALLOC(qparams_shape(dense, granularity));
  at::Tensor scale = empty_in_memory_order(shape, dense, granularity, at::kFloat);
  at::Tensor zero_point = empty_in_memory_order(shape, dense, granularity, at::kInt);
  at::Tensor slots = slots_for(dense, layout);
  check_launch(
      op, cuda::choose_qparams(layout, float_type(dense.scalar_type()), dense.const_data_ptr(),
                               quant_min, quant_max, symmetric, scale.mutable_data_ptr<float>(),
                               zero_point.mutable_data_ptr<int32_t>(), slots.mutable_data_ptr(),
                               c10::cuda::getCurrentCUDAStream().stream()));
  return {scale, zero_point};
}

std::tuple<at::Tensor, at::Tensor> choose_qparams_cuda(const at::Tensor& x, int64_t quant_min,
                                                       int64_t quant_max, bool symmetric,
                                                       OptionalInt axis, OptionalInt block_size) {
  constexpr const char* kOp = "choose_qparams";
  const ParamShape granularity =
      check_choose(kOp, x, quant_min, quant_max, symmetric, axis, block_size);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = make_dense(x);
  const auto [scale, zero_point] =
      choose_in_memory_order(kOp, dense, quant_min, quant_max, symmetric, granularity);
  return {in_order_of_dims(scale, dense, granularity),
          in_order_of_dims(zero_point, dense, granularity)};
}

at::Tensor fake_quantize_dynamic_cuda(const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                                      bool symmetric, OptionalInt axis, OptionalInt block_size) {
  constexpr const char* kOp = "fake_quantize_dynamic";
  const ParamShape granularity =
      check_choose(kOp, x, quant_min, quant_max, symmetric, axis, block_size);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = make_dense(x);
  const auto [scale, zero_point] =
      choose_in_memory_order(kOp, dense, quant_min, quant_max, symmetric, granularity);
  const PreparedCall p =
      prepare(dense, granularity, in_order_of_dims(scale, dense, granularity),
              in_order_of_dims(zero_point, dense, granularity), quant_min, quant_max);
  return run_fake_quantize(kOp, dense, p.call);
}

TORCH_LIBRARY_IMPL(qcdq, CUDA, m) {
  m.impl("quantize", TORCH_FN(quantize_cuda));
  m.impl("dequantize", TORCH_FN(dequantize_cuda));
  m.impl("fake_quantize", TORCH_FN(fake_quantize_cuda));
  m.impl("fake_quantize_backward", TORCH_FN(fake_quantize_backward_cuda));
  m.impl("fake_quantize_learned", TORCH_FN(fake_quantize_learned_cuda));
  m.impl("fake_quantize_learned_backward", TORCH_FN(fake_quantize_learned_backward_cuda));
  m.impl("choose_qparams", TORCH_FN(choose_qparams_cuda));
  m.impl("fake_quantize_dynamic", TORCH_FN(fake_quantize_dynamic_cuda));
}

}  // namespace
}  // namespace qcdq
