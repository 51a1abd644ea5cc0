// Quantisers of an .onnx file and copies of it with more outputs; see verify/probe_model.h.
#include "symbolic/verify/probe_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <unordered_set>

#include "symbolic/file/proto.h"

namespace qcdq {

struct OnnxFile::Model {
  onnx::ModelProto proto;
  std::unordered_set<std::string> inputs;
  std::unordered_set<std::string> initializers;
};

namespace {

std::string serialize(const onnx::ModelProto& model) {
  std::string bytes;
  if (!model.SerializeToString(&bytes)) throw std::runtime_error("the model does not serialise");
  return bytes;
}

bool is_onnx_op(const onnx::NodeProto& node, const char* op) {
  return node.op_type() == op && (node.domain().empty() || node.domain() == "ai.onnx");
}

std::string input_or_none(const onnx::NodeProto& node, int index) {
  return index < node.input_size() ? node.input(index) : std::string();
}

/// The value of a float32 tensor of one element that is stored in the file itself.
std::optional<float> one_float(const onnx::TensorProto& tensor) {
  if (tensor.data_type() != onnx::TensorProto::FLOAT) return std::nullopt;
  for (int64_t dim : tensor.dims()) {
    if (dim != 1) return std::nullopt;
  }
  if (tensor.float_data_size() == 1) return tensor.float_data(0);
  if (tensor.raw_data().size() != sizeof(float)) return std::nullopt;
  float value;
  std::memcpy(&value, tensor.raw_data().data(), sizeof(value));
  return value;
}

std::vector<FileQuantizer> find_quantizers(const onnx::GraphProto& graph) {
  std::unordered_map<std::string, std::vector<const onnx::NodeProto*>> consumers;
  for (const onnx::NodeProto& node : graph.node()) {
    for (const std::string& input : node.input()) consumers[input].push_back(&node);
  }
  std::vector<FileQuantizer> found;
  for (const onnx::NodeProto& node : graph.node()) {
    if (!is_onnx_op(node, "QuantizeLinear")) continue;
    FileQuantizer q;
    q.node = node.name().empty() ? "QuantizeLinear of " + node.output(0) : node.name();
    q.x = node.input(0);
    q.scale = node.input(1);
    q.zero_point = input_or_none(node, 2);
    q.quantized = node.output(0);
    q.codes = q.quantized;
    for (const onnx::AttributeProto& attribute : node.attribute()) {
      if (attribute.name() == "axis") q.axis = attribute.i();
      if (attribute.name() == "block_size") q.block_size = attribute.i();
    }
    const auto& users = consumers[q.quantized];
    if (users.size() == 1 && is_onnx_op(*users[0], "Clip") && users[0]->input(0) == q.quantized) {
      q.codes = users[0]->output(0);
      q.clip_min = input_or_none(*users[0], 1);
      q.clip_max = input_or_none(*users[0], 2);
    }
    found.push_back(std::move(q));
  }
  return found;
}

/// The lines of kRoundedBiases, each with the DequantizeLinear that makes its value.
std::vector<RoundedBias> read_rounded_biases(const onnx::GraphProto& graph,
                                             const std::string& text) {
  std::unordered_map<std::string, const onnx::NodeProto*> dequantizers;
  for (const onnx::NodeProto& node : graph.node()) {
    if (is_onnx_op(node, "DequantizeLinear")) dequantizers[node.output(0)] = &node;
  }
  std::vector<RoundedBias> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    RoundedBias bias;
    const size_t tab = std::min(line.find('\t'), line.size());
    bias.value = line.substr(0, tab);
    const char* at = line.data() + tab;
    const char* const end = line.data() + line.size();
    std::from_chars_result read{at, {}};
    for (; at < end && read.ec == std::errc(); at = read.ptr) {
      read = std::from_chars(at + 1, end, bias.floats.emplace_back());
    }
    const auto dequantize = dequantizers.find(bias.value);
    if (read.ec != std::errc() || bias.floats.empty() || dequantize == dequantizers.end()) {
      throw std::runtime_error("metadata " + std::string(kRoundedBiases) + ": the line of '" +
                               bias.value +
                               "' is not a DequantizeLinear's output, a tab and float values");
    }
    bias.codes = dequantize->second->input(0);
    bias.scale = dequantize->second->input(1);
    found.push_back(std::move(bias));
  }
  return found;
}

/// Adds those of `values` that are not among its `outputs` already; ORT infers their types.
void add_outputs(onnx::GraphProto& graph, const std::vector<std::string>& outputs,
                 const std::vector<std::string>& values) {
  std::unordered_set<std::string> present(outputs.begin(), outputs.end());
  for (const std::string& value : values) {
    if (present.insert(value).second) graph.add_output()->set_name(value);
  }
}

}  // namespace

