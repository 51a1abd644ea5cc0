// Tests of symbolic/qdq/coverage.cpp: the verdicts on hand-built graphs.
// tests/python/test_fusion.py compares them with ORT.
#include <gtest/gtest.h>

#include "symbolic/qdq/coverage.h"
#include "symbolic/qdq/match.h"

namespace qcdq {
namespace {

struct Storage {
  DType dtype = DType::kUInt8;
  bool clip = false;
};

void add_node(OnnxGraph& graph, const std::string& op, std::vector<std::string> inputs,
              const std::string& out) {
  OnnxNode& node = graph.nodes.emplace_back();
  node.op_type = op;
  node.name = out;
  node.inputs = std::move(inputs);
  node.outputs = {out};
}

void add_quantizer(OnnxGraph& graph, const std::string& x, const std::string& out,
                   Storage storage) {
  graph.initializers[out + "_s"] = TensorData::scalar<float>(DType::kFloat32, 0.1f);
  graph.initializers[out + "_z"] = pack_integers(storage.dtype, {}, {0});
  add_node(graph, "QuantizeLinear", {x, out + "_s", out + "_z"}, out + "_q");
  graph.types[out + "_q"] = {storage.dtype, false, {}, {}};
  if (storage.clip) {
    graph.initializers[out + "_lo"] = pack_integers(storage.dtype, {}, {0});
    graph.initializers[out + "_hi"] = pack_integers(storage.dtype, {}, {15});
    add_node(graph, "Clip", {out + "_q", out + "_lo", out + "_hi"}, out + "_c");
    graph.types[out + "_c"] = {storage.dtype, false, {}, {}};
  }
  add_node(graph, "DequantizeLinear",
           {storage.clip ? out + "_c" : out + "_q", out + "_s", out + "_z"}, out);
}

void add_weight(OnnxGraph& graph, const std::string& name) {
  graph.initializers[name + "_codes"] = pack_integers(DType::kInt8, {1, 1, 1, 1}, {3});
  graph.initializers[name + "_s"] = TensorData::scalar<float>(DType::kFloat32, 0.1f);
  graph.initializers[name + "_z"] = pack_integers(DType::kInt8, {}, {0});
  add_node(graph, "DequantizeLinear", {name + "_codes", name + "_s", name + "_z"}, name);
}

CoverageLine find(const OnnxGraph& graph, const std::string& name) {
  for (const CoverageLine& row : int8_coverage(graph)) {
    if (row.node == name) return row;
  }
  ADD_FAILURE() << "no row for " << name;
  return {};
}

// x -> Q/DQ -> op(weight) -> Q/DQ.
OnnxGraph layer(const std::string& op, Storage in, Storage out, bool output_quantizer = true) {
  OnnxGraph graph;
  graph.inputs = {"x"};
  add_quantizer(graph, "x", "in", in);
  add_weight(graph, "w");
  add_node(graph, op, {"in", "w"}, "layer");
  if (output_quantizer) {
    add_quantizer(graph, "layer", "out", out);
    graph.outputs = {"out"};
  } else {
    graph.outputs = {"layer"};
  }
  return graph;
}

constexpr Storage kU8{DType::kUInt8, false};
constexpr Storage kU8Clip{DType::kUInt8, true};
constexpr Storage kI8{DType::kInt8, false};
constexpr Storage kI8Clip{DType::kInt8, true};

TEST(Coverage, LayersFollowTheTableOfMeasurements) {
  struct Row {
    const char* op;
    Storage in, out;
    bool int8;
  };
  const Row rows[] = {
      {"Conv", kU8, kU8, true},         {"Conv", kU8Clip, kU8Clip, true},
      {"Conv", kI8, kI8, true},         {"Conv", kI8Clip, kI8, false},
      {"Conv", kI8, kI8Clip, false},    {"Conv", kU8, kI8Clip, false},
      {"MatMul", kU8, kU8, true},       {"MatMul", kI8Clip, kI8, false},
      {"MatMul", kI8, kI8, true},       {"Gemm", kU8Clip, kU8, true},
      {"Gemm", kI8Clip, kI8, false},    {"Gemm", kI8, kI8Clip, false},
      {"Gemm", kI8Clip, kI8Clip, true}, {"ConvTranspose", kU8, kU8, false},
  };
  for (const Row& row : rows) {
    const CoverageLine found = find(layer(row.op, row.in, row.out), "layer");
    EXPECT_EQ(found.int8, row.int8) << row.op << ": " << found.reason;
    EXPECT_EQ(found.op_type, row.op);
    if (!row.int8) {
      EXPECT_FALSE(found.reason.empty());
    }
  }
}

TEST(Coverage, FloatOutputStopsConvButNotGemm) {
  const CoverageLine conv = find(layer("Conv", kU8, kU8, false), "layer");
  EXPECT_FALSE(conv.int8);
  EXPECT_EQ(conv.reason, "output has no quantiser: put one behind layer");
  EXPECT_TRUE(find(layer("Gemm", kU8, kU8, false), "layer").int8);
  EXPECT_TRUE(find(layer("MatMul", kU8, kU8, false), "layer").int8);
}

TEST(Coverage, NamesTheFirstReason) {
  OnnxGraph graph;
  graph.inputs = {"x"};
  add_weight(graph, "w");
  add_node(graph, "Conv", {"x", "w"}, "layer");
  add_quantizer(graph, "layer", "out", kU8);
  graph.outputs = {"out"};
  EXPECT_EQ(find(graph, "layer").reason, "input 0 has no quantiser: put one before layer");
}

TEST(Coverage, ResidualAddNeedsUnsignedStorage) {
  for (const bool is_signed : {false, true}) {
    const Storage storage = is_signed ? kI8 : kU8;
    OnnxGraph graph;
    graph.inputs = {"x"};
    add_quantizer(graph, "x", "in", storage);
    add_weight(graph, "w");
    add_node(graph, "Conv", {"in", "w"}, "conv");
    add_quantizer(graph, "conv", "mid", storage);
    add_node(graph, "Add", {"mid", "in"}, "add");  // "in" has two users
    add_quantizer(graph, "add", "out", storage);
    graph.outputs = {"out"};
    EXPECT_EQ(find(graph, "conv").int8, !is_signed);
    EXPECT_EQ(find(graph, "add").int8, !is_signed);
  }
}

TEST(Coverage, ReluBeforeTheQuantizerCountsOnlyAtItsLeastCode) {
  for (const bool least : {true, false}) {
    OnnxGraph graph = layer("Conv", kU8, kU8);
    add_node(graph, "Relu", {"layer"}, "relu");
    for (OnnxNode& node : graph.nodes) {
      if (node.name == "out_q") node.inputs[0] = "relu";
    }
    if (!least) graph.initializers["out_z"] = pack_integers(DType::kUInt8, {}, {128});
    EXPECT_EQ(find(graph, "layer").int8, least);
  }
}

}  // namespace
}  // namespace qcdq
