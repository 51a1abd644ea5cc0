// The exporter's own picture of an ONNX graph: what convert builds, qdq_passes rewrites, and write
// puts into a file. It knows neither torch nor protobuf; weights stay where they are (TensorData
// shares them).
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "qcdq/symbolic.h"

namespace qcdq {

struct OnnxNode {
  std::string op_type;
  std::string domain;               // "" = ONNX's own
  std::string name;                 // layer1.0.conv1/Conv
  std::vector<std::string> inputs;  // "" = left out
  std::vector<std::string> outputs;
  Attributes attributes;
  std::string torch_op;  // where it comes from: aten::conv2d
  std::string source;    // source line, "" where none was recorded; becomes doc_string

  const Attribute* find(std::string_view attribute) const;  // nullptr where absent
  int64_t int_attribute(std::string_view attribute, int64_t absent) const;
  void set(std::string_view attribute, Attribute value);
};

/// Key of the metadata entry that lists, one a line, the values that were float biases in the
/// source and are int32 codes in the file: name, tab, the floats (qdq/bias.cpp writes it,
/// verify/probe_model.cpp reads it).
inline constexpr const char* kRoundedBiases = "qcdq.rounded_biases";

/// Nodes are in topological order. Every value has one producer: a node, an initializer or a graph
/// input.
struct OnnxGraph {
  int64_t opset = 21;
  std::map<std::string, int64_t> domains;  // opset imports beyond ONNX's own
  std::list<OnnxNode> nodes;
  std::unordered_map<std::string, TensorData> initializers;
  std::unordered_map<std::string, TensorType>
      types;  // of inputs, outputs and whatever else is known
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::vector<std::pair<std::string, std::string>> metadata;

  using NodeIt = std::list<OnnxNode>::iterator;

  /// A name that no value or node has yet: `base`, or base_1, base_2, ...
  std::string unique_name(const std::string& base);
  const TensorData* initializer(const std::string& value) const;  // nullptr where it is none
  std::string add_initializer(const std::string& base, TensorData data);
  bool is_output(const std::string& value) const;
  TensorType type(const std::string& value) const;  // an initializer's own type too

 private:
  std::unordered_map<std::string, int64_t> taken_;
};

/// Who makes and who uses each value; made anew after a rewrite (O(nodes)).
struct GraphIndex {
  explicit GraphIndex(OnnxGraph& graph);
  OnnxNode* producer(const std::string& value) const;  // nullptr for inputs and initializers
  const std::vector<OnnxNode*>& consumers(const std::string& value) const;
  /// Uses by nodes plus one where it is a graph output.
  size_t uses(const std::string& value) const;

 private:
  std::unordered_map<std::string, OnnxNode*> producer_;
  std::unordered_map<std::string, std::vector<OnnxNode*>> consumers_;
  std::unordered_map<std::string, size_t> uses_;
};

/// Makes every user of `from` (graph outputs are kept by name: the producer of `to` is renamed
/// instead) use `to`.
void replace_uses(OnnxGraph& graph, const std::string& from, const std::string& to);
/// Drops nodes whose outputs nobody uses, and initializers without a user.
void remove_dead(OnnxGraph& graph);
/// graph_text.cpp: one line per node, for tests: `%y = Conv[pads=[1,1,1,1]](%x, %w)`; initializers
/// as `%w: float32[4,3,3,3]`, small ones with their values.
std::string to_text(const OnnxGraph& graph);

}  // namespace qcdq
