// What is run in ONNX Runtime and how it is judged; see verifier.h. Codes are judged one quantiser
// at a time, from inputs that both sides share: in a deep network one code at a rounding tie
// becomes many, several steps apart, some layers later, and that says nothing about any layer.
#include "symbolic/verify/verifier.h"

#include <algorithm>
#include <optional>
#include <sstream>
#include <unordered_set>

#include "symbolic/program/tensors.h"

namespace qcdq {
namespace {

// Two correct float computations of a convolution differ by about this part of the values' range:
// sums in another order.
constexpr double kRoundingNoise = 4e-6;
// How far codes at rounding ties move an output depends on the model: it is measured by moving each
// quantiser's input by kRoundingNoise of its range, up and down, and this many times the measured
// movement is accepted.
constexpr double kMovementFactor = 4;
constexpr int64_t kMostFailuresOfARun = 3;
constexpr double kHalfCode = 0.5 + 1e-6;

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

std::string number_text(double value) {
  std::ostringstream text;
  text.precision(3);
  text << value;
  return text.str();
}

}  // namespace

void Verifier::Findings::add(const std::string& where, std::string failure) {
  if (first.empty()) first = where;
  failures.push_back(std::move(failure));
}

Verifier::Verifier(const std::string& path, const VerifyOptions& options)
    : file_(path), options_(options), library_(find_onnxruntime(options.ort)) {
  report_.ort_version = ort_version(library_);
  judge_codes_ = options.codes && !file_.quantizers().empty();
  for (const FileQuantizer& q : file_.quantizers()) moves_codes_ |= !q.constant;
}

void Verifier::compare(const BoxedForward& reference, const std::vector<c10::IValue>& inputs,
                       const std::string& label) {
  std::vector<c10::IValue> copies;  // the model may change its inputs in place
  fed_.clear();
  for (size_t i = 0; i < inputs.size(); ++i) {
    copies.push_back(inputs[i].deepcopy());
    const std::string what = "input " + std::to_string(i);
    for (const at::Tensor& tensor : flatten_tensors(inputs[i], what)) {
      fed_.push_back(dense_data(tensor, what));
    }
  }
  expected_ = flatten_tensors(reference(copies), "the model's output");
  movement_.clear();
  float_bias_results_.clear();
  // With quantisers the optimised run is judged by this one.
  if (options_.optimization != Optimization::kAll || !file_.quantizers().empty()) {
    unoptimized_run({RunKind::kUnoptimized, "optimisations off, " + label});
  }
  if (options_.optimization != Optimization::kOff) {
    optimized_run({RunKind::kOptimized, "optimisations on, " + label});
  }
}

template <typename Bytes>
const OrtSession& Verifier::session(const std::string& name, bool optimize, Bytes bytes,
                                    const Config& config) {
  auto found = sessions_.find(name);
  if (found == sessions_.end()) {
    const OrtSessionOptions options{library_, optimize, 1, "", config};
    const std::string model = bytes();
    found =
        sessions_
            .emplace(name, model.empty() ? OrtSession::from_file(file_.path(), options)
                                         : OrtSession::from_bytes(model, file_.folder(), options))
            .first;
  }
  return found->second;
}

const OrtSession& Verifier::plain_session(bool optimize, const Config& config) {
  const std::string name =
      std::string(optimize ? "on" : "off") + (config.empty() ? "" : config[0].first);
  return session(
      name, optimize, [] { return std::string(); }, config);
}

NamedTensors Verifier::run_named(const OrtSession& session,
                                 const std::vector<std::string>& values) const {
  std::vector<TensorData> results = session.run(fed_, values);
  NamedTensors named;
  for (size_t i = 0; i < values.size(); ++i) named.emplace(values[i], std::move(results[i]));
  return named;
}

/// The file's outputs and the values of its quantisers: all for the formula, else the codes alone
/// (to show a quantiser's input would keep ORT from fusing it).
std::vector<std::string> Verifier::exposed(bool all) const {
  std::vector<std::string> values = file_.outputs();
  std::unordered_set<std::string> seen(values.begin(), values.end());
  seen.insert("");
  auto add = [&](const std::string& value) {
    if (!file_.is_graph_input(value) && seen.insert(value).second) values.push_back(value);
  };
  for (const FileQuantizer& q : file_.quantizers()) {
    add(q.codes);
    if (!all) continue;
    for (const std::string* value : {&q.x, &q.scale, &q.zero_point, &q.clip_min, &q.clip_max}) {
      add(*value);
    }
  }
  if (!all) return values;
  for (const RoundedBias& bias : file_.rounded_biases()) {
    add(bias.codes);
    add(bias.scale);
  }
  return values;
}

void Verifier::warn(const std::string& warning) {
  auto& warnings = report_.warnings;
  if (std::find(warnings.begin(), warnings.end(), warning) == warnings.end()) {
    warnings.push_back(warning);
  }
}

void Verifier::fail(const Findings& findings) {
  if (report_.first_divergence.empty()) report_.first_divergence = findings.first;
  for (const std::string& failure : findings.failures) report_.failures.push_back(failure);
}

void Verifier::unoptimized_run(const LabelledRun& run) {
  Findings findings;
  NamedTensors named;
  if (judge_codes_) {
    const std::vector<std::string> values = exposed(true);
    const OrtSession& ort = session("off codes", false, [&] { return file_.with_outputs(values); });
    named = run_named(ort, values);
    for (size_t i = 0; i < fed_.size(); ++i) named.emplace(ort.input_names()[i], fed_[i]);
    code_types_.clear();
    for (const FileQuantizer& q : file_.quantizers()) compare_formula(q, named, run, findings);
    for (const RoundedBias& bias : file_.rounded_biases()) {
      const double distance = rounding_distance(bias, named);
      if (distance > kHalfCode) {
        findings.add(bias.value, run.name + ": bias '" + bias.value + "': a code is " +
                                     number_text(distance) +
                                     " steps from the float bias in the metadata, expected at "
                                     "most 0.5");
      }
    }
  } else {
    named = run_named(plain_session(false), file_.outputs());
  }
  compare_with_torch(named, nullptr, run, findings);
  fail(findings);
}

void Verifier::compare_formula(const FileQuantizer& q, const NamedTensors& named,
                               const LabelledRun& run, Findings& findings) {
  try {
    const CodeCount count = compare_with_formula(q, named);
    report_.codes.push_back(
        {q.quantized, run.kind, run.name, count.codes, count.differing, count.max_steps});
    if (count.differing > 0) {
      findings.add(q.node, run.name + ": " + q.node + ": " + std::to_string(count.differing) +
                               " of " + std::to_string(count.codes) +
                               " codes differ from the formula, by up to " +
                               std::to_string(count.max_steps));
    }
    if (!q.constant) code_types_.emplace(q.codes, named.at(q.codes).dtype);
  } catch (const std::runtime_error& error) {
    warn("codes of " + q.node + " are not compared: " + error.what());
  }
}

/// The file's own outputs against the torch model's. `judged`: outputs of another run that has been
/// judged already; an output near those needs no more.
void Verifier::compare_with_torch(const NamedTensors& named, const NamedTensors* judged,
                                  const LabelledRun& run, Findings& findings) {
  const std::vector<std::string>& names = file_.outputs();
  if (names.size() != expected_.size()) {
    findings.add(names.empty() ? "" : names[0],
                 run.name + ": the torch model gives " + std::to_string(expected_.size()) +
                     " outputs, the file " + std::to_string(names.size()));
    return;
  }
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string& name = names[i];
    const at::Tensor ort = to_tensor(named.at(name), name);
    OutputComparison result = compare_outputs(name, expected_[i], ort);
    OutputDifference& difference = result.difference;
    difference.kind = run.kind;
    difference.run = run.name;
    if (record_) report_.outputs.push_back(difference);
    if (!result.mismatch.empty()) {
      findings.add(name, run.name + ": output '" + name + "': " + result.mismatch);
      continue;
    }
    if (difference.max_relative <= options_.tolerance) continue;
    std::optional<std::string> cause;
    if (judged == nullptr) {
      cause = float_biases(i, named, difference);
      if (record_) report_.outputs.back() = difference;
    }
    if (!cause) cause = ties(result);
    if (cause) {
      if (record_ && findings.failures.empty()) {  // else there is a better reason
        warn(run.name + ": output '" + name + "': relative difference " +
             number_text(difference.max_relative) + ": " + *cause);
      }
      continue;
    }
    if (judged != nullptr &&
        within_movement(compare_outputs(name, to_tensor(judged->at(name), name), ort))) {
      continue;
    }
    findings.add(name, run.name + ": output '" + name + "': relative difference " +
                           number_text(difference.max_relative) + ", expected at most " +
                           number_text(options_.tolerance));
  }
}

