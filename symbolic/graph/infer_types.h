// Types of values between nodes, by onnx's own inference of one op at a time. GraphBuilder calls it
// for each node that it adds.
#pragma once

#include <onnx/defs/schema.h>

#include <vector>

#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

/// What onnx infers of each of the node's `outputs` from the known types of its inputs and from the
/// values of small constants among them. Unknown is what it does not tell: where it refuses the
/// inputs, all of it but an element type.
std::vector<TensorType> infer_types(const OnnxGraph& graph, const OnnxNode& node, size_t outputs,
                                    const onnx::OpSchema& schema);

}  // namespace qcdq
