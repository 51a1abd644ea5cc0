// All schemas of namespace qcdq on one page, and the public C++ functions of qcdq/ops.h, which call
// them through the dispatcher. Kernels: cpu_ops.cpp, meta_ops.cpp, autograd_ops.cpp.
#include <ATen/core/dispatch/Dispatcher.h>
#include <qcdq/ops.h>
#include <torch/library.h>

TORCH_LIBRARY(qcdq, m) {
  // pt2_compliant_tag: torch.compile and torch.export may trust the Meta and Autograd kernels.
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  m.def(
      "quantize(Tensor x, Tensor scale, Tensor zero_point, int quant_min, int quant_max, *, "
      "ScalarType dtype, int? axis=None, int? block_size=None) -> Tensor",
      tags);
  m.def(
      "dequantize(Tensor q, Tensor scale, Tensor zero_point, *, int? axis=None, "
      "int? block_size=None, ScalarType? dtype=None) -> Tensor",
      tags);
  m.def(
      "fake_quantize(Tensor x, Tensor scale, Tensor zero_point, int quant_min, int quant_max, *, "
      "int? axis=None, int? block_size=None) -> Tensor",
      tags);
  m.def(
      "fake_quantize_learned(Tensor x, Tensor scale, Tensor zero_point, int quant_min, "
      "int quant_max, *, int? axis=None, int? block_size=None, float grad_factor=1.0) -> Tensor",
      tags);
  m.def(
      "choose_qparams(Tensor x, int quant_min, int quant_max, *, bool symmetric=False, "
      "int? axis=None, int? block_size=None) -> (Tensor scale, Tensor zero_point)",
      tags);
  m.def(
      "fake_quantize_dynamic(Tensor x, int quant_min, int quant_max, *, bool symmetric=False, "
      "int? axis=None, int? block_size=None) -> Tensor",
      tags);
  // Backward ops: registered, so that compiled and exported training graphs can hold them.
  m.def(
      "fake_quantize_backward(Tensor grad, Tensor x, Tensor scale, Tensor zero_point, "
      "int quant_min, int quant_max, *, int? axis=None, int? block_size=None) -> Tensor",
      tags);
  m.def(
      "fake_quantize_learned_backward(Tensor grad, Tensor x, Tensor scale, Tensor zero_point, "
      "int quant_min, int quant_max, *, int? axis=None, int? block_size=None, "
      "float grad_factor=1.0) -> (Tensor grad_x, Tensor grad_scale, Tensor grad_zero_point)",
      tags);
}

namespace qcdq {
namespace {

template <typename Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace

at::Tensor quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                    int64_t quant_min, int64_t quant_max, at::ScalarType dtype,
                    std::optional<int64_t> axis, std::optional<int64_t> block_size) {
  using Signature =
      at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t,
                 at::ScalarType, std::optional<int64_t>, std::optional<int64_t>);
  static const auto op = find_op<Signature>("qcdq::quantize");
  return op.call(x, scale, zero_point, quant_min, quant_max, dtype, axis, block_size);
}

at::Tensor dequantize(const at::Tensor& q, const at::Tensor& scale, const at::Tensor& zero_point,
                      std::optional<int64_t> axis, std::optional<int64_t> block_size,
                      std::optional<at::ScalarType> dtype) {
  using Signature =
      at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, std::optional<int64_t>,
                 std::optional<int64_t>, std::optional<at::ScalarType>);
  static const auto op = find_op<Signature>("qcdq::dequantize");
  return op.call(q, scale, zero_point, axis, block_size, dtype);
}

at::Tensor fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                         int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                         std::optional<int64_t> block_size) {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                               int64_t, std::optional<int64_t>, std::optional<int64_t>);
  static const auto op = find_op<Signature>("qcdq::fake_quantize");
  return op.call(x, scale, zero_point, quant_min, quant_max, axis, block_size);
}

at::Tensor fake_quantize_learned(const at::Tensor& x, const at::Tensor& scale,
                                 const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                 std::optional<int64_t> axis, std::optional<int64_t> block_size,
                                 double grad_factor) {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                               int64_t, std::optional<int64_t>, std::optional<int64_t>, double);
  static const auto op = find_op<Signature>("qcdq::fake_quantize_learned");
  return op.call(x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
}

std::tuple<at::Tensor, at::Tensor> choose_qparams(const at::Tensor& x, int64_t quant_min,
                                                  int64_t quant_max, bool symmetric,
                                                  std::optional<int64_t> axis,
                                                  std::optional<int64_t> block_size) {
  using Signature = std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, int64_t, int64_t, bool, std::optional<int64_t>, std::optional<int64_t>);
  static const auto op = find_op<Signature>("qcdq::choose_qparams");
  return op.call(x, quant_min, quant_max, symmetric, axis, block_size);
}

at::Tensor fake_quantize_dynamic(const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                                 bool symmetric, std::optional<int64_t> axis,
                                 std::optional<int64_t> block_size) {
  using Signature = at::Tensor(const at::Tensor&, int64_t, int64_t, bool, std::optional<int64_t>,
                               std::optional<int64_t>);
  static const auto op = find_op<Signature>("qcdq::fake_quantize_dynamic");
  return op.call(x, quant_min, quant_max, symmetric, axis, block_size);
}

}  // namespace qcdq
