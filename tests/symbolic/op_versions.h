// For cases_test.cpp: which versions of its ops a graph uses.
#pragma once

#include <string>

#include "symbolic/graph/onnx_graph.h"

namespace qcdq::testing {

/// The graph's text and the versions of its ops: opsets that agree in both give the same model.
std::string versions_of(const OnnxGraph& graph);

}  // namespace qcdq::testing