/// The difference is what codes at rounding ties explain: the cause in words.
std::optional<std::string> Verifier::ties(const OutputComparison& comparison) {
  if (!moves_codes_ || !within_movement(comparison)) return {};
  return "codes at rounding ties; |a-b|/|a| is " + number_text(comparison.rms_relative) + ", and " +
         number_text(movement_[comparison.difference.output]) +
         " where the quantisers' inputs move by " + number_text(kRoundingNoise) + " of their range";
}

/// With its int32 biases as the floats that they were (within half a code each: unoptimized_run
/// looks) the file gives torch's output `i`: the cause in words. `named`: what it gives as it is.
/// `difference` gets the number.
std::optional<std::string> Verifier::float_biases(size_t i, const NamedTensors& named,
                                                  OutputDifference& difference) {
  if (!judge_codes_ || file_.rounded_biases().empty()) return {};
  if (float_bias_results_.empty()) {
    const std::vector<std::string> values = exposed(false);
    const OrtSession& floats =
        session("float biases", false, [&] { return file_.with_float_biases(values); });
    float_bias_results_ = run_named(floats, values);
  }
  const std::string& name = file_.outputs()[i];
  const OutputComparison result =
      compare_outputs(name, expected_[i], to_tensor(float_bias_results_.at(name), name));
  if (!result.mismatch.empty()) return {};
  const double relative = result.difference.max_relative;
  difference.max_relative_with_float_biases = relative;
  if (!(relative <= options_.tolerance) && !ties(result)) return {};
  CodeCount total;
  for (const auto& [codes, type] : code_types_) {
    const CodeCount count = compare_codes(float_bias_results_.at(codes), named.at(codes));
    total.codes += count.codes;
    total.differing += count.differing;
  }
  const size_t biases = file_.rounded_biases().size();
  return std::to_string(biases) + (biases == 1 ? " float bias is" : " float biases are") +
         " int32 in the file, which moves " + std::to_string(total.differing) + " of " +
         std::to_string(total.codes) + " codes; with float biases the difference is " +
         number_text(relative);
}

