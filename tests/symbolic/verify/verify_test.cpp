// Verification against files built by hand: what must pass passes, and what differs is found and
// named. The torch side is a TorchScript module from source text.
#include "qcdq/verify.h"

#include <gtest/gtest.h>

#include "symbolic/file/file.h"
#include "tests/symbolic/file/file_fixture.h"

namespace qcdq {
namespace {

namespace fs = std::filesystem;

class VerifyTest : public FolderTest {
 protected:
  VerifyTest() { torch::manual_seed(0); }
  void write(const OnnxGraph& graph, ExternalData mode = ExternalData::kAuto) {
    check_model(graph);
    write_model(graph, path_, mode);
  }
};

torch::jit::Module module_of(const std::string& forward) {
  torch::jit::Module module("m");
  module.define(forward);
  return module;
}

constexpr const char* kQuantizer = R"(
def forward(self, x):
    scale = torch.full([1], 0.05)
    return (torch.clamp(torch.round(x / scale) + 8, 0, 15) - 8) * scale
)";

TEST_F(VerifyTest, AFileThatComputesTheSamePasses) {
  write(quantizer_graph(0.05f, 8));
  const torch::jit::Module module = module_of(kQuantizer);
  const at::Tensor x = torch::randn({1000});
  const VerifyReport report = verify_onnx(module, {{x}, {torch::randn({7})}}, path_);
  EXPECT_TRUE(report.ok()) << report.failures.front();
  EXPECT_TRUE(report.warnings.empty()) << report.warnings.front();
  EXPECT_EQ(report.max_relative(), 0);
  EXPECT_EQ(report.codes_compared(), 1007);
  EXPECT_EQ(report.codes_differing(), 0);
  ASSERT_EQ(report.outputs.size(), 4u);
  EXPECT_EQ(report.outputs[0].run, "optimisations off, inputs 1, batch 1000");
  EXPECT_EQ(report.outputs[3].run, "optimisations on, inputs 2, batch 7");
  for (const OutputDifference& row : report.outputs) {
    EXPECT_EQ(row.kind == RunKind::kOptimized, row.run.starts_with("optimisations on")) << row.run;
    EXPECT_FALSE(row.max_relative_with_float_biases.has_value());
  }
  for (const CodeDifference& row : report.codes) {
    EXPECT_EQ(row.kind == RunKind::kOptimized, row.run.starts_with("optimisations on")) << row.run;
  }
  EXPECT_NEAR(report.outputs[0].cosine, 1, 1e-12);
  EXPECT_EQ(report.first_divergence, "");
  EXPECT_FALSE(report.ort_version.empty());
}

TEST(VerifyReportTest, CodesAreCountedByTheKindOfTheirRun) {
  VerifyReport report;
  report.codes = {{"a", RunKind::kUnoptimized, "any label", 10, 1, 1},
                  {"a", RunKind::kOptimized, "optimisations off", 100, 20, 1},
                  {"b", RunKind::kUnoptimized, "", 5, 2, 1}};
  EXPECT_EQ(report.codes_compared(), 15);
  EXPECT_EQ(report.codes_differing(), 3);
}

TEST_F(VerifyTest, NamesTheOutputThatDiffers) {
  write(quantizer_graph(0.05f, 9));
  const VerifyReport report = verify_onnx(module_of(kQuantizer), {{torch::randn({1000})}}, path_,
                                          {.optimization = Optimization::kOff});
  EXPECT_FALSE(report.ok());
  ASSERT_EQ(report.failures.size(), 1u);
  EXPECT_EQ(
      report.failures[0].find("optimisations off, batch 1000: output 'y': relative difference "),
      0u)
      << report.failures[0];
  EXPECT_EQ(report.first_divergence, "y");
  EXPECT_EQ(report.codes_differing(), 0);
  EXPECT_GT(report.max_relative(), 0.05);
}

TEST_F(VerifyTest, CodesAtTiesAreNamedNotFailed) {
  write(quantizer_graph(0.0123f, 8));
  // Multiplies by the reciprocal, as aten does; x lies on ties.
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    scale = torch.full([1], 0.0123)
    return (torch.clamp(torch.round(x * (1.0 / scale)) + 8, 0, 15) - 8) * scale
)");
  at::Tensor x = (torch::arange(-8, 7).to(torch::kFloat) + 0.5f) * 0.0123f;
  const VerifyReport report = verify_onnx(module, {{x}}, path_);
  EXPECT_TRUE(report.ok()) << report.failures.front();
  EXPECT_EQ(report.codes_differing(), 0);
  EXPECT_GT(report.max_relative(), 1e-4) << "the tie must really fall to the other side";
  ASSERT_FALSE(report.warnings.empty());
  EXPECT_NE(report.warnings[0].find("codes at rounding ties"), std::string::npos);
}

