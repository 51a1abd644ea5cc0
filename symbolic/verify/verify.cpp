// The public side of verification (qcdq/verify.h): sets of inputs, eval mode, sums of the report.
// verifier.cpp does the work.
#include "qcdq/verify.h"

#include <algorithm>

#include "symbolic/program/method.h"
#include "symbolic/program/values.h"
#include "symbolic/verify/verifier.h"

namespace qcdq {
namespace {

std::string label_of(const std::vector<c10::IValue>& inputs, size_t set, size_t sets) {
  std::string label = sets > 1 ? "inputs " + std::to_string(set + 1) + ", " : "";
  for (const c10::IValue& input : inputs) {
    if (input.isTensor() && input.toTensor().dim() > 0) {
      return label + "batch " + std::to_string(input.toTensor().size(0));
    }
  }
  return label + "no batch";
}

}  // namespace

double VerifyReport::max_relative() const {
  double largest = 0;
  for (const OutputDifference& output : outputs) largest = std::max(largest, output.max_relative);
  return largest;
}

int64_t VerifyReport::codes_compared() const {
  int64_t total = 0;
  for (const CodeDifference& code : codes) {
    if (code.kind == RunKind::kUnoptimized) total += code.codes;
  }
  return total;
}

int64_t VerifyReport::codes_differing() const {
  int64_t total = 0;
  for (const CodeDifference& code : codes) {
    if (code.kind == RunKind::kUnoptimized) total += code.differing;
  }
  return total;
}

VerifyReport verify_onnx(const BoxedForward& reference,
                         const std::vector<std::vector<c10::IValue>>& inputs,
                         const std::string& path, const VerifyOptions& options) {
  if (inputs.empty())
    throw std::runtime_error("verify_onnx: inputs is empty: expected one set or more");
  torch::NoGradGuard no_grad;
  Verifier verifier(path, options);
  for (size_t i = 0; i < inputs.size(); ++i) {
    verifier.compare(reference, inputs[i], label_of(inputs[i], i, inputs.size()));
  }
  return verifier.take();
}

VerifyReport verify_onnx(const torch::jit::Module& module,
                         const std::vector<std::vector<c10::IValue>>& inputs,
                         const std::string& path, const VerifyOptions& options) {
  const EvalMode eval(module);
  MethodRunner forward(module, "forward");
  return verify_onnx([&](const std::vector<c10::IValue>& values) { return forward(values); },
                     inputs, path, options);
}

VerifyReport verify_onnx(const ExportedProgram& program,
                         const std::vector<std::vector<c10::IValue>>& inputs,
                         const std::string& path, const VerifyOptions& options) {
  const BoxedForward forward = [&](const std::vector<c10::IValue>& values) -> c10::IValue {
    return program.run(values);
  };
  return verify_onnx(forward, inputs, path, options);
}

}  // namespace qcdq
