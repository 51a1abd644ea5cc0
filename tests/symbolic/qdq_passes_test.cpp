// Tests of symbolic/qdq_*.cpp on hand-built graphs: what each pass family makes of them, and what
// is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "symbolic/qdq_graph.h"

namespace qcdq {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TensorData floats(std::vector<int64_t> dims, std::vector<float> values) {
  return TensorData::from<float>(DType::kFloat32, std::move(dims), std::move(values));
}

/// An OnnxGraph written node by node.
struct Net {
  OnnxGraph graph;
  EmissionOptions options;
  std::vector<std::string> notes;

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
    constant(out + "_z", integers(storage, {}, {zero_point}));
    node("QuantizeLinear", {x, out + "_s", out + "_z"}, out + "_q");
    graph.types[out + "_q"] = {storage, false, {}, {}};
    std::string codes = out + "_q";
    if (!clip.empty()) {
      constant(out + "_lo", integers(storage, {}, {clip[0]}));
      constant(out + "_hi", integers(storage, {}, {clip[1]}));
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
    constant(out + "_quantized", integers(storage, std::move(dims), codes));
    constant(out + "_s", floats(shape, std::move(scale)));
    constant(out + "_z", integers(storage, shape, std::vector<int64_t>(count, 0)));
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
    EXPECT_NE(found, nullptr) << "no " << op;
    return *found;
  }
  OnnxNode& producer(const std::string& value) {
    OnnxNode* found = GraphIndex(graph).producer(value);
    EXPECT_NE(found, nullptr) << value;
    return *found;
  }
  std::vector<double> values(const std::string& name) const {
    const TensorData* data = graph.initializer(name);
    EXPECT_NE(data, nullptr) << name;
    return data == nullptr ? std::vector<double>{} : numbers(*data);
  }
};

using Ops = std::vector<std::string>;
using Numbers = std::vector<double>;

TEST(ConstantQuantizer, BecomesIntegerCodes) {
  Net net;
  net.input("x", {1, 2});
  net.constant("w", floats({2, 2}, {0.25f, -0.75f, 9.0f, -9.0f}));
  net.quantizer("w", "wq", 0.5f, 0, DType::kInt8, {-3, 3});
  net.node("MatMul", {"x", "wq"}, "y");
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"DequantizeLinear", "MatMul"}));
  const OnnxNode& dq = net.only("DequantizeLinear");
  EXPECT_EQ(dq.inputs[0], "w_quantized");
  EXPECT_EQ(net.graph.initializer("w_quantized")->dtype, DType::kInt8);
  // Ties to even: 0.5 -> 0, -1.5 -> -2; then the Clip.
  EXPECT_EQ(net.values("w_quantized"), (Numbers{0, -2, 3, -3}));
  EXPECT_EQ(net.graph.initializer("w"), nullptr);
}

TEST(ConstantQuantizer, StaysFloatWithQdqWeights) {
  Net net;
  net.options.qdq_weights = true;
  net.input("x", {1, 2});
  net.constant("w", floats({2, 2}, {0.3f, -0.75f, 9.0f, -9.0f}));
  net.quantizer("w", "wq", 0.5f, 0, DType::kInt8, {-3, 3});
  net.node("MatMul", {"x", "wq"}, "y");
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"QuantizeLinear", "Clip", "DequantizeLinear", "MatMul"}));
  const OnnxNode& q = net.only("QuantizeLinear");
  EXPECT_EQ(net.values(q.inputs[0]), (Numbers{0.3f, -0.75f, 9.0f, -9.0f}));
  EXPECT_EQ(net.values(net.only("Clip").inputs[1]), (Numbers{-3}));
  EXPECT_EQ(net.values(net.only("Clip").inputs[2]), (Numbers{3}));
}

TEST(ConstantQuantizer, QdqWeightsBelowOpset12ClipInFloat) {
  for (int64_t opset : {10, 11}) {
    Net net;
    net.graph.opset = opset;
    net.options.qdq_weights = true;
    net.input("x", {1, 2});
    net.constant("w", floats({2, 2}, {0.3f, -0.75f, 9.0f, -9.0f}));
    net.quantizer("w", "wq", 0.5f, 0, DType::kInt8, {-3, 3});
    net.node("MatMul", {"x", "wq"}, "y");
    net.output("y");
    net.run();
    EXPECT_EQ(net.ops(), (Ops{"Clip", "QuantizeLinear", "DequantizeLinear", "MatMul"}));
    const auto bounds = clip_bounds(net.graph, net.only("Clip"));
    ASSERT_TRUE(bounds.has_value());
    EXPECT_EQ(*bounds, (std::pair{-1.5, 1.5}));
    EXPECT_EQ(net.only("Clip").attributes.size(), opset == 10 ? 2u : 0u);
  }
}

