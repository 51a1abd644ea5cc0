// See message_text.h.
#include "symbolic/graph/message_text.h"

namespace qcdq {

std::string list_text(const std::vector<int64_t>& values) {
  std::string text = "[";
  for (int64_t value : values) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + "]";
}

std::string join_names(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string place_text(const std::string& path, const std::string& line) {
  return path + (path.empty() || line.empty() ? "" : ", ") + line;
}

}  // namespace qcdq
