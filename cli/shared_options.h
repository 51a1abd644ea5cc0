// The options that several commands have, declared once: export_command.cpp, verify_command.cpp,
// inspect_command.cpp and ops_command.cpp add their own beside them.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/input_spec.h"
#include "qcdq/export_options.h"

namespace qcdq::cli {

/// What a command that runs a model is told of it, and how it reports.
struct ModelOptions {
  std::string model;
  std::vector<std::string> inputs;
  std::vector<std::string> plugins;
  std::string ort;
  bool json = false;

  /// `inputs`, parsed. Throws UsageError.
  std::vector<InputSpec> specs() const;
};

/// An option that may be given several times, with one value each.
CLI::Option* add_list_option(CLI::App& command, const std::string& name,
                             std::vector<std::string>& values, const std::string& help,
                             const std::string& type_name);
void add_plugin_option(CLI::App& command, std::vector<std::string>& plugins);
void add_json_flag(CLI::App& command, bool& json);

/// An option whose value is one of the words of `Option` (qcdq/export_options.h); the help shows
/// the one that `value` has now. Another word is a UsageError.
template <typename Option>
void add_word_option(CLI::App& command, const std::string& name, Option& value,
                     const std::string& help, const std::string& type_name = "KIND") {
  command
      .add_option_function<std::string>(
          name,
          [name, &value](const std::string& word) {
            const std::optional<Option> parsed = parse_option<Option>(word);
            if (!parsed) {
              throw UsageError(name + " " + word + ": expected one of " +
                               list_option_words<Option>());
            }
            value = *parsed;
          },
          help)
      ->type_name(type_name)
      ->default_str(std::string(option_word(value)));
}
/// Throws UsageError for an opset that can't be written.
void check_opset(int64_t opset);

/// MODEL and --input, which the help lists first ...
void add_model_option(CLI::App& command, ModelOptions& options);
void add_input_option(CLI::App& command, ModelOptions& options, const std::string& help);
/// ... and --plugin, --ort and --json, which it lists last.
void add_run_options(CLI::App& command, ModelOptions& options);

}  // namespace qcdq::cli
