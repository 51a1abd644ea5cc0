// The functions of node_place.h.
#include "symbolic/program/node_place.h"

#include <optional>
#include <vector>

namespace qcdq {

namespace {

using torch::jit::SourceRange;

struct Line {
  std::string file;
  size_t number;
};

// A loaded model's own range is a line of the archive's code; the user's line is behind it.
std::optional<Line> line_of(const SourceRange& range) {
  const auto original = range.source() ? range.findSourceRangeThatGenerated() : std::nullopt;
  const auto position = (original ? *original : range).file_line_col();
  if (!position) return std::nullopt;
  const auto& [file, number, column] = *position;
  if (file.empty() || number == 0) return std::nullopt;
  return Line{file, number};
}

bool inside_torch(const std::string& file) {
  return file.find("/torch/nn/") != std::string::npos ||
         file.find("/torch/_") != std::string::npos ||
         file.find("/torch/functional.py") != std::string::npos;
}

std::string shortened(const std::string& file) {
  const size_t name = file.rfind('/');
  if (name == std::string::npos || name == 0) return file;
  const size_t folder = file.rfind('/', name - 1);
  return folder == std::string::npos ? file : file.substr(folder + 1);
}

}  // namespace

std::string module_path(const torch::jit::Node& node) {
  std::string path;
  if (const auto stack = node.callstack()) {
    for (const auto& [function, range, instance] : (*stack)->vec()) {
      std::string name = instance ? instance->instance_name() : "";
      if (name.empty() || name == "SELF" || name == "INSTANCE_NAME_UNKNOWN") continue;
      if (name.starts_with("SELF.")) name.erase(0, 5);
      path += (path.empty() ? "" : ".") + name;
    }
  }
  if (!path.empty()) return path;
  // A trace that was not saved: "__module.layer1/__module.layer1.0", of which the last part has the
  // whole path.
  path = node.scopeName();
  if (const size_t slash = path.rfind('/'); slash != std::string::npos) path.erase(0, slash + 1);
  if (const size_t colons = path.rfind("::"); colons != std::string::npos)
    path.erase(0, colons + 2);
  if (path.starts_with("__module.")) path.erase(0, 9);
  return path == "__module" ? "" : path;
}

std::string source_line(const torch::jit::Node& node) {
  std::vector<SourceRange> ranges = {node.sourceRange()};  // innermost first
  if (const auto stack = node.callstack()) {
    const auto entries = (*stack)->vec();
    for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry)
      ranges.push_back(std::get<1>(*entry));
  }
  std::optional<Line> best;
  for (const SourceRange& range : ranges) {
    const std::optional<Line> line = line_of(range);
    if (!line) continue;
    if (!best || !inside_torch(line->file)) best = line;
    if (!inside_torch(line->file)) break;
  }
  return best ? shortened(best->file) + ":" + std::to_string(best->number) : "";
}

}  // namespace qcdq
