// The exporter's own picture of an ONNX graph: what convert builds, qdq_passes rewrites, and write
// puts into a file. It knows neither torch nor protobuf; weights stay where they are (TensorData
// shares them).
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <set>
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
  /// Calls `visit` for each use of a value: the inputs that are given, and what the node's bodies
  /// take from the graphs around them.
  void for_each_use(const std::function<void(const std::string&)>& visit) const;
  /// Makes the node use other values in their place, by name; in its bodies too.
  void rename_uses(const std::unordered_map<std::string, std::string>& names);
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

  /// A name that no value or node has yet, in the graph or in a body: `base`, or base_1, base_2,
  /// ...
  std::string unique_name(const std::string& base);
  const TensorData* initializer(const std::string& value) const;  // nullptr where it is none
  std::string add_initializer(const std::string& base, TensorData data);
  bool is_output(const std::string& value) const;
  TensorType type(const std::string& value) const;  // an initializer's own type too
  /// Keeps unique_name() away from the names in the bodies of a node that is about to be added.
  void reserve_names_in_bodies(const OnnxNode& node);

 private:
  std::unordered_map<std::string, int64_t> taken_;
};

/// Every name that stands in the bodies of the node: made there, or used from outside.
std::set<std::string> names_in_bodies(const OnnxNode& node);

/// Who makes and who uses each value; made anew after a rewrite (O(nodes)).
struct GraphIndex {
  explicit GraphIndex(OnnxGraph& graph);
  OnnxNode* producer(const std::string& value) const;  // nullptr for inputs and initializers
  /// Nodes that use the value; one with a body counts where the value is used in the body only.
  const std::vector<OnnxNode*>& consumers(const std::string& value) const;
  /// Uses by nodes, those in their bodies included, plus one where it is a graph output.
  size_t uses(const std::string& value) const;

 private:
  std::unordered_map<std::string, OnnxNode*> producer_;
  std::unordered_map<std::string, std::vector<OnnxNode*>> consumers_;
  std::unordered_map<std::string, size_t> uses_;
};

/// Makes every user of `from`, in bodies too (graph outputs are kept by name: the producer of `to`
/// is renamed instead) use `to`.
void replace_uses(OnnxGraph& graph, const std::string& from, const std::string& to);
/// Drops nodes whose outputs nobody uses, and initializers without a user.
void remove_dead(OnnxGraph& graph);
/// graph_text.cpp: `%w: float32[4,3,3,3]`; a small one, up to 8 elements, with its values.
std::string initializer_text(const std::string& name, const TensorData& data);
/// What to_text() writes for each node.
enum class NodeDetail {
  kPlain,    // `%y = Conv[pads=[1,1,1,1]](%x, %w)`
  kOrigins,  // `%y: float32[1,4,8,8] = Conv[pads=[1,1,1,1]](%x, %w)  # aten::conv2d, net.py:7`
};
/// graph_text.cpp: one line per node, each initializer before its first user. Bodies stand below
/// their node, indented.
std::string to_text(const OnnxGraph& graph, NodeDetail detail = NodeDetail::kPlain);

}  // namespace qcdq
