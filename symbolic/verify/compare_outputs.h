// Outputs of the torch model against ONNX Runtime's, and boxed torch values to lists of tensors
// (verify.cpp).
#pragma once

#include <torch/script.h>

#include <string>
#include <vector>

#include "qcdq/verify.h"

namespace qcdq {

/// The tensors in a value, in order: itself, or those of a tuple, list or dict of them, nested ones
/// too. Numbers and booleans become 0-d tensors, None is left out. Throws std::runtime_error,
/// naming `what`, for other values.
std::vector<at::Tensor> flatten_tensors(const c10::IValue& value, const std::string& what);

struct OutputComparison {
  OutputDifference difference;
  // |a-b| / |a| as vectors: one value that differs counts little, many count.
  double rms_relative = 0;
  std::string
      mismatch;  // type, shape, or a non-float value that differs; "" = only the numbers above tell
};

/// `name` and `run` are copied into the result. Floating values: NaN equals NaN and an infinity
/// itself; anywhere else they make max_abs infinite. Other types must be equal.
OutputComparison compare_outputs(const std::string& name, const std::string& run,
                                 const at::Tensor& torch, const at::Tensor& ort);

}  // namespace qcdq
