// Symbolic functions of recurrent layers: lstm, gru, rnn_tanh and rnn_relu on dense sequences, in
// any number of layers and both directions. torch orders the gates of a weight's rows otherwise
// than ONNX: constant weights are reordered at export.
#include <cstring>

#include "symbolic/symbolics/onnx_forms.h"
#include "symbolic/symbolics/registry.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {

namespace {

// How one kind of cell is spelt in ONNX.
struct Cell {
  const char* onnx_op;
  std::vector<int64_t> gates;  // ONNX's order: gate i is block gates[i] of torch's rows
  bool has_cell_state;
  Attributes attributes;
};

// The rows of `weight`, `gates.size()` blocks of equal height, in another order.
TensorData reordered(const TensorData& weight, const std::vector<int64_t>& gates) {
  const std::shared_ptr<const void> held = weight.load();
  const auto* from = static_cast<const char*>(held.get());
  const size_t block = weight.bytes() / gates.size();
  auto owned = std::make_shared<std::vector<char>>(weight.bytes());
  for (size_t i = 0; i < gates.size(); ++i) {
    std::memcpy(owned->data() + i * block, from + static_cast<size_t>(gates[i]) * block, block);
  }
  return {weight.dtype, weight.dims, std::shared_ptr<const void>(owned, owned->data()), nullptr};
}

// Constants one behind the other along their first dimension.
TensorData joined(const std::vector<TensorData>& parts) {
  auto owned = std::make_shared<std::vector<char>>();
  TensorData whole{parts[0].dtype, parts[0].dims, nullptr, nullptr};
  whole.dims[0] = 0;
  for (const TensorData& part : parts) {
    const std::shared_ptr<const void> held = part.load();
    const auto* bytes = static_cast<const char*>(held.get());
    owned->insert(owned->end(), bytes, bytes + part.bytes());
    whole.dims[0] += part.dims[0];
  }
  whole.data = std::shared_ptr<const void>(owned, owned->data());
  return whole;
}

Value reorder(GraphBuilder& graph, NodeArgs& args, const Value& weight, const Cell& cell) {
  if (cell.gates.size() == 1) return weight;
  if (const TensorData* data = graph.constant_data(weight)) {
    return graph.constant(reordered(*data, cell.gates), weight.name + "_onnx");
  }
  const int64_t rows = dims_of(graph, args, "params", weight)[0];
  const auto gates = static_cast<int64_t>(cell.gates.size());
  const Values blocks =
      emit_split(graph, weight, 0, std::vector<int64_t>(cell.gates.size(), rows / gates));
  Values in_order;
  for (int64_t gate : cell.gates) in_order.push_back(blocks[static_cast<size_t>(gate)]);
  return graph.op("Concat", in_order, {{"axis", int64_t{0}}});
}

bool is_zero(const TensorData* data) {
  if (data == nullptr || data->dtype != DType::kFloat32) return false;
  const std::shared_ptr<const void> held = data->load();
  const auto* values = static_cast<const float*>(held.get());
  for (int64_t i = 0; i < data->numel(); ++i) {
    if (values[i] != 0) return false;
  }
  return true;
}

class Layers {
 public:
  Layers(GraphBuilder& graph, NodeArgs& args, const Cell& cell)
      : graph_(graph),
        args_(args),
        cell_(cell),
        params_(args.tensors("params")),
        biases_(args.boolean("has_biases")),
        layers_(args.integer("num_layers")),
        directions_(args.boolean("bidirectional") ? 2 : 1) {
    const auto expected = static_cast<size_t>(layers_ * directions_ * (biases_ ? 4 : 2));
    if (params_.size() != expected) {
      args.unsupported(
          "params", std::to_string(params_.size()) + " tensors",
          "expected " + std::to_string(expected) + ": an LSTM with proj_size has no form in ONNX",
          "build it without proj_size");
    }
  }

  Values run() {
    Value x = args_.tensor("input");
    if (rank_of(graph_, args_, "input", x) != 3)
      args_.unsupported("input", "%" + x.name, "expected [time, batch, features]");
    const bool batch_first = args_.boolean("batch_first");
    const double dropout = args_.real("dropout");
    if (args_.boolean("train") && dropout != 0) {
      args_.unsupported("train", "True", "dropout between the layers is random",
                        "put the module into eval mode");
    }
    const Values states = cell_.has_cell_state ? args_.tensors("hx") : Values{args_.tensor("hx")};
    if (batch_first) x = emit_transpose(graph_, x, {1, 0, 2});
    std::vector<Values> last(states.size());
    for (int64_t layer = 0; layer < layers_; ++layer) {
      const Values made = run_layer(x, layer, states);
      x = joined_directions(made[0]);
      for (size_t i = 0; i < last.size(); ++i) last[i].push_back(made[i + 1]);
    }
    Values results = {batch_first ? emit_transpose(graph_, x, {1, 0, 2}) : x};
    for (const Values& parts : last) {
      results.push_back(parts.size() == 1 ? parts[0]
                                          : graph_.op("Concat", parts, {{"axis", int64_t{0}}}));
    }
    return results;
  }

