// The registry: the rows of qcdq's own tables, listed here, and those that users add at run time
// (register_symbolics), which win over them. Both are looked up by name, so that the time for one
// node does not grow with the number of rows.
#include "symbolic/symbolics/registry.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <deque>
#include <mutex>
#include <optional>
#include <string_view>
#include <unordered_map>

namespace qcdq {

namespace {

struct Table {
  const char* file;
  std::span<const Symbolic> rows;
};

// A family's table is named after its file.
#define QCDQ_TABLE(family) \
  Table { #family ".cpp", family##_symbolics() }

auto tables() {
  return std::array{
      QCDQ_TABLE(activations),
      QCDQ_TABLE(arithmetic),
      QCDQ_TABLE(attention),
      QCDQ_TABLE(comparisons),
      QCDQ_TABLE(convolutions),
      QCDQ_TABLE(creation),
      QCDQ_TABLE(indexing),
      QCDQ_TABLE(linear),
      QCDQ_TABLE(normalisation),
      QCDQ_TABLE(pooling),
      QCDQ_TABLE(quantized_decomposed),
      QCDQ_TABLE(quantizers),
      QCDQ_TABLE(reductions),
      QCDQ_TABLE(resize),
      QCDQ_TABLE(rnn),
      QCDQ_TABLE(scatter),
      QCDQ_TABLE(shapes),
      QCDQ_TABLE(sizes),
  };
}

#undef QCDQ_TABLE

// Rows by their torch_op, those of the same name in the order in which they were added. The rows
// belong to someone else.
class RowsByName {
 public:
  void add(const Symbolic& row) { rows_[row.torch_op].push_back(&row); }

  std::span<const Symbolic* const> named(std::string_view name) const {
    const auto found = rows_.find(name);
    if (found == rows_.end()) return {};
    return found->second;
  }

 private:
  std::unordered_map<std::string_view, std::vector<const Symbolic*>> rows_;
};

const RowsByName& own_rows() {
  static const RowsByName instance = [] {
    RowsByName rows;
    for (const Table& table : tables()) {
      for (const Symbolic& row : table.rows) rows.add(row);
    }
    return rows;
  }();
  return instance;
}

// A deque: rows handed out by find_symbolic stay where they are when a later library adds its own.
struct UserRows {
  std::mutex mutex;
  std::deque<Symbolic> rows;
  RowsByName by_name;
};

UserRows& user_rows() {
  static UserRows instance;
  return instance;
}

struct Match {
  const Symbolic* row = nullptr;
  int64_t least_opset = 0;  // of the rows for the op, at any opset; 0: there is none
};

int64_t lesser(int64_t a, int64_t b) {  // 0 stands for none
  return a != 0 && b != 0 ? std::min(a, b) : std::max(a, b);
}

// `full` is the op with its overload. Its row wins over one for all overloads, which may be newer.
Match search(const RowsByName& rows, std::string_view op, std::string_view full, int64_t opset) {
  Match match;
  for (std::string_view name : {op, full}) {
    const Symbolic* newest = nullptr;
    for (const Symbolic* row : rows.named(name)) {
      if (!row->converts()) continue;
      match.least_opset = lesser(match.least_opset, row->since_opset);
      if (row->since_opset > opset) continue;
      // >=: of two user rows for the same op the later one wins
      if (newest == nullptr || row->since_opset >= newest->since_opset) newest = row;
    }
    if (newest != nullptr) match.row = newest;
  }
  return match;
}

// The library that holds the row's name: a row is written with a literal.
std::string library_of(const Symbolic& row) {
  Dl_info library{};
  if (dladdr(row.torch_op, &library) == 0 || library.dli_fname == nullptr) return "plugin";
  const std::string_view path = library.dli_fname;
  return std::string(path.substr(path.rfind('/') + 1));
}

// What the rows for the overload say, or else those for all overloads; nothing where none names it.
std::optional<OpTraits> search_traits(const RowsByName& rows, std::string_view op,
                                      std::string_view full) {
  std::span<const Symbolic* const> found = rows.named(full);
  if (found.empty()) found = rows.named(op);
  if (found.empty()) return std::nullopt;
  OpTraits traits = OpTraits::kNone;
  for (const Symbolic* row : found) traits = traits | row->traits;
  return traits;
}

// A quantiser that a later torch brings must not be computed away before someone writes its row.
OpTraits unlisted_traits(std::string_view op) {
  const bool quantizes = op.find("quantize") != op.npos || op.find("fake_quant") != op.npos;
  return quantizes ? OpTraits::kNeverFold : OpTraits::kNone;
}

std::string full_name(const std::string& op, const std::string& overload) {
  return overload.empty() ? op : op + "." + overload;
}

}  // namespace

const Symbolic* find_symbolic(const std::string& op, const std::string& overload, int64_t opset,
                              int64_t* least_opset) {
  const std::string full = full_name(op, overload);
  Match user;
  {
    std::lock_guard lock(user_rows().mutex);
    user = search(user_rows().by_name, op, full, opset);
  }
  const Match own = search(own_rows(), op, full, opset);
  if (least_opset != nullptr) *least_opset = lesser(user.least_opset, own.least_opset);
  return user.row != nullptr ? user.row : own.row;
}

OpTraits op_traits(const std::string& op, const std::string& overload) {
  const std::string full = full_name(op, overload);
  const std::optional<OpTraits> own = search_traits(own_rows(), op, full);
  std::lock_guard lock(user_rows().mutex);
  const std::optional<OpTraits> user = search_traits(user_rows().by_name, op, full);
  if (!own && !user) return unlisted_traits(op);
  return own.value_or(OpTraits::kNone) | user.value_or(OpTraits::kNone);
}

std::vector<ListedSymbolic> all_symbolics() {
  std::vector<ListedSymbolic> rows;
  for (const Table& table : tables()) {
    for (const Symbolic& row : table.rows) rows.push_back({row, table.file});
  }
  std::lock_guard lock(user_rows().mutex);
  for (const Symbolic& row : user_rows().rows) rows.push_back({row, library_of(row)});
  return rows;
}

void register_symbolics(std::initializer_list<Symbolic> rows) {
  std::lock_guard lock(user_rows().mutex);
  for (const Symbolic& row : rows) user_rows().by_name.add(user_rows().rows.emplace_back(row));
}

}  // namespace qcdq
