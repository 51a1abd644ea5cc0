// check.cpp: what the onnx checker finds must be found in the copy with stubs for large weights
// too.
#include <gtest/gtest.h>

#include <functional>

#include "symbolic/file/file.h"
#include "tests/symbolic/file/file_fixture.h"

namespace qcdq {
namespace {

TEST(CheckTest, CatchesWhatOnnxForbids) {
  EXPECT_EQ(error_of([] { check_model(conv_graph(3, 3)); }), "no error");
  EXPECT_EQ(error_of([] { check_model(conv_graph(300, 300)); }), "no error");

  auto words = [](const std::function<void(OnnxGraph&)>& spoil, int64_t channels = 3) {
    OnnxGraph graph = conv_graph(channels, channels);
    spoil(graph);
    return error_of([&] { check_model(graph); });
  };
  auto has = [](const std::string& text, const std::string& part) {
    return text.find("the onnx checker refuses the model: ") == 0 &&
           text.find(part) != std::string::npos && text.find('\n') == std::string::npos;
  };
  std::string w;
  EXPECT_TRUE(has(w = words([](OnnxGraph& g) { g.nodes.front().inputs.pop_back(); }),
                  "input size 1 not in range"))
      << w;
  EXPECT_TRUE(has(w = words([](OnnxGraph& g) { g.nodes.front().set("padding", int64_t{1}); }),
                  "Unrecognized attribute: padding"))
      << w;
  EXPECT_TRUE(has(w = words([](OnnxGraph& g) { g.nodes.front().set("strides", int64_t{1}); }),
                  "Mismatched attribute type"))
      << w;
  EXPECT_TRUE(has(w = words([](OnnxGraph& g) {
                    g.initializers["w"] = TensorData::from<double>(DType::kFloat64, {2, 3, 3, 3},
                                                                   std::vector<double>(54, 0.5));
                  }),
                  "inconsistent type"))
      << w;
  // Shapes, with the weight small enough to be in the checked copy, and with a stub.
  for (int64_t channels : {3, 300}) {
    EXPECT_TRUE(has(w = words(
                        [](OnnxGraph& g) {
                          g.types["y"].dims = {1, 2, 3, 3};
                        },
                        channels),
                    "3"))
        << w;
    EXPECT_TRUE(has(w = words(
                        [&](OnnxGraph& g) {
                          g.initializers["w"].dims = {2 * channels, 3, 3};
                        },
                        channels),
                    ""))
        << w;
  }
  EXPECT_TRUE(has(w = words([](OnnxGraph& g) {
                    g.nodes.push_front({"Relu", "", "early", {"y"}, {"z"}, {}, "", ""});
                  }),
                  "topologically sorted"))
      << w;
  EXPECT_TRUE(has(w = words([](OnnxGraph& g) {
                    g.nodes.push_back({"Relu", "", "twice", {"x"}, {"y"}, {}, "", ""});
                  }),
                  "single static assignment"))
      << w;
  EXPECT_TRUE(has(w = words([](OnnxGraph& g) { g.nodes.front().op_type = "Conv2d"; }),
                  "No Op registered for Conv2d"))
      << w;
}

TEST(CheckTest, CatchesShapesThatDontMeet) {
  // 3 x 4 and 300 x 4 weights: with its values in the checked copy, and as a stub. (onnx itself
  // doesn't compare the channels of a Conv.)
  for (int64_t rows : {3, 300}) {
    for (int64_t wrong : {0, 1}) {
      OnnxGraph graph;
      graph.inputs = {"x"};
      graph.outputs = {"y"};
      graph.types["x"] = {DType::kFloat32, true, {2, rows + wrong}, {}};
      graph.types["y"] = {DType::kFloat32, true, {2, 4}, {}};
      graph.initializers["w"] = TensorData::from<float>(
          DType::kFloat32, {rows, 4}, std::vector<float>(static_cast<size_t>(rows * 4), 1.0f));
      graph.nodes.push_back({"MatMul", "", "matmul", {"x", "w"}, {"y"}, {}, "", ""});
      const std::string words = error_of([&] { check_model(graph); });
      if (wrong == 0) {
        EXPECT_EQ(words, "no error");
      } else {
        EXPECT_EQ(words.find("the onnx checker refuses the model: "), 0u) << words;
        EXPECT_NE(words.find("Incompatible dimensions for matrix multiplication"),
                  std::string::npos)
            << words;
      }
    }
  }
}

TEST(CheckTest, InputsAndOutputsNeedTypes) {
  OnnxGraph graph = conv_graph(3, 3);
  graph.types.erase("y");
  EXPECT_EQ(error_of([&] { check_model(graph); }), "output 'y' of the graph has no element type");
  graph = conv_graph(3, 3);
  graph.initializers["w"] = {DType::kString, {1}, nullptr, nullptr};
  EXPECT_EQ(error_of([&] { check_model(graph); }),
            "constant 'w' has element type string: expected a type of fixed size");
}

}  // namespace
}  // namespace qcdq