TEST_F(VerifyTest, LeavesTheFileAlone) {
  write(quantizer_graph(0.05f, 8));
  const std::string before = contents(path_);
  verify_onnx(module_of(kQuantizer), {{torch::randn({5})}}, path_);
  EXPECT_EQ(contents(path_), before);
  EXPECT_EQ(listing(), std::set<std::string>{"m.onnx"});
}

/// x: [N, k] -> Q/DQ (u8) -> MatMul(int8 weight through DQ) -> Q/DQ (u8) -> y.
OnnxGraph matmul_graph(int64_t k, int64_t n, const std::vector<int8_t>& weight, float out_scale) {
  OnnxGraph graph;
  graph.inputs = {"x"};
  graph.outputs = {"y"};
  graph.types["x"] = {DType::kFloat32, true, {-1, k}, {"N", ""}};
  graph.types["y"] = {DType::kFloat32, true, {-1, n}, {"N", ""}};
  auto scalar = [&](const std::string& name, float scale, uint8_t zero_point) {
    graph.initializers[name + "_s"] = TensorData::scalar<float>(DType::kFloat32, scale);
    graph.initializers[name + "_z"] = TensorData::scalar<uint8_t>(DType::kUInt8, zero_point);
  };
  scalar("a", 1.0f, 0);
  scalar("b", out_scale, 128);
  graph.initializers["w"] = TensorData::from<int8_t>(DType::kInt8, {k, n}, weight);
  graph.initializers["w_s"] = TensorData::scalar<float>(DType::kFloat32, 1.0f);
  graph.initializers["w_z"] = TensorData::scalar<int8_t>(DType::kInt8, 0);
  auto node = [&](const char* op, std::vector<std::string> inputs, const std::string& output) {
    graph.nodes.push_back({op, "", output + "/" + op, std::move(inputs), {output}, {}, "", ""});
  };
  node("QuantizeLinear", {"x", "a_s", "a_z"}, "aq");
  node("DequantizeLinear", {"aq", "a_s", "a_z"}, "ad");
  node("DequantizeLinear", {"w", "w_s", "w_z"}, "wd");
  node("MatMul", {"ad", "wd"}, "m");
  node("QuantizeLinear", {"m", "b_s", "b_z"}, "bq");
  node("DequantizeLinear", {"bq", "b_s", "b_z"}, "y");
  return graph;
}

TEST_F(VerifyTest, SaturationOfThisCpuIsAWarningAndStrictAFailure) {
  constexpr int64_t kK = 512;
  std::vector<int8_t> weight(kK * 4);
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = i % 3 == 0 ? -128 : 127;
  const OnnxGraph graph = matmul_graph(kK, 4, weight, 128000.0f);
  write(graph, ExternalData::kAlways);
  const at::Tensor w =
      torch::from_blob(weight.data(), {kK, 4}, torch::kInt8).to(torch::kFloat).clone();
  torch::jit::Module module("m");
  module.register_buffer("w", w);
  module.define(R"(
def forward(self, x):
    y = torch.matmul(torch.clamp(torch.round(x), 0, 255), self.w)
    return (torch.clamp(torch.round(y / 128000.) + 128, 0, 255) - 128) * 128000.
)");
  const at::Tensor x = torch::randint(200, 256, {3, kK}).to(torch::kFloat);
  const VerifyReport report = verify_onnx(module, {{x}}, path_);
  EXPECT_TRUE(report.ok()) << report.failures.front();
  EXPECT_EQ(report.codes_differing(), 0);
  EXPECT_EQ(report.codes_compared(), 3 * kK + 12);
  const VerifyReport strict = verify_onnx(module, {{x}}, path_, {.strict = true});
  if (report.warnings.empty()) {  // a CPU with VNNI, or another architecture
    EXPECT_TRUE(strict.ok());
    GTEST_SKIP() << "u8 x s8 does not saturate on this CPU";
  }
  EXPECT_NE(report.warnings[0].find("this CPU's saturation of u8 x s8 products"), std::string::npos)
      << report.warnings[0];
  ASSERT_FALSE(strict.ok());
  EXPECT_EQ(strict.first_divergence, "bq/QuantizeLinear");
}