TEST(WeightView, TransposeIsFoldedIntoTheCodes) {
  Net net;
  net.input("x", {5, 3});
  net.weight("w", {2, 3}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f}, 0);
  net.node("Transpose", {"w"}, "wt", {{"perm", std::vector<int64_t>{1, 0}}});
  net.node("MatMul", {"x", "wt"}, "y");
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"DequantizeLinear", "MatMul"}));
  const OnnxNode& dq = net.only("DequantizeLinear");
  EXPECT_EQ(net.values(dq.inputs[0]), (Numbers{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(dq.int_attribute("axis", -9), 1);
  EXPECT_EQ(net.graph.initializer(dq.inputs[0])->dims, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(net.only("MatMul").inputs[1], dq.outputs[0]);
}

TEST(WeightView, TransposeBeforeGemmBecomesTransB) {
  Net net;
  net.input("x", {5, 3});
  net.weight("w", {2, 3}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f}, 0);
  net.node("Transpose", {"w"}, "wt");
  net.node("Gemm", {"x", "wt"}, "y");
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"DequantizeLinear", "Gemm"}));
  EXPECT_EQ(net.only("Gemm").int_attribute("transB", 0), 1);
  EXPECT_EQ(net.only("Gemm").inputs[1], "w");
}

TEST(WeightView, BlockedTransposeMovesItsScales) {
  Net net;
  net.input("x", {5, 4});
  net.weight("w", {2, 4}, {1, 2, 3, 4, 5, 6, 7, 8}, {1.0f}, 0);
  net.constant("w_s", floats({2, 2}, {1, 2, 3, 4}));
  net.constant("w_z", integers(DType::kInt8, {2, 2}, {0, 0, 0, 0}));
  net.producer("w").attributes = {{"axis", int64_t{1}}, {"block_size", int64_t{2}}};
  net.node("Transpose", {"w"}, "wt", {{"perm", std::vector<int64_t>{1, 0}}});
  net.node("MatMul", {"x", "wt"}, "y");
  net.output("y");
  net.run();
  const OnnxNode& dq = net.only("DequantizeLinear");
  EXPECT_EQ(net.values(dq.inputs[0]), (Numbers{1, 5, 2, 6, 3, 7, 4, 8}));
  EXPECT_EQ(net.values(dq.inputs[1]), (Numbers{1, 3, 2, 4}));
  EXPECT_EQ(dq.int_attribute("axis", -9), 0);
  EXPECT_EQ(dq.int_attribute("block_size", 0), 2);
}

TEST(WeightView, ReshapeKeepsItsChannels) {
  Net net;
  net.input("x", {1, 2, 5, 5});
  net.weight("w", {3, 2}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f, 1.0f}, 0);
  net.constant("shape", TensorData::from<int64_t>(DType::kInt64, {4}, {3, 2, 1, 1}));
  net.node("Reshape", {"w", "shape"}, "w4");
  net.graph.types["w4"] = {DType::kFloat32, true, {3, 2, 1, 1}, {}};
  net.node("Conv", {"x", "w4"}, "y");
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"DequantizeLinear", "Conv"}));
  const OnnxNode& dq = net.only("DequantizeLinear");
  EXPECT_EQ(net.graph.initializer(dq.inputs[0])->dims, (std::vector<int64_t>{3, 2, 1, 1}));
  EXPECT_EQ(dq.int_attribute("axis", -9), 0);
}

TEST(WeightView, ReshapeAcrossChannelsIsLeft) {
  Net net;
  net.input("x", {1, 6});
  net.weight("w", {3, 2}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f, 1.0f}, 0);
  net.constant("shape", TensorData::from<int64_t>(DType::kInt64, {2}, {6, 1}));
  net.node("Reshape", {"w", "shape"}, "w4");
  net.graph.types["w4"] = {DType::kFloat32, true, {6, 1}, {}};
  net.node("MatMul", {"x", "w4"}, "y");
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"DequantizeLinear", "Reshape", "MatMul"}));
}

