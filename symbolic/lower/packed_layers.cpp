// Unpacking through torch's own quantized::*_unpack ops, which every engine (fbgemm, onednn,
// qnnpack) answers; see lower/packed_layers.h.
#include "symbolic/lower/packed_layers.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <stdexcept>

namespace qcdq {
namespace {

torch::jit::Stack call(const std::string& op, const c10::IValue& packed) {
  torch::jit::Stack stack = {packed};
  c10::Dispatcher::singleton().findSchemaOrThrow(("quantized::" + op).c_str(), "").callBoxed(stack);
  return stack;
}

void take_weights(PackedLayer& layer, const torch::jit::Stack& results) {
  layer.weight = results.at(0).toTensor();
  if (results.at(1).isTensor() && results[1].toTensor().defined()) {
    layer.bias = results[1].toTensor().detach().to(at::kFloat).contiguous();
  }
}

}  // namespace

QuantizedCodes codes_of(const at::Tensor& quantized) {
  QuantizedCodes result;
  const at::QScheme scheme = quantized.qscheme();
  const at::ScalarType type = quantized.scalar_type();
  if (type != at::kQInt8 && type != at::kQUInt8 && type != at::kQInt32) {
    throw std::invalid_argument(std::string("a quantised tensor of type ") + c10::toString(type) +
                                ", expected qint8, quint8 or qint32");
  }
  if (scheme == at::kPerTensorAffine) {
    result.scale = at::scalar_tensor(quantized.q_scale(), at::kFloat);
    result.zero_point = at::scalar_tensor(quantized.q_zero_point(), at::kLong);
  } else if (scheme == at::kPerChannelAffine) {
    result.scale = quantized.q_per_channel_scales().to(at::kFloat).contiguous();
    result.zero_point = quantized.q_per_channel_zero_points().to(at::kLong).contiguous();
    result.axis = quantized.q_per_channel_axis();
  } else {
    throw std::invalid_argument("a quantised tensor of scheme " + c10::toString(scheme) +
                                ", expected per_tensor_affine or per_channel_affine");
  }
  result.codes = quantized.int_repr().contiguous();
  return result;
}

PackedLayer unpack_linear(const c10::IValue& packed) {
  PackedLayer layer;
  take_weights(layer, call("linear_unpack", packed));
  return layer;
}

PackedLayer unpack_convolution(const std::string& name, const c10::IValue& packed) {
  PackedLayer layer;
  take_weights(layer, call(name + "_unpack", packed));
  // One-dimensional layers are packed as two-dimensional ones of height 1.
  const bool transposed = name.starts_with("conv_transpose");
  const char last = name.at(name.size() - 2);
  const std::string getter =
      std::string(transposed ? "conv_transpose" : "conv") + (last == '1' ? '2' : last) + "d_";
  const auto dims = static_cast<size_t>(last - '0');
  const auto spatial = [&](const std::string& what) {
    const std::vector<int64_t> all = call(getter + what, packed).at(0).toIntVector();
    return std::vector<int64_t>(all.end() - static_cast<std::ptrdiff_t>(dims), all.end());
  };
  layer.stride = spatial("stride");
  layer.padding = spatial("padding");
  layer.dilation = spatial("dilation");
  if (transposed) layer.output_padding = spatial("output_padding");
  layer.groups = call(getter + "groups", packed).at(0).toInt();
  return layer;
}

}  // namespace qcdq
