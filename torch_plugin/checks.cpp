// Argument checks of the ops: one named error for each bad argument. The kernels of every dispatch
// key call them; each message has a test in tests/torch_plugin/ops_errors_test.cpp.
#include "torch_plugin/checks.h"

#include <ATen/ATen.h>
#include <c10/core/SymBool.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <limits>

namespace qcdq {
namespace {

constexpr int64_t kLowestCode = std::numeric_limits<int32_t>::min();
constexpr int64_t kHighestCode = std::numeric_limits<int32_t>::max();

bool is_float_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kHalf || type == at::kBFloat16 || type == at::kDouble;
}

// The comparison becomes a guard where a size is symbolic.
void check_size(const char* op, const char* name, const c10::SymInt& got,
                const c10::SymInt& expected, const char* what) {
  TORCH_CHECK_VALUE(got.sym_eq(expected).expect_true(__FILE__, __LINE__), "qcdq::", op, ": ", name,
                    " has ", got, " ", what, ", expected ", expected);
}

void check_qparam_shape(const char* op, const char* name, const at::Tensor& x,
                        const at::Tensor& param, const ParamShape& granularity) {
  if (!granularity.axis) {
    check_size(op, name, param.sym_numel(), 1, "elements (no axis given: per tensor)");
    return;
  }
  if (!granularity.block_size) {
    TORCH_CHECK_VALUE(param.dim() == 1, "qcdq::", op, ": ", name, " has ", param.dim(),
                      " dimensions, expected 1 (per channel along axis ", *granularity.axis, ")");
    check_size(op, name, param.sym_numel(), x.sym_size(*granularity.axis),
               "elements (per channel)");
    return;
  }
  TORCH_CHECK_VALUE(param.dim() == x.dim(), "qcdq::", op, ": ", name, " has ", param.dim(),
                    " dimensions, expected ", x.dim(), " (blocked: as many as the input)");
  const auto expected = qparams_shape(x, granularity);
  for (int64_t i = 0; i < x.dim(); ++i) {
    TORCH_CHECK_VALUE(param.sym_size(i).sym_eq(expected[i]).expect_true(__FILE__, __LINE__),
                      "qcdq::", op, ": ", name, " has shape ", param.sym_sizes(), ", expected ",
                      c10::SymIntArrayRef(expected), " (blocks of ", *granularity.block_size,
                      " along axis ", *granularity.axis, ")");
  }
}

void check_device(const char* op, const char* name, const at::Tensor& tensor, const at::Tensor& x) {
  TORCH_CHECK_VALUE(tensor.device() == x.device(), "qcdq::", op, ": ", name, " is on ",
                    tensor.device(), ", expected ", x.device(), ", the device of the input");
}

ParamShape check_granularity(const char* op, const at::Tensor& x, std::optional<int64_t> axis,
                             std::optional<int64_t> block_size) {
  if (!axis) {
    TORCH_CHECK_VALUE(!block_size, "qcdq::", op, ": block_size is ", *block_size,
                      " but axis is None; blocks need an axis");
    return {};
  }
  const int64_t rank = x.dim();
  TORCH_CHECK_VALUE(rank > 0, "qcdq::", op, ": axis is ", *axis,
                    " but the input is 0-d; expected axis=None");
  TORCH_CHECK_VALUE(*axis >= -rank && *axis < rank, "qcdq::", op, ": axis is ", *axis,
                    ", expected a value in [", -rank, ", ", rank - 1, "] for an input of ", rank,
                    " dimensions");
  TORCH_CHECK_VALUE(!block_size || (*block_size > 0 && *block_size <= kHighestCode), "qcdq::", op,
                    ": block_size is ", block_size.value_or(0), ", expected a value in [1, ",
                    kHighestCode, "]");
  return {*axis < 0 ? *axis + rank : *axis, block_size};
}

void check_float_input(const char* op, const at::Tensor& x) {
  TORCH_CHECK_VALUE(is_float_type(x.scalar_type()), "qcdq::", op, ": x is ", x.scalar_type(),
                    ", expected Float, Half, BFloat16 or Double");
}

void check_range(const char* op, int64_t quant_min, int64_t quant_max) {
  TORCH_CHECK_VALUE(quant_min < quant_max, "qcdq::", op, ": quant_min is ", quant_min,
                    ", expected a value below quant_max, which is ", quant_max);
  TORCH_CHECK_VALUE(quant_min >= kLowestCode, "qcdq::", op, ": quant_min is ", quant_min,
                    ", expected a value >= ", kLowestCode, " (int32)");
  TORCH_CHECK_VALUE(quant_max <= kHighestCode, "qcdq::", op, ": quant_max is ", quant_max,
                    ", expected a value <= ", kHighestCode, " (int32)");
}

void check_storage_type(const char* op, const char* name, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(dtype == at::kChar || dtype == at::kByte || dtype == at::kShort ||
                        dtype == at::kUInt16 || dtype == at::kInt,
                    "qcdq::", op, ": ", name, " is ", dtype,
                    ", expected Char (int8), Byte (uint8), Short (int16), UInt16 or Int (int32)");
}

void check_range_fits(const char* op, at::ScalarType dtype, int64_t quant_min, int64_t quant_max) {
  const CodeRange range = range_of_storage_type(dtype);
  TORCH_CHECK_VALUE(quant_min >= range.min, "qcdq::", op, ": quant_min is ", quant_min,
                    ", expected a value in [", range.min, ", ", range.max, "] for dtype ", dtype);
  TORCH_CHECK_VALUE(quant_max <= range.max, "qcdq::", op, ": quant_max is ", quant_max,
                    ", expected a value in [", range.min, ", ", range.max, "] for dtype ", dtype);
}

void check_qparams(const char* op, const at::Tensor& x, at::ScalarType value_type,
                   const at::Tensor& scale, const at::Tensor& zero_point,
                   const ParamShape& granularity, bool floating_zero_point) {
  TORCH_CHECK_VALUE(scale.scalar_type() == at::kFloat || scale.scalar_type() == value_type,
                    "qcdq::", op, ": scale is ", scale.scalar_type(), ", expected Float",
                    value_type == at::kFloat ? "" : " or ",
                    value_type == at::kFloat ? "" : c10::toString(value_type));
  const at::ScalarType zero_point_type = zero_point.scalar_type();
  const bool integral = c10::isIntegralType(zero_point_type, /*includeBool=*/false);
  const bool floating = zero_point_type == at::kFloat || zero_point_type == value_type;
  TORCH_CHECK_VALUE(integral || (floating_zero_point && floating), "qcdq::", op, ": zero_point is ",
                    zero_point_type, ", expected an integer type",
                    floating_zero_point ? ", Float or the type of x" : "");
  check_device(op, "scale", scale, x);
  check_device(op, "zero_point", zero_point, x);
  check_qparam_shape(op, "scale", x, scale, granularity);
  check_qparam_shape(op, "zero_point", x, zero_point, granularity);
}

ParamShape check_input(const char* op, const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                       std::optional<int64_t> axis, std::optional<int64_t> block_size) {
  check_float_input(op, x);
  check_range(op, quant_min, quant_max);
  return check_granularity(op, x, axis, block_size);
}

}  // namespace