// A quantised 1x1 Conv of two channels with BatchNormalization behind it.
Net conv_bn(std::vector<float> gamma, const std::vector<int64_t>& codes = {127, -127, 3, 4},
            int64_t opset = 21) {
  Net net;
  net.graph.opset = opset;
  net.input("x", {1, 2, 4, 4});
  net.quantizer("x", "xq", 0.1f, 0);
  net.weight("w", {2, 2, 1, 1}, codes, {0.5f}, 0);
  net.constant("b", floats({2}, {1.0f, 2.0f}));
  net.node("Conv", {"xq", "w", "b"}, "c");
  net.batchnorm("c", "y", std::move(gamma), {10, 20}, {3, 4}, {4, 16});
  net.output("y");
  return net;
}

TEST(BatchNorm, FoldsIntoTheScaleAndTheBias) {
  Net net = conv_bn({1.0f, -2.0f});
  QdqState state{net.graph, net.options, net.notes, {}};
  fold_batchnorm(state);
  const OnnxNode& conv = net.only("Conv");
  EXPECT_EQ(conv.outputs[0], "y");
  const OnnxNode& dq = net.producer(conv.inputs[1]);
  // gamma / sigma = 0.5, -0.5: the second channel's codes are negated.
  EXPECT_EQ(net.values(dq.inputs[0]), (Numbers{127, -127, -3, -4}));
  EXPECT_EQ(net.values(dq.inputs[1]), (Numbers{0.25, 0.25}));
  EXPECT_EQ(dq.int_attribute("axis", -9), 0);
  // beta - mean * f + b * f
  EXPECT_EQ(net.values(conv.inputs[2]), (Numbers{10 - 1.5 + 0.5, 20 + 2 - 1}));
  EXPECT_TRUE(net.notes.empty());
}

TEST(BatchNorm, ZeroGammaLeavesTheBias) {
  Net net = conv_bn({1.0f, 0.0f});
  QdqState state{net.graph, net.options, net.notes, {}};
  fold_batchnorm(state);
  const OnnxNode& conv = net.only("Conv");
  const OnnxNode& dq = net.producer(conv.inputs[1]);
  EXPECT_EQ(net.values(dq.inputs[0]), (Numbers{127, -127, 0, 0}));
  EXPECT_EQ(net.values(dq.inputs[1]), (Numbers{0.25, 0.5}));
  EXPECT_EQ(net.values(conv.inputs[2])[1], 20);
}

TEST(BatchNorm, NegativeGammaNeedsASymmetricRange) {
  Net net = conv_bn({1.0f, -2.0f}, {1, 2, -128, 4});
  net.run();
  net.only("BatchNormalization");
  ASSERT_FALSE(net.notes.empty());
  EXPECT_NE(
      net.notes[0].find("gamma of channel 1 is negative and the weight's range isn't symmetric"),
      std::string::npos)
      << net.notes[0];
}

TEST(BatchNorm, NeedsOpset13) {
  Net net = conv_bn({1.0f, 2.0f}, {1, 2, 3, 4}, 12);
  net.run();
  net.only("BatchNormalization");
  ASSERT_FALSE(net.notes.empty());
  EXPECT_NE(net.notes[0].find("per-channel weight scales need opset 13"), std::string::npos);
}

TEST(BatchNorm, SharedWeightKeepsItsOtherUser) {
  Net net = conv_bn({1.0f, -2.0f});
  net.node("Conv", {"xq", "w"}, "other");
  net.output("other");
  QdqState state{net.graph, net.options, net.notes, {}};
  fold_batchnorm(state);
  EXPECT_EQ(net.producer("other").inputs[1], "w");
  EXPECT_EQ(net.values("w_s"), (Numbers{0.5}));
  EXPECT_EQ(net.values("w_quantized"), (Numbers{127, -127, 3, 4}));
  EXPECT_NE(net.producer("y").inputs[1], "w");
}

