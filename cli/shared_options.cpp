// Options that several commands have; see shared_options.h.
#include "cli/shared_options.h"

namespace qcdq::cli {

std::vector<InputSpec> ModelOptions::specs() const {
  std::vector<InputSpec> parsed;
  for (const std::string& text : inputs) parsed.push_back(parse_input_spec(text));
  return parsed;
}

CLI::Option* add_list_option(CLI::App& command, const std::string& name,
                             std::vector<std::string>& values, const std::string& help,
                             const std::string& type_name) {
  return command.add_option(name, values, help)
      ->type_name(type_name)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_plugin_option(CLI::App& command, std::vector<std::string>& plugins) {
  add_list_option(command, "--plugin", plugins,
                  "A library with torch ops or symbolic functions to load first", "LIB.so");
}

void add_json_flag(CLI::App& command, bool& json) {
  command.add_flag("--json", json, "Print the report as JSON");
}

void check_opset(int64_t opset) {
  if (is_opset(opset)) return;
  throw UsageError("--opset " + std::to_string(opset) + ": expected " + opset_range_text());
}

void add_model_option(CLI::App& command, ModelOptions& options) {
  command
      .add_option("MODEL", options.model,
                  "TorchScript, scripted or traced, .pt; or torch.export, .pt2")
      ->required();
}

void add_input_option(CLI::App& command, ModelOptions& options, const std::string& help) {
  add_list_option(command, "--input", options.inputs, help, "SPEC ...");
}

void add_run_options(CLI::App& command, ModelOptions& options) {
  add_plugin_option(command, options.plugins);
  command
      .add_option("--ort", options.ort,
                  "ONNX Runtime's library or its folder (default: $QCDQ_ORT, then the "
                  "environment's onnxruntime)")
      ->type_name("PATH");
  add_json_flag(command, options.json);
}

}  // namespace qcdq::cli
