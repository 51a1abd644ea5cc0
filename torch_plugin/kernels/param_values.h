// Loops over the values of scale and zero_point: blocked parameters are many, and reading them must
// not take longer than the elements that they stand for. Torch-free; used by
// torch_plugin/cpu_tensors.h.
#pragma once

#include <cstdint>

#include "torch_plugin/kernels/float_types.h"

namespace qcdq {

/// to[i] = from[i]. T is float or double, From any of the types that scale and zero_point may have.
template <typename From, typename T>
void convert_values(const From* from, int64_t count, T* to);

/// Whether all are > 0 and finite. T is float or double.
template <typename T>
bool all_finite_and_positive(const T* values, int64_t count);

/// Whether all are in [lowest, highest]; NaN is not.
template <typename T>
bool all_within(const T* values, int64_t count, T lowest, T highest);

}  // namespace qcdq
