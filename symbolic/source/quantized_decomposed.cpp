// Schemas and kernels of quantized_decomposed for processes without Python, and the one op of ours
// that stands for a packed weight; see quantized_decomposed.h.
#include "symbolic/source/quantized_decomposed.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <mutex>
#include <optional>
#include <string>

namespace qcdq {
namespace {

using at::ScalarType;
using at::Tensor;

// torch.ao computes in float32, and multiplies by the reciprocal of the scale.
Tensor to_codes(const Tensor& input, const Tensor& steps, const Tensor& zero_point,
                int64_t quant_min, int64_t quant_max, ScalarType dtype) {
  TORCH_CHECK(input.is_floating_point(), "quantize: input is ", input.scalar_type(),
              ", expected a floating type");
  return at::clamp(at::add(at::round(steps), zero_point), quant_min, quant_max).to(dtype);
}

Tensor as_float(const Tensor& input) {
  const bool narrow = input.scalar_type() == at::kHalf || input.scalar_type() == at::kBFloat16;
  return narrow ? input.to(at::kFloat) : input;
}

Tensor quantize_per_tensor(const Tensor& input, double scale, int64_t zero_point, int64_t quant_min,
                           int64_t quant_max, ScalarType dtype) {
  const Tensor x = as_float(input);
  return to_codes(x, x.mul(1.0 / scale), at::scalar_tensor(zero_point, at::kLong), quant_min,
                  quant_max, dtype);
}

Tensor quantize_per_tensor_tensor(const Tensor& input, const Tensor& scale,
                                  const Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                  ScalarType dtype) {
  return quantize_per_tensor(input, scale.item<double>(), zero_point.item<int64_t>(), quant_min,
                             quant_max, dtype);
}

Tensor quantize_per_tensor_tensor2(const Tensor& input, const Tensor& scale,
                                   const Tensor& zero_point, const Tensor& quant_min,
                                   const Tensor& quant_max, ScalarType dtype) {
  return quantize_per_tensor(input, scale.item<double>(), zero_point.item<int64_t>(),
                             quant_min.item<int64_t>(), quant_max.item<int64_t>(), dtype);
}

Tensor dequantize_per_tensor(const Tensor& input, double scale, int64_t zero_point, int64_t,
                             int64_t, ScalarType, std::optional<ScalarType> out_dtype) {
  return input.to(out_dtype.value_or(at::kFloat)).sub(zero_point).mul(scale);
}

Tensor dequantize_per_tensor_tensor(const Tensor& input, const Tensor& scale,
                                    const Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                    ScalarType dtype, std::optional<ScalarType> out_dtype) {
  return dequantize_per_tensor(input, scale.item<double>(), zero_point.item<int64_t>(), quant_min,
                               quant_max, dtype, out_dtype);
}

Tensor dequantize_per_tensor_tensor2(const Tensor& input, const Tensor& scale,
                                     const Tensor& zero_point, const Tensor& quant_min,
                                     const Tensor& quant_max, ScalarType dtype,
                                     std::optional<ScalarType> out_dtype) {
  return dequantize_per_tensor(input, scale.item<double>(), zero_point.item<int64_t>(),
                               quant_min.item<int64_t>(), quant_max.item<int64_t>(), dtype,
                               out_dtype);
}

// One number per channel, in a shape that broadcasts over x.
Tensor over_channels(const Tensor& values, const Tensor& x, int64_t axis) {
  TORCH_CHECK_INDEX(axis >= -x.dim() && axis < x.dim(), "axis = ", axis, " for a tensor of ",
                    x.dim(), " dimensions");
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[static_cast<size_t>(axis < 0 ? axis + x.dim() : axis)] = values.numel();
  return values.reshape(shape);
}

Tensor quantize_per_channel(const Tensor& input, const Tensor& scales, const Tensor& zero_points,
                            int64_t axis, int64_t quant_min, int64_t quant_max, ScalarType dtype) {
  const Tensor x = as_float(input);
  const Tensor steps = x.mul(over_channels(scales, x, axis).reciprocal());
  return to_codes(x, steps, over_channels(zero_points, x, axis), quant_min, quant_max, dtype);
}

Tensor dequantize_per_channel(const Tensor& input, const Tensor& scales,
                              const std::optional<Tensor>& zero_points, int64_t axis, int64_t,
                              int64_t, ScalarType, std::optional<ScalarType> out_dtype) {
  Tensor steps = input.to(at::kFloat);
  if (zero_points) steps = steps.sub(over_channels(*zero_points, input, axis));
  return steps.mul(over_channels(scales, input, axis)).to(out_dtype.value_or(at::kFloat));
}

Tensor dequantize_per_channel_group(const Tensor& input, const Tensor& scales,
                                    const std::optional<Tensor>& zero_points, int64_t, int64_t,
                                    ScalarType, int64_t group_size, ScalarType output_dtype) {
  TORCH_CHECK(input.dim() == 2 && group_size > 0 && input.size(1) % group_size == 0,
              "dequantize_per_channel_group: input of shape ", input.sizes(),
              ", group_size = ", group_size,
              ", expected two dimensions whose last is a multiple of group_size");
  Tensor steps = input.to(at::kFloat).reshape({-1, group_size});
  if (zero_points) steps = steps.sub(zero_points->reshape({-1, 1}));
  return steps.mul(scales.reshape({-1, 1})).reshape_as(input).to(output_dtype);
}

Tensor fake_quant_per_channel(const Tensor& input, const Tensor& scales, const Tensor& zero_points,
                              int64_t axis, int64_t quant_min, int64_t quant_max) {
  return at::fake_quantize_per_channel_affine(input, scales.to(at::kFloat), zero_points, axis,
                                              quant_min, quant_max);
}

Tensor convert_element_type(const Tensor& input, ScalarType dtype) { return input.to(dtype); }

// Packed weights of quantized::* layers (lower/quantized_tensors.cpp).
Tensor dequantize_codes(const Tensor& codes, const Tensor& scale, const Tensor& zero_point,
                        std::optional<int64_t> axis) {
  if (!axis) return codes.to(at::kFloat).sub(zero_point).mul(scale.to(at::kFloat));
  return codes.to(at::kFloat)
      .sub(over_channels(zero_point, codes, *axis))
      .mul(over_channels(scale.to(at::kFloat), codes, *axis));
}

class Definitions {
 public:
  Definitions()
      : library_(torch::Library::FRAGMENT, "quantized_decomposed", {}, __FILE__, __LINE__) {}

