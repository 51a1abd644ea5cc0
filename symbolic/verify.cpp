// Verification: the torch model and its file in ONNX Runtime (ORT) on the same inputs
// (qcdq/verify.h). ORT is behind ort.h, the file's quantisers behind onnx_file.h, numbers behind
// compare_outputs.h; here is what is run and judged.
#include "qcdq/verify.h"

#include <torch/csrc/jit/runtime/graph_executor.h>

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>
#include <unordered_set>

#include "symbolic/compare_outputs.h"
#include "symbolic/onnx_file.h"
#include "symbolic/ort.h"
#include "symbolic/ort_tensors.h"

namespace qcdq {
namespace {

// Two correct float computations of a convolution differ by about this, relatively: sums in another
// order.
constexpr float kRoundingNoise = 4e-6f;
// A code at a rounding tie falls to either side under that noise. How far that moves an output
// depends on the model: it is measured by moving every quantiser's input by kRoundingNoise, and
// this many times the measured movement is accepted.
constexpr double kMovementFactor = 4;
// With optimisations on, ORT computes in integers and rounds once per node: the codes are what is
// judged, an output only has to be of this closeness.
constexpr double kLargestOptimizedDifference = 0.1;

struct Explanation {
  const char* key;
  const char* value;
  const char* cause;
};
// ORT's own approximations, and the session entry that turns each off.
constexpr Explanation kExplanations[] = {
    {"session.x64quantprecision", "1", "this CPU's saturation of u8 x s8 products"},
    {"session.qdq_matmulnbits_accuracy_level", "0", "ONNX Runtime's approximate MatMulNBits"},
};

std::string number(double value) {
  std::ostringstream text;
  text.precision(3);
  text << value;
  return text.str();
}

/// What one run found wrong, in the order of the graph.
struct Findings {
  std::vector<std::string> failures;
  std::string first;  // node or output
  void add(const std::string& where, std::string failure) {
    if (first.empty()) first = where;
    failures.push_back(std::move(failure));
  }
};

class Verifier {
 public:
  Verifier(const std::string& path, const VerifyOptions& options) : file_(path), options_(options) {
    library_ = find_onnxruntime(options.ort);
    report_.ort_version = ort_version(library_);
    for (const FileQuantizer& q : file_.quantizers()) moves_codes_ |= !q.constant;
  }

  void compare(const BoxedForward& reference, const std::vector<c10::IValue>& inputs,
               const std::string& label) {
    std::vector<c10::IValue> copies;
    for (const c10::IValue& input : inputs) copies.push_back(input.deepcopy());  // in-place ops
    expected_ = flatten_tensors(reference(copies), "the model's output");
    fed_.clear();
    std::vector<at::Tensor> tensors;
    for (size_t i = 0; i < inputs.size(); ++i) {
      for (at::Tensor& tensor : flatten_tensors(inputs[i], "input " + std::to_string(i))) {
        tensors.push_back(std::move(tensor));
      }
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
      fed_.push_back(to_tensor_data(tensors[i], "input " + std::to_string(i)));
    }
    movement_.clear();
    const bool off = options_.optimization != Optimization::kAll;
    const bool on = options_.optimization != Optimization::kOff;
    const bool codes = options_.codes && !file_.quantizers().empty();
    if (off || codes) unoptimized_run("optimisations off, " + label, off);
    if (on) optimized_run("optimisations on, " + label, codes);
  }

  VerifyReport take() { return std::move(report_); }

 private:
  const OrtSession& session(const std::string& kind, bool optimize, const std::string& bytes,
                            std::vector<std::pair<std::string, std::string>> config = {}) {
    auto found = sessions_.find(kind);
    if (found == sessions_.end()) {
      const OrtSessionOptions options{library_, optimize, 1, "", std::move(config)};
      found =
          sessions_
              .emplace(kind, bytes.empty() ? OrtSession::from_file(file_.path(), options)
                                           : OrtSession::from_bytes(bytes, file_.folder(), options))
              .first;
    }
    return found->second;
  }

