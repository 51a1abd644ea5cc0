// Arithmetic on constant codes, by include/qcdq/affine.h: quantise, recover, dequantise and shift
// whole tensors without a wide copy of them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "symbolic/quantizer/params.h"

namespace qcdq {

/// Codes of a floating constant: quantize_one of affine.h for each element, clamped to `range`.
TensorData quantize_constant(const TensorData& x, const QuantParams& params, CodeRange range);
/// Codes behind an already fake-quantised f32 constant: round(y / scale) + zero_point in f64.
/// Returns nothing where some y isn't the value of a code in `range`.
std::optional<TensorData> recover_codes(const TensorData& y, const QuantParams& params,
                                        CodeRange range);
/// (code - zero_point) * scale as float32, computed when it is asked for.
TensorData dequantize_constant(const TensorData& codes, const QuantParams& params);
/// Every code c becomes sign * c + offset for its channel along `axis` (one entry of each for a
/// whole tensor); the result has element type `storage`, into which it has to fit.
TensorData transform_codes(const TensorData& codes, int64_t axis, const std::vector<int64_t>& sign,
                           const std::vector<int64_t>& offset, DType storage);
/// Smallest and largest code of each of the `channels` slices along `axis` (channels == 1: of the
/// tensor).
std::vector<CodeRange> code_ranges(const TensorData& codes, int64_t axis, int64_t channels);

}  // namespace qcdq
