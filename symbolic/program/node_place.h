// Where a node of a torch::jit::Graph stands in the user's model: module path and source line, for
// names, messages and doc strings. Used by convert.cpp, and by run_node.cpp for the phases before
// it.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>

namespace qcdq {

/// "layer1.0.conv1" from the calls that were inlined, else from the trace's scope; "" where neither
/// was recorded.
std::string module_path(const torch::jit::Node& node);

/// "models/resnet.py:92": the innermost line that is not inside torch's own modules; "" where none
/// was recorded. Only the last folder is kept, so that files don't carry paths of the machine on
/// which the model was made.
std::string source_line(const torch::jit::Node& node);

}  // namespace qcdq
