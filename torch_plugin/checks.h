// Argument checks shared by the CPU and Meta kernels: dtypes, devices, ranges, shapes (symbolic
// sizes included). Checks that read tensor values are in cpu_ops.cpp alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "qcdq/affine.h"

namespace qcdq {

/// Which elements share a scale: all of them, a slice along an axis, or a block of a slice.
struct ParamShape {
  std::optional<int64_t> axis;        // wrapped into [0, rank); none: per tensor
  std::optional<int64_t> block_size;  // > 0, only with an axis
};

/// The codes that a storage type holds; those of int32 for any type that is none.
CodeRange range_of_storage_type(at::ScalarType dtype);

/// All checks of an op that read no values; each throws c10::ValueError "qcdq::<op>: <argument>
/// ..." where it fails. `op` is the op's name in messages.
ParamShape check_quantize(const char* op, const at::Tensor& x, const at::Tensor& scale,
                          const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                          at::ScalarType dtype, std::optional<int64_t> axis,
                          std::optional<int64_t> block_size);
ParamShape check_dequantize(const char* op, const at::Tensor& q, const at::Tensor& scale,
                            const at::Tensor& zero_point, std::optional<int64_t> axis,
                            std::optional<int64_t> block_size, std::optional<at::ScalarType> dtype);
ParamShape check_fake_quantize(const char* op, const at::Tensor& x, const at::Tensor& scale,
                               const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                               std::optional<int64_t> axis, std::optional<int64_t> block_size);
/// As check_fake_quantize, but zero_point may be floating; grad_factor is finite.
ParamShape check_learned(const char* op, const at::Tensor& x, const at::Tensor& scale,
                         const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                         std::optional<int64_t> axis, std::optional<int64_t> block_size,
                         double grad_factor);
ParamShape check_choose(const char* op, const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                        bool symmetric, std::optional<int64_t> axis,
                        std::optional<int64_t> block_size);

/// grad matches x in shape, type and device.
void check_grad(const char* op, const at::Tensor& grad, const at::Tensor& x);

/// The shape of scale and zero_point for x.
c10::SymDimVector qparams_shape(const at::Tensor& x, const ParamShape& granularity);

}  // namespace qcdq
