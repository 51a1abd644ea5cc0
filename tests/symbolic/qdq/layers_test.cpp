// Tests of symbolic/qdq/batchnorm.cpp, qdq/bias.cpp and note_saturation: layers with quantised
// weights.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/symbolic/qdq/qdq_net.h"

namespace qcdq::testing {
namespace {

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

TEST(BatchNorm, AddsItsEpsilonToTheVariance) {
  for (const bool given : {true, false}) {
    Net net = conv_bn({1.0f, 1.0f});
    OnnxNode& bn = net.producer("y");
    bn.attributes.clear();
    if (given) bn.set("epsilon", 12.0f);
    QdqState state{net.graph, net.options, net.notes, {}};
    fold_batchnorm(state);
    const Numbers scale = net.values(net.producer(net.only("Conv").inputs[1]).inputs[1]);
    EXPECT_EQ(scale[0], static_cast<float>(0.5 / std::sqrt(4 + (given ? 12 : 1e-5)))) << given;
  }
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
  Net net({1, 2, 4, 4});
  auto storage = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  net.constant("w", {DType::kFloat32, {2, 2, 1, 1}, {storage, storage->data()}, nullptr});
  net.node("Conv", {"x", "w"}, "c");
  net.batchnorm("c", "y", {1, 2}, {0, 1}, {1, 1}, {4, 16});
  net.run({"y"});
  EXPECT_EQ(net.ops(), Ops{"Conv"});
  const OnnxNode& conv = net.only("Conv");
  EXPECT_EQ(conv.inputs[1], "w");
  EXPECT_EQ(net.graph.initializer("w")->data, nullptr);  // no second copy in memory
  EXPECT_EQ(net.values("w"), (Numbers{0.5, 1, 1.5, 2}));
  EXPECT_EQ(net.values(conv.inputs[2]), (Numbers{-0.5, 0.5}));
}

TEST(BatchNorm, ConvTransposeAndGemmKnowTheirChannels) {
  Net net({1, 1, 4, 4});
  net.constant("w", floats({1, 2, 1, 2}, {1, 2, 3, 4}));
  net.node("ConvTranspose", {"x", "w"}, "c");
  net.batchnorm("c", "y", {1, 10}, {0, 0}, {0, 0}, {1, 1});
  net.output("y");
  net.input("m", {1, 2});
  net.constant("v", floats({2, 2}, {1, 2, 3, 4}));
  net.node("Gemm", {"m", "v"}, "g");
  net.batchnorm("g", "z", {1, 10}, {0, 0}, {0, 0}, {1, 1});
  net.run({"z"});
  EXPECT_EQ(net.values("w"), (Numbers{1, 2, 30, 40}));
  EXPECT_EQ(net.values("v"), (Numbers{1, 20, 3, 40}));
}

TEST(Bias, BecomesInt32AtInputTimesWeightScale) {
  Net net({1, 2, 4, 4});
  net.quantizer("x", "xq", 0.1f, 0);
  net.node("MaxPool", {"xq"}, "p", {{"kernel_shape", std::vector<int64_t>{2, 2}}});
  net.weight("w", {2, 2, 1, 1}, {1, 2, 3, 4}, {0.5f, 0.25f}, 0);
  net.constant("b", floats({2}, {1.0f, 2.0f}));
  net.node("Conv", {"p", "w", "b"}, "c");
  net.quantizer("c", "y", 0.5f, 0);
  net.run({"y"});
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
  const std::vector<std::pair<std::string, std::string>> floats_for_verify = {
      {kRoundedBiases, dq.outputs[0] + "\t1 2\n"}};
  EXPECT_EQ(net.graph.metadata, floats_for_verify);
}

TEST(Bias, OfFloatInputStaysFloat) {
  Net net({1, 2});
  net.weight("w", {2, 2}, {1, 2, 3, 4}, {0.5f}, 0);
  net.constant("b", floats({2}, {1.0f, 2.0f}));
  net.node("Gemm", {"x", "w", "b"}, "y");
  net.run({"y"});
  EXPECT_EQ(net.only("Gemm").inputs[2], "b");
  EXPECT_TRUE(net.notes.empty());
}

TEST(Bias, OfAFloatLayerBetweenQuantizersIsNotedAtOpset10) {
  struct Row {
    int64_t opset;
    bool bias;
    bool output_quantizer;
    bool noted;
  };
  for (const Row& row : {Row{10, true, true, true}, Row{10, false, true, false},
                         Row{10, true, false, false}, Row{11, true, true, false}}) {
    Net net({1, 2, 4, 4});
    net.graph.opset = row.opset;
    net.quantizer("x", "xq", 0.1f, 0);
    net.constant("w", floats({2, 2, 1, 1}, {1, 2, 3, 4}));
    net.constant("b", floats({2}, {1.0f, 2.0f}));
    if (row.bias) {
      net.node("Conv", {"xq", "w", "b"}, "c");
    } else {
      net.node("Conv", {"xq", "w"}, "c");
    }
    net.node("Relu", {"c"}, "r");
    if (row.output_quantizer) net.quantizer("r", "y", 0.5f, 128);
    net.run({row.output_quantizer ? "y" : "r"});
    const bool noted = std::any_of(net.notes.begin(), net.notes.end(), [](const std::string& note) {
      return note.find("behind the float bias of 1 layer between quantisers (c/Conv)") !=
             std::string::npos;
    });
    EXPECT_EQ(noted, row.noted) << row.opset << row.bias << row.output_quantizer;
  }
}

TEST(Bias, OfTheSourceStaysExactAtItsOwnScaleAndIsRequantizedAtAnother) {
  struct Row {
    float scale;
    Numbers codes;
  };
  const float own = 0.1f * 0.5f;
  const Row rows[] = {{own, {700, -900}},
                      {own * (1 + 1e-7f), {700, -900}},  // the source's way to multiply
                      {own * 1.01f, {707, -909}},
                      {0.2f, {2800, -3600}}};
  for (const Row& row : rows) {
    Net net({1, 2});
    net.quantizer("x", "xq", 0.1f, 0);
    net.weight("w", {2, 2}, {1, 2, 3, 4}, {0.5f}, 0);
    net.weight("b", {2}, {700, -900}, {row.scale}, 0, DType::kInt32);
    net.node("Gemm", {"xq", "w", "b"}, "y");
    net.run({"y"});
    const OnnxNode& dq = net.producer(net.only("Gemm").inputs[2]);
    EXPECT_EQ(net.values(dq.inputs[0]), row.codes);
    EXPECT_EQ(net.values(dq.inputs[1]), (Numbers{own}));
    EXPECT_EQ(net.notes.empty(), row.scale < own * 1.001f);
  }
}

TEST(Bias, FollowsAWeightAxisCountedFromTheEnd) {
  Net net({1, 2});
  net.quantizer("x", "xq", 0.1f, 0);
  net.weight("w", {2, 2}, {1, 2, 3, 4}, {0.5f, 0.25f}, -1);
  net.constant("b", floats({2}, {1.0f, 2.0f}));
  net.node("Gemm", {"xq", "w", "b"}, "y");
  net.run({"y"});
  EXPECT_EQ(net.values(net.producer(net.only("Gemm").inputs[2]).inputs[0]), (Numbers{20, 80}));
}

TEST(Bias, StaysFloatInAGemmThatScales) {
  for (const char* name : {"alpha", "beta"}) {
    Net net({1, 2});
    net.quantizer("x", "xq", 0.1f, 0);
    net.weight("w", {2, 2}, {1, 2, 3, 4}, {0.5f}, 0);
    net.constant("b", floats({2}, {1.0f, 2.0f}));
    net.node("Gemm", {"xq", "w", "b"}, "y", {{name, 2.0f}});
    net.run({"y"});
    EXPECT_EQ(net.only("Gemm").inputs[2], "b") << name;
  }
}

TEST(Bias, DeadChannelGetsALargerScale) {
  Net net({1, 2});
  net.quantizer("x", "xq", 1e-3f, 0);
  net.weight("w", {2, 2}, {1, 2, 0, 0}, {0.5f, 1e-10f}, 0);
  net.constant("b", floats({2}, {1.0f, 2.0f}));
  net.node("Gemm", {"xq", "w", "b"}, "y", {{"transB", int64_t{1}}});
  net.run({"y"});
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
  Net net({1, 2});
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

TEST(Bias, OfALinearOnThreeDimensionsIsTheAddBehindItsMatMul) {
  Net net({1, 4, 2});
  net.quantizer("x", "xq", 0.1f, 0);
  net.weight("w", {2, 3}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f, 1.0f}, 1);
  net.node("MatMul", {"xq", "w"}, "m");
  net.constant("b", floats({3}, {1.0f, 2.0f, -3.0f}));
  net.node("Add", {"m", "b"}, "y");
  net.run({"y"});
  const OnnxNode& dq = net.producer(net.only("Add").inputs[1]);
  EXPECT_EQ(net.values(dq.inputs[0]), (Numbers{20, 80, -30}));
  EXPECT_EQ(net.values(dq.inputs[1]), (Numbers{0.1f * 0.5f, 0.1f * 0.25f, 0.1f * 1.0f}));
}

TEST(Names, AreThoseOfTheSourceAfterRewrites) {
  Net net = conv_bn({1.0f, -2.0f});
  net.run();
  const OnnxNode& conv = net.only("Conv");
  const OnnxNode& dq = net.producer(conv.inputs[1]);
  EXPECT_EQ(dq.inputs, (std::vector<std::string>{"w_quantized", "w_scale", "w_zero_point"}));
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
    Net net({1, 2});
    net.quantizer("x", "xq", 0.1f, 0, DType::kUInt8, row.clip);
    net.weight("w", {2, 2}, row.codes, {0.5f}, 0);
    net.node("MatMul", {"xq", "w"}, "y");
    net.run({"y"});
    const bool noted = !net.notes.empty() && net.notes[0].find("may saturate") != std::string::npos;
    EXPECT_EQ(noted, row.risk);
  }
}

}  // namespace
}  // namespace qcdq::testing