CodeRange range_of_storage_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kChar:
      return range_of_type<int8_t>();
    case at::kByte:
      return range_of_type<uint8_t>();
    case at::kShort:
      return range_of_type<int16_t>();
    case at::kUInt16:
      return range_of_type<uint16_t>();
    default:
      return range_of_type<int32_t>();
  }
}

ParamShape check_quantize(const char* op, const at::Tensor& x, const at::Tensor& scale,
                          const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                          at::ScalarType dtype, std::optional<int64_t> axis,
                          std::optional<int64_t> block_size) {
  check_storage_type(op, "dtype", dtype);
  const ParamShape granularity =
      check_fake_quantize(op, x, scale, zero_point, quant_min, quant_max, axis, block_size);
  check_range_fits(op, dtype, quant_min, quant_max);
  return granularity;
}

ParamShape check_dequantize(const char* op, const at::Tensor& q, const at::Tensor& scale,
                            const at::Tensor& zero_point, std::optional<int64_t> axis,
                            std::optional<int64_t> block_size,
                            std::optional<at::ScalarType> dtype) {
  check_storage_type(op, "q", q.scalar_type());
  const at::ScalarType value_type = dtype.value_or(scale.scalar_type());
  TORCH_CHECK_VALUE(is_float_type(value_type), "qcdq::", op, ": ", dtype ? "dtype" : "scale",
                    " is ", value_type, ", expected Float, Half, BFloat16 or Double");
  const ParamShape granularity = check_granularity(op, q, axis, block_size);
  check_qparams(op, q, value_type, scale, zero_point, granularity, false);
  return granularity;
}