  /// Values of quantisers that no output shows yet.
  std::vector<std::string> exposed() const {
    std::vector<std::string> values;
    std::unordered_set<std::string> seen{""};
    auto add = [&](const std::string& value) {
      if (!file_.is_graph_input(value) && seen.insert(value).second) values.push_back(value);
    };
    for (const FileQuantizer& q : file_.quantizers()) {
      add(q.codes);
      for (const std::string* value : {&q.x, &q.scale, &q.zero_point, &q.clip_min, &q.clip_max}) {
        add(*value);
      }
    }
    return values;
  }

  NamedTensors run_named(const OrtSession& session, const std::vector<std::string>& values) const {
    return run_named(session, values, fed_);
  }

  static NamedTensors run_named(const OrtSession& session, const std::vector<std::string>& values,
                                const std::vector<TensorData>& fed) {
    std::vector<TensorData> results = session.run(fed, values);
    NamedTensors named;
    for (size_t i = 0; i < values.size(); ++i) named.emplace(values[i], std::move(results[i]));
    return named;
  }

  void warn(const std::string& warning) {
    auto& warnings = report_.warnings;
    if (std::find(warnings.begin(), warnings.end(), warning) == warnings.end()) {
      warnings.push_back(warning);
    }
  }

  void fail(const Findings& findings) {
    if (report_.first_divergence.empty()) report_.first_divergence = findings.first;
    for (const std::string& failure : findings.failures) report_.failures.push_back(failure);
  }

  void unoptimized_run(const std::string& run, bool judge_outputs) {
    const bool codes = options_.codes && !file_.quantizers().empty();
    std::vector<std::string> values = file_.outputs();
    const std::vector<std::string> extra = codes ? exposed() : std::vector<std::string>();
    values.insert(values.end(), extra.begin(), extra.end());
    const std::string bytes =
        codes && sessions_.count("off") == 0 ? file_.with_outputs(extra) : std::string();
    NamedTensors named = run_named(session("off", false, bytes), values);
    const auto& input_names = session("off", false, "").input_names();
    for (size_t i = 0; i < input_names.size(); ++i) named.emplace(input_names[i], fed_[i]);

    Findings findings;
    baseline_.clear();
    if (codes) {
      for (const FileQuantizer& q : file_.quantizers()) compare_formula(q, named, run, findings);
    }
    if (judge_outputs) {
      for_each_output(named, run, findings, [&](const OutputDifference& difference) {
        return accepts_moved(difference, run);
      });
    }
    fail(findings);
  }

  void compare_formula(const FileQuantizer& q, const NamedTensors& named, const std::string& run,
                       Findings& findings) {
    try {
      const CodeCount count = compare_with_formula(q, named);
      report_.codes.push_back({q.quantized, run, count.codes, count.differing, count.max_steps});
      if (count.differing > 0) {
        findings.add(q.node, run + ": " + q.node + ": " + std::to_string(count.differing) + " of " +
                                 std::to_string(count.codes) +
                                 " codes differ from the formula, by up to " +
                                 std::to_string(count.max_steps));
      }
      baseline_.emplace(q.codes, named.at(q.codes));
    } catch (const std::runtime_error& error) {
      warn("codes of " + q.node + " are not compared: " + error.what());
    }
  }

  /// Compares the file's own outputs with the torch model's; `accepts` may forgive a floating one
  /// beyond the tolerance.
  template <typename Accepts>
  void for_each_output(const NamedTensors& named, const std::string& run, Findings& findings,
                       Accepts accepts) {
    const std::vector<std::string>& names = file_.outputs();
    if (names.size() != expected_.size()) {
      findings.add(names.empty() ? "" : names[0],
                   run + ": the torch model gives " + std::to_string(expected_.size()) +
                       " outputs, the file " + std::to_string(names.size()));
      return;
    }
    for (size_t i = 0; i < names.size(); ++i) {
      const OutputComparison result =
          compare_outputs(names[i], run, expected_[i], to_tensor(named.at(names[i]), names[i]));
      const OutputDifference& difference = result.difference;
      if (record_) report_.outputs.push_back(difference);
      if (!result.mismatch.empty()) {
        findings.add(names[i], run + ": output '" + names[i] + "': " + result.mismatch);
      } else if (!(difference.max_relative <= options_.tolerance) && !accepts(difference)) {
        findings.add(names[i], run + ": output '" + names[i] + "': relative difference " +
                                   number(difference.max_relative) + ", expected at most " +
                                   number(options_.tolerance));
      }
    }
  }

