// Outputs of the torch model against ONNX Runtime's, and boxed torch values as lists of tensors.
// verifier.cpp judges what is found here.
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
  OutputDifference difference;  // `run` and `kind` are the caller's to set
  double rms_relative = 0;      // of TensorDifference
  // What differs in type, shape, or a value that is no float; "" = only the numbers above tell.
  std::string mismatch;
};

/// compare_tensors, with the types: floating values may differ, others must be equal.
OutputComparison compare_outputs(const std::string& name, const at::Tensor& torch,
                                 const at::Tensor& ort);

}  // namespace qcdq
