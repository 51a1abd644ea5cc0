// What the tests that write .onnx files share (check, write, export, verify): a folder of their
// own, two small graphs, and the words of what is thrown. Torch-free.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

/// A folder of its own for each test, and in it the path of a file.
class FolderTest : public ::testing::Test {
 protected:
  FolderTest() {
    std::string name = (std::filesystem::temp_directory_path() / "qcdq_test_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder_ = name;
    path_ = path("m.onnx");
  }
  ~FolderTest() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::set<std::string> listing() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }
  std::filesystem::path folder_;
  std::string path_;
};

inline std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The words of what `call` throws; "no error" where it throws nothing.
template <typename Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

/// x: float32[N] -> QuantizeLinear(scale, uint8 zero point) -> Clip[0, 15] -> codes ->
/// DequantizeLinear -> y.
inline OnnxGraph quantizer_graph(float scale, uint8_t zero_point) {
  OnnxGraph graph;
  graph.inputs = {"x"};
  graph.outputs = {"y"};
  graph.types["x"] = graph.types["y"] = {DType::kFloat32, true, {-1}, {"N"}};
  graph.types["codes"] = {DType::kUInt8, true, {-1}, {"N"}};
  graph.initializers["scale"] = TensorData::scalar<float>(DType::kFloat32, scale);
  graph.initializers["zero_point"] = TensorData::scalar<uint8_t>(DType::kUInt8, zero_point);
  graph.initializers["lowest"] = TensorData::scalar<uint8_t>(DType::kUInt8, 0);
  graph.initializers["highest"] = TensorData::scalar<uint8_t>(DType::kUInt8, 15);
  graph.nodes.push_back(
      {"QuantizeLinear", "", "act/Q", {"x", "scale", "zero_point"}, {"wide"}, {}, "", ""});
  graph.nodes.push_back(
      {"Clip", "", "act/Clip", {"wide", "lowest", "highest"}, {"codes"}, {}, "", ""});
  graph.nodes.push_back({"DequantizeLinear",
                         "",
                         "act/DQ",
                         {"codes", "scale", "zero_point"},
                         {"y"},
                         {},
                         "",
                         "net.py:7"});
  return graph;
}

/// x: float32[1, channels, 4, 4] -> Conv with weight [2, weight_channels, 3, 3].
inline OnnxGraph conv_graph(int64_t channels, int64_t weight_channels) {
  OnnxGraph graph;
  graph.inputs = {"x"};
  graph.outputs = {"y"};
  graph.types["x"] = {DType::kFloat32, true, {1, channels, 4, 4}, {}};
  graph.types["y"] = {DType::kFloat32, true, {1, 2, 2, 2}, {}};
  graph.initializers["w"] =
      TensorData::from<float>(DType::kFloat32, {2, weight_channels, 3, 3},
                              std::vector<float>(static_cast<size_t>(18 * weight_channels), 0.5f));
  graph.nodes.push_back({"Conv", "", "conv", {"x", "w"}, {"y"}, {}, "aten::conv2d", ""});
  return graph;
}

/// y = condition ? relu(x + bias) : neg(hidden): an If by hand. The body of "else" has an If of its
/// own, `bias` and `hidden` are used in bodies only, and `scale` lies in one.
inline OnnxGraph if_graph() {
  const TensorType vector{DType::kFloat32, true, {2}, {}};
  const auto body = [&](std::vector<OnnxNode> nodes, const std::string& output) {
    auto graph = std::make_shared<OnnxGraph>();
    graph->outputs = {output};
    graph->types[output] = vector;
    for (OnnxNode& node : nodes) graph->nodes.push_back(std::move(node));
    return graph;
  };
  const auto positive = body({{"Add", "", "then/Add", {"x", "bias"}, {"sum"}, {}, "", ""},
                              {"Relu", "", "then/Relu", {"sum"}, {"positive"}, {}, "", ""}},
                             "positive");
  const auto scaled =
      body({{"Mul", "", "else/then/Mul", {"hidden", "scale"}, {"scaled"}, {}, "", ""}}, "scaled");
  scaled->initializers["scale"] = TensorData::from<float>(DType::kFloat32, {2}, {2, 4});
  const auto negated =
      body({{"Neg", "", "else/else/Neg", {"hidden"}, {"negated"}, {}, "", ""}}, "negated");
  const auto otherwise =
      body({{"If",
             "",
             "else/If",
             {"condition"},
             {"chosen"},
             {{"then_branch", Subgraph{scaled}}, {"else_branch", Subgraph{negated}}},
             "",
             ""}},
           "chosen");
  OnnxGraph graph;
  graph.inputs = {"x", "condition"};
  graph.outputs = {"y"};
  graph.types["x"] = graph.types["y"] = vector;
  graph.types["condition"] = {DType::kBool, true, {}, {}};
  graph.initializers["bias"] = TensorData::from<float>(DType::kFloat32, {2}, {0.5f, -1});
  graph.nodes.push_back({"Exp", "", "Exp", {"x"}, {"hidden"}, {}, "", ""});
  graph.nodes.push_back(
      {"If",
       "",
       "If",
       {"condition"},
       {"y"},
       {{"then_branch", Subgraph{positive}}, {"else_branch", Subgraph{otherwise}}},
       "",
       ""});
  return graph;
}

}  // namespace qcdq
