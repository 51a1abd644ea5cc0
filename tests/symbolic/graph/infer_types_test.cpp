// Element types and shapes of values between nodes, as onnx infers them an op at a time: what it
// knows from shapes and small constants, and that it never guesses.
#include <gtest/gtest.h>

#include <vector>

#include "symbolic/graph/graph_builder.h"

namespace qcdq {
namespace {

struct Fixture {
  explicit Fixture(int64_t opset = 21) {
    graph.opset = opset;
    graph.inputs = {"x", "batch", "unranked", "unknown", "shape"};
    graph.types["x"] = {DType::kFloat32, true, {2, 3, 8, 8}, {}};
    graph.types["batch"] = {DType::kFloat32, true, {-1, 3, -1, 8}, {"N", "", "", ""}};
    graph.types["unranked"] = {DType::kFloat32, false, {}, {}};
    graph.types["shape"] = {DType::kInt64, true, {3}, {}};
  }
  Value floats(std::vector<int64_t> dims) {
    TensorData data{DType::kFloat32, std::move(dims), nullptr, nullptr};
    // A weight is never made dense for its type's sake: this one can't be.
    data.produce = []() -> std::shared_ptr<const void> { throw std::logic_error("read"); };
    return builder.constant(std::move(data));
  }
  std::string type(const Value& value) const { return type_text(builder.type(value)); }

  OnnxGraph graph;
  GraphBuilder::State state{graph, {}, "", "aten::some_op", "", nullptr};
  GraphBuilder builder{state};
  const Value x{"x"}, batch{"batch"}, unranked{"unranked"}, unknown{"unknown"}, shape{"shape"};
};

TEST(InferTypes, LayersFollowTheShapesOfTheirWeights) {
  Fixture f;
  GraphBuilder& g = f.builder;
  const Attributes pads = {{"pads", std::vector<int64_t>{1, 1, 1, 1}}};
  const Value weight = f.floats({5, 3, 3, 3});
  EXPECT_EQ(f.type(g.op("Conv", {f.x, weight}, pads)), "float32[2,5,8,8]");
  EXPECT_EQ(f.type(g.op("Conv", {f.batch, weight}, pads)), "float32[N,5,?,8]");
  EXPECT_EQ(f.type(g.op("Conv", {f.unranked, weight}, pads)), "float32[...]");
  EXPECT_EQ(f.type(g.op("MatMul", {f.x, f.floats({8, 4})})), "float32[2,3,8,4]");
  EXPECT_EQ(f.type(g.op("MatMul", {f.batch, f.floats({8, 4})})), "float32[N,3,?,4]");
  EXPECT_EQ(f.type(g.op("Add", {f.batch, f.floats({8})})), "float32[N,3,?,8]");
}

TEST(InferTypes, ShapesAndSizesFromSmallConstants) {
  Fixture f;
  GraphBuilder& g = f.builder;
  EXPECT_EQ(f.type(g.op("Reshape", {f.x, g.ints({2, -1})})), "float32[2,192]");
  EXPECT_EQ(f.type(g.op("Reshape", {f.batch, g.ints({0, 3, -1})})), "float32[N,3,?]");
  EXPECT_EQ(f.type(g.op("Reshape", {f.x, f.shape})), "float32[?,?,?]");
  EXPECT_EQ(f.type(g.op("Reshape", {f.floats({1}), g.ints({})})), "float32[]");
  EXPECT_EQ(f.type(g.op("Expand", {g.scalar(DType::kFloat32, 1), g.ints({4, 2})})), "float32[4,2]");
  EXPECT_EQ(f.type(g.op("Slice", {f.x, g.ints({1}), g.ints({7}), g.ints({2}), g.ints({2})})),
            "float32[2,3,3,8]");
  EXPECT_EQ(f.type(g.op("Unsqueeze", {f.batch, g.ints({1})})), "float32[N,1,3,?,8]");
  const std::vector<Value> parts = g.ops("Split", {f.x, g.ints({1, 2})}, 2, {{"axis", int64_t{1}}});
  EXPECT_EQ(f.type(parts[0]), "float32[2,1,8,8]");
  EXPECT_EQ(f.type(parts[1]), "float32[2,2,8,8]");
}

TEST(InferTypes, ConcatAndGather) {
  Fixture f;
  GraphBuilder& g = f.builder;
  const Attributes axis = {{"axis", int64_t{1}}};
  EXPECT_EQ(f.type(g.op("Concat", {f.x, f.x}, axis)), "float32[2,6,8,8]");
  EXPECT_EQ(f.type(g.op("Concat", {f.batch, f.batch}, {{"axis", int64_t{0}}})), "float32[?,3,?,8]");
  EXPECT_EQ(f.type(g.op("Gather", {f.batch, g.scalar(DType::kInt64, 0)}, axis)), "float32[N,?,8]");
  EXPECT_EQ(f.type(g.op("Gather", {f.x, g.ints({0, 2})}, axis)), "float32[2,2,8,8]");
}

TEST(InferTypes, ElementTypesThatAttributesName) {
  Fixture f;
  GraphBuilder& g = f.builder;
  EXPECT_EQ(f.type(g.cast(f.batch, DType::kFloat16)), "float16[N,3,?,8]");
  EXPECT_EQ(f.type(g.op("ConstantOfShape", {g.ints({2})},
                        {{"value", TensorData::from<int64_t>(DType::kInt64, {1}, {7})}})),
            "int64[2]");
  EXPECT_EQ(f.type(g.op("ConstantOfShape", {f.shape})), "float32[?,?,?]");
  EXPECT_EQ(f.type(g.op("Shape", {f.batch})), "int64[4]");
  EXPECT_EQ(f.type(g.op("ArgMax", {f.x}, {{"keepdims", int64_t{0}}})), "int64[3,8,8]");
}

TEST(InferTypes, NothingIsGuessed) {
  Fixture f;
  GraphBuilder& g = f.builder;
  EXPECT_EQ(f.type(g.op("com.microsoft::Anything", {f.x})), "undefined[...]");
  EXPECT_EQ(f.type(g.op("Relu", {f.unknown})), "undefined[...]");
  EXPECT_EQ(f.type(g.op("Equal", {f.unknown, f.x})), "bool[...]");
  EXPECT_EQ(f.type(g.op("Transpose", {f.unranked}, {{"perm", std::vector<int64_t>{1, 0}}})),
            "float32[...]");
  EXPECT_EQ(f.type(g.op("Softmax", {f.unranked})), "float32[...]");
  // Inputs that onnx refuses: the element type is what T is bound to, a shape there is none.
  EXPECT_EQ(f.type(g.op("Concat", {f.x, f.floats({1, 1})}, {{"axis", int64_t{0}}})),
            "float32[...]");
  EXPECT_EQ(f.type(g.op("MatMul", {f.x, f.floats({7, 4})})), "float32[...]");
}

TEST(InferTypes, AttributesOfOlderOpsets) {
  Fixture f(10);
  GraphBuilder& g = f.builder;
  EXPECT_EQ(f.type(g.op("Unsqueeze", {f.x}, {{"axes", std::vector<int64_t>{0}}})),
            "float32[1,2,3,8,8]");
  EXPECT_EQ(f.type(g.op("Pad", {f.x}, {{"pads", std::vector<int64_t>{0, 0, 1, 1, 0, 0, 1, 1}}})),
            "float32[2,3,10,10]");
}

}  // namespace
}  // namespace qcdq
