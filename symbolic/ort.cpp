// ONNX Runtime on torch tensors: OrtModel of qcdq/verify.h around OrtSession (ort.h).
#include "symbolic/ort.h"

#include <array>
#include <stdexcept>

#include "qcdq/verify.h"
#include "symbolic/ort_tensors.h"

namespace qcdq {
namespace {

constexpr std::array<std::pair<at::ScalarType, DType>, 13> kTypes = {{
    {at::kFloat, DType::kFloat32},
    {at::kByte, DType::kUInt8},
    {at::kChar, DType::kInt8},
    {at::kUInt16, DType::kUInt16},
    {at::kShort, DType::kInt16},
    {at::kInt, DType::kInt32},
    {at::kLong, DType::kInt64},
    {at::kBool, DType::kBool},
    {at::kHalf, DType::kFloat16},
    {at::kDouble, DType::kFloat64},
    {at::kUInt32, DType::kUInt32},
    {at::kUInt64, DType::kUInt64},
    {at::kBFloat16, DType::kBFloat16},
}};

OrtSessionOptions session_options(const OrtOptions& options) {
  return {options.library, options.optimize, options.threads, options.optimized_model_path,
          options.config};
}

}  // namespace

TensorData to_tensor_data(const at::Tensor& tensor, const std::string& name) {
  for (const auto& [scalar_type, dtype] : kTypes) {
    if (scalar_type != tensor.scalar_type()) continue;
    auto held = std::make_shared<at::Tensor>(tensor.detach().to(at::kCPU).contiguous());
    return {dtype, held->sizes().vec(),
            std::shared_ptr<const void>(held, held->numel() == 0 ? held.get() : held->data_ptr()),
            nullptr};
  }
  throw std::runtime_error("'" + name + "' has torch type " +
                           std::string(c10::toString(tensor.scalar_type())) +
                           ", which ONNX Runtime doesn't know");
}

at::Tensor to_tensor(const TensorData& data, const std::string& name) {
  for (const auto& [scalar_type, dtype] : kTypes) {
    if (dtype != data.dtype) continue;
    const auto options = at::TensorOptions().dtype(scalar_type);
    if (data.numel() == 0) return at::empty(data.dims, options);
    const std::shared_ptr<const void> held = data.load();
    return at::from_blob(
        const_cast<void*>(held.get()), data.dims, [held](void*) {}, options);
  }
  throw std::runtime_error("'" + name + "' has ONNX element type " +
                           std::to_string(static_cast<int>(data.dtype)) +
                           ", which torch doesn't know");
}

struct OrtModel::Impl {
  OrtSession session;
};

OrtModel::OrtModel(const std::string& path, const OrtOptions& options)
    : impl_(new Impl{OrtSession::from_file(path, session_options(options))}) {}
OrtModel::OrtModel(const std::string& bytes, const std::string& folder, const OrtOptions& options)
    : impl_(new Impl{OrtSession::from_bytes(bytes, folder, session_options(options))}) {}
OrtModel::~OrtModel() = default;
OrtModel::OrtModel(OrtModel&&) noexcept = default;
OrtModel& OrtModel::operator=(OrtModel&&) noexcept = default;

const std::vector<std::string>& OrtModel::input_names() const {
  return impl_->session.input_names();
}
const std::vector<std::string>& OrtModel::output_names() const {
  return impl_->session.output_names();
}

std::vector<at::Tensor> OrtModel::run(const std::vector<at::Tensor>& inputs) {
  const std::vector<std::string>& names = output_names();
  std::vector<TensorData> fed;
  for (size_t i = 0; i < inputs.size(); ++i) {
    fed.push_back(
        to_tensor_data(inputs[i], i < input_names().size() ? input_names()[i] : std::to_string(i)));
  }
  const std::vector<TensorData> fetched = impl_->session.run(fed, names);
  std::vector<at::Tensor> outputs;
  for (size_t i = 0; i < fetched.size(); ++i) outputs.push_back(to_tensor(fetched[i], names[i]));
  return outputs;
}

std::string OrtModel::version(const std::string& library) {
  return ort_version(find_onnxruntime(library));
}

}  // namespace qcdq
