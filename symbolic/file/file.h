// The .onnx file: the judgement of onnx's checker before it is written, writing and reading it.
// What goes in and comes out is an OnnxGraph; proto.h turns one into onnx's messages. No torch.
#pragma once

#include <cstdint>
#include <string>

#include "qcdq/export_options.h"
#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

struct WriteResult {
  uint64_t file_bytes = 0;
  uint64_t external_bytes = 0;
  int64_t ir_version = 0;
};
/// check.cpp: the onnx checker with full_check on the model with stubs for large initializers (no
/// second copy of the weights). Throws std::runtime_error with the checker's words.
void check_model(const OnnxGraph& graph);
/// write.cpp: streams the model to a temporary file beside `path`, syncs it and renames it into
/// place; external data goes to `path` + ".data". On any failure (full disk, read-only folder)
/// nothing is left behind and an existing file is unchanged; throws std::runtime_error with one
/// line.
WriteResult write_model(const OnnxGraph& graph, const std::string& path,
                        ExternalData external_data);
/// What a file says of itself beside its graph.
struct ModelHeader {
  int64_t ir_version = 0;
  std::string producer;         // "qcdq 0.1.0"
  uint64_t external_bytes = 0;  // of initializers in other files
  bool has_subgraphs = false;   // If, Loop or Scan bodies
};
/// read.cpp: an .onnx file as an OnnxGraph, for `qcdq inspect` and tests. Initializers share the
/// parsed file's memory; external data is read when TensorData is loaded. Attributes that are
/// types, sparse tensors, or lists of tensors or graphs are left out. Throws std::runtime_error
/// with one line, also where bodies lie in one another more than 16 deep.
OnnxGraph read_model(const std::string& path, ModelHeader* header = nullptr);
/// proto.cpp: the least IR version that the opset needs.
int64_t ir_version_for_opset(int64_t opset);

}  // namespace qcdq