TEST(BatchNorm, FoldsIntoFloatWeightsWhenTheyAreRead) {
  Net net;
  net.input("x", {1, 2, 4, 4});
  auto storage = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  net.constant("w", {DType::kFloat32, {2, 2, 1, 1}, {storage, storage->data()}, nullptr});
  net.node("Conv", {"x", "w"}, "c");
  net.batchnorm("c", "y", {1, 2}, {0, 1}, {1, 1}, {4, 16});
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), Ops{"Conv"});
  const OnnxNode& conv = net.only("Conv");
  EXPECT_EQ(conv.inputs[1], "w");
  EXPECT_EQ(net.graph.initializer("w")->data, nullptr);  // no second copy in memory
  EXPECT_EQ(net.values("w"), (Numbers{0.5, 1, 1.5, 2}));
  EXPECT_EQ(net.values(conv.inputs[2]), (Numbers{-0.5, 0.5}));
}

TEST(BatchNorm, ConvTransposeAndGemmKnowTheirChannels) {
  Net net;
  net.input("x", {1, 1, 4, 4});
  net.constant("w", floats({1, 2, 1, 2}, {1, 2, 3, 4}));
  net.node("ConvTranspose", {"x", "w"}, "c");
  net.batchnorm("c", "y", {1, 10}, {0, 0}, {0, 0}, {1, 1});
  net.output("y");
  net.input("m", {1, 2});
  net.constant("v", floats({2, 2}, {1, 2, 3, 4}));
  net.node("Gemm", {"m", "v"}, "g");
  net.batchnorm("g", "z", {1, 10}, {0, 0}, {0, 0}, {1, 1});
  net.output("z");
  net.run();
  EXPECT_EQ(net.values("w"), (Numbers{1, 2, 30, 40}));
  EXPECT_EQ(net.values("v"), (Numbers{1, 20, 3, 40}));
}

TEST(Bias, BecomesInt32AtInputTimesWeightScale) {
  Net net;
  net.input("x", {1, 2, 4, 4});
  net.quantizer("x", "xq", 0.1f, 0);
  net.node("MaxPool", {"xq"}, "p", {{"kernel_shape", std::vector<int64_t>{2, 2}}});
  net.weight("w", {2, 2, 1, 1}, {1, 2, 3, 4}, {0.5f, 0.25f}, 0);
  net.constant("b", floats({2}, {1.0f, 2.0f}));
  net.node("Conv", {"p", "w", "b"}, "c");
  net.quantizer("c", "y", 0.5f, 0);
  net.output("y");
  net.run();
  const OnnxNode& dq = net.producer(net.only("Conv").inputs[2]);
  EXPECT_EQ(dq.op_type, "DequantizeLinear");
  EXPECT_EQ(net.graph.initializer(dq.inputs[0])->dtype, DType::kInt32);
  EXPECT_EQ(net.values(dq.inputs[0]), (Numbers{20, 80}));
  EXPECT_EQ(net.values(dq.inputs[1]), (Numbers{0.1f * 0.5f, 0.1f * 0.25f}));
  EXPECT_EQ(net.values(dq.inputs[2]), (Numbers{0, 0}));
  EXPECT_EQ(dq.int_attribute("axis", -9), 0);
  ASSERT_EQ(net.notes.size(), 1u);
  EXPECT_NE(net.notes[0].find("1 float bias became int32"), std::string::npos);
  EXPECT_NE(net.notes[0].find("output steps, at c/Conv"), std::string::npos);
}

TEST(Bias, OfFloatInputStaysFloat) {
  Net net;
  net.input("x", {1, 2});
  net.weight("w", {2, 2}, {1, 2, 3, 4}, {0.5f}, 0);
  net.constant("b", floats({2}, {1.0f, 2.0f}));
  net.node("Gemm", {"x", "w", "b"}, "y");
  net.output("y");
  net.run();
  EXPECT_EQ(net.only("Gemm").inputs[2], "b");
  EXPECT_TRUE(net.notes.empty());
}

TEST(Bias, OfTheSourceStaysExactAtItsOwnScaleAndIsRequantisedAtAnother) {
  for (const bool same : {true, false}) {
    Net net;
    net.input("x", {1, 2});
    net.quantizer("x", "xq", 0.1f, 0);
    net.weight("w", {2, 2}, {1, 2, 3, 4}, {0.5f}, 0);
    net.weight("b", {2}, {7, -9}, {same ? 0.1f * 0.5f : 0.2f}, 0, DType::kInt32);
    net.node("Gemm", {"xq", "w", "b"}, "y");
    net.output("y");
    net.run();
    const OnnxNode& dq = net.producer(net.only("Gemm").inputs[2]);
    EXPECT_EQ(net.values(dq.inputs[0]), same ? (Numbers{7, -9}) : (Numbers{28, -36}));
    EXPECT_EQ(net.values(dq.inputs[1]), (Numbers{0.1f * 0.5f}));
    EXPECT_EQ(net.notes.empty(), same);
  }
}

