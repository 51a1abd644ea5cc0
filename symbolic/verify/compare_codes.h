// Codes that ONNX Runtime gave, against the formula of qcdq/affine.h and against those of another
// run.
#pragma once

#include <cstdint>

#include "symbolic/verify/probe_model.h"

namespace qcdq {

struct CodeCount {
  int64_t codes = 0;
  int64_t differing = 0;
  int64_t max_steps = 0;
};

/// The codes that ORT gave for quantiser `q` against quantize_one (qcdq/affine.h) of the
/// quantiser's own input. `values` holds the tensors of all names in `q`. Throws std::runtime_error
/// for types that the formula is not defined for.
CodeCount compare_with_formula(const FileQuantizer& q, const NamedTensors& values);

/// How far the codes of a rounded bias are from its floats, in codes: at most 0.5 where they are
/// the nearest ones. `values` holds the tensors of its codes and scale. Throws std::runtime_error
/// where their sizes don't fit the floats.
double rounding_distance(const RoundedBias& bias, const NamedTensors& values);

/// The same codes from two runs. Throws std::runtime_error where type or shape differ.
CodeCount compare_codes(const TensorData& a, const TensorData& b);

}  // namespace qcdq
