// Argument checks shared by the CPU and Meta kernels: dtypes, devices, ranges, shapes (symbolic
// sizes included). Checks that read tensor values are in cpu_ops.cpp alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace qcdq {

/// Which elements share a scale: all of them, a slice along an axis, or a block of a slice.
struct Granularity {
  std::optional<int64_t> axis;        // wrapped into [0, rank); none: per tensor
  std::optional<int64_t> block_size;  // > 0, only with an axis
};

/// Each check throws c10::ValueError "qcdq::<op>: <argument> ..." where it fails.
Granularity check_granularity(const char* op, const at::Tensor& x, std::optional<int64_t> axis,
                              std::optional<int64_t> block_size);

/// x is f32, f16, bf16 or f64.
void check_float_input(const char* op, const at::Tensor& x);

/// quant_min < quant_max, both within int32.
void check_range(const char* op, int64_t quant_min, int64_t quant_max);

/// dtype is int8, uint8, int16, uint16 or int32; `name` is the argument that it comes from.
void check_storage_type(const char* op, const char* name, at::ScalarType dtype);

/// The codes that a storage type holds.
struct CodeRange {
  int64_t lowest;
  int64_t highest;
};
CodeRange range_of_storage_type(at::ScalarType dtype);

/// The storage type holds [quant_min, quant_max].
void check_range_fits(const char* op, at::ScalarType dtype, int64_t quant_min, int64_t quant_max);

/// scale and zero_point: types (zero_point floating only where floating_zero_point is set), device,
/// and the shape that the granularity asks of them. value_type is the type of the float side.
void check_qparams(const char* op, const at::Tensor& x, at::ScalarType value_type,
                   const at::Tensor& scale, const at::Tensor& zero_point,
                   const Granularity& granularity, bool floating_zero_point = false);

/// grad matches x in shape, type and device.
void check_grad(const char* op, const at::Tensor& grad, const at::Tensor& x);

/// symmetric needs quant_min <= 0 < quant_max.
void check_symmetric(const char* op, bool symmetric, int64_t quant_min, int64_t quant_max);

/// The shape of scale and zero_point for x.
c10::SymDimVector qparams_shape(const at::Tensor& x, const Granularity& granularity);

}  // namespace qcdq