  /// Is an output's difference what codes at rounding ties explain?
  bool accepts_moved(const OutputDifference& difference, const std::string& run) {
    if (!moves_codes_) return false;
    if (movement_.empty()) measure_movement();
    const double movement = movement_[difference.output];
    const bool accepted =
        difference.max_relative <= options_.tolerance + kMovementFactor * movement;
    if (accepted) {
      warn(run + ": output '" + difference.output + "': relative difference " +
           number(difference.max_relative) + ": codes at rounding ties; the output moves by " +
           number(movement) + " itself where the quantisers' inputs move by " +
           number(kRoundingNoise));
    }
    return accepted;
  }

  void measure_movement() {
    const std::vector<std::string>& names = file_.outputs();
    for (const std::string& name : names) movement_[name] = 0;
    NamedTensors still = run_named(session("off", false, ""), names);
    for (float sign : {1.0f, -1.0f}) {
      const std::string kind = sign > 0 ? "moved up" : "moved down";
      const std::string bytes =
          sessions_.count(kind) == 0
              ? file_.with_scaled_quantizer_inputs(1.0f + sign * kRoundingNoise)
              : std::string();
      NamedTensors moved;
      try {
        moved = run_named(session(kind, false, bytes), names);
      } catch (const std::runtime_error&) {
        continue;  // quantisers of float16: the model with a float32 factor doesn't load
      }
      for (const std::string& name : names) {
        const OutputComparison result = compare_outputs(name, "", to_tensor(still.at(name), name),
                                                        to_tensor(moved.at(name), name));
        movement_[name] = std::max(movement_[name], result.difference.max_relative);
      }
    }
  }

  /// Codes with optimisations on, each layer fed the codes of the run without: a step of difference
  /// doesn't add up from layer to layer, and what differs is named by the layer that causes it.
  void compare_layers(const std::string& run, const std::string& kind,
                      const std::vector<std::pair<std::string, std::string>>& config,
                      Findings& findings) {
    std::vector<TensorData> fed = fed_;
    std::vector<std::string> values;
    std::string shapes;  // a session per set of shapes: ORT plans with them
    for (const FileQuantizer& q : file_.quantizers()) {
      auto before = baseline_.find(q.codes);
      if (q.constant || before == baseline_.end()) continue;
      fed.push_back(before->second);
      values.push_back(q.codes);
      for (int64_t dim : before->second.dims) shapes += std::to_string(dim) + " ";
      shapes += ",";
    }
    if (values.empty()) return;
    const std::string key = kind + " codes " + shapes;
    const std::string bytes =
        sessions_.count(key) == 0 ? file_.with_given_codes(baseline_) : std::string();
    const NamedTensors named = run_named(session(key, true, bytes, config), values, fed);
    size_t beyond = 0;
    std::string first_node, first;
    for (const FileQuantizer& q : file_.quantizers()) {
      if (named.count(q.codes) == 0) continue;
      const CodeCount count = compare_codes(baseline_.at(q.codes), named.at(q.codes));
      if (record_) {
        report_.codes.push_back({q.quantized, run, count.codes, count.differing, count.max_steps});
      }
      if (count.max_steps <= 1 || beyond++ > 0) continue;
      first_node = q.node;
      first = q.node + " by up to " + std::to_string(count.max_steps) + " steps in " +
              std::to_string(count.differing) + " of " + std::to_string(count.codes) + " codes";
    }
    if (beyond == 0) return;
    findings.add(first_node, run + ": " + std::to_string(beyond) + " of " +
                                 std::to_string(values.size()) +
                                 " quantisers give codes more than one step from those without "
                                 "optimisations, on the same input codes (the first: " +
                                 first + ")");
  }

