// Torch tensors to plain ones and back, without a copy where torch's are contiguous on the CPU
// (ort.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "qcdq/symbolic.h"

namespace qcdq {

/// `name` is for the error's words.
TensorData to_tensor_data(const at::Tensor& tensor, const std::string& name);
/// The tensor keeps `data` alive.
at::Tensor to_tensor(const TensorData& data, const std::string& name);

}  // namespace qcdq
