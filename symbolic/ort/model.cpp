// ONNX Runtime on torch tensors: OrtModel of qcdq/onnxruntime.h around OrtSession (session.h).
#include <ATen/core/Tensor.h>

#include <stdexcept>

#include "qcdq/onnxruntime.h"
#include "symbolic/ort/session.h"
#include "symbolic/program/tensors.h"

namespace qcdq {
namespace {

OrtSessionOptions session_options(const OrtOptions& options) {
  return {options.library, options.optimize, options.threads, options.optimized_model_path,
          options.config};
}

}  // namespace

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
        dense_data(inputs[i], i < input_names().size() ? input_names()[i] : std::to_string(i)));
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