OnnxFile::OnnxFile(const std::string& path) : path_(path), model_(std::make_unique<Model>()) {
  model_->proto = parse_model(path);
  const onnx::GraphProto& graph = model_->proto.graph();
  for (const auto& initializer : graph.initializer()) {
    model_->initializers.insert(initializer.name());
  }
  for (const auto& input : graph.input()) model_->inputs.insert(input.name());
  for (const auto& output : graph.output()) outputs_.push_back(output.name());
  quantizers_ = find_quantizers(graph);
  for (const auto& entry : model_->proto.metadata_props()) {
    if (entry.key() == kRoundedBiases) rounded_biases_ = read_rounded_biases(graph, entry.value());
  }
  for (FileQuantizer& q : quantizers_) q.constant = model_->initializers.count(q.x) != 0;
}
OnnxFile::~OnnxFile() = default;

std::string OnnxFile::folder() const {
  const std::filesystem::path parent = std::filesystem::absolute(path_).parent_path();
  return parent.string();
}

bool OnnxFile::is_graph_input(const std::string& value) const {
  return model_->inputs.count(value) != 0 && model_->initializers.count(value) == 0;
}

std::string OnnxFile::with_outputs(const std::vector<std::string>& values) const {
  onnx::GraphProto& graph = *model_->proto.mutable_graph();
  const int own = graph.output_size();
  add_outputs(graph, outputs_, values);
  std::string bytes = serialize(model_->proto);
  while (graph.output_size() > own) graph.mutable_output()->RemoveLast();
  return bytes;
}

std::string OnnxFile::cut_input(const std::string& codes) { return codes + "/qcdq_verify_cut"; }

std::string OnnxFile::cut_at_codes(const std::unordered_map<std::string, DType>& types) const {
  onnx::ModelProto model = model_->proto;
  onnx::GraphProto& graph = *model.mutable_graph();
  for (onnx::NodeProto& node : *graph.mutable_node()) {
    for (std::string& input : *node.mutable_input()) {
      if (types.count(input) != 0) input = cut_input(input);
    }
  }
  const std::unordered_set<std::string> present(outputs_.begin(), outputs_.end());
  for (const FileQuantizer& q : quantizers_) {
    auto type = types.find(q.codes);
    if (type == types.end()) continue;
    onnx::ValueInfoProto& input = *graph.add_input();
    input.set_name(cut_input(q.codes));
    input.mutable_type()->mutable_tensor_type()->set_elem_type(static_cast<int32_t>(type->second));
    if (present.count(q.codes) == 0) graph.add_output()->set_name(q.codes);
  }
  return serialize(model);
}

std::string OnnxFile::with_moved_quantizer_inputs(double fraction) const {
  onnx::ModelProto model = model_->proto;
  onnx::GraphProto& graph = *model.mutable_graph();
  std::unordered_map<std::string, const onnx::TensorProto*> initializers;
  for (const auto& tensor : model_->proto.graph().initializer()) {
    initializers[tensor.name()] = &tensor;
  }
  google::protobuf::RepeatedPtrField<onnx::NodeProto> nodes;
  for (onnx::NodeProto& node : *graph.mutable_node()) {
    if (is_onnx_op(node, "QuantizeLinear") && initializers.count(node.input(0)) == 0) {
      auto scale = initializers.find(node.input(1));
      auto zero_point = initializers.find(input_or_none(node, 2));
      const std::optional<float> step =
          scale == initializers.end() ? std::nullopt : one_float(*scale->second);
      if (step) {
        const bool wide = zero_point != initializers.end() &&
                          (zero_point->second->data_type() == onnx::TensorProto::UINT16 ||
                           zero_point->second->data_type() == onnx::TensorProto::INT16);
        onnx::TensorProto& distance = *graph.add_initializer();
        distance.set_name(node.output(0) + "/qcdq_verify_distance");
        distance.set_data_type(onnx::TensorProto::FLOAT);
        distance.add_float_data(static_cast<float>(fraction * *step * (wide ? 65535 : 255)));
        onnx::NodeProto& moved = *nodes.Add();
        moved.set_op_type("Add");
        moved.add_input(node.input(0));
        moved.add_input(distance.name());
        moved.add_output(node.output(0) + "/qcdq_verify_moved");
        node.set_input(0, moved.output(0));
      }
    }
    *nodes.Add() = node;
  }
  graph.mutable_node()->Swap(&nodes);
  return serialize(model);
}

std::string OnnxFile::with_float_biases(const std::vector<std::string>& values) const {
  onnx::ModelProto model = model_->proto;
  onnx::GraphProto& graph = *model.mutable_graph();
  std::unordered_set<std::string> replaced;
  for (const RoundedBias& bias : rounded_biases_) {
    if (!replaced.insert(bias.value).second) continue;
    onnx::TensorProto& floats = *graph.add_initializer();
    floats.set_name(bias.value);
    floats.set_data_type(onnx::TensorProto::FLOAT);
    floats.add_dims(static_cast<int64_t>(bias.floats.size()));
    *floats.mutable_float_data() = {bias.floats.begin(), bias.floats.end()};
  }
  google::protobuf::RepeatedPtrField<onnx::NodeProto> nodes;
  for (const onnx::NodeProto& node : graph.node()) {
    if (node.output_size() != 1 || replaced.count(node.output(0)) == 0) *nodes.Add() = node;
  }
  graph.mutable_node()->Swap(&nodes);
  add_outputs(graph, outputs_, values);
  return serialize(model);
}

}  // namespace qcdq
