// GraphBuilder's state: the graph being built, and what the current torch op is.
#pragma once

#include <string>

#include "symbolic/graph/emission_options.h"
#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

struct GraphBuilder::State {
  OnnxGraph& graph;
  EmissionOptions emission;
  std::string scope;     // module path of the current torch op: "layer1.0.conv1", or ""
  std::string torch_op;  // "aten::conv2d"
  std::string source;    // source line of the current torch op, or ""
  std::vector<std::string>* notes = nullptr;
};

/// The export's options that decide which nodes a quantiser becomes.
const EmissionOptions& emission(const GraphBuilder& graph);
/// Adds a line to the export report.
void add_note(GraphBuilder& graph, std::string line);

}  // namespace qcdq
