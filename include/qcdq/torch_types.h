// Torch's element types as ONNX's, and back: the one table of both.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>

#include "qcdq/api.h"
#include "qcdq/symbolic.h"

namespace qcdq {

/// ONNX's number for a torch element type; kUndefined where ONNX has none (complex, quantised
/// types). Example: `dtype_of(at::kHalf)` is DType::kFloat16.
QCDQ_API DType dtype_of(at::ScalarType type);
/// Torch's element type for ONNX's number; nothing where torch has none that qcdq takes (strings,
/// types of less than 8 bits, 8-bit floats).
QCDQ_API std::optional<at::ScalarType> scalar_type_of(DType dtype);

}  // namespace qcdq
