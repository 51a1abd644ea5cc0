// qcdq export: a .pt or .pt2 model to an .onnx file, and with --verify straight on to ONNX Runtime.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/model_inputs.h"
#include "cli/report_text.h"
#include "cli/shared_options.h"
#include "qcdq/export.h"
#include "qcdq/verify.h"

namespace qcdq {
namespace cli {
enum class Format { kQcdq, kQop, kQonnx };
}  // namespace cli
template <>
struct OptionWords<cli::Format> {
  static constexpr OptionWord<cli::Format> kWords[] = {
      {cli::Format::kQcdq, "qcdq"}, {cli::Format::kQop, "qop"}, {cli::Format::kQonnx, "qonnx"}};
};
}  // namespace qcdq

namespace qcdq::cli {
namespace {

struct ExportArguments : ModelOptions {
  std::string out;
  std::vector<std::string> dynamic;  // as they were typed
  Format format = Format::kQcdq;
  ExportOptions options;
  std::optional<std::string> dump;
  bool verify = false;
};

/// Names the phase on stderr where a person watches and the export takes longer than 2 s.
class Progress {
 public:
  Progress() : watched_(isatty(STDERR_FILENO) == 1) {
    if (watched_) thread_ = std::thread([this] { wait(); });
  }
  ~Progress() {
    if (!watched_) return;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void start(const std::string& phase) {
    if (!watched_) return;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      phase_ = phase;
    }
    changed_.notify_all();
  }

 private:
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (changed_.wait_for(lock, std::chrono::seconds(2), [this] { return done_; })) return;
    std::string shown;
    while (!done_) {
      if (phase_ != shown) std::cerr << "qcdq export: " << phase_ << " ...\n";
      shown = phase_;
      changed_.wait(lock, [&] { return done_ || phase_ != shown; });
    }
  }

  bool watched_;
  bool done_ = false;
  std::string phase_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread thread_;
};

ExportOptions export_options(const ExportArguments& arguments) {
  ExportOptions options = arguments.options;
  check_opset(options.opset);
  if (arguments.dump && arguments.dump->empty()) throw UsageError("--dump: expected a folder");
  options.dump = arguments.dump.value_or("");
  for (const std::string& text : arguments.dynamic) {
    AxisSpec spec = parse_dynamic_axis(text);
    options.dynamic_axes.push_back({spec.input, spec.axis, spec.symbol});
  }
  if (arguments.format != Format::kQcdq) {
    throw std::runtime_error("--format " + std::string(option_word(arguments.format)) +
                             " is not built yet; use qcdq");
  }
  return options;
}

nlohmann::ordered_json to_json(const ExportReport& report, double load_seconds) {
  nlohmann::ordered_json json;
  json["path"] = report.path;
  json["opset"] = report.opset;
  json["ir_version"] = report.ir_version;
  json["file_bytes"] = report.file_bytes;
  json["external_bytes"] = report.external_bytes;
  json["nodes_by_op"] = report.nodes_by_op;
  json["notes"] = report.notes;
  json["load_seconds"] = load_seconds;
  json["seconds"] = report.seconds;
  json["phases"] = nlohmann::ordered_json::array();
  for (const PhaseTime& phase : report.phases) {
    json["phases"].push_back({{"phase", phase.phase}, {"seconds", phase.seconds}});
  }
  json["verify"] = nullptr;
  return json;
}

std::string to_text(const ExportReport& report, double load_seconds) {
  std::string text = report.path + ": " + size_text(report.file_bytes);
  if (report.external_bytes > 0) {
    text += " and " + size_text(report.external_bytes) + " in " + report.path + ".data";
  }
  text += ", opset " + std::to_string(report.opset) + ", IR " + std::to_string(report.ir_version);
  text += "\n  " + nodes_text(report.nodes_by_op) + "\n";
  for (const std::string& note : report.notes) text += "  note: " + note + "\n";
  text += "  " + seconds_text(load_seconds) + " to load, " + seconds_text(report.seconds) +
          " to export:";
  for (size_t i = 0; i < report.phases.size(); ++i) {
    text += (i > 0 ? ", " : " ") + report.phases[i].phase + " " +
            seconds_text(report.phases[i].seconds);
  }
  return text + "\n";
}

VerifyReport verify_export(const Model& model, const ExportArguments& arguments,
                           const std::vector<ModelInput>& inputs, std::vector<std::string>& notes) {
  VerifyOptions options;
  options.ort = arguments.ort;
  const auto sets = verification_values(inputs, 1, 0, notes);
  if (model.program) return verify_onnx(*model.program, sets, arguments.out, options);
  if (arguments.options.method == "forward") {
    return verify_onnx(*model.module, sets, arguments.out, options);
  }
  torch::jit::Method method = model.module->get_method(arguments.options.method);
  return verify_onnx([&method](const std::vector<c10::IValue>& values) { return method(values); },
                     sets, arguments.out, options);
}

int export_model(const ExportArguments& arguments) {
  ExportOptions options = export_options(arguments);
  const std::vector<InputSpec> specs = arguments.specs();

  Progress progress;
  options.progress = [&progress](const std::string& phase) { progress.start(phase); };
  const auto started = std::chrono::steady_clock::now();
  progress.start("load");
  load_plugins(arguments.plugins);
  const Model model = open_model(arguments.model, arguments.options.method);
  const std::chrono::duration<double> load_time = std::chrono::steady_clock::now() - started;

  std::vector<ModelInput> inputs;
  ExportReport report;
  if (model.program) {
    inputs = match_inputs(*model.program, specs);
    // Without a word about its inputs, the program's own examples.
    const auto values =
        specs.empty() ? std::vector<c10::IValue>() : make_values(inputs, Values::kExample, 0);
    report = export_onnx(*model.program, values, arguments.out, options);
  } else {
    inputs = match_inputs(*model.module, arguments.options.method, specs);
    mark_dynamic(inputs, options.dynamic_axes);
    report = export_onnx(*model.module, make_values(inputs, Values::kExample, 0), arguments.out,
                         options);
  }

  nlohmann::ordered_json json = to_json(report, load_time.count());
  if (!arguments.json) std::cout << to_text(report, load_time.count()) << std::flush;
  int code = kOk;
  if (arguments.verify) {
    progress.start("verify");
    std::vector<std::string> notes;
    std::optional<VerifyReport> verified;
    try {
      verified = verify_export(model, arguments, inputs, notes);
    } catch (...) {
      // The file is written and stays: a script gets its report even so.
      if (arguments.json) std::cout << json_text(json) << std::flush;
      throw;
    }
    json["verify"] = cli::to_json(*verified, notes);
    if (!arguments.json) std::cout << verify_text(*verified, notes, false);
    for (const std::string& failure : verified->failures) {
      std::cerr << "qcdq export: " << arguments.out << " was written, but: " << failure << "\n";
    }
    if (!verified->ok()) code = kMismatch;
  }
  if (arguments.json) std::cout << json_text(json);
  return code;
}

/// What decides the written graph: names, dynamic axes, opset and forms.
void add_graph_options(CLI::App& command, ExportArguments& arguments) {
  ExportOptions& options = arguments.options;
  command.add_option("--output", options.output_names, "Names of the outputs")->type_name("NAME");
  add_list_option(
      command, "--dynamic", arguments.dynamic,
      "A dynamic axis, checked at a second size: x:0=N; a .pt2's own axes get names by it",
      "NAME:AXIS=SYMBOL ...");
  command.add_option("--opset", options.opset, "ONNX opset, " + opset_range_text())
      ->type_name("N")
      ->capture_default_str();
  add_word_option(command, "--format", arguments.format, "qcdq; qop and qonnx are not built yet",
                  "NAME");
  add_word_option(command, "--activation-storage", options.activation_storage,
                  "Codes of activations: auto, signed or unsigned; auto is unsigned, which ONNX "
                  "Runtime fuses");
  add_word_option(command, "--weights", options.weights,
                  "int: integer initializers; qdq: float ones with their Q and DQ nodes");
  add_word_option(command, "--weight-storage", options.weight_storage,
                  "int8, or uint8 with zero point 128 (exact on CPUs without VNNI)", "TYPE");
  add_word_option(command, "--external-data", options.external_data,
                  "Weights beside the file: auto (over 2 GB), always or never");
  command
      .add_option("--method", options.method,
                  "The method to export; for a .pt2 with several programs, the program")
      ->type_name("NAME")
      ->capture_default_str();
  command.add_flag("--cast-f64", options.cast_f64, "Quantise f64 tensors through f32");
}

}  // namespace

