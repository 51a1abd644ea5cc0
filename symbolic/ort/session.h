// ONNX Runtime (ORT) without torch: sessions on plain tensors. model.cpp puts torch tensors around
// them; tests of the writer use them as they are.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "qcdq/symbolic.h"

namespace qcdq {

/// As OrtOptions of qcdq/onnxruntime.h.
struct OrtSessionOptions {
  std::string library;
  bool optimize = true;
  int threads = 1;
  std::string optimized_model_path;
  std::vector<std::pair<std::string, std::string>> config;
};

/// A model in ORT on the CPU. Every error is a std::runtime_error that ends with ORT's own words.
class OrtSession {
 public:
  static OrtSession from_file(const std::string& path, const OrtSessionOptions& options);
  /// `bytes` must live as long as this call only; external data is looked up in `folder`.
  static OrtSession from_bytes(const std::string& bytes, const std::string& folder,
                               const OrtSessionOptions& options);
  ~OrtSession();
  OrtSession(OrtSession&&) noexcept;
  OrtSession& operator=(OrtSession&&) noexcept;

  const std::vector<std::string>& input_names() const;
  const std::vector<std::string>& output_names() const;
  /// One tensor per input, in order; `outputs` in the order asked for. Inputs are not copied; the
  /// outputs' data belongs to ORT and lives as long as the TensorData. Element types that DType
  /// doesn't name keep ONNX's number.
  std::vector<TensorData> run(const std::vector<TensorData>& inputs,
                              const std::vector<std::string>& outputs) const;

 private:
  struct State;
  explicit OrtSession(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// "1.31.1" of the library at `path`.
std::string ort_version(const std::string& path);

}  // namespace qcdq