TEST(Bias, DeadChannelGetsALargerScale) {
  Net net;
  net.input("x", {1, 2});
  net.quantizer("x", "xq", 1e-3f, 0);
  net.weight("w", {2, 2}, {1, 2, 0, 0}, {0.5f, 1e-10f}, 0);
  net.constant("b", floats({2}, {1.0f, 2.0f}));
  net.node("Gemm", {"xq", "w", "b"}, "y", {{"transB", int64_t{1}}});
  net.output("y");
  net.run();
  const OnnxNode& gemm = net.only("Gemm");
  const Numbers weight_scale = net.values(net.producer(gemm.inputs[1]).inputs[1]);
  const OnnxNode& bias = net.producer(gemm.inputs[2]);
  const Numbers codes = net.values(bias.inputs[0]);
  const Numbers scale = net.values(bias.inputs[1]);
  EXPECT_EQ(weight_scale[0], 0.5);
  EXPECT_GT(weight_scale[1], 1e-10f);
  EXPECT_EQ(scale[1], 1e-3f * static_cast<float>(weight_scale[1]));
  EXPECT_NEAR(codes[1] * scale[1], 2.0, 1e-6);
}

TEST(Bias, LiveChannelPastInt32IsRefused) {
  Net net;
  net.input("x", {1, 2});
  net.quantizer("x", "xq", 1e-3f, 0);
  net.weight("w", {2, 2}, {1, 2, 0, 1}, {0.5f, 1e-10f}, 0);
  net.constant("b", floats({2}, {1.0f, 2.0f}));
  net.node("Gemm", {"xq", "w", "b"}, "y", {{"transB", int64_t{1}}}).torch_op = "aten::linear";
  net.output("y");
  try {
    net.run();
    FAIL() << "not refused";
  } catch (const UnsupportedOp& refusal) {
    EXPECT_EQ(refusal.details().op, "aten::linear");
    EXPECT_EQ(refusal.details().argument, "bias");
    EXPECT_EQ(refusal.details().value, "channel 1");
    EXPECT_EQ(refusal.details().where, "y/Gemm");
    EXPECT_NE(std::string(refusal.what()).find("past 2^31"), std::string::npos);
  }
}

TEST(Relu, BeforeAnUnsignedQuantiserIsDropped) {
  Net net;
  net.input("x", {4});
  net.node("Relu", {"x"}, "r");
  net.quantizer("r", "y", 0.5f, 0);
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"QuantizeLinear", "DequantizeLinear"}));
  EXPECT_EQ(net.only("QuantizeLinear").inputs[0], "x");
}

TEST(Relu, BecomesAClipOfTheCodesElsewhere) {
  Net net;
  net.input("x", {4});
  net.node("Relu", {"x"}, "r");
  net.quantizer("r", "y", 0.5f, 128);
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"QuantizeLinear", "Clip", "DequantizeLinear"}));
  EXPECT_EQ(net.values(net.only("Clip").inputs[1]), (Numbers{128}));
  EXPECT_EQ(net.values(net.only("Clip").inputs[2]), (Numbers{255}));
}

TEST(Relu, StaysWithSignedStorage) {
  Net net;
  net.options.signed_activations = true;
  net.input("x", {4});
  net.node("Relu", {"x"}, "r");
  net.quantizer("r", "y", 0.5f, 0, DType::kInt8);
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"Relu", "QuantizeLinear", "DequantizeLinear"}));
}

TEST(Relu, WithAnotherUserStays) {
  Net net;
  net.input("x", {4});
  net.node("Relu", {"x"}, "r");
  net.quantizer("r", "y", 0.5f, 0);
  net.output("y");
  net.output("r");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"Relu", "QuantizeLinear", "DequantizeLinear"}));
}