ParamShape check_fake_quantize(const char* op, const at::Tensor& x, const at::Tensor& scale,
                               const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                               std::optional<int64_t> axis, std::optional<int64_t> block_size) {
  const ParamShape granularity = check_input(op, x, quant_min, quant_max, axis, block_size);
  check_qparams(op, x, x.scalar_type(), scale, zero_point, granularity, false);
  return granularity;
}

ParamShape check_learned(const char* op, const at::Tensor& x, const at::Tensor& scale,
                         const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                         std::optional<int64_t> axis, std::optional<int64_t> block_size,
                         double grad_factor) {
  const ParamShape granularity = check_input(op, x, quant_min, quant_max, axis, block_size);
  check_qparams(op, x, x.scalar_type(), scale, zero_point, granularity, true);
  TORCH_CHECK_VALUE(std::isfinite(grad_factor), "qcdq::", op, ": grad_factor is ", grad_factor,
                    ", expected a finite value");
  return granularity;
}

ParamShape check_choose(const char* op, const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                        bool symmetric, std::optional<int64_t> axis,
                        std::optional<int64_t> block_size) {
  const ParamShape granularity = check_input(op, x, quant_min, quant_max, axis, block_size);
  TORCH_CHECK_VALUE(!symmetric || (quant_min <= 0 && quant_max > 0), "qcdq::", op,
                    ": symmetric is True with quant_min ", quant_min, " and quant_max ", quant_max,
                    ", expected quant_min <= 0 < quant_max");
  return granularity;
}

void check_grad(const char* op, const at::Tensor& grad, const at::Tensor& x) {
  TORCH_CHECK_VALUE(grad.scalar_type() == x.scalar_type(), "qcdq::", op, ": grad is ",
                    grad.scalar_type(), ", expected ", x.scalar_type(), ", the type of x");
  check_device(op, "grad", grad, x);
  TORCH_CHECK_VALUE(grad.dim() == x.dim(), "qcdq::", op, ": grad has ", grad.dim(),
                    " dimensions, expected ", x.dim(), ", as x");
  for (int64_t i = 0; i < x.dim(); ++i) {
    TORCH_CHECK_VALUE(grad.sym_size(i).sym_eq(x.sym_size(i)).expect_true(__FILE__, __LINE__),
                      "qcdq::", op, ": grad has shape ", grad.sym_sizes(), ", expected ",
                      x.sym_sizes(), ", the shape of x");
  }
}

c10::SymDimVector qparams_shape(const at::Tensor& x, const ParamShape& granularity) {
  if (!granularity.axis) return {};
  const int64_t axis = *granularity.axis;
  if (!granularity.block_size) return {x.sym_size(axis)};
  const auto sizes = x.sym_sizes();
  c10::SymDimVector shape(sizes.begin(), sizes.end());
  shape[axis] = (shape[axis] + (*granularity.block_size - 1)) / *granularity.block_size;
  return shape;
}

}  // namespace qcdq
