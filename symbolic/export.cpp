// The way of the data in one function: source -> settle (lower, record) -> convert -> qdq -> file.
// Each step is a folder beside this file.
#include "qcdq/export.h"

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "symbolic/convert/convert.h"
#include "symbolic/file/file.h"
#include "symbolic/program/program_dump.h"
#include "symbolic/qdq/passes.h"
#include "symbolic/settle.h"
#include "symbolic/source/source.h"

namespace qcdq {
namespace {

class PhaseClock {
 public:
  PhaseClock(const ExportOptions& options, ExportReport& report)
      : options_(options), report_(report) {}
  void start(std::string phase) {
    stop();
    if (options_.progress) options_.progress(phase);
    report_.phases.push_back({std::move(phase), 0});
    started_ = std::chrono::steady_clock::now();
  }
  void stop() {
    if (report_.phases.empty() || report_.phases.back().seconds > 0) return;
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started_;
    report_.phases.back().seconds = elapsed.count();
    report_.seconds += elapsed.count();
  }

 private:
  const ExportOptions& options_;
  ExportReport& report_;
  std::chrono::steady_clock::time_point started_;
};

void check_options(const ExportOptions& options, const std::string& path) {
  TORCH_CHECK_VALUE(is_opset(options.opset), "export_onnx: opset = ", options.opset, ", expected ",
                    opset_range_text());
  TORCH_CHECK_VALUE(!path.empty(), "export_onnx: path is empty");
  TORCH_CHECK_VALUE(!std::filesystem::is_directory(path), "export_onnx: ", path, " is a directory");
}

/// What the file's metadata says of the options.
std::vector<std::pair<std::string, std::string>> describe(const ExportOptions& options) {
  return {{"qcdq.format", "qcdq"},
          {"qcdq.activation_storage", std::string(option_word(options.activation_storage))},
          {"qcdq.weights", std::string(option_word(options.weights))},
          {"qcdq.weight_storage", std::string(option_word(options.weight_storage))}};
}

EmissionOptions emission_options(const ExportOptions& options) {
  EmissionOptions emission;
  emission.signed_activations = options.activation_storage == ActivationStorage::kSigned;
  emission.qdq_weights = options.weights == Weights::kQdq;
  emission.uint8_weights = options.weight_storage == WeightStorage::kUInt8;
  emission.cast_f64 = options.cast_f64;
  return emission;
}

/// The dump that the options ask for, or none.
std::unique_ptr<GraphDump> start_dump(const std::string& path, const ExportOptions& options) {
  if (options.dump.empty()) return nullptr;
  return std::make_unique<GraphDump>(
      options.dump, "Export to " + path + " at opset " + std::to_string(options.opset) + ".");
}

std::string first_words(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  return of_torch != nullptr ? of_torch->what_without_backtrace() : error.what();
}

/// The phases, from the one that makes the program to the written file. `dump` may be null.
template <typename Source>
WriteResult run_phases(const char* phase, Source source, const std::string& path,
                       const ExportOptions& options, PhaseClock& clock, GraphDump* dump,
                       ExportReport& report) {
  const EmissionOptions emission = emission_options(options);
  // Without a dump both do nothing: no text is made.
  const auto begin = [&](const char* name, const char* pass) {
    clock.start(name);
    if (dump != nullptr) dump->start(name, pass);
  };
  const auto show = [&](const auto&... graph) {
    if (dump != nullptr) dump->finish(picture_of(graph...));
  };

  begin(phase, "graph of the model");
  Program program = source();
  show(program, TypesById());
  clock.start("settle");
  std::optional<ProgramDump> steps;
  if (dump != nullptr) steps.emplace(*dump, program);
  settle(program, steps ? &*steps : nullptr);
  begin("convert", "symbolic functions");
  OnnxGraph graph = convert(program, options.opset, emission);
  graph.metadata = describe(options);
  show(graph);
  clock.start("qdq passes");
  run_qdq_passes(graph, emission, program.notes, dump);
  begin("check", "onnx checker");
  check_model(graph);
  show(graph);
  begin("write", "file");
  const WriteResult written = write_model(graph, path, options.external_data);
  if (dump != nullptr) {
    dump->finish("wrote " + std::to_string(written.file_bytes + written.external_bytes) + " bytes");
  }
  report.notes = std::move(program.notes);
  for (const OnnxNode& node : graph.nodes) ++report.nodes_by_op[node.op_type];
  return written;
}

template <typename Source>
ExportReport export_from(const char* phase, Source source, const std::string& path,
                         const ExportOptions& options) {
  check_options(options, path);
  ExportReport report;
  PhaseClock clock(options, report);
  const std::unique_ptr<GraphDump> dump = start_dump(path, options);
  WriteResult written;
  try {
    written = run_phases(phase, source, path, options, clock, dump.get(), report);
  } catch (const std::exception& error) {
    if (dump != nullptr) dump->fail(first_words(error));
    throw;
  }
  clock.stop();
  report.path = path;
  report.opset = options.opset;
  report.ir_version = written.ir_version;
  report.file_bytes = written.file_bytes;
  report.external_bytes = written.external_bytes;
  return report;
}

}  // namespace

ExportReport export_onnx(const torch::jit::Module& module, const std::vector<c10::IValue>& inputs,
                         const std::string& path, const ExportOptions& options) {
  return export_from(
      "source", [&] { return program_from_torchscript(module, inputs, options); }, path, options);
}

ExportReport export_onnx(const std::shared_ptr<torch::nn::Module>& module,
                         const BoxedForward& forward, const std::vector<c10::IValue>& inputs,
                         const std::string& path, const ExportOptions& options) {
  return export_from(
      "trace", [&] { return program_from_module(module, forward, inputs, options); }, path,
      options);
}

ExportReport export_onnx(const ExportedProgram& exported, const std::vector<c10::IValue>& inputs,
                         const std::string& path, const ExportOptions& options) {
  return export_from(
      "source", [&] { return program_from_pt2(exported, inputs, options); }, path, options);
}

ExportReport export_onnx(const ExportedProgram& exported, const std::string& path,
                         const ExportOptions& options) {
  return export_onnx(exported, std::vector<c10::IValue>(), path, options);
}

}  // namespace qcdq
