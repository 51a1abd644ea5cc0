// Tests of symbolic/qdq/weights.cpp, qdq/activations.cpp and quantizer/codes.cpp: what they make of
// hand-built graphs, and what is refused. Layers with BatchNormalization and biases are in
// qdq_layers_test.cpp.
#include <gtest/gtest.h>

#include <limits>

#include "tests/symbolic/qdq/qdq_net.h"

namespace qcdq::testing {
namespace {

TEST(ConstantQuantizer, BecomesIntegerCodes) {
  Net net({1, 2});
  net.constant("w", floats({2, 2}, {0.25f, -0.75f, 9.0f, -9.0f}));
  net.quantizer("w", "wq", 0.5f, 0, DType::kInt8, {-3, 3});
  net.node("MatMul", {"x", "wq"}, "y");
  net.run({"y"});
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
  net.run({"y"});
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
    net.run({"y"});
    EXPECT_EQ(net.ops(), (Ops{"Clip", "QuantizeLinear", "DequantizeLinear", "MatMul"}));
    const auto bounds = clip_bounds(net.graph, net.only("Clip"));
    ASSERT_TRUE(bounds.has_value());
    EXPECT_EQ(*bounds, (std::pair{-1.5, 1.5}));
    EXPECT_EQ(net.only("Clip").attributes.size(), opset == 10 ? 2u : 0u);
  }
}

TEST(WeightView, TransposeIsFoldedIntoTheCodes) {
  Net net({5, 3});
  net.weight("w", {2, 3}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f}, 0);
  net.node("Transpose", {"w"}, "wt", {{"perm", std::vector<int64_t>{1, 0}}});
  net.node("MatMul", {"x", "wt"}, "y");
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"DequantizeLinear", "MatMul"}));
  const OnnxNode& dq = net.only("DequantizeLinear");
  EXPECT_EQ(net.values(dq.inputs[0]), (Numbers{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(dq.int_attribute("axis", -9), 1);
  EXPECT_EQ(net.graph.initializer(dq.inputs[0])->dims, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(net.only("MatMul").inputs[1], dq.outputs[0]);
}

TEST(WeightView, TransposeBeforeGemmBecomesTransB) {
  Net net({5, 3});
  net.weight("w", {2, 3}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f}, 0);
  net.node("Transpose", {"w"}, "wt");
  net.node("Gemm", {"x", "wt"}, "y");
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"DequantizeLinear", "Gemm"}));
  EXPECT_EQ(net.only("Gemm").int_attribute("transB", 0), 1);
  EXPECT_EQ(net.only("Gemm").inputs[1], "w");
}

TEST(WeightView, BlockedTransposeMovesItsScales) {
  Net net({5, 4});
  net.weight("w", {2, 4}, {1, 2, 3, 4, 5, 6, 7, 8}, {1.0f}, 0);
  net.constant("w_s", floats({2, 2}, {1, 2, 3, 4}));
  net.constant("w_z", pack_integers(DType::kInt8, {2, 2}, {0, 0, 0, 0}));
  net.producer("w").attributes = {{"axis", int64_t{1}}, {"block_size", int64_t{2}}};
  net.node("Transpose", {"w"}, "wt", {{"perm", std::vector<int64_t>{1, 0}}});
  net.node("MatMul", {"x", "wt"}, "y");
  net.run({"y"});
  const OnnxNode& dq = net.only("DequantizeLinear");
  EXPECT_EQ(net.values(dq.inputs[0]), (Numbers{1, 5, 2, 6, 3, 7, 4, 8}));
  EXPECT_EQ(net.values(dq.inputs[1]), (Numbers{1, 3, 2, 4}));
  EXPECT_EQ(dq.int_attribute("axis", -9), 0);
  EXPECT_EQ(dq.int_attribute("block_size", 0), 2);
}

TEST(WeightView, ReshapeKeepsItsChannels) {
  Net net({1, 2, 5, 5});
  net.weight("w", {3, 2}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f, 1.0f}, 0);
  net.constant("shape", TensorData::from<int64_t>(DType::kInt64, {4}, {3, 2, 1, 1}));
  net.node("Reshape", {"w", "shape"}, "w4");
  net.graph.types["w4"] = {DType::kFloat32, true, {3, 2, 1, 1}, {}};
  net.node("Conv", {"x", "w4"}, "y");
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"DequantizeLinear", "Conv"}));
  const OnnxNode& dq = net.only("DequantizeLinear");
  EXPECT_EQ(net.graph.initializer(dq.inputs[0])->dims, (std::vector<int64_t>{3, 2, 1, 1}));
  EXPECT_EQ(dq.int_attribute("axis", -9), 0);
}

