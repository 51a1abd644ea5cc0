// The onnx checker on a copy of the model that holds no large weights: what write.cpp is about to
// write is checked before any file exists, and no second copy of the weights is made.
#include <onnx/checker.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>

#include "symbolic/file/file.h"
#include "symbolic/file/proto.h"

namespace qcdq {
namespace {

// Shape inference reads the values of shapes, axes, pads and repeats: a few dozen int64. Anything
// larger counts by its type and shape alone.
constexpr size_t kLargestWithValues = 1024;

std::string one_line(const char* words) {
  std::string line;
  for (const char* c = words; *c != '\0'; ++c) {
    const bool space = std::isspace(static_cast<unsigned char>(*c)) != 0;
    if (!space) {
      line += *c;
    } else if (!line.empty() && line.back() != ' ') {
      line += ' ';
    }
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

}  // namespace

void check_model(const OnnxGraph& graph) {
  onnx::ModelProto model = model_without_initializers(graph);
  onnx::GraphProto& proto = *model.mutable_graph();
  for (const std::string& name : initializers_by_first_use(graph)) {
    const TensorData& data = graph.initializers.at(name);
    if (data.bytes() <= kLargestWithValues) {
      *proto.add_initializer() = tensor_with_data(name, data);
    } else {
      // The checker refuses an initializer without its data. A graph input of the same name and
      // type stands for it equally well: names, order, types and shapes are checked the same way.
      tensor_header(name, data);  // refuses what can't be written
      *proto.add_input() = value_info(name, {data.dtype, true, data.dims, {}});
    }
  }
  try {
    onnx::checker::check_model(model, /*full_check=*/true);
  } catch (const std::exception& error) {
    throw std::runtime_error("the onnx checker refuses the model: " + one_line(error.what()));
  }
}

}  // namespace qcdq
