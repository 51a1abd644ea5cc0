// qcdq ops: the torch ops that export, and the ONNX ops that they become. docs/operators.md is this
// command's own output.
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/shared_options.h"
#include "qcdq/symbolic.h"

namespace qcdq::cli {
namespace {

struct OpsArguments {
  std::optional<int64_t> opset;
  std::vector<std::string> plugins;
  bool markdown = false;
};

struct OpLine {
  std::string torch_op;
  int since_opset = 0;
  std::string onnx_op;
  std::string file;
};

/// One line per torch op and least opset; with an opset, the row that export would use there.
std::vector<OpLine> lines(const std::optional<int64_t>& opset) {
  std::map<std::pair<std::string, int>, OpLine> rows;
  for (const ListedSymbolic& row : all_symbolics()) {
    if (!row.converts() || (opset && row.since_opset > *opset)) continue;
    // A user's rows come last and win.
    rows[{row.torch_op, row.since_opset}] = {row.torch_op, row.since_opset,
                                             row.onnx_op ? row.onnx_op : "...", row.file};
  }
  std::vector<OpLine> result;
  for (auto& [key, line] : rows) {
    const bool replaces = opset && !result.empty() && result.back().torch_op == key.first;
    if (replaces) result.pop_back();
    result.push_back(std::move(line));
  }
  return result;
}

std::string markdown_text(const std::vector<OpLine>& rows) {
  std::map<std::string, std::vector<OpLine>> by_namespace;
  for (const OpLine& row : rows) {
    by_namespace[row.torch_op.substr(0, row.torch_op.find("::"))].push_back(row);
  }
  std::string text =
      "# Operators that export\n\n"
      "Written by `qcdq ops --markdown`; a test checks that this page is current.\n\n"
      "Opset is the least one at which the row holds; where an op has several rows, the newest "
      "that the target opset allows is used. An op without an overload stands for all its "
      "overloads. The last column names the ONNX ops that it becomes, by its arguments and the "
      "opset; Cast, Unsqueeze and Squeeze may stand around them; *no node* is an op that is gone "
      "in the file. What an op can't represent is refused by name at export. The file is the one "
      "in "
      "symbolic/symbolics/ that has the row.\n";
  for (const auto& [name, group] : by_namespace) {
    text += "\n## " + name + "\n\n| torch op | opset | file | ONNX |\n|---|---|---|---|\n";
    for (const OpLine& row : group) {
      const std::string onnx = row.onnx_op == "(no node)" ? "*no node*" : row.onnx_op;
      text += "| `" + row.torch_op + "` | " + std::to_string(row.since_opset) + " | " + row.file +
              " | " + onnx + " |\n";
    }
  }
  return text;
}

std::string padded(const std::string& text, size_t width) {
  return text + std::string(width > text.size() ? width - text.size() : 0, ' ');
}

std::string table_text(const std::vector<OpLine>& rows) {
  size_t op_width = 8;
  size_t file_width = 4;
  for (const OpLine& row : rows) {
    op_width = std::max(op_width, row.torch_op.size());
    file_width = std::max(file_width, row.file.size());
  }
  std::string text =
      padded("torch op", op_width) + "  opset  " + padded("file", file_width) + "  ONNX\n";
  for (const OpLine& row : rows) {
    const std::string since = std::to_string(row.since_opset);
    text += padded(row.torch_op, op_width + 2) +
            std::string(since.size() < 5 ? 5 - since.size() : 0, ' ') + since + "  " +
            padded(row.file, file_width + 2) + row.onnx_op + "\n";
  }
  return text;
}

int list_ops(const OpsArguments& arguments) {
  if (arguments.opset) check_opset(*arguments.opset);
  load_plugins(arguments.plugins);
  const std::vector<OpLine> rows = lines(arguments.opset);
  std::cout << (arguments.markdown ? markdown_text(rows) : table_text(rows));
  return kOk;
}

}  // namespace

void add_ops_command(CLI::App& app, Run& run) {
  auto arguments = std::make_shared<OpsArguments>();
  CLI::App* command = app.add_subcommand("ops", "List the torch ops that export");
  command
      ->add_option(
          "--opset", arguments->opset,
          "Only the rows that this opset uses, " + opset_range_text() + " (default: all rows)")
      ->type_name("N");
  add_plugin_option(*command, arguments->plugins);
  command->add_flag("--markdown", arguments->markdown, "As docs/operators.md");
  command->footer(
      "Examples:\n"
      "  qcdq ops --opset 13\n"
      "  qcdq ops --markdown > docs/operators.md");
  command->callback([arguments, &run] { run = [arguments] { return list_ops(*arguments); }; });
}

}  // namespace qcdq::cli
