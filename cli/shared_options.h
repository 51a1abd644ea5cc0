// The options that several commands have, declared once: export_command.cpp, verify_command.cpp,
// inspect_command.cpp and ops_command.cpp add their own beside them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/input_spec.h"

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

/// MODEL and --input, which the help lists first ...
void add_model_option(CLI::App& command, ModelOptions& options);
void add_input_option(CLI::App& command, ModelOptions& options, const std::string& help);
/// ... and --plugin, --ort and --json, which it lists last.
void add_run_options(CLI::App& command, ModelOptions& options);

}  // namespace qcdq::cli
