// The exporter from end to end in C++: TorchScript and C++ modules in, a file out that ONNX Runtime
// computes alike. What single ops become is in cases/; models from Python are in tests/python.
#include "qcdq/export.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>

#include "qcdq/ops.h"
#include "qcdq/verify.h"
#include "tests/symbolic/file/file_fixture.h"

namespace qcdq {
namespace {

namespace fs = std::filesystem;

class ExportTest : public FolderTest {
 protected:
  ExportTest() { torch::manual_seed(0); }
};

void expect_verified(const VerifyReport& report) {
  EXPECT_TRUE(report.ok()) << report.failures.front();
  EXPECT_EQ(report.codes_differing(), 0);
}

ExportOptions at_opset(int64_t opset) {
  ExportOptions options;
  options.opset = opset;
  return options;
}

/// Conv, ReLU, pooling and a Linear over a flattened batch.
torch::jit::Module conv_net() {
  torch::jit::Module net("Net");
  net.register_attribute("training", c10::BoolType::get(), true);
  net.register_parameter("w", torch::randn({8, 3, 3, 3}) * 0.2, false);
  net.register_parameter("b", torch::randn({8}) * 0.2, false);
  net.register_parameter("fc", torch::randn({10, 8}) * 0.2, false);
  net.define(R"(
def forward(self, x):
    y = torch.relu(torch.conv2d(x, self.w, self.b, [1, 1], [1, 1]))
    y = torch.adaptive_avg_pool2d(y, [1, 1])
    return torch.matmul(y.view(x.size(0), -1), self.fc.t())
)");
  return net;
}

/// The same with fake-quantised weights and activations, as aten's QAT leaves them.
torch::jit::Module quantized_conv_net(bool weight_is_parameter) {
  torch::jit::Module net("Net");
  const at::Tensor w = torch::randn({8, 3, 3, 3}) * 0.2;
  if (weight_is_parameter) {
    net.register_parameter("w", w, false);
  } else {
    net.register_buffer("w", w);
  }
  net.register_parameter("b", torch::randn({8}) * 0.2, false);
  net.register_buffer("s", w.flatten(1).abs().amax(1) / 127);
  net.register_buffer("z", torch::zeros({8}, torch::kInt32));
  net.define(R"(
def forward(self, x):
    x = torch.fake_quantize_per_tensor_affine(x, 0.03, 128, 0, 255)
    w = torch.fake_quantize_per_channel_affine(self.w, self.s, self.z, 0, -127, 127)
    y = torch.relu(torch.conv2d(x, w, self.b, [1, 1], [1, 1]))
    return torch.fake_quantize_per_tensor_affine(y, 0.02, 0, 0, 15)
)");
  return net;
}

TEST_F(ExportTest, AScriptedNetWithADynamicBatch) {
  const torch::jit::Module net = conv_net();
  ExportOptions options;
  options.dynamic_axes = {{"x", 0, "N"}};
  options.output_names = {"logits"};
  std::vector<std::string> phases;
  options.progress = [&](const std::string& phase) { phases.push_back(phase); };
  const ExportReport report = export_onnx(net, {torch::randn({1, 3, 8, 8})}, path_, options);
  EXPECT_EQ(report.path, path_);
  EXPECT_EQ(report.opset, 21);
  EXPECT_EQ(report.ir_version, 10);
  EXPECT_EQ(report.file_bytes, fs::file_size(path_));
  EXPECT_EQ(report.nodes_by_op.at("Conv"), 1);
  EXPECT_EQ(report.phases.size(), phases.size());
  EXPECT_TRUE(net.is_training()) << "the module gets its own mode back";
  EXPECT_EQ(listing(), std::set<std::string>{"m.onnx"});
  EXPECT_EQ(OrtModel(path_).output_names(), std::vector<std::string>{"logits"});
  const VerifyReport verified =
      verify_onnx(net, {{torch::randn({1, 3, 8, 8})}, {torch::randn({5, 3, 8, 8})}}, path_);
  expect_verified(verified);
  EXPECT_LT(verified.max_relative(), 1e-5);
}

TEST_F(ExportTest, TwoExportsAreTheSameBytes) {
  const torch::jit::Module net = quantized_conv_net(true);
  export_onnx(net, {torch::randn({1, 3, 8, 8})}, path_);
  const std::string first = contents(path_);
  export_onnx(net, {torch::randn({1, 3, 8, 8})}, path_);
  EXPECT_EQ(contents(path_), first);
}

TEST_F(ExportTest, EveryOpsetLoadsAndComputesTheSame) {
  const torch::jit::Module net = conv_net();
  const at::Tensor x = torch::randn({2, 3, 8, 8});
  for (int64_t opset = 10; opset <= 26; ++opset) {
    SCOPED_TRACE("opset " + std::to_string(opset));
    EXPECT_EQ(export_onnx(net, {x}, path_, at_opset(opset)).opset, opset);
    expect_verified(verify_onnx(net, {{x}}, path_));
  }
}

TEST_F(ExportTest, QuantizersBecomeQAndDqWhateverHoldsTheWeight) {
  for (bool parameter : {true, false}) {
    SCOPED_TRACE(parameter ? "parameter" : "buffer");
    const torch::jit::Module net = quantized_conv_net(parameter);
    const at::Tensor x = torch::randn({2, 3, 8, 8});
    const ExportReport report = export_onnx(net, {x}, path_);
    EXPECT_EQ(report.nodes_by_op.at("QuantizeLinear"), 2);
    EXPECT_EQ(report.nodes_by_op.at("DequantizeLinear"), 4) << "two activations, weight and bias";
    EXPECT_EQ(report.nodes_by_op.count("Relu"), 0u) << "the quantiser behind it clamps at 0";
    const VerifyReport verified = verify_onnx(net, {{x}}, path_);
    expect_verified(verified);
    EXPECT_EQ(verified.codes_compared(), 2 * 3 * 64 + 2 * 8 * 64);
  }
}

TEST_F(ExportTest, EveryFormOfWeightsAndActivationsComputesTheSame) {
  const torch::jit::Module net = quantized_conv_net(true);
  const at::Tensor x = torch::randn({2, 3, 8, 8});
  for (Weights weights : {Weights::kInt, Weights::kQdq}) {
    for (WeightStorage storage : {WeightStorage::kInt8, WeightStorage::kUInt8}) {
      for (ActivationStorage activations : {ActivationStorage::kAuto, ActivationStorage::kSigned}) {
        ExportOptions options;
        options.weights = weights;
        options.weight_storage = storage;
        options.activation_storage = activations;
        export_onnx(net, {x}, path_, options);
        expect_verified(verify_onnx(net, {{x}}, path_));
      }
    }
  }
}

struct TwoInTwoOutImpl : torch::nn::Module {
  TwoInTwoOutImpl() { register_module("fc", fc); }
  std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor scale = torch::full({}, 0.05f);
    const at::Tensor zero_point = torch::zeros({}, torch::kInt32);
    const at::Tensor q = fake_quantize(a, scale, zero_point, -8, 7);
    return {fc(q) + b, torch::sigmoid(q)};
  }
  torch::nn::Linear fc{6, 4};
};
TORCH_MODULE(TwoInTwoOut);

TEST_F(ExportTest, ACppModuleWithSeveralInputsAndOutputs) {
  TwoInTwoOut net;
  const BoxedForward forward = [net](const std::vector<c10::IValue>& in) mutable -> c10::IValue {
    auto [sum, sigmoid] = net->forward(in[0].toTensor(), in[1].toTensor());
    return c10::ivalue::Tuple::create({sum, sigmoid});
  };
  ExportOptions options;
  options.input_names = {"a", "b"};
  options.dynamic_axes = {{"a", 0, "N"}, {"b", 0, "N"}};
  const ExportReport report =
      export_onnx(net.ptr(), forward, {torch::randn({2, 6}), torch::randn({2, 4})}, path_, options);
  EXPECT_EQ(report.nodes_by_op.at("QuantizeLinear"), 1);
  EXPECT_EQ(report.nodes_by_op.at("Clip"), 1) << "4 bits in 8";
  OrtModel model(path_);
  EXPECT_EQ(model.input_names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(model.output_names(), (std::vector<std::string>{"output_0", "output_1"}));
  // Ties too: multiples of half a step.
  const at::Tensor ties = (torch::arange(-30, 30).to(torch::kFloat) * 0.025f).reshape({10, 6});
  expect_verified(verify_onnx(forward, {{ties, torch::randn({10, 4})}}, path_));
}

TEST_F(ExportTest, ASequential) {
  torch::nn::Sequential net(torch::nn::Linear(4, 8), torch::nn::ReLU(), torch::nn::Linear(8, 2));
  export_onnx(net, {torch::randn({3, 4})}, path_);
  const BoxedForward forward = [net](const std::vector<c10::IValue>& in) mutable -> c10::IValue {
    return net->forward(in[0].toTensor());
  };
  expect_verified(verify_onnx(forward, {{torch::randn({3, 4})}}, path_));
}

TEST_F(ExportTest, ExternalDataOnRequest) {
  ExportOptions options;
  options.external_data = ExternalData::kAlways;
  torch::nn::Sequential net(torch::nn::Linear(64, 64));
  const ExportReport report = export_onnx(net, {torch::randn({3, 64})}, path_, options);
  EXPECT_EQ(listing(), (std::set<std::string>{"m.onnx", "m.onnx.data"}));
  EXPECT_EQ(report.external_bytes, fs::file_size(path_ + ".data"));
  const BoxedForward forward = [net](const std::vector<c10::IValue>& in) mutable -> c10::IValue {
    return net->forward(in[0].toTensor());
  };
  expect_verified(verify_onnx(forward, {{torch::randn({3, 64})}}, path_));
}

TEST_F(ExportTest, ARefusalNamesTheOpAndLeavesTheFileAlone) {
  export_onnx(conv_net(), {torch::randn({1, 3, 8, 8})}, path_);
  const std::string before = contents(path_);
  torch::jit::Module net("Net");
  net.define(R"(
def forward(self, x):
    return torch.lgamma(x) + torch.erfinv(x)
)");
  std::string words;
  try {
    export_onnx(net, {torch::rand({3})}, path_);
    FAIL() << "exported";
  } catch (const std::runtime_error& error) {
    words = error.what();
  }
  EXPECT_NE(words.find("aten::lgamma"), std::string::npos) << words;
  EXPECT_NE(words.find("aten::erfinv"), std::string::npos) << "all refusals at once: " << words;
  EXPECT_EQ(contents(path_), before);
  EXPECT_EQ(listing(), std::set<std::string>{"m.onnx"});
}

TEST_F(ExportTest, ADumpShowsTheGraphAfterEachPass) {
  ExportOptions options;
  options.dump = path("dump/inner");
  const at::Tensor x = torch::randn({2, 3, 8, 8});
  export_onnx(quantized_conv_net(true), {x}, path_, options);
  const auto file = [&](const std::string& name) { return contents(options.dump + "/" + name); };
  const std::string list = file("000_contents.txt");
  for (const char* part :
       {"Export to ", "  source      graph of the model  ", "  lower 1.1   fold constants  ",
        "  record 1    types from the examples  ", "  convert     symbolic functions  ",
        "  qdq         quantize biases  ", "+1 DequantizeLinear", "  check       onnx checker  ",
        "  write       file  ", "wrote "}) {
    EXPECT_NE(list.find(part), std::string::npos) << part << "\n" << list;
  }
  // One weight, from its path in the module to its codes: its data is never printed.
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(options.dump)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  const auto last_of = [&](const std::string& phase) {
    std::string last;
    for (const std::string& name : names) {
      if (name.find("_" + phase) == 3) last = name;
    }
    return file(last);
  };
  EXPECT_NE(last_of("source").find("%w: float32[8,3,3,3]\n"), std::string::npos);
  const std::string recorded = last_of("record-1");
  EXPECT_NE(recorded.find(": float32[8,3,3,3] = aten::fake_quantize_per_channel_affine(self=%w, "
                          "scale=%s, zero_point=%z, axis=0, quant_min=-127, quant_max=127)"),
            std::string::npos)
      << recorded;
  EXPECT_NE(last_of("convert").find("%w_quantized: int8[8,3,3,3]\n"), std::string::npos);
  EXPECT_NE(last_of("qdq").find("%w_quantized: int8[8,3,3,3]\n"), std::string::npos);
  EXPECT_EQ(last_of("qdq").find("%w: "), std::string::npos);
}

TEST_F(ExportTest, ADumpChangesNothing) {
  const torch::jit::Module net = quantized_conv_net(true);
  const at::Tensor x = torch::randn({2, 3, 8, 8});
  export_onnx(net, {x}, path_);
  const std::string without = contents(path_);
  ExportOptions options;
  options.dump = path("dump");
  export_onnx(net, {x}, path_, options);
  EXPECT_EQ(contents(path_), without);
}

TEST_F(ExportTest, ARefusedExportLeavesItsDump) {
  torch::jit::Module net("Net");
  net.define("def forward(self, x):\n    return torch.lgamma(x)\n");
  ExportOptions options;
  options.dump = path("dump");
  const std::string words = error_of([&] { export_onnx(net, {torch::rand({3})}, path_, options); });
  EXPECT_NE(words.find("aten::lgamma"), std::string::npos);
  const std::string list = contents(options.dump + "/000_contents.txt");
  EXPECT_NE(list.find("  convert     symbolic functions            FAILED: " + words + "\n"),
            std::string::npos)
      << list;
  // An error of torch's stands there without its C++ backtrace.
  options.dynamic_axes = {{"x", 3, "N"}};
  EXPECT_NE(error_of([&] { export_onnx(net, {torch::rand({3})}, path_, options); }), "no error");
  const std::string second = contents(options.dump + "/000_contents.txt");
  EXPECT_NE(second.find("001  source      graph of the model            FAILED: "),
            std::string::npos)
      << second;
  EXPECT_EQ(second.find("Exception raised from"), std::string::npos);
  EXPECT_EQ(listing(), std::set<std::string>{"dump"});
}

TEST_F(ExportTest, OptionsOutsideTheirRangeAreRefused) {
  const torch::jit::Module net = conv_net();
  const std::vector<c10::IValue> inputs = {torch::randn({1, 3, 8, 8})};
  for (int64_t opset : {9, 27}) {
    const std::string words = error_of([&] { export_onnx(net, inputs, path_, at_opset(opset)); });
    EXPECT_EQ(words.find("export_onnx: opset = " + std::to_string(opset) + ", expected 10 to 26"),
              0u)
        << words;
  }
  EXPECT_EQ(error_of([&] { export_onnx(net, inputs, ""); }).find("export_onnx: path is empty"), 0u);
  EXPECT_EQ(error_of([&] {
              export_onnx(net, inputs, folder_.string());
            }).find("export_onnx: " + folder_.string() + " is a directory"),
            0u);
  const std::string missing = path("none/m.onnx");
  EXPECT_EQ(error_of([&] { export_onnx(net, inputs, missing); }),
            "cannot write " + missing + ": No such file or directory");
  EXPECT_TRUE(listing().empty());
}

}  // namespace
}  // namespace qcdq
