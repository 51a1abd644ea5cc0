// The registry: finds the row for a torch op at an opset. User rows (register_symbolics) win over
// qcdq's own tables.
#include "symbolic/symbolics/registry.h"

#include <algorithm>
#include <array>
#include <deque>
#include <mutex>

namespace qcdq {

namespace {

// A deque: rows handed out by find_symbolic stay where they are when a later library adds its own.
struct UserRows {
  std::mutex mutex;
  std::deque<Symbolic> rows;
};

UserRows& user_rows() {
  static UserRows instance;
  return instance;
}

std::array<std::span<const Symbolic>, 15> tables() {
  return {quant_symbolics(),      quantized_symbolics(), elementwise_symbolics(),
          activation_symbolics(), nn_symbolics(),        pool_symbolics(),
          shape_symbolics(),      size_symbolics(),      reduce_symbolics(),
          attention_symbolics(),  rnn_symbolics(),       resize_symbolics(),
          create_symbolics(),     indexing_symbolics(),  scatter_symbolics()};
}

class Search {
 public:
  Search(const std::string& op, const std::string& overload, int64_t opset)
      : op_(op), full_(overload.empty() ? op : op + "." + overload), opset_(opset) {}

  void visit(const Symbolic& row) {
    const bool exact = full_ == row.torch_op;
    if (!exact && op_ != row.torch_op) return;
    least_ = least_ == 0 ? row.since_opset : std::min<int64_t>(least_, row.since_opset);
    if (row.since_opset > opset_) return;
    const Symbolic*& best = exact ? exact_ : general_;
    // >=: of two user rows for the same op the later one wins
    if (best == nullptr || row.since_opset >= best->since_opset) best = &row;
  }

  const Symbolic* best() const { return exact_ != nullptr ? exact_ : general_; }
  int64_t least() const { return least_; }

 private:
  const std::string& op_;
  std::string full_;
  int64_t opset_;
  const Symbolic* exact_ = nullptr;
  const Symbolic* general_ = nullptr;
  int64_t least_ = 0;
};

}  // namespace

const Symbolic* find_symbolic(const std::string& op, const std::string& overload, int64_t opset,
                              int64_t* least_opset) {
  Search user(op, overload, opset);
  {
    std::lock_guard lock(user_rows().mutex);
    for (const Symbolic& row : user_rows().rows) user.visit(row);
  }
  Search own(op, overload, opset);
  for (std::span<const Symbolic> table : tables()) {
    for (const Symbolic& row : table) own.visit(row);
  }
  if (least_opset != nullptr) {
    const bool both = user.least() != 0 && own.least() != 0;
    *least_opset = both ? std::min(user.least(), own.least()) : std::max(user.least(), own.least());
  }
  return user.best() != nullptr ? user.best() : own.best();
}

std::vector<Symbolic> all_symbolics() {
  std::vector<Symbolic> rows;
  for (std::span<const Symbolic> table : tables())
    rows.insert(rows.end(), table.begin(), table.end());
  std::lock_guard lock(user_rows().mutex);
  rows.insert(rows.end(), user_rows().rows.begin(), user_rows().rows.end());
  return rows;
}

void register_symbolics(std::initializer_list<Symbolic> rows) {
  std::lock_guard lock(user_rows().mutex);
  user_rows().rows.insert(user_rows().rows.end(), rows.begin(), rows.end());
}

}  // namespace qcdq
