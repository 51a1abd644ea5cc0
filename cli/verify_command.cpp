// qcdq verify: runs a .pt or .pt2 model in torch and its .onnx file in ONNX Runtime and compares
// them.
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/model_inputs.h"
#include "cli/report_text.h"
#include "cli/shared_options.h"
#include "qcdq/inspect.h"
#include "qcdq/verify.h"

namespace qcdq::cli {
namespace {

struct VerifyArguments : ModelOptions {
  std::string onnx;
  int64_t runs = 1;
  uint64_t seed = 0;
  Optimization optimization = Optimization::kBoth;
  bool codes = false;
  bool strict = false;
};

int verify_model(const VerifyArguments& arguments) {
  VerifyOptions options;
  options.ort = arguments.ort;
  options.optimization = arguments.optimization;
  options.strict = arguments.strict;
  if (arguments.runs < 1) {
    throw UsageError("--random " + std::to_string(arguments.runs) + ": expected 1 or more");
  }
  const std::vector<InputSpec> specs = arguments.specs();

  load_plugins(arguments.plugins);
  const Model model = open_model(arguments.model);
  const ModelSummary summary = inspect_onnx(arguments.onnx);
  const auto inputs = model.program
                          ? match_inputs(*model.program, specs)
                          : match_inputs(*model.module, "forward", specs, &summary.inputs);
  std::vector<std::string> notes;
  const auto sets = verification_values(inputs, arguments.runs, arguments.seed, notes);
  const VerifyReport report = model.program
                                  ? verify_onnx(*model.program, sets, arguments.onnx, options)
                                  : verify_onnx(*model.module, sets, arguments.onnx, options);

  std::cout << (arguments.json
                    ? json_text(to_json(report, notes))
                    : arguments.onnx + ": " + verify_text(report, notes, arguments.codes))
            << std::flush;
  for (const std::string& failure : report.failures) {
    std::cerr << "qcdq verify: " << failure << "\n";
  }
  return report.ok() ? kOk : kMismatch;
}

}  // namespace

void add_verify_command(CLI::App& app, Run& run) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* command =
      app.add_subcommand("verify", "Compare a model in torch with its .onnx file in ONNX Runtime");
  add_model_option(*command, *arguments);
  command->add_option("OUT.onnx", arguments->onnx, "The .onnx file")->required();
  add_input_option(*command, *arguments, "An input as in export; default: the file's own shapes");
  command
      ->add_option("--random", arguments->runs,
                   "Number of random runs: floats normal, integers in [0,2) or {lo..hi}")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--seed", arguments->seed, "Seed of the random values")
      ->type_name("S")
      ->capture_default_str();
  add_word_option(*command, "--optimization", arguments->optimization,
                  "ONNX Runtime's graph optimisations: off, all or both");
  command->add_flag("--codes", arguments->codes, "List the codes that differ, by quantiser");
  command->add_flag("--strict", arguments->strict,
                    "This CPU's saturation (u8 x s8 without VNNI) is a mismatch, not a warning");
  add_run_options(*command, *arguments);
  command->footer(
      "Examples:\n"
      "  qcdq verify resnet18.pt resnet18.onnx\n"
      "  qcdq verify bert.pt bert.onnx --input ids=i64[2,16]{0..999} --random 5 --seed 1\n"
      "  qcdq verify digits.pt digits.onnx --input x=images.npy --codes\n"
      "\n"
      "Exit codes: 0 verified, 1 failed to run, 2 bad usage, 3 mismatch.");
  command->callback([arguments, &run] { run = [arguments] { return verify_model(*arguments); }; });
}

}  // namespace qcdq::cli
