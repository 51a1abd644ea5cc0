// GraphBuilder: what onnx's schemas refuse is refused here, by name; types follow the schemas.
#include "symbolic/graph/graph_builder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>

#include "symbolic/graph/element_types.h"
#include "symbolic/graph/message_text.h"

namespace qcdq {
namespace {

struct Fixture {
  explicit Fixture(int64_t opset) {
    graph.opset = opset;
    graph.inputs = {"x", "i"};
    graph.types["x"] = {DType::kFloat32, true, {2, 3}, {}};
    graph.types["i"] = {DType::kInt64, true, {3}, {}};
  }
  OnnxGraph graph;
  GraphBuilder::State state{graph, {}, "layer1.act", "aten::some_op", "net.py:7", nullptr};
  GraphBuilder builder{state};
  Value x{"x"};
  Value i{"i"};
};

std::string refusal(const std::function<void()>& act) {
  try {
    act();
  } catch (const UnsupportedOp& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(MessageText, ListsAndPlaces) {
  EXPECT_EQ(list_text({2, -1}), "[2, -1]");
  EXPECT_EQ(list_text({}), "[]");
  EXPECT_EQ(join_names({"a", "b"}), "a, b");
  EXPECT_EQ(join_names({}), "");
  EXPECT_EQ(place_text("layer1.act", "net.py:7"), "layer1.act, net.py:7");
  EXPECT_EQ(place_text("layer1.act", ""), "layer1.act");
  EXPECT_EQ(place_text("", "net.py:7"), "net.py:7");
  EXPECT_EQ(place_text("", ""), "");
}

TEST(GraphBuilder, NamesFollowTheModulePath) {
  Fixture f(21);
  EXPECT_EQ(f.builder.op("Relu", {f.x}).name, "layer1.act/Relu_output");
  EXPECT_EQ(f.builder.op("Relu", {f.x}).name, "layer1.act/Relu_1_output");
  EXPECT_EQ(f.graph.nodes.front().name, "layer1.act/Relu");
  EXPECT_EQ(f.graph.nodes.front().source, "net.py:7");
  EXPECT_EQ(f.graph.nodes.front().torch_op, "aten::some_op");
}

TEST(GraphBuilder, RefusesAnOpOfALaterOpset) {
  Fixture f(19);
  EXPECT_EQ(refusal([&] { f.builder.op("Gelu", {f.x}); }),
            "aten::some_op: needs ONNX Gelu, which exists from opset 20 (opset 19); export with "
            "--opset 20 or newer "
            "[at layer1.act, net.py:7]");
}

TEST(GraphBuilder, TakesBodies) {
  Fixture f(21);
  auto body = std::make_shared<OnnxGraph>();
  OnnxNode& node = body->nodes.emplace_back();
  node.op_type = "Relu";
  node.name = "layer1.act/If";
  node.inputs = {"x"};
  node.outputs = body->outputs = {"layer1.act/If_output"};
  f.graph.inputs.push_back("condition");
  f.graph.types["condition"] = {DType::kBool, true, {}, {}};
  const Value chosen = f.builder.op(
      "If", {{"condition"}}, {{"then_branch", Subgraph{body}}, {"else_branch", Subgraph{body}}});
  EXPECT_EQ(chosen.name, "layer1.act/If_1_output");  // the body has the names before it
  EXPECT_EQ(f.graph.nodes.back().name, "layer1.act/If_1");
  for (const Attribute& wrong : {Attribute(Subgraph{}), Attribute(int64_t{1})}) {
    EXPECT_NE(refusal([&] {
                f.builder.op("If", {{"condition"}},
                             {{"then_branch", Subgraph{body}}, {"else_branch", wrong}});
              }).find("attribute 'else_branch' of ONNX If has the wrong type, expected GRAPH"),
              std::string::npos);
  }
}

TEST(GraphBuilder, RefusesWhatTheSchemaRefuses) {
  Fixture f(21);
  EXPECT_NE(
      refusal([&] { f.builder.op("NoSuchOp", {f.x}); }).find("NoSuchOp, which ONNX doesn't have"),
      std::string::npos);
  EXPECT_NE(refusal([&] {
              f.builder.op("Relu", {f.x, f.x});
            }).find("ONNX Relu takes 1 to 1 inputs, got 2"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              f.builder.op("Add", {Value{}, f.x});
            }).find("input 'A' of ONNX Add can't be left out"),
            std::string::npos);
  EXPECT_NE(
      refusal([&] { f.builder.ops("Relu", {f.x}, 2); }).find("gives 1 to 1 outputs, asked for 2"),
      std::string::npos);
  EXPECT_NE(refusal([&] {
              f.builder.op("Relu", {f.x}, {{"slope", 1.0F}});
            }).find("ONNX Relu has no attribute 'slope'"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              f.builder.op("Elu", {f.x}, {{"alpha", int64_t{1}}});
            }).find("attribute 'alpha' of ONNX Elu has the wrong type, expected FLOAT"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              f.builder.op("Elu", {f.x}, {{"alpha", 1.0F}, {"alpha", 2.0F}});
            }).find("given twice"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              f.builder.op("Concat", {f.x, f.x});
            }).find("ONNX Concat requires attribute 'axis'"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              f.builder.op("Sigmoid", {f.i});
            }).find("ONNX Sigmoid takes no int64 as input 'X'"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              f.builder.op("Add", {f.x, f.i});
            }).find("share a type have float32 and int64"),
            std::string::npos);
}