TEST(Relu6, IsDroppedWhereTheCodesEndBeforeSix) {
  struct Row {
    float scale;
    Ops ops;
    double last;
  };
  const Row rows[] = {{0.02f, {"QuantizeLinear", "DequantizeLinear"}, 255},
                      {6.0f / 255, {"QuantizeLinear", "DequantizeLinear"}, 255},
                      {0.05f, {"QuantizeLinear", "Clip", "DequantizeLinear"}, 120}};
  for (const Row& row : rows) {
    Net net;
    net.input("x", {4});
    net.constant("zero", floats({}, {0}));
    net.constant("six", floats({}, {6}));
    net.node("Clip", {"x", "zero", "six"}, "r");
    net.quantizer("r", "y", row.scale, 0);
    net.output("y");
    net.run();
    EXPECT_EQ(net.ops(), row.ops) << row.scale;
    if (row.last < 255) {
      EXPECT_EQ(net.values(net.only("Clip").inputs[2]), Numbers{row.last});
    }
  }
}

TEST(FloatClip, IsMovedToTheCodesOnlyFromOpset12) {
  Net net;
  net.graph.opset = 11;
  net.input("x", {4});
  net.constant("zero", floats({}, {0}));
  net.constant("six", floats({}, {6}));
  net.node("Clip", {"x", "zero", "six"}, "r");
  net.quantizer("r", "y", 0.05f, 0);
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"Clip", "QuantizeLinear", "DequantizeLinear"}));
}

TEST(Codes, ClipOfTheFullRangeIsDropped) {
  Net net;
  net.input("x", {4});
  net.quantizer("x", "y", 0.5f, 3, DType::kUInt8, {0, 255});
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"QuantizeLinear", "DequantizeLinear"}));
}

TEST(Codes, SignedPairsAreStoredUnsigned) {
  Net net;
  net.input("x", {4});
  net.quantizer("x", "y", 0.5f, -1, DType::kInt8, {-8, 7});
  net.quantizer("x", "z", 0.5f, 0, DType::kInt8);
  net.output("y");
  net.output("z");
  net.run();
  const OnnxNode& clipped = net.producer("y");
  EXPECT_EQ(net.graph.initializer(clipped.inputs[2])->dtype, DType::kUInt8);
  EXPECT_EQ(net.values(clipped.inputs[2]), (Numbers{7}));
  EXPECT_EQ(net.values(net.only("Clip").inputs[1]), (Numbers{0}));
  EXPECT_EQ(net.values(net.only("Clip").inputs[2]), (Numbers{15}));
  EXPECT_EQ(net.values(net.producer("z").inputs[2]), (Numbers{128}));
}

TEST(Codes, ThatAreAnOutputKeepTheirType) {
  Net net;
  net.input("x", {4});
  net.quantizer("x", "y", 0.5f, 0, DType::kInt8);
  net.output("y");
  net.output("y_q");
  net.run();
  EXPECT_EQ(net.graph.initializer(net.producer("y").inputs[2])->dtype, DType::kInt8);
}

TEST(Codes, CastBetweenQAndDqIsDropped) {
  Net net;
  net.input("x", {4});
  net.constant("s", floats({}, {0.5f}));
  net.constant("z8", integers(DType::kUInt8, {}, {5}));
  net.constant("z32", integers(DType::kInt32, {}, {5}));
  net.node("QuantizeLinear", {"x", "s", "z8"}, "q");
  net.node("Cast", {"q"}, "q32", {{"to", int64_t{6}}});
  net.graph.types["q32"] = {DType::kInt32, true, {4}, {}};
  net.node("DequantizeLinear", {"q32", "s", "z32"}, "y");
  net.output("y");
  net.run();
  EXPECT_EQ(net.ops(), (Ops{"QuantizeLinear", "DequantizeLinear"}));
  EXPECT_EQ(net.graph.initializer(net.producer("y").inputs[2])->dtype, DType::kUInt8);
}

TEST(Codes, Int32WithAZeroPointIsRefused) {
  Net net;
  net.input("x", {4});
  net.constant("s", floats({}, {0.5f}));
  net.constant("z", integers(DType::kInt32, {}, {5}));
  net.node("Cast", {"x"}, "q", {{"to", int64_t{6}}});
  net.graph.types["q"] = {DType::kInt32, true, {4}, {}};
  net.node("DequantizeLinear", {"q", "s", "z"}, "y");
  net.output("y");
  try {
    net.run();
    FAIL() << "not refused";
  } catch (const UnsupportedOp& refusal) {
    EXPECT_EQ(refusal.details().value, "5");
    EXPECT_NE(std::string(refusal.what()).find("int32 codes with zero point 0 only"),
              std::string::npos);
  }
}