TEST(WeightView, ReshapeAcrossChannelsIsLeft) {
  Net net({1, 6});
  net.weight("w", {3, 2}, {1, 2, 3, 4, 5, 6}, {0.5f, 0.25f, 1.0f}, 0);
  net.constant("shape", TensorData::from<int64_t>(DType::kInt64, {2}, {6, 1}));
  net.node("Reshape", {"w", "shape"}, "w4");
  net.graph.types["w4"] = {DType::kFloat32, true, {6, 1}, {}};
  net.node("MatMul", {"x", "w4"}, "y");
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"DequantizeLinear", "Reshape", "MatMul"}));
}

TEST(Relu, BeforeAnUnsignedQuantizerIsDropped) {
  Net net({4});
  net.node("Relu", {"x"}, "r");
  net.quantizer("r", "y", 0.5f, 0);
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"QuantizeLinear", "DequantizeLinear"}));
  EXPECT_EQ(net.only("QuantizeLinear").inputs[0], "x");
}

TEST(Relu, BecomesAClipOfTheCodesElsewhere) {
  Net net({4});
  net.node("Relu", {"x"}, "r");
  net.quantizer("r", "y", 0.5f, 128);
  net.run({"y"});
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
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"Relu", "QuantizeLinear", "DequantizeLinear"}));
}

TEST(Relu, StaysWhereItsCodesDifferByChannel) {
  Net net({1, 2});
  net.node("Relu", {"x"}, "r");
  net.quantizer("r", "y", 0.5f, 0);
  net.constant("y_s", floats({2}, {0.5f, 0.5f}));
  net.constant("y_z", pack_integers(DType::kUInt8, {2}, {0, 3}));
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"Relu", "QuantizeLinear", "DequantizeLinear"}));
}

TEST(Relu, WithAnotherUserStays) {
  Net net({4});
  net.node("Relu", {"x"}, "r");
  net.quantizer("r", "y", 0.5f, 0);
  net.run({"y", "r"});
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
    Net net({4});
    net.constant("zero", floats({}, {0}));
    net.constant("six", floats({}, {6}));
    net.node("Clip", {"x", "zero", "six"}, "r");
    net.quantizer("r", "y", row.scale, 0);
    net.run({"y"});
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
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"Clip", "QuantizeLinear", "DequantizeLinear"}));
}

TEST(Codes, ClipOfTheFullRangeIsDropped) {
  Net net({4});
  net.quantizer("x", "y", 0.5f, 3, DType::kUInt8, {0, 255});
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"QuantizeLinear", "DequantizeLinear"}));
}

TEST(Codes, SignedPairsAreStoredUnsigned) {
  Net net({4});
  net.quantizer("x", "y", 0.5f, -1, DType::kInt8, {-8, 7});
  net.quantizer("x", "z", 0.5f, 0, DType::kInt8);
  net.run({"y", "z"});
  const OnnxNode& clipped = net.producer("y");
  EXPECT_EQ(net.graph.initializer(clipped.inputs[2])->dtype, DType::kUInt8);
  EXPECT_EQ(net.values(clipped.inputs[2]), (Numbers{7}));
  EXPECT_EQ(net.values(net.only("Clip").inputs[1]), (Numbers{0}));
  EXPECT_EQ(net.values(net.only("Clip").inputs[2]), (Numbers{15}));
  EXPECT_EQ(net.values(net.producer("z").inputs[2]), (Numbers{128}));
}

TEST(Codes, ThatAreAnOutputKeepTheirType) {
  Net net({4});
  net.quantizer("x", "y", 0.5f, 0, DType::kInt8);
  net.run({"y", "y_q"});
  EXPECT_EQ(net.graph.initializer(net.producer("y").inputs[2])->dtype, DType::kInt8);
}

TEST(Codes, CastBetweenQAndDqIsDropped) {
  Net net({4});
  net.constant("s", floats({}, {0.5f}));
  net.constant("z8", pack_integers(DType::kUInt8, {}, {5}));
  net.constant("z32", pack_integers(DType::kInt32, {}, {5}));
  net.node("QuantizeLinear", {"x", "s", "z8"}, "q");
  net.node("Cast", {"q"}, "q32", {{"to", int64_t{6}}});
  net.graph.types["q32"] = {DType::kInt32, true, {4}, {}};
  net.node("DequantizeLinear", {"q32", "s", "z32"}, "y");
  net.run({"y"});
  EXPECT_EQ(net.ops(), (Ops{"QuantizeLinear", "DequantizeLinear"}));
  EXPECT_EQ(net.graph.initializer(net.producer("y").inputs[2])->dtype, DType::kUInt8);
}

