// What export's int32 biases do to outputs, and what they do not explain: files built by hand, as
// the exporter writes them, against a TorchScript module with the float bias. verify_test.cpp has
// the rest of verification.
#include <gtest/gtest.h>

#include "qcdq/verify.h"
#include "symbolic/file/file.h"
#include "tests/symbolic/file/file_fixture.h"

namespace qcdq {
namespace {

class VerifyBiasTest : public FolderTest {
 protected:
  void write(const OnnxGraph& graph) {
    check_model(graph);
    write_model(graph, path_, ExternalData::kAuto);
  }
};

torch::jit::Module module_of(const std::string& forward) {
  torch::jit::Module module("m");
  module.define(forward);
  return module;
}

/// x: [N, 2] -> Q/DQ (u8) -> Gemm(int8 weight, int32 bias) -> Q (u8), Clip [0, 100], DQ -> y, as
/// the exporter writes it for a float bias of (bias_code + 0.3) steps.
struct RoundedBiasNet {
  OnnxGraph graph;
  explicit RoundedBiasNet(int32_t bias_code) {
    graph.inputs = {"x"};
    graph.outputs = {"y"};
    graph.types["x"] = graph.types["y"] = {DType::kFloat32, true, {-1, 2}, {"N", ""}};
    auto scalar = [&](const std::string& name, float scale, TensorData zero_point) {
      graph.initializers[name + "_s"] = TensorData::scalar<float>(DType::kFloat32, scale);
      graph.initializers[name + "_z"] = std::move(zero_point);
    };
    const TensorData zero = TensorData::scalar<uint8_t>(DType::kUInt8, 0);
    scalar("a", 0.5f, zero);
    scalar("w", 0.25f, TensorData::scalar<int8_t>(DType::kInt8, 0));
    scalar("b", 0.125f, TensorData::scalar<int32_t>(DType::kInt32, 0));
    scalar("o", 0.26f, zero);
    graph.initializers["w"] = TensorData::from<int8_t>(DType::kInt8, {2, 2}, {1, 0, 0, 2});
    graph.initializers["b"] = TensorData::from<int32_t>(DType::kInt32, {2}, {bias_code, 0});
    graph.initializers["lowest"] = zero;
    graph.initializers["highest"] = TensorData::scalar<uint8_t>(DType::kUInt8, 100);
    node("QuantizeLinear", {"x", "a_s", "a_z"}, "aq");
    node("DequantizeLinear", {"aq", "a_s", "a_z"}, "ad");
    node("DequantizeLinear", {"w", "w_s", "w_z"}, "wd");
    node("DequantizeLinear", {"b", "b_s", "b_z"}, "bd");
    node("Gemm", {"ad", "wd", "bd"}, "m");
    node("QuantizeLinear", {"m", "o_s", "o_z"}, "oq");
    node("Clip", {"oq", "lowest", "highest"}, "oc");
    node("DequantizeLinear", {"oc", "o_s", "o_z"}, "y");
    floats(bias_code);
  }
  void floats(int32_t bias_code) {
    const float bias = (static_cast<float>(bias_code) + 0.3f) * 0.125f;
    graph.metadata = {{kRoundedBiases, "bd\t" + std::to_string(bias) + " 0\n"}};
  }
  void node(const char* op, std::vector<std::string> inputs, const std::string& output) {
    graph.nodes.push_back({op, "", output + "/" + op, std::move(inputs), {output}, {}, "", ""});
  }
};

// For x = 0 the bias of 3.3 steps of 0.125 is 1.59 steps of the output, that of 3 steps is 1.44.
constexpr const char* kFloatBiasNet = R"(
def forward(self, x):
    x = torch.clamp(torch.round(x / 0.5), 0, 255) * 0.5
    y = x * torch.tensor([0.25, 0.5]) + torch.tensor([0.4125, 0.])
    return torch.clamp(torch.round(y / 0.26), 0, 100) * 0.26
)";

TEST_F(VerifyBiasTest, CodesThatInt32BiasesMoveAreNamedNotFailed) {
  write(RoundedBiasNet(3).graph);
  const torch::jit::Module module = module_of(kFloatBiasNet);
  const at::Tensor x = torch::tensor({{0.0f, 2.0f}, {2.5f, 60.0f}});
  const VerifyReport report = verify_onnx(module, {{x}}, path_);
  EXPECT_TRUE(report.ok()) << report.failures.front();
  EXPECT_EQ(report.codes_differing(), 0) << "each on its own input";
  EXPECT_GT(report.max_relative(), 1e-3) << "a code must really move";
  ASSERT_FALSE(report.warnings.empty());
  EXPECT_NE(report.warnings[0].find("1 float bias is int32 in the file, which moves 1 of 8 codes; "
                                    "with float biases the difference is "),
            std::string::npos)
      << report.warnings[0];
  const OutputDifference& unoptimized = report.outputs.at(0);
  EXPECT_EQ(unoptimized.kind, RunKind::kUnoptimized);
  ASSERT_TRUE(unoptimized.max_relative_with_float_biases.has_value());
  EXPECT_LT(*unoptimized.max_relative_with_float_biases, 1e-5);
}

TEST_F(VerifyBiasTest, WhatInt32BiasesDoNotExplainIsFound) {
  const torch::jit::Module module = module_of(kFloatBiasNet);
  const at::Tensor x = torch::tensor({{0.0f, 2.0f}, {2.5f, 60.0f}});
  auto failures = [&](const RoundedBiasNet& net, Optimization optimization = Optimization::kBoth) {
    write(net.graph);
    std::string all;
    for (const std::string& failure :
         verify_onnx(module, {{x}}, path_, {.optimization = optimization}).failures) {
      all += failure + "\n";
    }
    return all;
  };
  RoundedBiasNet off_by_two(5);
  off_by_two.floats(3);
  EXPECT_NE(failures(off_by_two)
                .find("bias 'bd': a code is 1.7 steps from the float bias in the "
                      "metadata, expected at most 0.5"),
            std::string::npos)
      << failures(off_by_two);
  const RoundedBiasNet wrong_floats(5);  // codes and metadata agree, and both are wrong
  EXPECT_NE(failures(wrong_floats).find("output 'y': relative difference"), std::string::npos);
  RoundedBiasNet scale(3);
  scale.graph.initializers["o_s"] = TensorData::scalar<float>(DType::kFloat32, 0.265f);
  EXPECT_NE(failures(scale).find("output 'y': relative difference"), std::string::npos);
  EXPECT_NE(failures(scale, Optimization::kAll).find("output 'y': relative difference"),
            std::string::npos);
  RoundedBiasNet no_clip(3);
  no_clip.graph.initializers["highest"] = TensorData::scalar<uint8_t>(DType::kUInt8, 255);
  EXPECT_NE(failures(no_clip).find("output 'y': relative difference"), std::string::npos);
}

TEST_F(VerifyBiasTest, MetadataOfBiasesIsRead) {
  RoundedBiasNet net(3);
  auto error = [&](const std::string& text) {
    net.graph.metadata = {{kRoundedBiases, text}};
    write(net.graph);
    return error_of([&] { verify_onnx(module_of(kFloatBiasNet), {{torch::ones({1, 2})}}, path_); });
  };
  const std::string expected = "' is not a DequantizeLinear's output, a tab and float values";
  for (const std::string text : {"bd", "bd\t", "bd\t1 x", "m\t1 2"}) {
    EXPECT_EQ(error(text), "metadata qcdq.rounded_biases: the line of '" +
                               text.substr(0, text.find('\t')) + expected)
        << text;
  }
  EXPECT_EQ(error("bd\t1 2 3\n"),
            "bias 'bd': 2 codes and 1 scales for 3 float values in the metadata");
}

}  // namespace
}  // namespace qcdq