 private:
  // Parameter `which` (input weight, hidden weight, input bias, hidden bias) of a layer, reordered.
  Value parameter(int64_t layer, int64_t direction, int64_t which) {
    const int64_t each = biases_ ? 4 : 2;
    const int64_t index = (layer * directions_ + direction) * each + which;
    return reorder(graph_, args_, params_[static_cast<size_t>(index)], cell_);
  }

  // [rows, columns] of each direction -> [directions, rows, columns]; constants are joined here.
  Value stacked(const Values& parts) {
    std::vector<TensorData> constants;
    for (const Value& part : parts) {
      if (const TensorData* data = graph_.constant_data(part)) constants.push_back(*data);
    }
    if (constants.size() == parts.size()) {
      TensorData whole = joined(constants);
      whole.dims = constants[0].dims;
      whole.dims.insert(whole.dims.begin(), static_cast<int64_t>(parts.size()));
      return graph_.constant(std::move(whole), parts[0].name + "_stacked");
    }
    Values raised;
    for (const Value& part : parts) raised.push_back(emit_unsqueeze(graph_, part, {0}));
    return raised.size() == 1 ? raised[0] : graph_.op("Concat", raised, {{"axis", int64_t{0}}});
  }

  // The two biases of a direction, one behind the other.
  Value both_biases(int64_t layer, int64_t direction) {
    const Value input = parameter(layer, direction, 2);
    const Value hidden = parameter(layer, direction, 3);
    const TensorData* first = graph_.constant_data(input);
    const TensorData* second = graph_.constant_data(hidden);
    if (first == nullptr || second == nullptr)
      return graph_.op("Concat", {input, hidden}, {{"axis", int64_t{0}}});
    return graph_.constant(joined({*first, *second}), input.name + "_joined");
  }

  Values run_layer(const Value& x, int64_t layer, const Values& states) {
    Values input_weights;
    Values hidden_weights;
    Values biases;
    for (int64_t direction = 0; direction < directions_; ++direction) {
      input_weights.push_back(parameter(layer, direction, 0));
      hidden_weights.push_back(parameter(layer, direction, 1));
      if (!biases_) continue;
      biases.push_back(both_biases(layer, direction));
    }
    const int64_t hidden = dims_of(graph_, args_, "params", hidden_weights[0]).back();
    Attributes attributes = cell_.attributes;
    attributes.emplace_back("hidden_size", hidden);
    if (directions_ == 2) attributes.emplace_back("direction", std::string("bidirectional"));
    if (std::string_view(cell_.onnx_op) == "RNN" && directions_ == 2) {
      for (auto& [name, value] : attributes) {
        if (name != "activations") continue;
        auto& names = std::get<std::vector<std::string>>(value);
        names.push_back(names[0]);
      }
    }
    Values inputs = {x, stacked(input_weights), stacked(hidden_weights),
                     biases_ ? stacked(biases) : Value{}, Value{}};
    for (const Value& state : states) inputs.push_back(initial(state, layer));
    return graph_.ops(cell_.onnx_op, inputs, states.size() + 1, attributes);
  }

  // The layer's part of a state [layers * directions, batch, hidden]; left out where it is zero.
  Value initial(const Value& state, int64_t layer) {
    if (is_zero(graph_.constant_data(state))) return {};
    if (layers_ == 1) return state;
    return emit_slice(graph_, state, 0, graph_.ints({layer * directions_}),
                      graph_.ints({(layer + 1) * directions_}), 1);
  }

  // [time, directions, batch, hidden] -> [time, batch, directions * hidden]
  Value joined_directions(const Value& y) {
    if (directions_ == 1) return emit_squeeze(graph_, y, {1});
    const Value swapped = graph_.op("Transpose", {y}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
    return graph_.op("Reshape", {swapped, graph_.ints({0, 0, -1})});
  }

  GraphBuilder& graph_;
  NodeArgs& args_;
  const Cell& cell_;
  const Values params_;
  const bool biases_;
  const int64_t layers_;
  const int64_t directions_;
};

Values lstm(GraphBuilder& graph, NodeArgs& args) {  // torch: i f g o, ONNX: i o f c
  const Cell cell{"LSTM", {0, 3, 1, 2}, true, {}};
  return Layers(graph, args, cell).run();
}

// torch: r z n, ONNX: z r h; torch applies the reset gate after the hidden product.
Values gru(GraphBuilder& graph, NodeArgs& args) {
  const Cell cell{"GRU", {1, 0, 2}, false, {{"linear_before_reset", int64_t{1}}}};
  return Layers(graph, args, cell).run();
}

template <OpName kActivation>
Values rnn(GraphBuilder& graph, NodeArgs& args) {
  const Cell cell{"RNN", {0}, false, {{"activations", std::vector<std::string>{kActivation.text}}}};
  return Layers(graph, args, cell).run();
}

constexpr Symbolic kRows[] = {
    {"aten::lstm.input", 10, lstm, "LSTM, Transpose, Reshape"},
    {"aten::gru.input", 10, gru, "GRU, Transpose, Reshape"},
    {"aten::rnn_tanh.input", 10, rnn<"Tanh">, "RNN, Transpose, Reshape"},
    {"aten::rnn_relu.input", 10, rnn<"Relu">, "RNN, Transpose, Reshape"},
};

}  // namespace

std::span<const Symbolic> rnn_symbolics() { return kRows; }

}  // namespace qcdq
