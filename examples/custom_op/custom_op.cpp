// A torch op of one's own, and the symbolic function that turns it into ONNX nodes: all a plugin
// needs.
//   mylib::scaled_tanh(x, scale) = scale * tanh(x)
#include <qcdq/symbolic.h>
#include <torch/library.h>
#include <torch/torch.h>

at::Tensor scaled_tanh(const at::Tensor& x, double scale) { return torch::tanh(x) * scale; }

TORCH_LIBRARY(mylib, m) { m.def("scaled_tanh(Tensor x, float scale) -> Tensor", &scaled_tanh); }

// Arguments are read by their names in the schema; one that is not read makes the export fail.
std::vector<qcdq::Value> scaled_tanh_symbolic(qcdq::GraphBuilder& graph, qcdq::NodeArgs& args) {
  const qcdq::Value x = args.tensor("x");
  const qcdq::Value tanh = graph.op("Tanh", {x});
  return {graph.op("Mul", {tanh, graph.scalar(graph.type(x).dtype, args.real("scale"))})};
}

QCDQ_REGISTER_SYMBOLICS({"mylib::scaled_tanh", 10, scaled_tanh_symbolic});
