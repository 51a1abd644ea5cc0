// The models of docs/tutorial.md: made, exported, checked, run in ONNX Runtime and compared with
// eager. The code blocks of the tutorial are lines of this file; the last test compares them.
#include <gtest/gtest.h>
#include <qcdq/export.h>
#include <qcdq/inspect.h>
#include <qcdq/modules.h>
#include <qcdq/ops.h>
#include <qcdq/verify.h>
#include <torch/torch.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace {

struct ReLUNetImpl : torch::nn::Module {
  ReLUNetImpl() {
    register_module("fc1", fc1);
    register_module("relu", relu);
    register_module("fc2", fc2);
  }
  at::Tensor forward(const at::Tensor& x) { return fc2(relu(fc1(x))); }

  qcdq::QuantLinear fc1{
      qcdq::QuantLinearOptions(3, 128).weight(qcdq::int8().narrow().per_channel(0))};
  qcdq::QuantReLU relu{};
  qcdq::QuantLinear fc2{
      qcdq::QuantLinearOptions(128, 10).weight(qcdq::int8().narrow().per_channel(0))};
};
TORCH_MODULE(ReLUNet);

struct LowBitNetImpl : torch::nn::Module {
  LowBitNetImpl() {
    register_module("fc1", fc1);
    register_module("relu", relu);
    register_module("fc2", fc2);
    fc2->set_input_quantizer(relu->act_quant);
  }
  at::Tensor forward(const at::Tensor& x) { return fc2(relu(fc1(x))); }

  qcdq::QuantLinear fc1{qcdq::QuantLinearOptions(3, 128).weight(qcdq::int3().narrow())};
  qcdq::QuantReLU relu{qcdq::uint4()};
  qcdq::QuantLinear fc2{qcdq::QuantLinearOptions(128, 10).weight(qcdq::int3().narrow())};
};
TORCH_MODULE(LowBitNet);

class Tutorial : public testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(0);
    folder_ =
        std::filesystem::temp_directory_path() / ("qcdq_tutorial_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    previous_ = std::filesystem::current_path();
    std::filesystem::current_path(folder_);
  }
  void TearDown() override {
    std::filesystem::current_path(previous_);
    std::filesystem::remove_all(folder_);
  }

  std::filesystem::path folder_, previous_;
};

// The outputs of the file in ORT, optimisations off and on, against eager's: float sums in another
// order. Optimised, uint8 x int8 products would saturate on x86 CPUs without VNNI;
// x64quantprecision rules that out.
void expect_equal_in_ort(const std::string& path, const at::Tensor& x, const at::Tensor& eager) {
  for (bool optimize : {false, true}) {
    qcdq::OrtOptions options;
    options.optimize = optimize;
    options.config = {{"session.x64quantprecision", "1"}};
    qcdq::OrtModel model(path, options);
    const at::Tensor y = model.run({x})[0];
    const double difference =
        (y - eager).abs().max().item<double>() / eager.abs().max().item<double>();
    EXPECT_LT(difference, 2e-5) << path << (optimize ? " optimised" : "");
  }
}

std::vector<qcdq::QuantizerSummary> of_role(const qcdq::ModelSummary& summary,
                                            const std::string& role) {
  std::vector<qcdq::QuantizerSummary> result;
  for (const auto& one : summary.quantizers) {
    if (one.role == role) result.push_back(one);
  }
  return result;
}

TEST_F(Tutorial, DefaultLinear) {
  qcdq::QuantLinear layer(3, 128);
  layer->eval();

  at::Tensor x = torch::randn({4, 3});
  qcdq::ExportReport report = qcdq::export_onnx(layer, {x}, "linear.onnx");

  qcdq::OrtModel model("linear.onnx");
  at::Tensor y = model.run({x})[0];
  std::cout << (y - layer(x)).abs().max().item<float>() << "\n";

  EXPECT_EQ(report.path, "linear.onnx");
  expect_equal_in_ort("linear.onnx", x, layer(x).detach());
  const auto summary = qcdq::inspect_onnx("linear.onnx");
  ASSERT_EQ(summary.quantizers.size(), 1u);  // the weight; input and bias are float
  EXPECT_EQ(summary.quantizers[0].role, "weight");
  EXPECT_EQ(summary.quantizers[0].dtype, "int8");
  EXPECT_EQ(summary.nodes_by_op.count("QuantizeLinear"), 0u);

  qcdq::ExportOptions options;
  options.weights = qcdq::Weights::kQdq;
  qcdq::export_onnx(layer, {x}, "linear_qdq.onnx", options);

  expect_equal_in_ort("linear_qdq.onnx", x, layer(x).detach());
  const auto qdq = qcdq::inspect_onnx("linear_qdq.onnx");
  ASSERT_EQ(qdq.quantizers.size(), 1u);
  EXPECT_TRUE(qdq.quantizers[0].has_range);
  EXPECT_EQ(qdq.quantizers[0].quant_min, -127);
  EXPECT_EQ(qdq.quantizers[0].quant_max, 127);
  EXPECT_EQ(qdq.nodes_by_op.at("Clip"), 1);
}

