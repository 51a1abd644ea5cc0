// ONNX Runtime on torch tensors: OrtModel of qcdq/verify.h around OrtSession (ort.h).
#include "symbolic/ort/session.h"

#include <stdexcept>

#include "qcdq/verify.h"
#include "symbolic/convert/node_args.h"
#include "symbolic/ort/tensors.h"

namespace qcdq {
namespace {

OrtSessionOptions session_options(const OrtOptions& options) {
  return {options.library, options.optimize, options.threads, options.optimized_model_path,
          options.config};
}

}  // namespace

TensorData to_tensor_data(const at::Tensor& tensor, const std::string& name) {
  const DType dtype = dtype_of(tensor.scalar_type());
  if (dtype == DType::kUndefined) {
    throw std::runtime_error("'" + name + "' has torch type " +
                             std::string(c10::toString(tensor.scalar_type())) +
                             ", which ONNX Runtime doesn't know");
  }
  auto held = std::make_shared<at::Tensor>(tensor.detach().to(at::kCPU).contiguous());
  return {dtype, held->sizes().vec(), std::shared_ptr<const void>(held, held->const_data_ptr()),
          nullptr};
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
