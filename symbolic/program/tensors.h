// Torch's tensors and element types as ONNX's, and back: the one table of both.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "qcdq/symbolic.h"

namespace qcdq {

/// ONNX's number for a torch element type; kUndefined where ONNX has none (complex, quantised
/// types).
DType dtype_of(at::ScalarType type);
/// Torch's element type for ONNX's number; nothing for kString and kUndefined.
std::optional<at::ScalarType> scalar_type_of(DType dtype);

/// Shares the tensor's storage where it is dense, row-major and on the CPU; else `produce` makes a
/// dense copy when it is needed. Throws std::invalid_argument where ONNX has no such element type.
TensorData tensor_data(const at::Tensor& tensor);
/// The same, made dense at once where it is not. Throws std::runtime_error, naming the tensor.
TensorData dense_data(const at::Tensor& tensor, const std::string& name);
/// The tensor keeps `data` alive. Throws std::runtime_error, naming the tensor, where torch has no
/// such element type.
at::Tensor to_tensor(const TensorData& data, const std::string& name);

}  // namespace qcdq
