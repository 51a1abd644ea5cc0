// NodeArgs' state: the torch::jit::Node whose arguments it hands out, and which of them were read.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/convert/value_table.h"

namespace qcdq {

struct NodeArgs::State {
  State(torch::jit::Node* node, ValueTable& table);

  torch::jit::Node* node;
  ValueTable& table;
  const c10::FunctionSchema* schema;
  std::string op;          // aten::add.Tensor
  std::vector<bool> read;  // per schema argument
  /// First argument that was neither read nor ignored; nothing where all were.
  std::optional<size_t> unread() const;
  /// Short text of an argument's value, for messages.
  std::string value_text(size_t argument) const;
};

}  // namespace qcdq