bool Verifier::within_movement(const OutputComparison& comparison) {
  if (movement_.empty()) measure_movement();
  return comparison.rms_relative <=
         options_.tolerance + kMovementFactor * movement_[comparison.difference.output];
}

void Verifier::measure_movement() {
  const std::vector<std::string>& names = file_.outputs();
  for (const std::string& name : names) movement_[name] = 0;
  const NamedTensors still = run_named(plain_session(false), names);
  for (double fraction : {kRoundingNoise, -kRoundingNoise}) {
    const NamedTensors moved =
        run_named(session(fraction > 0 ? "moved up" : "moved down", false,
                          [&] { return file_.with_moved_quantizer_inputs(fraction); }),
                  names);
    for (const std::string& name : names) {
      const OutputComparison result =
          compare_outputs(name, to_tensor(still.at(name), name), to_tensor(moved.at(name), name));
      movement_[name] = std::max(movement_[name], result.rms_relative);
    }
  }
}

/// What the parts between quantisers, without optimisations, make of the optimised run's codes.
NamedTensors Verifier::local_results(const NamedTensors& optimized) {
  const OrtSession& ort = session("cut", false, [&] { return file_.cut_at_codes(code_types_); });
  std::vector<TensorData> fed = fed_;
  for (size_t i = fed.size(); i < ort.input_names().size(); ++i) {
    const std::string& input = ort.input_names()[i];
    for (const auto& [codes, type] : code_types_) {
      if (OnnxFile::cut_input(codes) == input) fed.push_back(optimized.at(codes));
    }
  }
  const std::vector<std::string>& values = ort.output_names();
  std::vector<TensorData> results = ort.run(fed, values);
  NamedTensors named;
  for (size_t i = 0; i < values.size(); ++i) named.emplace(values[i], std::move(results[i]));
  return named;
}