TEST(Parameters, EveryPairOwnsItsOwn) {
  Net net;
  net.input("x", {4});
  net.constant("s", floats({}, {0.5f}));
  net.constant("z", integers(DType::kUInt8, {}, {0}));
  net.node("QuantizeLinear", {"x", "s", "z"}, "q1");
  net.node("DequantizeLinear", {"q1", "s", "z"}, "y1");
  net.node("Neg", {"y1"}, "n");
  net.node("QuantizeLinear", {"n", "s", "z"}, "q2");
  net.node("DequantizeLinear", {"q2", "s", "z"}, "y2");
  net.node("Mul", {"y2", "s"}, "y3");
  net.output("y3");
  net.run();
  EXPECT_EQ(net.producer("q1").inputs[1], net.producer("y1").inputs[1]);
  EXPECT_NE(net.producer("q1").inputs[1], net.producer("q2").inputs[1]);
  EXPECT_NE(net.producer("q1").inputs[2], net.producer("q2").inputs[2]);
  EXPECT_NE(net.producer("q1").inputs[1], net.producer("y3").inputs[1]);
  EXPECT_NE(net.producer("q2").inputs[1], net.producer("y3").inputs[1]);
}

TEST(Bias, OfALinearOnThreeDimensionsIsTheAddBehindItsMatMul) {
  Net net;
  net.input("x", {1, 4, 2});
  net.quantizer("x", "xq", 0.1f, 0);
  net.weight("w", {2, 3}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f, 1.0f}, 1);
  net.node("MatMul", {"xq", "w"}, "m");
  net.constant("b", floats({3}, {1.0f, 2.0f, -3.0f}));
  net.node("Add", {"m", "b"}, "y");
  net.output("y");
  net.run();
  const OnnxNode& dq = net.producer(net.only("Add").inputs[1]);
  EXPECT_EQ(net.values(dq.inputs[0]), (Numbers{20, 80, -30}));
  EXPECT_EQ(net.values(dq.inputs[1]), (Numbers{0.1f * 0.5f, 0.1f * 0.25f, 0.1f * 1.0f}));
}

TEST(Codes, SignedOnesBeforeMaxPoolAreStoredUnsignedFromOpset21) {
  for (int64_t opset : {20, 21}) {
    Net net;
    net.graph.opset = opset;
    net.options.signed_activations = true;
    net.input("x", {1, 1, 4, 4});
    net.quantizer("x", "xq", 0.1f, 0, DType::kInt8);
    net.node("MaxPool", {"xq"}, "p", {{"kernel_shape", std::vector<int64_t>{2, 2}}});
    net.node("Neg", {"p"}, "n");
    net.quantizer("n", "y", 0.1f, 0, DType::kInt8);
    net.output("y");
    net.run();
    const bool moved = opset == 21;
    EXPECT_EQ(net.graph.initializer(net.producer("xq").inputs[2])->dtype,
              moved ? DType::kUInt8 : DType::kInt8);
    EXPECT_EQ(net.graph.initializer(net.producer("y").inputs[2])->dtype, DType::kInt8);
    ASSERT_EQ(net.notes.size(), moved ? 1u : 0u);
    if (moved) {
      EXPECT_NE(net.notes[0].find("stored as uint8"), std::string::npos);
    }
  }
}

TEST(Names, AreThoseOfTheSourceAfterRewrites) {
  Net net = conv_bn({1.0f, -2.0f});
  net.run();
  const OnnxNode& conv = net.only("Conv");
  const OnnxNode& dq = net.producer(conv.inputs[1]);
  EXPECT_EQ(dq.inputs, (std::vector<std::string>{"w_quantized", "w_scale", "w_zero_point"}));
}

