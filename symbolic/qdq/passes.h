// The passes on Q/DQ between convert and the file, behind one call; match.h has the families.
#pragma once

#include <string>
#include <vector>

#include "symbolic/graph/emission_options.h"
#include "symbolic/graph/graph_dump.h"

namespace qcdq {

/// Weights to integers, BatchNorm into the DQ scale, bias to int32, Relu before a
/// quantiser, own scale and zero point for each Q/DQ pair. Appends report lines to `notes`; throws
/// UnsupportedOp for what can't be kept exact.
void run_qdq_passes(OnnxGraph& graph, const EmissionOptions& options,
                    std::vector<std::string>& notes, GraphDump* dump = nullptr);

}  // namespace qcdq