void Verifier::compare_local(const NamedTensors& optimized, const LabelledRun& run,
                             Findings& findings) {
  const NamedTensors local = local_results(optimized);
  int64_t wrong = 0;
  for (const FileQuantizer& q : file_.quantizers()) {
    if (code_types_.count(q.codes) == 0) continue;
    const CodeCount count = compare_codes(local.at(q.codes), optimized.at(q.codes));
    if (record_) {
      report_.codes.push_back(
          {q.quantized, run.kind, run.name, count.codes, count.differing, count.max_steps});
    }
    if (count.max_steps <= 1 || ++wrong > kMostFailuresOfARun) continue;
    findings.add(q.node, run.name + ": " + q.node + ": codes differ by up to " +
                             std::to_string(count.max_steps) +
                             " steps from those without optimisations on the same input, expected "
                             "at most 1 (" +
                             std::to_string(count.differing) + " of " +
                             std::to_string(count.codes) + " differ)");
  }
  if (wrong > kMostFailuresOfARun) {
    findings.failures.back() +=
        "; and so do " + std::to_string(wrong - kMostFailuresOfARun) + " more quantisers";
  }
  for (const std::string& name : file_.outputs()) {
    const OutputComparison result =
        compare_outputs(name, to_tensor(local.at(name), name), to_tensor(optimized.at(name), name));
    const double relative = result.difference.max_relative;
    // An output that is a quantiser's codes has been judged; other integers may follow one.
    if (!result.mismatch.empty() || code_types_.count(name) != 0) continue;
    if (!(relative <= options_.tolerance)) {
      findings.add(name, run.name + ": output '" + name + "': relative difference " +
                             number_text(relative) +
                             " from that without optimisations on the same codes, expected at "
                             "most " +
                             number_text(options_.tolerance));
    }
  }
}

Verifier::Findings Verifier::judge_optimized(const LabelledRun& run, const Config& config) {
  Findings findings;
  const NamedTensors named = run_named(plain_session(true, config), file_.outputs());
  if (judge_codes_) {
    const std::vector<std::string> values = exposed(false);
    const std::string name = "on codes" + (config.empty() ? "" : config[0].first);
    const NamedTensors optimized =
        run_named(session(
                      name, true, [&] { return file_.with_outputs(values); }, config),
                  values);
    compare_local(optimized, run, findings);
    compare_with_torch(named, &optimized, run, findings);
  } else if (!file_.quantizers().empty()) {
    const NamedTensors plain = run_named(plain_session(false), file_.outputs());
    compare_with_torch(named, &plain, run, findings);
  } else {
    compare_with_torch(named, nullptr, run, findings);
  }
  return findings;
}

void Verifier::optimized_run(const LabelledRun& run) {
  const Findings findings = judge_optimized(run, {});
  if (findings.failures.empty()) return;
  record_ = false;
  std::optional<Explanation> explained;
  for (const Explanation& explanation : kExplanations) {
    try {
      if (judge_optimized(run, {{explanation.key, explanation.value}}).failures.empty()) {
        explained = explanation;
        break;
      }
    } catch (const std::runtime_error&) {
      continue;  // a model that ORT refuses to load this way explains nothing
    }
  }
  record_ = true;
  if (!explained) return fail(findings);
  const size_t more = findings.failures.size() - 1;
  warn(findings.failures[0] + (more > 0 ? "; " + std::to_string(more) + " more" : "") + ": " +
       explained->cause + " (gone with " + explained->key + "=" + explained->value + ")");
  if (options_.strict) fail(findings);
}

}  // namespace qcdq
