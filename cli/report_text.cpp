// Text and JSON of reports; see report_text.h.
#include "cli/report_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

namespace qcdq::cli {
namespace {

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  char text[128];
  std::snprintf(text, sizeof(text), pattern, args...);
  return text;
}

}  // namespace

std::string size_text(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= 1'000'000'000) return format("%.2f GB", value / 1e9);
  if (bytes >= 1'000'000) return format("%.1f MB", value / 1e6);
  if (bytes >= 1000) return format("%.1f kB", value / 1e3);
  return std::to_string(bytes) + " bytes";
}

std::string number_text(double value) { return format("%.3g", value); }
std::string seconds_text(double value) { return format("%.2f s", value); }

std::string nodes_text(const std::map<std::string, int64_t>& nodes_by_op) {
  std::vector<std::pair<std::string, int64_t>> ops(nodes_by_op.begin(), nodes_by_op.end());
  std::stable_sort(ops.begin(), ops.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  int64_t total = 0;
  std::string list;
  for (const auto& [op, count] : ops) {
    total += count;
    list += (list.empty() ? ": " : ", ") + op + " " + std::to_string(count);
  }
  return std::to_string(total) + (total == 1 ? " node" : " nodes") + list;
}

nlohmann::ordered_json to_json(const VerifyReport& report, const std::vector<std::string>& notes) {
  nlohmann::ordered_json json;
  json["ok"] = report.ok();
  json["ort_version"] = report.ort_version;
  json["max_relative"] = report.max_relative();
  json["codes_compared"] = report.codes_compared();
  json["codes_differing"] = report.codes_differing();
  json["outputs"] = nlohmann::ordered_json::array();
  for (const OutputDifference& d : report.outputs) {
    nlohmann::ordered_json row = {{"output", d.output},
                                  {"run", d.run},
                                  {"max_abs", d.max_abs},
                                  {"max_relative", d.max_relative},
                                  {"cosine", d.cosine}};
    if (d.max_relative_with_float_biases) {
      row["max_relative_with_float_biases"] = *d.max_relative_with_float_biases;
    }
    json["outputs"].push_back(std::move(row));
  }
  json["codes"] = nlohmann::ordered_json::array();
  for (const CodeDifference& d : report.codes) {
    json["codes"].push_back({{"tensor", d.tensor},
                             {"run", d.run},
                             {"codes", d.codes},
                             {"differing", d.differing},
                             {"max_steps", d.max_steps}});
  }
  json["first_divergence"] = report.first_divergence;
  json["warnings"] = report.warnings;
  json["failures"] = report.failures;
  json["notes"] = notes;
  return json;
}

std::string verify_text(const VerifyReport& report, const std::vector<std::string>& notes,
                        bool list_codes) {
  std::string text = report.ok() ? "verified" : "MISMATCH";
  text += " in ONNX Runtime " + report.ort_version + "\n";
  if (!report.outputs.empty()) {
    // NaN counts as the largest difference.
    const OutputDifference* worst = &report.outputs[0];
    double cosine = 1;
    for (const OutputDifference& d : report.outputs) {
      if (std::isnan(d.max_relative) || d.max_relative > worst->max_relative) worst = &d;
      cosine = std::min(cosine, d.cosine);
    }
    text += "  outputs: " + std::to_string(report.outputs.size()) +
            " compared, largest relative difference " + number_text(worst->max_relative) + " (" +
            worst->output + ", " + worst->run + "), largest absolute " +
            number_text(worst->max_abs) + ", least cosine " + format("%.7f", cosine) + "\n";
  }
  if (!report.codes.empty()) {
    text += "  codes: " + std::to_string(report.codes_compared()) + " compared, " +
            std::to_string(report.codes_differing()) + " differ with optimisations off\n";
  }
  if (list_codes) {
    for (const CodeDifference& d : report.codes) {
      text += "    " + d.tensor + " (" + d.run + "): " + std::to_string(d.differing) + " of " +
              std::to_string(d.codes) + " differ, by at most " + std::to_string(d.max_steps) + "\n";
    }
  }
  if (!report.first_divergence.empty()) {
    text += "  first divergence: " + report.first_divergence + "\n";
  }
  for (const std::string& warning : report.warnings) text += "  warning: " + warning + "\n";
  for (const std::string& note : notes) text += "  note: " + note + "\n";
  return text;
}

std::string json_text(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace qcdq::cli
