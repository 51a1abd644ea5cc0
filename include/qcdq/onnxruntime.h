// ONNX Runtime (ORT) on torch tensors: finding its library and running a model. ORT is opened at
// run time (dlopen), never linked.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "qcdq/api.h"

namespace at {
class Tensor;
}

namespace qcdq {

/// Path of ORT's shared library: `ort` (a file, or a folder that holds libonnxruntime.so*) where
/// given, else $QCDQ_ORT, else the onnxruntime wheel of the virtual environment the program stands
/// in or of VIRTUAL_ENV. Throws std::runtime_error with the places that were tried where there is
/// none.
QCDQ_API std::string find_onnxruntime(const std::string& ort = "");

struct OrtOptions {
  std::string library = {};  // "" = find_onnxruntime()
  bool optimize = true;      // ORT_ENABLE_ALL, or ORT_DISABLE_ALL
  int threads = 1;
  std::string optimized_model_path = {};  // where ORT writes its optimised graph; "" = nowhere
  std::vector<std::pair<std::string, std::string>> config = {};  // session config entries
};

/// An ONNX model in an ORT session on the CPU.
class QCDQ_API OrtModel {
 public:
  explicit OrtModel(const std::string& path, const OrtOptions& options = {});
  /// From bytes; external data is looked up in `folder`.
  OrtModel(const std::string& bytes, const std::string& folder, const OrtOptions& options);
  ~OrtModel();
  OrtModel(OrtModel&&) noexcept;
  OrtModel& operator=(OrtModel&&) noexcept;

  const std::vector<std::string>& input_names() const;
  const std::vector<std::string>& output_names() const;
  /// Tensors in the order of input_names(), on the CPU; outputs in the order of output_names().
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs);
  static std::string version(const std::string& library = "");

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qcdq
