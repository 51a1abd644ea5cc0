// See tensors.h.
#include "symbolic/program/tensors.h"

#include <ATen/ATen.h>

#include <memory>
#include <stdexcept>
#include <utility>

namespace qcdq {
namespace {

constexpr std::pair<at::ScalarType, DType> kDTypes[] = {
    {at::kFloat, DType::kFloat32},    {at::kByte, DType::kUInt8},    {at::kChar, DType::kInt8},
    {at::kUInt16, DType::kUInt16},    {at::kShort, DType::kInt16},   {at::kInt, DType::kInt32},
    {at::kLong, DType::kInt64},       {at::kBool, DType::kBool},     {at::kHalf, DType::kFloat16},
    {at::kDouble, DType::kFloat64},   {at::kUInt32, DType::kUInt32}, {at::kUInt64, DType::kUInt64},
    {at::kBFloat16, DType::kBFloat16}};

// Tensors up to this size are made dense at once: no closure for a handful of numbers.
constexpr int64_t kSmallTensor = 64;

std::shared_ptr<const void> share(at::Tensor tensor) {
  auto owner = std::make_shared<at::Tensor>(std::move(tensor));
  return {owner, owner->const_data_ptr()};
}

}  // namespace

DType dtype_of(at::ScalarType type) {
  for (const auto& [torch_type, dtype] : kDTypes) {
    if (torch_type == type) return dtype;
  }
  return DType::kUndefined;
}

std::optional<at::ScalarType> scalar_type_of(DType type) {
  for (const auto& [torch_type, dtype] : kDTypes) {
    if (dtype == type) return torch_type;
  }
  return std::nullopt;
}

TensorData tensor_data(const at::Tensor& tensor) {
  TensorData data;
  data.dtype = dtype_of(tensor.scalar_type());
  if (data.dtype == DType::kUndefined) {
    throw std::invalid_argument(std::string("a tensor of type ") +
                                c10::toString(tensor.scalar_type()) + " has no form in ONNX");
  }
  data.dims = tensor.sizes().vec();
  const at::Tensor plain = tensor.detach();
  const bool dense = plain.layout() == at::kStrided && plain.device().is_cpu() &&
                     plain.is_contiguous() && !plain.is_neg() && !plain.is_conj();
  auto densify = [plain] { return share(plain.to_dense().cpu().resolve_neg().contiguous()); };
  if (dense) {
    data.data = share(plain);
  } else if (plain.numel() <= kSmallTensor) {
    data.data = densify();
  } else {
    data.produce = densify;
  }
  return data;
}

TensorData dense_data(const at::Tensor& tensor, const std::string& name) {
  if (dtype_of(tensor.scalar_type()) == DType::kUndefined) {
    throw std::runtime_error("'" + name + "' has torch type " +
                             std::string(c10::toString(tensor.scalar_type())) +
                             ", which ONNX Runtime doesn't know");
  }
  return tensor_data(tensor.detach().to(at::kCPU).resolve_neg().contiguous());
}

at::Tensor to_tensor(const TensorData& data, const std::string& name) {
  const std::optional<at::ScalarType> scalar_type = scalar_type_of(data.dtype);
  if (!scalar_type) {
    throw std::runtime_error("'" + name + "' has ONNX element type " +
                             std::to_string(static_cast<int>(data.dtype)) +
                             ", which torch doesn't know");
  }
  const auto options = at::TensorOptions().dtype(*scalar_type);
  if (data.numel() == 0) return at::empty(data.dims, options);
  const std::shared_ptr<const void> held = data.load();
  return at::from_blob(
      const_cast<void*>(held.get()), data.dims, [held](void*) {}, options);
}

}  // namespace qcdq