TEST_F(Tutorial, PerChannelAndReLU) {
  ReLUNet net;
  for (int step = 0; step < 20; ++step) net->forward(torch::randn({32, 3}));
  net->eval();

  at::Tensor x = torch::randn({4, 3});
  qcdq::ExportOptions options;
  options.opset = 21;
  options.dynamic_axes = {{.input = "input", .axis = 0, .symbol = "N"}};
  qcdq::export_onnx(net, {x}, "relu_net.onnx", options);

  auto forward = [&](const std::vector<c10::IValue>& in) -> c10::IValue {
    return net->forward(in[0].toTensor());
  };
  qcdq::VerifyReport proof = qcdq::verify_onnx(forward, {{x}}, "relu_net.onnx");
  std::cout << proof.codes_differing() << " of " << proof.codes_compared() << " codes differ\n";

  EXPECT_TRUE(proof.ok()) << (proof.failures.empty() ? "" : proof.failures[0]);
  EXPECT_EQ(proof.codes_differing(), 0);
  EXPECT_GE(proof.codes_compared(), 4 * 128);
  expect_equal_in_ort("relu_net.onnx", x, net->forward(x).detach());
  const at::Tensor more = torch::randn({9, 3});
  expect_equal_in_ort("relu_net.onnx", more, net->forward(more).detach());
  const auto summary = qcdq::inspect_onnx("relu_net.onnx");
  const auto weights = of_role(summary, "weight"), activations = of_role(summary, "activation");
  ASSERT_EQ(weights.size(), 2u);
  EXPECT_EQ(weights[0].scale.size(), 128u);
  EXPECT_EQ(weights[1].scale.size(), 10u);
  ASSERT_EQ(activations.size(), 1u);
  EXPECT_EQ(activations[0].dtype, "uint8");
  EXPECT_FALSE(activations[0].has_range);  // [0, 255] is the type's own range
}

TEST_F(Tutorial, LowBits) {
  LowBitNet net;
  torch::optim::Adam adam(net->parameters(), 1e-3);
  for (int step = 0; step < 400; ++step) {
    at::Tensor x = torch::randn({32, 3});
    adam.zero_grad();
    torch::mse_loss(net->forward(x), x.sum(1, true).expand({32, 10})).backward();
    adam.step();
  }
  net->eval();
  torch::save(net, "low_bit.pt");

  at::Tensor x = torch::randn({4, 3});
  qcdq::export_onnx(net, {x}, "low_bit.onnx");
  for (const auto& one : qcdq::inspect_onnx("low_bit.onnx").quantizers) {
    std::cout << one.role << " " << one.dtype << " " << one.tensor << "\n";
  }

  expect_equal_in_ort("low_bit.onnx", x, net->forward(x).detach());
  const auto summary = qcdq::inspect_onnx("low_bit.onnx");
  const auto activations = of_role(summary, "activation"), biases = of_role(summary, "bias");
  ASSERT_EQ(activations.size(), 1u);
  EXPECT_TRUE(activations[0].has_range);
  EXPECT_EQ(activations[0].quant_min, 0);
  EXPECT_EQ(activations[0].quant_max, 15);
  ASSERT_EQ(of_role(summary, "weight").size(), 2u);
  ASSERT_EQ(biases.size(), 1u);  // fc2's: its input and its weight are quantised
  EXPECT_EQ(biases[0].dtype, "int32");
  ASSERT_EQ(biases[0].scale.size(), 1u);
  EXPECT_FLOAT_EQ(biases[0].scale[0], net->fc2->bias_quant->scale.item<float>());
  for (const auto& layer : {net->fc1, net->fc2}) {
    const at::Tensor codes = qcdq::quantize(layer->weight.detach(), layer->weight_quant->scale,
                                            layer->weight_quant->zero_point, -3, 3, torch::kChar);
    EXPECT_EQ(codes.abs().max().item<int>(), 3);
  }
  LowBitNet again;
  torch::load(again, "low_bit.pt");
  again->eval();
  EXPECT_TRUE(torch::equal(again->forward(x), net->forward(x)));
}

std::vector<std::string> trimmed_lines(std::istream& in) {
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find_first_not_of(' ');
    if (first != std::string::npos) lines.push_back(line.substr(first));
  }
  return lines;
}

TEST(TutorialText, CodeBlocksAreLinesOfThisFile) {
  std::ifstream source_file(QCDQ_SOURCE_DIR "/tests/e2e/tutorial_test.cpp");
  std::ifstream text_file(QCDQ_SOURCE_DIR "/docs/tutorial.md");
  const auto source = trimmed_lines(source_file), text = trimmed_lines(text_file);
  ASSERT_FALSE(source.empty());
  int blocks = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != "```cpp") continue;
    std::vector<std::string> block;
    for (++i; i < text.size() && text[i] != "```"; ++i) block.push_back(text[i]);
    EXPECT_NE(std::search(source.begin(), source.end(), block.begin(), block.end()), source.end())
        << "not in tutorial_test.cpp: the block that begins with " << block.at(0);
    ++blocks;
  }
  EXPECT_GE(blocks, 5);
}

}  // namespace
