// What libqcdq_cuda's kernels offer to cuda_ops.cpp: every op over raw device pointers, on a
// stream, exactly equal to include/qcdq/affine.h. Nothing here waits for the GPU or allocates, so
// all of it can be captured in a CUDA graph. Arrays are dense, in the order of the layout; inputs
// and outputs must not overlap. Each function returns what cudaGetLastError says of its launches.
// The loops are in elementwise.h and reduce.h. Torch-free.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "torch_plugin/kernels/cuda/element_types.h"
#include "torch_plugin/kernels/cuda/reduce.h"
#include "torch_plugin/kernels/param_layout.h"

namespace qcdq::cuda {

/// The type that codes are held in: float where f32 holds them exactly, else double
/// (affine.h, needs_wide_accumulator; f64 data and int32 codes always).
enum class Accumulator { kFloat, kDouble };

/// A call: its layout, parameters and stream. For dequantize quant_min and quant_max are not read.
struct Call {
  ParamLayout layout;
  ParamArrays params;
  Accumulator accumulator;
  cudaStream_t stream;
};

cudaError_t fake_quantize(const Call& call, FloatType type, const void* x, void* y);
cudaError_t fake_quantize_backward(const Call& call, FloatType type, const void* grad,
                                   const void* x, void* grad_x);
cudaError_t quantize(const Call& call, FloatType type, CodeType code_type, const void* x,
                     void* codes);
cudaError_t dequantize(const Call& call, FloatType type, CodeType code_type, const void* codes,
                       void* y);

/// Bytes of device memory that the two functions below need for `slots`, aligned to 16.
int64_t slot_bytes(const ParamLayout& layout, FloatType type);

/// grad_x and the gradients of scale and zero point, in the types that `store` says.
cudaError_t learned_backward(const Call& call, FloatType type, const void* grad, const void* x,
                             void* grad_x, void* slots, const StoreGradients& store);

/// Scale (f32) and zero point (int32) of each parameter from the extremes of x.
cudaError_t choose_qparams(const ParamLayout& layout, FloatType type, const void* x,
                           int64_t quant_min, int64_t quant_max, bool symmetric, float* scale,
                           int32_t* zero_point, void* slots, cudaStream_t stream);

}  // namespace qcdq::cuda
