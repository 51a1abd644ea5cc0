// Parameters of quantisers: scale, zero point and range as constants, what of them is refused, and
// which element type stores the codes. nodes.h turns them into ONNX nodes, codes.h computes with
// them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qcdq/affine.h"
#include "qcdq/symbolic.h"

namespace qcdq {

/// The constant parameters of a QuantizeLinear or DequantizeLinear node.
struct QuantParams {
  std::vector<float> scale;
  std::vector<int64_t> zero_point;  // as many as scale
  std::vector<int64_t> dims;        // of scale: {} per tensor, {C} per channel, x's rank if blocked
  DType storage = DType::kUInt8;    // element type of the codes
  int64_t axis = 0;                 // per channel and blocked; never negative
  int64_t block_size = 0;           // 0: not blocked

  bool per_tensor() const { return dims.empty(); }
  bool per_channel() const { return !dims.empty() && block_size == 0; }
};

bool is_8bit(DType dtype);

/// What can't be represented: an argument of the torch op, its value, why, and what to do.
struct QuantRefusal {
  std::string argument;
  std::string value;
  std::string reason;
  std::string hint;
};

/// Checked constant parameters, in the source's own codes. `axis` is nothing per tensor. Throws
/// QuantRefusal where a scale isn't a finite float32 > 0, a zero point isn't an integer in `range`,
/// or their numbers of elements don't agree.
QuantParams constant_params(const std::vector<double>& scale, std::vector<int64_t> scale_dims,
                            std::vector<double> zero_point, CodeRange range,
                            std::optional<int64_t> axis, int64_t block_size);
/// quant_min < quant_max, both within 32 bits; else QuantRefusal.
CodeRange checked_range(int64_t quant_min, int64_t quant_max);
/// Refuses parameters that the opset can't express (per channel, blocked), makes a negative axis
/// positive and compares the number of scales with x.
void fit_params(QuantParams& params, const TensorType& x, int64_t opset);

/// "[-8, 7]", for messages.
std::string range_text(CodeRange range);

/// How codes of a range are stored: code + shift in `storage`.
struct CodeStorage {
  DType storage = DType::kUInt8;
  int64_t shift = 0;
};
/// Storage of an activation: unsigned with the range moved to 0 unless `keep_sign`; kUndefined
/// where the range has more than 16 bits. Example: `activation_storage({-8, 7}, false)` is uint8
/// shifted by 8.
CodeStorage activation_storage(CodeRange range, bool keep_sign);
/// Smallest storage of constant codes as they are: 8 bits, then 16 bits (opset 21), else int32.
DType constant_storage(CodeRange range, int64_t opset);

}  // namespace qcdq