TEST_F(VerifyTest, ApproximateKernelsOfOrtAreNamed) {
  OnnxGraph graph;
  graph.inputs = {"x"};
  graph.outputs = {"y"};
  graph.types["x"] = {DType::kFloat32, true, {4, 256}, {}};
  graph.types["y"] = {DType::kFloat32, true, {4, 64}, {}};
  const at::Tensor codes = torch::randint(-127, 128, {256, 64}, torch::kInt8);
  graph.initializers["w"] = TensorData::from<int8_t>(
      DType::kInt8, {256, 64},
      std::vector<int8_t>(codes.data_ptr<int8_t>(), codes.data_ptr<int8_t>() + codes.numel()));
  graph.initializers["s"] = TensorData::scalar<float>(DType::kFloat32, 0.01f);
  graph.initializers["z"] = TensorData::scalar<int8_t>(DType::kInt8, 0);
  graph.nodes.push_back({"DequantizeLinear", "", "dq", {"w", "s", "z"}, {"wd"}, {}, "", ""});
  graph.nodes.push_back({"MatMul", "", "matmul", {"x", "wd"}, {"y"}, {}, "", ""});
  write(graph);
  torch::jit::Module module("m");
  module.register_buffer("w", codes.to(torch::kFloat) * 0.01f);
  module.define("def forward(self, x):\n    return torch.matmul(x, self.w)\n");
  const VerifyReport report = verify_onnx(module, {{torch::randn({4, 256})}}, path_);
  EXPECT_TRUE(report.ok()) << report.failures.front();
  EXPECT_EQ(report.codes_compared(), 0);
  if (report.warnings.empty()) GTEST_SKIP() << "this ONNX Runtime computes the product exactly";
  EXPECT_NE(report.warnings[0].find("ONNX Runtime's approximate MatMulNBits (gone with "
                                    "session.qdq_matmulnbits_accuracy_level=0)"),
            std::string::npos)
      << report.warnings[0];
}

TEST_F(VerifyTest, SeveralInputsAndOutputsOfAnyType) {
  OnnxGraph graph;
  graph.inputs = {"a", "b"};
  graph.outputs = {"sum", "largest", "greater"};
  graph.types["a"] = graph.types["b"] = graph.types["sum"] = {DType::kFloat32, true, {-1}, {"N"}};
  graph.types["largest"] = {DType::kInt64, true, {}, {}};
  graph.types["greater"] = {DType::kBool, true, {-1}, {"N"}};
  graph.nodes.push_back({"Add", "", "add", {"a", "b"}, {"sum"}, {}, "", ""});
  graph.nodes.push_back({"ArgMax",
                         "",
                         "argmax",
                         {"a"},
                         {"largest"},
                         {{"axis", int64_t{0}}, {"keepdims", int64_t{0}}},
                         "",
                         ""});
  graph.nodes.push_back({"Greater", "", "greater", {"a", "b"}, {"greater"}, {}, "", ""});
  write(graph);
  const auto a = torch::tensor({1.0f, 5.0f, 2.0f});
  const auto b = torch::tensor({2.0f, 4.0f, 2.0f});
  EXPECT_TRUE(verify_onnx(module_of(R"(
def forward(self, a, b):
    return a + b, (torch.argmax(a), [a > b])
)"),
                          {{a, b}}, path_)
                  .ok());
  const VerifyReport wrong = verify_onnx(module_of(R"(
def forward(self, a, b):
    return a + b, torch.argmax(b) + 1, a >= b
)"),
                                         {{a, b}}, path_, {.optimization = Optimization::kAll});
  ASSERT_EQ(wrong.failures.size(), 2u);
  EXPECT_EQ(wrong.failures[0],
            "optimisations on, batch 3: output 'largest': 1 of 1 values differ, and Long must be "
            "equal");
  EXPECT_EQ(wrong.failures[1],
            "optimisations on, batch 3: output 'greater': 1 of 3 values differ, and Bool must be "
            "equal");
  EXPECT_EQ(wrong.first_divergence, "largest");
  const VerifyReport fewer = verify_onnx(module_of("def forward(self, a, b):\n    return a + b\n"),
                                         {{a, b}}, path_, {.optimization = Optimization::kOff});
  ASSERT_EQ(fewer.failures.size(), 1u);
  EXPECT_EQ(fewer.failures[0],
            "optimisations off, batch 3: the torch model gives 1 outputs, the file 3");
  const VerifyReport typed =
      verify_onnx(module_of("def forward(self, a, b):\n    return a + b, a, a > b\n"), {{a, b}},
                  path_, {.optimization = Optimization::kOff});
  ASSERT_EQ(typed.failures.size(), 1u);
  EXPECT_EQ(typed.failures[0],
            "optimisations off, batch 3: output 'largest': torch gives Float[3], ONNX Runtime "
            "Long[]");
}