  /// One run with optimisations on: outputs of the file as it is, codes layer by layer.
  Findings judge_optimized(const std::string& run, bool codes, const std::string& kind,
                           const std::vector<std::pair<std::string, std::string>>& config) {
    Findings findings;
    if (codes) compare_layers(run, kind, config, findings);
    const NamedTensors named = run_named(session(kind, true, "", config), file_.outputs());
    for_each_output(named, run, findings, [&](const OutputDifference& difference) {
      return moves_codes_ && difference.max_relative <= kLargestOptimizedDifference;
    });
    return findings;
  }

  void optimized_run(const std::string& run, bool codes) {
    const Findings findings = judge_optimized(run, codes, "on", {});
    if (findings.failures.empty()) return;
    record_ = false;
    std::optional<Explanation> explained;
    for (const Explanation& explanation : kExplanations) {
      try {
        const Findings exact =
            judge_optimized(run, codes, explanation.key, {{explanation.key, explanation.value}});
        if (exact.failures.empty()) {
          explained = explanation;
          break;
        }
      } catch (const std::runtime_error&) {  // a model that ORT refuses to load this way explains
                                             // nothing
      }
    }
    record_ = true;
    if (!explained) return fail(findings);
    for (const std::string& failure : findings.failures) {
      warn(failure + ": " + explained->cause + " (no difference with " + explained->key + "=" +
           explained->value + ")");
    }
    if (options_.strict) fail(findings);
  }

  OnnxFile file_;
  VerifyOptions options_;
  std::string library_;
  VerifyReport report_;
  bool moves_codes_ = false;  // some quantiser's input is computed
  bool record_ = true;        // rows of the report are written
  std::map<std::string, OrtSession> sessions_;
  std::vector<at::Tensor> expected_;
  std::vector<TensorData> fed_;
  NamedTensors baseline_;                   // codes without optimisations
  std::map<std::string, double> movement_;  // of outputs, by name
};

std::string label_of(const std::vector<c10::IValue>& inputs, size_t set, size_t sets) {
  std::string label = sets > 1 ? "inputs " + std::to_string(set + 1) + ", " : "";
  for (const c10::IValue& input : inputs) {
    if (input.isTensor() && input.toTensor().dim() > 0) {
      return label + "batch " + std::to_string(input.toTensor().size(0));
    }
  }
  return label + "no batch";
}

/// Eval mode and no gradients while it lives; each submodule gets its own mode back.
class EvalMode {
 public:
  explicit EvalMode(const torch::jit::Module& module) {
    for (const torch::jit::Module& m : module.modules()) modes_.emplace_back(m, m.is_training());
    torch::jit::Module(module).eval();
  }
  ~EvalMode() {
    for (auto& [module, training] : modes_) {
      if (module.hasattr("training")) module.setattr("training", training);
    }
  }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  std::vector<std::pair<torch::jit::Module, bool>> modes_;
  torch::NoGradGuard no_grad_;
};

}  // namespace

double VerifyReport::max_relative() const {
  double largest = 0;
  for (const OutputDifference& output : outputs) largest = std::max(largest, output.max_relative);
  return largest;
}

int64_t VerifyReport::codes_compared() const {
  int64_t total = 0;
  for (const CodeDifference& code : codes) {
    if (code.run.rfind("optimisations off", 0) == 0) total += code.codes;
  }
  return total;
}

int64_t VerifyReport::codes_differing() const {
  int64_t total = 0;
  for (const CodeDifference& code : codes) {
    if (code.run.rfind("optimisations off", 0) == 0) total += code.differing;
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
  // The optimising executor takes seconds for its first runs, and may fuse: the plain one is the
  // reference.
  const torch::jit::GraphOptimizerEnabledGuard plain(false);
  const torch::jit::Method forward = module.get_method("forward");
  return verify_onnx([&](const std::vector<c10::IValue>& values) { return forward(values); },
                     inputs, path, options);
}

}  // namespace qcdq
