// Net: an OnnxGraph written node by node, for the tests of symbolic/qdq_*.cpp.
#pragma once

#include <gtest/gtest.h>

#include <stdexcept>

#include "symbolic/qdq/match.h"
#include "symbolic/qdq/passes.h"

namespace qcdq::testing {

inline TensorData floats(std::vector<int64_t> dims, std::vector<float> values) {
  return TensorData::from<float>(DType::kFloat32, std::move(dims), std::move(values));
}

/// An OnnxGraph written node by node.
struct Net {
  OnnxGraph graph;
  EmissionOptions options;
  std::vector<std::string> notes;

  Net() = default;
  /// With the input x of those dims.
  explicit Net(std::vector<int64_t> dims) { input("x", std::move(dims)); }

  void input(const std::string& name, std::vector<int64_t> dims) {
    graph.inputs.push_back(name);
    graph.types[name] = {DType::kFloat32, true, std::move(dims), {}};
  }
  void output(const std::string& name) {
    graph.outputs.push_back(name);
    if (!graph.types.contains(name)) graph.types[name] = {DType::kFloat32, false, {}, {}};
  }
  void constant(const std::string& name, TensorData data) {
    graph.initializers[name] = std::move(data);
  }
  OnnxNode& node(const std::string& op, std::vector<std::string> inputs, const std::string& out,
                 Attributes attributes = {}) {
    OnnxNode& added = graph.nodes.emplace_back();
    added.op_type = op;
    added.name = out + "/" + op;
    added.inputs = std::move(inputs);
    added.outputs = {out};
    added.attributes = std::move(attributes);
    return added;
  }
  /// out = DQ(Clip(Q(x))); the Clip only where clip is given. Its nodes are named out_q, out_c.
  void quantizer(const std::string& x, const std::string& out, float scale, int64_t zero_point,
                 DType storage = DType::kUInt8, std::vector<int64_t> clip = {}) {
    constant(out + "_s", floats({}, {scale}));
    constant(out + "_z", pack_integers(storage, {}, {zero_point}));
    node("QuantizeLinear", {x, out + "_s", out + "_z"}, out + "_q");
    graph.types[out + "_q"] = {storage, false, {}, {}};
    std::string codes = out + "_q";
    if (!clip.empty()) {
      constant(out + "_lo", pack_integers(storage, {}, {clip[0]}));
      constant(out + "_hi", pack_integers(storage, {}, {clip[1]}));
      node("Clip", {codes, out + "_lo", out + "_hi"}, out + "_c");
      graph.types[out + "_c"] = {storage, false, {}, {}};
      codes = out + "_c";
    }
    node("DequantizeLinear", {codes, out + "_s", out + "_z"}, out);
    graph.types[out] = {DType::kFloat32, false, {}, {}};
  }
  /// out = DQ(codes), per channel along axis where there are several scales.
  void weight(const std::string& out, std::vector<int64_t> dims, const std::vector<int64_t>& codes,
              std::vector<float> scale, int64_t axis = 0, DType storage = DType::kInt8) {
    const auto count = static_cast<int64_t>(scale.size());
    std::vector<int64_t> shape;
    if (count > 1) shape = {count};
    graph.types[out] = {DType::kFloat32, true, dims, {}};
    constant(out + "_quantized", pack_integers(storage, std::move(dims), codes));
    constant(out + "_s", floats(shape, std::move(scale)));
    constant(out + "_z", pack_integers(storage, shape, std::vector<int64_t>(count, 0)));
    OnnxNode& dq = node("DequantizeLinear", {out + "_quantized", out + "_s", out + "_z"}, out);
    if (count > 1) dq.set("axis", axis);
  }
  void batchnorm(const std::string& x, const std::string& out, std::vector<float> gamma,
                 std::vector<float> beta, std::vector<float> mean, std::vector<float> var) {
    const std::vector<int64_t> dims = {static_cast<int64_t>(gamma.size())};
    constant(out + "_gamma", floats(dims, std::move(gamma)));
    constant(out + "_beta", floats(dims, std::move(beta)));
    constant(out + "_mean", floats(dims, std::move(mean)));
    constant(out + "_var", floats(dims, std::move(var)));
    node("BatchNormalization", {x, out + "_gamma", out + "_beta", out + "_mean", out + "_var"}, out,
         {{"epsilon", 0.0f}});
  }
  void run() { run_qdq_passes(graph, options, notes); }
  /// The values named become outputs, then the passes run.
  void run(std::initializer_list<const char*> outputs) {
    for (const char* name : outputs) output(name);
    run();
  }

  std::vector<std::string> ops() const {
    std::vector<std::string> types;
    for (const OnnxNode& node : graph.nodes) types.push_back(node.op_type);
    return types;
  }
  OnnxNode& only(const std::string& op) {
    OnnxNode* found = nullptr;
    for (OnnxNode& node : graph.nodes) {
      if (node.op_type != op) continue;
      EXPECT_EQ(found, nullptr) << "more than one " << op;
      found = &node;
    }
    if (found == nullptr) throw std::runtime_error("the graph has no " + op);
    return *found;
  }
  OnnxNode& producer(const std::string& value) {
    OnnxNode* found = GraphIndex(graph).producer(value);
    if (found == nullptr) throw std::runtime_error("no node makes " + value);
    return *found;
  }
  std::vector<double> values(const std::string& name) const {
    const TensorData* data = graph.initializer(name);
    EXPECT_NE(data, nullptr) << name;
    return data == nullptr ? std::vector<double>{} : read_numbers(*data);
  }
};

using Ops = std::vector<std::string>;
using Numbers = std::vector<double>;

}  // namespace qcdq::testing