TEST_F(VerifyTest, EachModuleGetsItsOwnModeBack) {
  write(quantizer_graph(0.05f, 8));
  torch::jit::Module module("outer");
  torch::jit::Module inner("inner");
  inner.register_attribute("training", c10::BoolType::get(), true);
  module.register_attribute("training", c10::BoolType::get(), false);
  module.register_module("inner", inner);
  module.define(kQuantizer);
  verify_onnx(module, {{torch::randn({3})}}, path_);
  EXPECT_FALSE(module.is_training());
  EXPECT_TRUE(module.attr("inner").toModule().is_training());
}

TEST_F(VerifyTest, SaysWhatIsMissing) {
  const torch::jit::Module module = module_of(kQuantizer);
  const std::vector<std::vector<c10::IValue>> inputs = {{torch::randn({3})}};
  EXPECT_EQ(error_of([&] { verify_onnx(module, inputs, path_); }),
            "cannot open " + path_ + ": No such file or directory");
  std::ofstream(path_) << "not a model";
  EXPECT_EQ(error_of([&] { verify_onnx(module, inputs, path_); }), path_ + " is not an ONNX file");
  write(quantizer_graph(0.05f, 8));
  EXPECT_EQ(error_of([&] { verify_onnx(module, {}, path_); }),
            "verify_onnx: inputs is empty: expected one set or more");
  const std::string none = path("none");
  EXPECT_EQ(error_of([&] { verify_onnx(module, inputs, path_, {.ort = none}); }),
            "no ONNX Runtime at " + none +
                " (given): expected libonnxruntime.so, or a folder that holds it");
  const std::string found = find_onnxruntime();
  EXPECT_EQ(find_onnxruntime(fs::path(found).parent_path().string()), found);
  ASSERT_EQ(::setenv("QCDQ_ORT", none.c_str(), 1), 0);
  const std::string by_variable = error_of([&] { find_onnxruntime(); });
  ASSERT_EQ(::unsetenv("QCDQ_ORT"), 0);
  EXPECT_EQ(by_variable, "no ONNX Runtime at " + none +
                             " (QCDQ_ORT): expected libonnxruntime.so, or a folder that holds it");
}

TEST_F(VerifyTest, OrtModelTakesAndGivesEveryType) {
  const std::vector<std::pair<at::ScalarType, DType>> types = {
      {at::kFloat, DType::kFloat32},  {at::kHalf, DType::kFloat16},
      {at::kDouble, DType::kFloat64}, {at::kBFloat16, DType::kBFloat16},
      {at::kBool, DType::kBool},      {at::kChar, DType::kInt8},
      {at::kByte, DType::kUInt8},     {at::kShort, DType::kInt16},
      {at::kUInt16, DType::kUInt16},  {at::kInt, DType::kInt32},
      {at::kUInt32, DType::kUInt32},  {at::kLong, DType::kInt64},
      {at::kUInt64, DType::kUInt64}};
  for (const auto& [scalar_type, dtype] : types) {
    OnnxGraph graph;
    graph.inputs = {"x"};
    graph.outputs = {"y"};
    graph.types["x"] = graph.types["y"] = {dtype, true, {-1, -1}, {"A", "B"}};
    graph.nodes.push_back({"Identity", "", "same", {"x"}, {"y"}, {}, "", ""});
    write(graph);
    OrtModel model(path_);
    const at::Tensor x = torch::tensor({0.0f, 1.0f, 2.0f, 3.0f, 1.0f, 0.0f})
                             .reshape({2, 3})
                             .to(scalar_type)
                             .t();  // not contiguous
    const at::Tensor y = model.run({x}).at(0);
    EXPECT_EQ(y.scalar_type(), scalar_type);
    EXPECT_EQ(y.sizes(), x.sizes());
    EXPECT_TRUE(at::equal(y.to(at::kFloat), x.to(at::kFloat))) << c10::toString(scalar_type);
  }
  EXPECT_FALSE(OrtModel::version().empty());
  EXPECT_NE(error_of([&] {
              OrtModel(path_, {.config = {{"", "1"}}});
            }).find("session option =1: ONNX Runtime says: "),
            std::string::npos);
}

}  // namespace
}  // namespace qcdq
