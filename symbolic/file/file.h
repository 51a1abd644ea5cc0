// The torch-free phases of the exporter, in the order in which export.cpp calls them.
#pragma once

#include <string>
#include <vector>

#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

struct ExportOptions;  // qcdq/export.h: the torch-free phases take what they need from
                       // EmissionOptions
/// The part of ExportOptions that symbolics and passes see (kept free of torch headers).
struct EmissionOptions {
  bool signed_activations = false;  // --activation-storage signed
  bool qdq_weights = false;         // --weights qdq
  bool uint8_weights = false;       // --weight-storage uint8
  bool cast_f64 = false;
};

/// qdq/passes.cpp: weights to integers, BatchNorm into the DQ scale, bias to int32, Relu before a
/// quantiser, own scale and zero point for each Q/DQ pair. Appends report lines to `notes`; throws
/// UnsupportedOp for what can't be kept exact.
void run_qdq_passes(OnnxGraph& graph, const EmissionOptions& options,
                    std::vector<std::string>& notes);

/// coverage.cpp: will ORT run this node in int8?
struct NodeCoverage {
  std::string node;
  std::string op_type;
  bool int8 = false;
  std::string reason;  // first reason why not, and what to change
};
std::vector<NodeCoverage> int8_coverage(const OnnxGraph& graph);

struct WriteResult {
  uint64_t file_bytes = 0;
  uint64_t external_bytes = 0;
  int64_t ir_version = 0;
};
enum class ExternalDataMode { kAuto, kAlways, kNever };
/// check.cpp: the onnx checker with full_check on the model with stubs for large initializers (no
/// second copy of the weights). Throws std::runtime_error with the checker's words.
void check_model(const OnnxGraph& graph);
/// write.cpp: streams the model to a temporary file beside `path`, syncs it and renames it into
/// place; external data goes to `path` + ".data". On any failure (full disk, read-only folder)
/// nothing is left behind and an existing file is unchanged; throws std::runtime_error with one
/// line.
WriteResult write_model(const OnnxGraph& graph, const std::string& path,
                        ExternalDataMode external_data);
/// What a file says of itself beside its graph.
struct ModelHeader {
  int64_t ir_version = 0;
  std::string producer;         // "qcdq 0.1.0"
  uint64_t external_bytes = 0;  // of initializers in other files
  bool has_subgraphs = false;   // If, Loop or Scan bodies: left out of the OnnxGraph
};
/// read.cpp: an .onnx file as an OnnxGraph, for `qcdq inspect` and tests. Initializers share the
/// parsed file's memory; external data is read when TensorData is loaded. Element types beyond
/// DType (int4, float8) keep their number in ONNX. Throws std::runtime_error with one line.
OnnxGraph read_model(const std::string& path, ModelHeader* header = nullptr);
/// The least IR version that the opset needs.
int64_t ir_version_for_opset(int64_t opset);

}  // namespace qcdq
