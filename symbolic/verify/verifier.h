// One verification (verify.cpp makes one per call): which models ONNX Runtime (ORT) runs and how
// their results are judged. The file's quantisers are behind verify/probe_model.h, numbers behind
// compare_outputs.h.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "qcdq/verify.h"
#include "symbolic/ort/session.h"
#include "symbolic/verify/compare_codes.h"
#include "symbolic/verify/compare_outputs.h"

namespace qcdq {

class Verifier {
 public:
  Verifier(const std::string& path, const VerifyOptions& options);
  /// Runs one set of inputs. `label` names it in the report: "batch 2".
  void compare(const BoxedForward& reference, const std::vector<c10::IValue>& inputs,
               const std::string& label);
  VerifyReport take() { return std::move(report_); }

 private:
  /// What one run found wrong, in the order of the graph.
  struct Findings {
    std::vector<std::string> failures;
    std::string first;  // node or output
    void add(const std::string& where, std::string failure);
  };
  using Config = std::vector<std::pair<std::string, std::string>>;
  /// A set of inputs in one of ONNX Runtime's modes; `name` is what the report calls it.
  struct LabelledRun {
    RunKind kind;
    std::string name;
  };

  /// The session of that name, made from what `bytes()` returns (from the file itself where that is
  /// "") the first time.
  template <typename Bytes>
  const OrtSession& session(const std::string& name, bool optimize, Bytes bytes,
                            const Config& config = {});
  const OrtSession& plain_session(bool optimize, const Config& config = {});
  NamedTensors run_named(const OrtSession& session, const std::vector<std::string>& values) const;
  std::vector<std::string> exposed(bool all) const;

  void unoptimized_run(const LabelledRun& run);
  void optimized_run(const LabelledRun& run);
  Findings judge_optimized(const LabelledRun& run, const Config& config);
  NamedTensors local_results(const NamedTensors& optimized);
  void compare_formula(const FileQuantizer& q, const NamedTensors& named, const LabelledRun& run,
                       Findings& findings);
  void compare_local(const NamedTensors& optimized, const LabelledRun& run, Findings& findings);
  void compare_with_torch(const NamedTensors& named, const NamedTensors* judged,
                          const LabelledRun& run, Findings& findings);
  std::optional<std::string> ties(const OutputComparison& comparison);
  std::optional<std::string> float_biases(size_t output, const NamedTensors& named,
                                          OutputDifference& difference);
  bool within_movement(const OutputComparison& comparison);
  void measure_movement();
  void warn(const std::string& warning);
  void fail(const Findings& findings);

  OnnxFile file_;
  VerifyOptions options_;
  std::string library_;
  VerifyReport report_;
  bool judge_codes_ = false;  // the file has quantisers, and options ask for their codes
  bool moves_codes_ = false;  // a quantiser's input is computed
  bool record_ = true;        // rows of the report are written
  std::map<std::string, OrtSession> sessions_;
  // The members below belong to the set of inputs that compare() is working on.
  std::vector<at::Tensor> expected_;        // the torch model's outputs
  std::vector<TensorData> fed_;             // the inputs
  std::map<std::string, double> movement_;  // rms_relative of outputs, by name
  NamedTensors float_bias_results_;
  // Element types of the codes of the quantisers that are compared, weights excepted.
  std::unordered_map<std::string, DType> code_types_;
};

}  // namespace qcdq
