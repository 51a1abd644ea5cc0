// The packed weights of quantized::* layers, unpacked: used by lower/quantized_tensors.cpp only.
#pragma once

#include <ATen/core/ivalue.h>

#include <optional>
#include <string>
#include <vector>

namespace qcdq {

/// An affine quantised tensor of torch as integers: value = (codes - zero_point) * scale.
struct QuantizedCodes {
  at::Tensor codes;             // int8, uint8 or int32, dense and row-major
  at::Tensor scale;             // float32, one element or one per channel
  at::Tensor zero_point;        // int64, as many
  std::optional<int64_t> axis;  // nothing per tensor
};
/// Throws std::invalid_argument for what has no such form: sub-byte and float-parameter schemes.
QuantizedCodes codes_of(const at::Tensor& quantized);

/// What linear_prepack and conv*_prepack took.
struct PackedLayer {
  at::Tensor weight;  // affine quantised; float for float16 weights
  std::optional<at::Tensor> bias;
  // Convolutions only, one number per spatial dimension:
  std::vector<int64_t> stride, padding, output_padding, dilation;
  int64_t groups = 1;
};

/// `packed`: a LinearPackedParamsBase. Example: `unpack_linear(packed).weight` is [out, in].
PackedLayer unpack_linear(const c10::IValue& packed);
/// `packed`: what quantized::<name> takes, "conv1d" to "conv_transpose3d".
PackedLayer unpack_convolution(const std::string& name, const c10::IValue& packed);

}  // namespace qcdq
