// The way of the data in one function: source -> settle (lower, record) -> convert -> qdq -> file.
// Each step is a folder beside this file.
#include "qcdq/export.h"

#include <chrono>
#include <filesystem>
#include <utility>

#include "symbolic/convert/convert.h"
#include "symbolic/file/file.h"
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

/// The phases, from the one that makes the program to the written file.
template <typename Source>
ExportReport export_from(const char* phase, Source source, const std::string& path,
                         const ExportOptions& options) {
  check_options(options, path);
  EmissionOptions emission;
  emission.signed_activations = options.activation_storage == ActivationStorage::kSigned;
  emission.qdq_weights = options.weights == Weights::kQdq;
  emission.uint8_weights = options.weight_storage == WeightStorage::kUInt8;
  emission.cast_f64 = options.cast_f64;
  ExportReport report;
  PhaseClock clock(options, report);

  clock.start(phase);
  Program program = source();
  clock.start("settle");
  settle(program);
  clock.start("convert");
  OnnxGraph graph = convert(program, options.opset, emission);
  graph.metadata = describe(options);
  clock.start("qdq passes");
  run_qdq_passes(graph, emission, program.notes);
  clock.start("check");
  check_model(graph);
  clock.start("write");
  const WriteResult written = write_model(graph, path, options.external_data);
  clock.stop();

  report.path = path;
  report.opset = options.opset;
  report.ir_version = written.ir_version;
  report.file_bytes = written.file_bytes;
  report.external_bytes = written.external_bytes;
  report.notes = std::move(program.notes);
  for (const OnnxNode& node : graph.nodes) ++report.nodes_by_op[node.op_type];
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
