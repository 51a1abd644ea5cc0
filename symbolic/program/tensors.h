// Torch's tensors as ONNX's, and back. The element types of both are in qcdq/torch_types.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "qcdq/symbolic.h"
#include "qcdq/torch_types.h"

namespace qcdq {

/// Shares the tensor's storage where it is dense, row-major and on the CPU; else `produce` makes a
/// dense copy when it is needed. Throws std::invalid_argument where ONNX has no such element type.
TensorData tensor_data(const at::Tensor& tensor);
/// The same, made dense at once where it is not. Throws std::runtime_error, naming the tensor.
TensorData dense_data(const at::Tensor& tensor, const std::string& name);
/// The tensor keeps `data` alive. Throws std::runtime_error, naming the tensor, where torch has no
/// such element type.
at::Tensor to_tensor(const TensorData& data, const std::string& name);

}  // namespace qcdq