void add_export_command(CLI::App& app, Run& run) {
  auto arguments = std::make_shared<ExportArguments>();
  CLI::App* command = app.add_subcommand(
      "export", "Export a TorchScript (.pt) or torch.export (.pt2) model to ONNX");
  add_model_option(*command, *arguments);
  command->add_option("-o,--out", arguments->out, "The .onnx file to write")
      ->required()
      ->type_name("OUT.onnx");
  add_input_option(
      *command, *arguments,
      "An input's type and shape, see SPEC below; may be left out for inputs with defaults, "
      "and for a .pt2, which tells them");
  add_graph_options(*command, *arguments);
  command
      ->add_option("--dump", arguments->dump,
                   "A folder for the graph as text after each pass, and a table of contents; files "
                   "of an earlier dump in it are replaced")
      ->type_name("DIR");
  command->add_flag("--verify", arguments->verify,
                    "Then run the model in torch and in ONNX Runtime and compare");
  add_run_options(*command, *arguments);
  command->footer(
      "SPEC:\n"
      "  x=f32[1,3,224,224]       type and shape; f32 f16 bf16 f64 i8 u8 i16 i32 i64 bool\n"
      "  x=[1,3,224,224]          the type that the model tells, else f32\n"
      "  ids=i64[1,16]{0..999}    integers in a range, both ends included\n"
      "  x=images.npy             type, shape and values of a NumPy file\n"
      "\n"
      "Examples:\n"
      "  qcdq export resnet18.pt -o resnet18.onnx --input x=f32[1,3,224,224]\n"
      "  qcdq export resnet18.pt -o resnet18.onnx --input x=f32[1,3,224,224] --dynamic x:0=N "
      "--verify\n"
      "  qcdq export resnet18.pt2 -o resnet18.onnx --verify\n"
      "  qcdq export bert.pt -o bert.onnx --input ids=i64[1,16]{0..999} mask=bool[1,16]\n"
      "\n"
      "Exit codes: 0 exported (and verified), 1 refused or failed, 2 bad usage, 3 verification "
      "mismatch.");
  command->callback([arguments, &run] { run = [arguments] { return export_model(*arguments); }; });
}

}  // namespace qcdq::cli
