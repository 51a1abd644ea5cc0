// See graph_dump.h.
#include "symbolic/graph/graph_dump.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <functional>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace qcdq {
namespace {

namespace fs = std::filesystem;

constexpr const char* kContents = "000_contents.txt";

[[noreturn]] void fail_on(const char* doing, const fs::path& path, std::error_code error) {
  throw std::runtime_error("cannot " + std::string(doing) + " " + path.string() + ": " +
                           error.message());
}

[[noreturn]] void fail_to_write(const fs::path& path) {
  fail_on("write", path, std::error_code(errno, std::generic_category()));
}

std::string padded(const std::string& text, size_t width) {
  return text + std::string(width > text.size() ? width - text.size() : 0, ' ');
}

std::string three_digits(int number) {
  const std::string digits = std::to_string(number);
  return std::string(digits.size() < 3 ? 3 - digits.size() : 0, '0') + digits;
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-';
}

/// "lower 1.2" as a part of a file's name: "lower-1.2".
std::string file_part(const std::string& words) {
  std::string part;
  for (const char c : words) {
    const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    part += is_name_character(lower) ? lower : '-';
  }
  return part;
}

/// Whether a dump gives such names: NNN_phase_pass.txt.
bool is_own_name(std::string_view name) {
  if (name == kContents) return true;
  if (!name.ends_with(".txt")) return false;
  name.remove_suffix(4);
  const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
  const size_t parts = static_cast<size_t>(std::count(name.begin(), name.end(), '_'));
  const bool letters = std::all_of(name.begin(), name.end(),
                                   [](char c) { return c == '_' || is_name_character(c); });
  return digits >= 3 && digits < name.size() && name[digits] == '_' && parts == 2 && letters;
}

void remove_earlier(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> earlier;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::error_code ignored;  // what is no regular file, or has gone by now, is not ours
    if (is_own_name(entry->path().filename().string()) && entry->is_regular_file(ignored)) {
      earlier.push_back(entry->path());
    }
  }
  if (error) fail_on("read folder", folder, error);
  for (const fs::path& path : earlier) {
    if (!fs::remove(path, error) && error) fail_on("remove", path, error);
  }
}

/// Lines of `after` that are not in `before`, each as often as it stands there.
size_t new_lines(const std::string& before, const std::string& after) {
  const auto for_each_line = [](const std::string& text,
                                const std::function<void(std::string_view)>& visit) {
    for (size_t start = 0; start < text.size();) {
      const size_t end = std::min(text.find('\n', start), text.size());
      visit(std::string_view(text).substr(start, end - start));
      start = end + 1;
    }
  };
  std::unordered_map<std::string_view, int64_t> known;
  for_each_line(before, [&](std::string_view line) { ++known[line]; });
  size_t fresh = 0;
  for_each_line(after, [&](std::string_view line) { fresh += --known[line] < 0 ? 1 : 0; });
  return fresh;
}

std::string first_text(const GraphPicture& graph) {
  std::vector<std::pair<std::string, int64_t>> ops(graph.nodes_by_op.begin(),
                                                   graph.nodes_by_op.end());
  std::stable_sort(ops.begin(), ops.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  int64_t total = 0;
  std::string list;
  for (const auto& [op, count] : ops) {
    total += count;
    list += (list.empty() ? ": " : ", ") + std::to_string(count) + " " + op;
  }
  return "the first " + graph.kind + " graph, " + std::to_string(total) +
         (total == 1 ? " node" : " nodes") + list;
}

/// "-2 aten::dropout, +1 Clip"; where the nodes are the same, how many lines of the text differ.
std::string change_text(const GraphPicture& before, const GraphPicture& after) {
  std::string removed;
  std::string added;
  const auto append = [](std::string& list, const std::string& sign, int64_t count,
                         const std::string& op) {
    list += (list.empty() ? "" : ", ") + sign + std::to_string(count) + " " + op;
  };
  std::map<std::string, int64_t> change = after.nodes_by_op;
  for (const auto& [op, count] : before.nodes_by_op) change[op] -= count;
  for (const auto& [op, count] : change) {
    if (count < 0) append(removed, "-", -count, op);
    if (count > 0) append(added, "+", count, op);
  }
  if (!removed.empty() || !added.empty()) {
    return removed + (removed.empty() || added.empty() ? "" : ", ") + added;
  }
  // A line that only went away is a constant that nobody uses any more.
  const size_t lines =
      std::max(new_lines(before.text, after.text), new_lines(after.text, before.text));
  return "same nodes, " + std::to_string(lines) + (lines == 1 ? " line differs" : " lines differ");
}

}  // namespace

GraphPicture picture_of(const OnnxGraph& graph) {
  GraphPicture picture{"ONNX", to_text(graph, NodeDetail::kOrigins), {}};
  for (const OnnxNode& node : graph.nodes) {
    ++picture.nodes_by_op[node.domain.empty() ? node.op_type : node.domain + "::" + node.op_type];
  }
  return picture;
}

GraphDump::GraphDump(const std::string& folder, const std::string& title) : folder_(folder) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) fail_on("make folder", folder_, error);
  remove_earlier(folder_);
  contents_.open(folder_ / kContents, std::ios::binary);
  contents_ << title << "\n"
            << "A line a pass, in the order in which they ran: its number, the phase, the pass, "
               "what it changed.\n"
            << "NNN_*.txt is the graph after pass NNN; where nothing changed there is none. The "
               "changes alone: grep -v 'no change'.\n\n"
            << std::flush;
  if (!contents_) fail_to_write(folder_ / kContents);
}

void GraphDump::start(const std::string& phase, const std::string& pass) {
  ++number_;
  phase_ = phase;
  pass_ = pass;
  running_ = true;
}

void GraphDump::finish(const GraphPicture& after) {
  const auto last = last_.find(after.kind);
  if (last != last_.end() && last->second.text == after.text) return write_line("no change");
  const fs::path path =
      folder_ / (three_digits(number_) + "_" + file_part(phase_) + "_" + file_part(pass_) + ".txt");
  std::ofstream file(path, std::ios::binary);
  file << after.text << std::flush;
  if (!file) fail_to_write(path);
  write_line(last == last_.end() ? first_text(after) : change_text(last->second, after));
  last_[after.kind] = after;
}

void GraphDump::finish(const std::string& result) { write_line(result); }

void GraphDump::fail(const std::string& why) noexcept {
  try {
    if (!running_) start("", "");
    std::string text = "FAILED: ";
    for (const char c : why) text += c == '\n' ? std::string("\n     ") : std::string(1, c);
    write_line(text);
  } catch (...) {  // the user gets `why` itself
  }
}

void GraphDump::write_line(const std::string& result) {
  running_ = false;
  contents_ << three_digits(number_) << "  " << padded(phase_, 10) << "  " << padded(pass_, 28)
            << "  " << result << "\n"
            << std::flush;
  if (!contents_) fail_to_write(folder_ / kContents);
}

}  // namespace qcdq
