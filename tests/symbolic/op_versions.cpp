// Asks onnx's registry for the versions of ops; see op_versions.h. A library of its own without
// torch: libtorch 2.11 ships headers of an old protobuf in its include folder, which would be found
// before those that onnx was built with.
#include "tests/symbolic/op_versions.h"

#include <onnx/defs/schema.h>

namespace qcdq::testing {

std::string versions_of(const OnnxGraph& graph) {
  std::string text = to_text(graph);
  for (const OnnxNode& node : graph.nodes) {
    const onnx::OpSchema* schema =
        onnx::OpSchemaRegistry::Schema(node.op_type, static_cast<int>(graph.opset), node.domain);
    if (schema != nullptr) text += node.op_type + std::to_string(schema->SinceVersion());
  }
  return text;
}

}  // namespace qcdq::testing