TEST(GraphBuilder, AttributesThatBecameInputsAreRefusedAtTheNewOpset) {
  Fixture f(13);
  EXPECT_NE(refusal([&] {
              f.builder.op("Squeeze", {f.x}, {{"axes", std::vector<int64_t>{0}}});
            }).find("no attribute 'axes'"),
            std::string::npos);
}

TEST(GraphBuilder, OutputTypesFollowTheSchema) {
  Fixture f(21);
  GraphBuilder& g = f.builder;
  EXPECT_EQ(g.type(g.op("Relu", {f.x})).dtype, DType::kFloat32);
  EXPECT_EQ(g.type(g.op("Relu", {f.x})).dims, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(g.type(g.op("Shape", {f.x})).dtype, DType::kInt64);
  EXPECT_EQ(g.type(g.op("Less", {f.x, f.x})).dtype, DType::kBool);
  EXPECT_EQ(g.type(g.cast(f.i, DType::kFloat16)).dtype, DType::kFloat16);
  EXPECT_EQ(g.cast(f.i, DType::kInt64).name, "i");
  const Value scale = g.scalar(DType::kFloat32, 0.5);
  const Value codes = g.op("QuantizeLinear", {f.x, scale});
  EXPECT_EQ(g.type(codes).dtype, DType::kUInt8);
  EXPECT_EQ(g.type(g.op("QuantizeLinear", {f.x, scale, g.scalar(DType::kInt8, 0)})).dtype,
            DType::kInt8);
  EXPECT_EQ(g.type(g.op("QuantizeLinear", {f.x, scale}, {{"output_dtype", int64_t{5}}})).dtype,
            DType::kInt16);
  EXPECT_EQ(g.type(g.op("DequantizeLinear", {codes, scale})).dtype, DType::kFloat32);
}

TEST(GraphBuilder, DequantizeLinearTypeFromOpset23) {
  Fixture f(23);
  const Value scale = f.builder.scalar(DType::kFloat16, 0.5);
  EXPECT_EQ(f.builder
                .type(f.builder.op("DequantizeLinear",
                                   {f.builder.op("QuantizeLinear", {f.x, scale}), scale}))
                .dtype,
            DType::kFloat16);
}

TEST(GraphBuilder, OtherDomainsSkipTheSchemaAndGetAnImport) {
  Fixture f(21);
  f.builder.op("com.microsoft::Anything", {f.x}, {{"whatever", int64_t{1}}});
  EXPECT_EQ(f.graph.domains.at("com.microsoft"), 1);
  EXPECT_EQ(f.graph.nodes.back().op_type, "Anything");
}

TEST(GraphBuilder, TrailingAbsentInputsAreDropped) {
  Fixture f(21);
  f.builder.op("Clip", {f.x, Value{}, Value{}});
  EXPECT_EQ(f.graph.nodes.back().inputs, std::vector<std::string>{"x"});
}

TEST(GraphBuilder, ScalarsRoundToSixteenBits) {
  Fixture f(21);
  auto bits = [&](DType dtype, double value) {
    return *static_cast<const uint16_t*>(
        f.builder.constant_data(f.builder.scalar(dtype, value))->data.get());
  };
  EXPECT_EQ(bits(DType::kFloat16, 1.0), 0x3c00);
  EXPECT_EQ(bits(DType::kFloat16, -0.1), 0xae66);
  EXPECT_EQ(bits(DType::kFloat16, 65504), 0x7bff);
  EXPECT_EQ(bits(DType::kFloat16, 65520), 0x7c00);
  EXPECT_EQ(bits(DType::kFloat16, 2.9802322387695312e-08),
            0);  // half of the least denormal: to even
  EXPECT_EQ(bits(DType::kFloat16, 5.9604644775390625e-08), 1);  // the least denormal
  EXPECT_EQ(bits(DType::kFloat16, 0.99999), 0x3c00);            // carries into the exponent
  EXPECT_EQ(bits(DType::kBFloat16, 1.0), 0x3f80);
  EXPECT_EQ(bits(DType::kBFloat16, 1.00390625), 0x3f80);  // a tie: to even
  EXPECT_THROW(f.builder.scalar(DType::kString, 0), std::invalid_argument);
}

std::string number_refusal(DType dtype, const Number& number) {
  Fixture f(21);
  try {
    f.builder.scalar(dtype, number);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(GraphBuilder, IntegersAreExact) {
  Fixture f(21);
  const auto value = [&](DType dtype, const Number& number) {
    return read_integers(*f.builder.constant_data(f.builder.scalar(dtype, number)));
  };
  const int64_t beyond = (int64_t{1} << 53) + 1;  // the least integer that no double holds
  for (const int64_t number : {INT64_MIN, INT64_MAX, beyond, -beyond, int64_t{0}}) {
    EXPECT_EQ(value(DType::kInt64, number), std::vector<int64_t>{number});
  }
  EXPECT_EQ(value(DType::kUInt64, INT64_MAX), std::vector<int64_t>{INT64_MAX});
  EXPECT_EQ(value(DType::kInt8, -128.0), std::vector<int64_t>{-128});
  EXPECT_EQ(value(DType::kBool, 1), std::vector<int64_t>{1});
  EXPECT_EQ(value(DType::kInt4, -8), std::vector<int64_t>{-8});
  EXPECT_EQ(f.builder.constant_data(f.builder.scalar(DType::kUInt16, 65535))->bytes(), 2U);
}

TEST(GraphBuilder, NumbersThatAnIntegerTypeDoesNotHoldAreRefused) {
  EXPECT_EQ(number_refusal(DType::kUInt8, -1), "-1 does not fit uint8");
  EXPECT_EQ(number_refusal(DType::kUInt8, 300), "300 does not fit uint8");
  EXPECT_EQ(number_refusal(DType::kInt8, 128), "128 does not fit int8");
  EXPECT_EQ(number_refusal(DType::kInt32, INT64_MAX), "9223372036854775807 does not fit int32");
  EXPECT_EQ(number_refusal(DType::kUInt64, -1), "-1 does not fit uint64");
  EXPECT_EQ(number_refusal(DType::kBool, 2), "2 does not fit bool");
  EXPECT_EQ(number_refusal(DType::kInt4, 8), "8 does not fit int4");
  EXPECT_EQ(number_refusal(DType::kInt64, 1.5), "1.5 does not fit int64");
  EXPECT_EQ(number_refusal(DType::kInt64, 0x1p63), "9223372036854775808 does not fit int64");
  EXPECT_EQ(number_refusal(DType::kInt64, -1e30), "-1e+30 does not fit int64");
  EXPECT_EQ(number_refusal(DType::kInt64, std::nan("")), "nan does not fit int64");
  EXPECT_EQ(number_refusal(DType::kInt16, -HUGE_VAL), "-inf does not fit int16");
  EXPECT_EQ(number_refusal(DType::kFloat8E4M3FN, 1),
            "a constant of type float8e4m3fn where a floating type of 16 bits or more was "
            "expected");
}

TEST(GraphBuilder, FloatsRoundAsTorchsDo) {
  Fixture f(21);
  const auto value = [&](DType dtype, const Number& number) {
    return read_numbers(*f.builder.constant_data(f.builder.scalar(dtype, number)))[0];
  };
  EXPECT_EQ(value(DType::kFloat32, 1e300), HUGE_VAL);
  EXPECT_EQ(value(DType::kFloat16, -1e6), -HUGE_VAL);
  EXPECT_EQ(value(DType::kFloat16, INT64_MAX), HUGE_VAL);
  EXPECT_EQ(value(DType::kBFloat16, 1e39), HUGE_VAL);
  EXPECT_TRUE(std::isnan(value(DType::kFloat16, std::nan(""))));
  const int64_t beyond = (int64_t{1} << 53) + 1;
  EXPECT_EQ(value(DType::kFloat64, beyond), 0x1p53);
  EXPECT_EQ(value(DType::kFloat32, beyond), 0x1p53);
  // 2^24 + 1 + 2^-30 is above the tie between two float32, and 2^24 + 1, an integer, is on it.
  EXPECT_EQ(value(DType::kFloat32, 0x1p24 + 1 + 0x1p-28), 0x1p24 + 2);
  EXPECT_EQ(value(DType::kFloat32, (int64_t{1} << 24) + 1), 0x1p24);
  // An integer is rounded once: as a double it would be on the tie, and go down.
  EXPECT_EQ(value(DType::kFloat32, (int64_t{1} << 60) + (int64_t{1} << 36) + 1), 0x1p60 + 0x1p37);
  // Through float32, where 1 + 2^-11 + 2^-40 is on the tie between two float16.
  EXPECT_EQ(value(DType::kFloat16, 1 + 0x1p-11 + 0x1p-40), 1);
}

TEST(ElementTypes, AConstantOfEqualNumbersHasEveryType) {
  for (const DType dtype :
       {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16, DType::kInt8,
        DType::kUInt8, DType::kInt16, DType::kUInt16, DType::kInt32, DType::kUInt32, DType::kInt64,
        DType::kUInt64, DType::kBool, DType::kInt4, DType::kUInt4, DType::kInt2, DType::kUInt2}) {
    const TensorData data = repeated_data(dtype, 5, 1);
    EXPECT_EQ(data.dtype, dtype);
    EXPECT_EQ(data.dims, std::vector<int64_t>{5});
    EXPECT_EQ(read_numbers(data), std::vector<double>(5, 1)) << dtype_name(dtype);
  }
  EXPECT_EQ(repeated_data(DType::kFloat32, 0, 1).numel(), 0);
  EXPECT_THROW(repeated_data(DType::kFloat8E5M2, 2, 1), std::invalid_argument);
  EXPECT_THROW(repeated_data(DType::kString, 2, 1), std::invalid_argument);
  EXPECT_THROW(repeated_data(DType::kInt64, 2, 0.5), std::invalid_argument);
}

}  // namespace
}  // namespace qcdq