TEST(UInt8Weights, AreShiftedBy128WhereTheyCanSaturate) {
  Net net;
  net.options.uint8_weights = true;
  net.input("x", {1, 2});
  net.weight("wide", {2, 2}, {-127, 2, 3, 127}, {0.5f, 0.25f}, 1);
  net.weight("narrow", {2, 2}, {-7, 2, 3, 7}, {0.5f}, 0);
  net.node("MatMul", {"x", "wide"}, "y");
  net.node("MatMul", {"y", "narrow"}, "z");
  net.output("z");
  net.run();
  const OnnxNode& wide = net.producer(net.producer("y").inputs[1]);
  EXPECT_EQ(net.graph.initializer(wide.inputs[0])->dtype, DType::kUInt8);
  EXPECT_EQ(net.values(wide.inputs[0]), (Numbers{1, 130, 131, 255}));
  EXPECT_EQ(net.values(wide.inputs[2]), (Numbers{128, 128}));
  const OnnxNode& narrow = net.producer(net.producer("z").inputs[1]);
  EXPECT_EQ(net.graph.initializer(narrow.inputs[0])->dtype, DType::kInt8);
}

TEST(Saturation, IsNotedForWideWeightsBehindWideActivations) {
  struct Row {
    std::vector<int64_t> codes;
    std::vector<int64_t> clip;
    bool risk;
  };
  const Row rows[] = {{{-127, 1, 1, 1}, {}, true},
                      {{-127, 1, 1, 1}, {0, 127}, false},
                      {{-64, 1, 1, 64}, {}, false},
                      {{65, 1, 1, 1}, {0, 128}, true}};
  for (const Row& row : rows) {
    Net net;
    net.input("x", {1, 2});
    net.quantizer("x", "xq", 0.1f, 0, DType::kUInt8, row.clip);
    net.weight("w", {2, 2}, row.codes, {0.5f}, 0);
    net.node("MatMul", {"xq", "w"}, "y");
    net.output("y");
    net.run();
    const bool noted = !net.notes.empty() && net.notes[0].find("may saturate") != std::string::npos;
    EXPECT_EQ(noted, row.risk);
  }
}

TEST(CodeArithmetic, RecoversTheCodesOfAten) {
  QuantParams params;
  params.scale = {0.1f, 0.3f};
  params.zero_point = {2, -1};
  params.dims = {2};
  params.axis = 0;
  params.storage = DType::kInt8;
  std::vector<float> y;
  std::vector<int64_t> expected;
  for (size_t c = 0; c < 2; ++c) {
    for (int64_t code = -128; code <= 127; ++code) {
      expected.push_back(code);
      y.push_back(static_cast<float>(code - params.zero_point[c]) * params.scale[c]);
    }
  }
  const auto codes = recover_codes(floats({2, 256}, y), params, {-128, 127});
  ASSERT_TRUE(codes.has_value());
  EXPECT_EQ(numbers(*codes), Numbers(expected.begin(), expected.end()));
  y[5] += 0.01f;  // off the grid
  EXPECT_FALSE(recover_codes(floats({2, 256}, y), params, {-128, 127}).has_value());
  y[5] = kInfinity;
  EXPECT_FALSE(recover_codes(floats({2, 256}, y), params, {-128, 127}).has_value());
}

TEST(CodeArithmetic, QuantisesBlocksAndNarrowTypes) {
  QuantParams params;
  params.scale = {1, 2, 4, 8};
  params.zero_point = {0, 0, 0, 0};
  params.dims = {2, 2};
  params.axis = 1;
  params.block_size = 2;
  params.storage = DType::kInt8;
  const TensorData codes =
      quantize_constant(floats({2, 3}, {8, 8, 8, 8, 8, 8}), params, {-128, 127});
  EXPECT_EQ(numbers(codes), (Numbers{8, 8, 4, 2, 2, 1}));
  QuantParams plain;
  plain.scale = {0.5f};
  plain.zero_point = {0};
  plain.storage = DType::kInt8;
  const TensorData half = TensorData::from<uint16_t>(DType::kFloat16, {2}, {0x3c00, 0xc000});
  EXPECT_EQ(numbers(quantize_constant(half, plain, {-128, 127})), (Numbers{2, -4}));
  const TensorData bfloat = TensorData::from<uint16_t>(DType::kBFloat16, {2}, {0x3f80, 0xc000});
  EXPECT_EQ(numbers(quantize_constant(bfloat, plain, {-128, 127})), (Numbers{2, -4}));
}

}  // namespace
}  // namespace qcdq
