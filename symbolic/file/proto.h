// OnnxGraph to onnx's protobuf messages, those of single values being in graph/proto_values.h: the
// part that check.cpp (a copy with stubs) and write.cpp (a streamed file) share; and a file to such
// a message (read.cpp, and verify/probe_model.cpp, which needs it whole). Only files without torch
// headers include this one: torch has its own onnx classes.
#pragma once

#include <onnx/onnx_pb.h>

#include <string>
#include <vector>

#include "symbolic/graph/onnx_graph.h"
#include "symbolic/graph/proto_values.h"

namespace qcdq {

/// Everything but initializers: nodes, typed inputs and outputs, opset imports, IR version,
/// producer and metadata. Throws std::runtime_error where an input or output has no element type.
onnx::ModelProto model_without_initializers(const OnnxGraph& graph);

/// A typed value.
onnx::ValueInfoProto value_info(const std::string& name, const TensorType& type);

/// Names of all initializers, in the order in which nodes first use them; unused ones (graph
/// outputs) come last, by name. The order is the same on every run: two exports of one model are
/// the same bytes.
std::vector<std::string> initializers_by_first_use(const OnnxGraph& graph);

/// read.cpp: the message of an .onnx file. Throws std::runtime_error with one line where the file
/// can't be read or is no ONNX file.
onnx::ModelProto parse_model(const std::string& path);

}  // namespace qcdq
