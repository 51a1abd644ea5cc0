// Verification: runs a model in torch and its .onnx file in ONNX Runtime (ORT) on the same inputs
// and compares outputs and quantised codes.
#pragma once

#include <torch/script.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qcdq/api.h"
#include "qcdq/export.h"
#include "qcdq/onnxruntime.h"

namespace qcdq {

/// ONNX Runtime's graph optimisations: which runs are made.
enum class Optimization { kOff, kAll, kBoth };
template <>
struct OptionWords<Optimization> {
  static constexpr OptionWord<Optimization> kWords[] = {
      {Optimization::kOff, "off"}, {Optimization::kAll, "all"}, {Optimization::kBoth, "both"}};
};

struct VerifyOptions {
  std::string ort = {};  // see find_onnxruntime
  Optimization optimization = Optimization::kBoth;
  bool codes = true;        // compare the codes of each QuantizeLinear
  double tolerance = 1e-4;  // largest relative difference, max|a-b| / max|a|
  bool strict = false;      // this CPU's saturation is a mismatch, not a warning
};

/// Which of ONNX Runtime's two modes a row of the report is about.
enum class RunKind { kUnoptimized, kOptimized };

struct OutputDifference {
  std::string output;
  RunKind kind = RunKind::kUnoptimized;
  std::string run;  // in words: "optimisations off, batch 1"
  double max_abs = 0;
  double max_relative = 0;  // max|a-b| / max|a|
  double cosine = 1;
  // max_relative with the file's int32 biases as the floats that they were; measured only where
  // max_relative is beyond the tolerance.
  std::optional<double> max_relative_with_float_biases = {};
};
struct CodeDifference {
  std::string tensor;  // the Q's output
  RunKind kind = RunKind::kUnoptimized;
  std::string run;
  int64_t codes = 0;  // compared
  int64_t differing = 0;
  int64_t max_steps = 0;  // largest difference in codes
};

struct QCDQ_API VerifyReport {
  std::string ort_version;
  std::vector<OutputDifference> outputs;
  std::vector<CodeDifference> codes;
  std::string first_divergence;  // the first node that diverges, or ""
  std::vector<std::string> warnings;
  std::vector<std::string> failures;  // one line each; empty = verified
  bool ok() const { return failures.empty(); }
  double max_relative() const;
  /// Of the runs without optimisations, whose codes must be those of the formula.
  int64_t codes_compared() const;
  int64_t codes_differing() const;
};

/// Compares `reference` (the torch model) with the file on each set of inputs.
///
/// Optimisations off: 0 codes differ from qcdq's formula on the Q's own input, each bias that
/// export made int32 is within half a code of the float that it was, and outputs are within
/// tolerance. An output beyond it is a warning, not a failure, where its cause is shown: the file
/// with the float biases in place of the int32 ones is within tolerance, or moving the quantisers'
/// inputs by a rounding error moves the output as far.
///
/// On: each layer's codes may differ by one step from what that layer gives without optimisations
/// on the same input codes; a difference that vanishes with session.x64quantprecision=1 is this
/// CPU's u8 x s8 saturation: a warning (a failure if strict). A file with quantisers is run without
/// optimisations too, whatever `optimization` says.
QCDQ_API VerifyReport verify_onnx(const BoxedForward& reference,
                                  const std::vector<std::vector<c10::IValue>>& inputs,
                                  const std::string& path, const VerifyOptions& options = {});
/// The same for a TorchScript module's forward.
QCDQ_API VerifyReport verify_onnx(const torch::jit::Module& module,
                                  const std::vector<std::vector<c10::IValue>>& inputs,
                                  const std::string& path, const VerifyOptions& options = {});
/// The same for a program of torch.export.
QCDQ_API VerifyReport verify_onnx(const ExportedProgram& program,
                                  const std::vector<std::vector<c10::IValue>>& inputs,
                                  const std::string& path, const VerifyOptions& options = {});

}  // namespace qcdq
