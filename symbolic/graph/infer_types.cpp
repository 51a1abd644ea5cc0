// The inference of infer_types.h: onnx's functions ask for types and constants through a context,
// which is all that they see of the graph.
#include "symbolic/graph/infer_types.h"

#include <onnx/defs/shape_inference.h>

#include <algorithm>
#include <exception>
#include <map>
#include <optional>

#include "symbolic/graph/proto_values.h"

namespace qcdq {

namespace {

// Of a constant whose values onnx gets to see: shapes, axes, pads, sizes of a split. The values of
// a weight tell nothing of a type.
constexpr int64_t kMostElements = 256;

bool is_small(const TensorData& data) {
  return data.produce == nullptr &&
         (data.dtype == DType::kInt64 || data.dtype == DType::kInt32 ||
          data.dtype == DType::kFloat32) &&
         data.numel() <= kMostElements;
}

class NodeContext final : public onnx::InferenceContext {
 public:
  NodeContext(const OnnxGraph& graph, const OnnxNode& node, size_t outputs)
      : inputs_(node.inputs.size()), outputs_(outputs) {
    for (const auto& [name, value] : node.attributes) {
      if (std::holds_alternative<Subgraph>(value)) continue;  // results of bodies are not inferred
      const auto* tensor = std::get_if<TensorData>(&value);
      if (tensor == nullptr || is_small(*tensor)) {
        attributes_[name] = attribute_proto(name, value);
        continue;
      }
      onnx::AttributeProto& attribute = attributes_[name];
      attribute.set_type(onnx::AttributeProto::TENSOR);
      *attribute.mutable_t() = tensor_header("", *tensor);
    }
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const std::string& name = node.inputs[i];
      if (name.empty()) continue;
      inputs_[i].type = type_proto(graph.type(name));
      const TensorData* data = graph.initializer(name);
      if (data != nullptr && is_small(*data)) inputs_[i].data = tensor_with_data("", *data);
    }
  }

  TensorType output(size_t index) const { return tensor_type(outputs_[index]); }

  const onnx::AttributeProto* getAttribute(const std::string& name) const override {
    const auto found = attributes_.find(name);
    return found == attributes_.end() ? nullptr : &found->second;
  }
  size_t getNumInputs() const override { return inputs_.size(); }
  const onnx::TypeProto* getInputType(size_t index) const override {
    return inputs_.at(index).type ? &*inputs_.at(index).type : nullptr;
  }
  const onnx::TensorProto* getInputData(size_t index) const override {
    return inputs_.at(index).data ? &*inputs_.at(index).data : nullptr;
  }
  size_t getNumOutputs() const override { return outputs_.size(); }
  onnx::TypeProto* getOutputType(size_t index) override { return &outputs_.at(index); }
  // Bodies, sparse constants and symbolic values are never there.
  onnx::GraphInferencer* getGraphAttributeInferencer(const std::string&) override {
    return nullptr;
  }
  const onnx::SparseTensorProto* getInputSparseData(size_t) const override { return nullptr; }
  const onnx::TensorShapeProto* getSymbolicInput(size_t) const override { return nullptr; }

 private:
  struct Input {
    std::optional<onnx::TypeProto> type;  // nothing where the input is left out
    std::optional<onnx::TensorProto> data;
  };
  std::map<std::string, onnx::AttributeProto> attributes_;
  std::vector<Input> inputs_;
  std::vector<onnx::TypeProto> outputs_;
};

}  // namespace

std::vector<TensorType> infer_types(const OnnxGraph& graph, const OnnxNode& node, size_t outputs,
                                    const onnx::OpSchema& schema) {
  NodeContext context(graph, node, outputs);
  bool complete = true;
  try {
    schema.GetTypeAndShapeInferenceFunction()(context);
  } catch (const std::exception&) {
    complete = false;  // it may have stopped in the midst of a shape
  }
  std::vector<TensorType> types;
  for (size_t i = 0; i < outputs; ++i) {
    TensorType type = context.output(i);
    if (!complete) type = {type.dtype, false, {}, {}};
    types.push_back(std::move(type));
  }
  return types;
}

}  // namespace qcdq