TEST(Codes, Int32WithAZeroPointIsRefused) {
  Net net({4});
  net.constant("s", floats({}, {0.5f}));
  net.constant("z", pack_integers(DType::kInt32, {}, {5}));
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
  Net net({4});
  net.constant("s", floats({}, {0.5f}));
  net.constant("z", pack_integers(DType::kUInt8, {}, {0}));
  net.node("QuantizeLinear", {"x", "s", "z"}, "q1");
  net.node("DequantizeLinear", {"q1", "s", "z"}, "y1");
  net.node("Neg", {"y1"}, "n");
  net.node("QuantizeLinear", {"n", "s", "z"}, "q2");
  net.node("DequantizeLinear", {"q2", "s", "z"}, "y2");
  net.node("Mul", {"y2", "s"}, "y3");
  net.run({"y3"});
  EXPECT_EQ(net.producer("q1").inputs[1], net.producer("y1").inputs[1]);
  EXPECT_NE(net.producer("q1").inputs[1], net.producer("q2").inputs[1]);
  EXPECT_NE(net.producer("q1").inputs[2], net.producer("q2").inputs[2]);
  EXPECT_NE(net.producer("q1").inputs[1], net.producer("y3").inputs[1]);
  EXPECT_NE(net.producer("q2").inputs[1], net.producer("y3").inputs[1]);
}

TEST(Codes, StaySignedWhereTheirZeroPointFitsNoUInt8) {
  for (const int64_t zero_point : {-100, -128}) {  // the codes move up by 100
    Net net({4});
    net.quantizer("x", "y", 0.5f, zero_point, DType::kInt8, {-100, 100});
    net.run({"y"});
    const TensorData& stored = *net.graph.initializer(net.only("QuantizeLinear").inputs[2]);
    EXPECT_EQ(stored.dtype, zero_point == -100 ? DType::kUInt8 : DType::kInt8);
  }
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
    net.run({"y"});
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

TEST(UInt8Weights, AreShiftedBy128WhereTheyCanSaturate) {
  Net net;
  net.options.uint8_weights = true;
  net.input("x", {1, 2});
  net.weight("wide", {2, 2}, {-127, 2, 3, 127}, {0.5f, 0.25f}, 1);
  net.weight("narrow", {2, 2}, {-7, 2, 3, 7}, {0.5f}, 0);
  net.node("MatMul", {"x", "wide"}, "y");
  net.node("MatMul", {"y", "narrow"}, "z");
  net.run({"z"});
  const OnnxNode& wide = net.producer(net.producer("y").inputs[1]);
  EXPECT_EQ(net.graph.initializer(wide.inputs[0])->dtype, DType::kUInt8);
  EXPECT_EQ(net.values(wide.inputs[0]), (Numbers{1, 130, 131, 255}));
  EXPECT_EQ(net.values(wide.inputs[2]), (Numbers{128, 128}));
  const OnnxNode& narrow = net.producer(net.producer("z").inputs[1]);
  EXPECT_EQ(net.graph.initializer(narrow.inputs[0])->dtype, DType::kInt8);
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
  EXPECT_EQ(read_numbers(*codes), Numbers(expected.begin(), expected.end()));
  y[5] += 0.01f;  // off the grid
  EXPECT_FALSE(recover_codes(floats({2, 256}, y), params, {-128, 127}).has_value());
  y[5] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(recover_codes(floats({2, 256}, y), params, {-128, 127}).has_value());
}

TEST(CodeArithmetic, QuantizesBlocksAndNarrowTypes) {
  QuantParams params;
  params.scale = {1, 2, 4, 8};
  params.zero_point = {0, 0, 0, 0};
  params.dims = {2, 2};
  params.axis = 1;
  params.block_size = 2;
  params.storage = DType::kInt8;
  const TensorData codes =
      quantize_constant(floats({2, 3}, {8, 8, 8, 8, 8, 8}), params, {-128, 127});
  EXPECT_EQ(read_numbers(codes), (Numbers{8, 8, 4, 2, 2, 1}));
  QuantParams plain;
  plain.scale = {0.5f};
  plain.zero_point = {0};
  plain.storage = DType::kInt8;
  const TensorData half = TensorData::from<uint16_t>(DType::kFloat16, {2}, {0x3c00, 0xc000});
  EXPECT_EQ(read_numbers(quantize_constant(half, plain, {-128, 127})), (Numbers{2, -4}));
  const TensorData bfloat = TensorData::from<uint16_t>(DType::kBFloat16, {2}, {0x3f80, 0xc000});
  EXPECT_EQ(read_numbers(quantize_constant(bfloat, plain, {-128, 127})), (Numbers{2, -4}));
}

}  // namespace
}  // namespace qcdq::testing