  template <typename Kernel>
  void add(const std::string& name, const std::string& overload, const std::string& arguments,
           Kernel kernel) {
    if (c10::Dispatcher::singleton().findSchema({"quantized_decomposed::" + name, overload}))
      return;
    const std::string full = overload.empty() ? name : name + "." + overload;
    library_.def((full + arguments).c_str());
    library_.impl(full.c_str(),
                  torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd, kernel));
    added_ = true;
  }
  bool added() const { return added_; }
  void reset() { added_ = false; }

 private:
  torch::Library library_;
  bool added_ = false;
};

}  // namespace

bool register_quantized_decomposed() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  static Definitions definitions;  // as long as the process: loaded graphs point at the ops
  definitions.reset();
  const std::string range = "int quant_min, int quant_max, ScalarType dtype";
  const std::string range2 = "Tensor quant_min, Tensor quant_max, ScalarType dtype";
  const std::string tensors = "(Tensor input, Tensor scale, Tensor zero_point, ";
  const std::string numbers = "(Tensor input, float scale, int zero_point, ";
  const std::string out = ", *, ScalarType? out_dtype=None) -> Tensor";
  definitions.add("quantize_per_tensor", "", numbers + range + ") -> Tensor", quantize_per_tensor);
  definitions.add("quantize_per_tensor", "tensor", tensors + range + ") -> Tensor",
                  quantize_per_tensor_tensor);
  definitions.add("quantize_per_tensor", "tensor2", tensors + range2 + ") -> Tensor",
                  quantize_per_tensor_tensor2);
  definitions.add("dequantize_per_tensor", "", numbers + range + out, dequantize_per_tensor);
  definitions.add("dequantize_per_tensor", "tensor", tensors + range + out,
                  dequantize_per_tensor_tensor);
  definitions.add("dequantize_per_tensor", "tensor2", tensors + range2 + out,
                  dequantize_per_tensor_tensor2);
  definitions.add(
      "quantize_per_channel", "",
      "(Tensor input, Tensor scales, Tensor zero_points, int axis, " + range + ") -> Tensor",
      quantize_per_channel);
  definitions.add("dequantize_per_channel", "",
                  "(Tensor input, Tensor scales, Tensor? zero_points, int axis, " + range + out,
                  dequantize_per_channel);
  definitions.add("dequantize_per_channel_group", "",
                  "(Tensor input, Tensor scales, Tensor? zero_points, " + range +
                      ", int group_size, ScalarType output_dtype) -> Tensor",
                  dequantize_per_channel_group);
  definitions.add("fake_quant_per_channel", "",
                  "(Tensor input, Tensor scales, Tensor zero_points, int axis, int quant_min, "
                  "int quant_max) -> Tensor",
                  fake_quant_per_channel);
  definitions.add("convert_element_type", "no_fuse", "(Tensor input, ScalarType dtype) -> Tensor",
                  convert_element_type);
  return definitions.added();
}

}  // namespace qcdq

TORCH_LIBRARY_FRAGMENT(qcdq_onnx, m) {
  m.def("dequantize_codes(Tensor codes, Tensor scale, Tensor zero_point, int? axis) -> Tensor",
        &qcdq::dequantize_codes);
}
