// How far two tensors are apart, for record/ (the graph against the model) and verify/ (ONNX
// Runtime against the model).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qcdq {

/// NaN equals NaN and an infinity itself; anywhere else they make the differences infinite.
struct TensorDifference {
  int64_t differing = 0;    // elements
  double max_abs = 0;       // max|a-b|
  double max_relative = 0;  // max|a-b| / max|a|
  double rms_relative = 0;  // |a-b| / |a| as vectors: one element that differs counts little
  double cosine = 1;
};

/// Compares `actual` (b) with what is expected (a), in f64. Both have the same sizes.
TensorDifference compare_tensors(const at::Tensor& expected, const at::Tensor& actual);

}  // namespace qcdq
