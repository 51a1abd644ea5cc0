// Sources: one-line errors of load_torchscript, arguments of TorchScript methods, dynamic axes, and
// traced C++ modules.
#include <caffe2/serialize/inline_container.h>
#include <gtest/gtest.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <filesystem>
#include <fstream>

#include "symbolic/lower/lower.h"
#include "symbolic/program/values.h"
#include "symbolic/settle.h"
#include "symbolic/source/module_graph.h"
#include "symbolic/source/source.h"
#include "tests/symbolic/program_fixture.h"

namespace qcdq {
namespace {

class LoadTorchScript : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("qcdq_source_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }
  std::string write_zip(const std::string& name, const std::vector<std::string>& records) const {
    caffe2::serialize::PyTorchStreamWriter writer(path(name));
    for (const std::string& record : records) writer.writeRecord(record, "data", 4);
    writer.writeEndOfFile();
    return path(name);
  }
  static std::string error(const std::string& path) {
    const std::string text = error_of([&] { load_torchscript(path); });
    EXPECT_TRUE(text.starts_with(path + ": ")) << text;
    return text.substr(std::min(text.size(), path.size() + 2));
  }

  std::filesystem::path folder_;
};

TEST_F(LoadTorchScript, NamesWhatIsWrong) {
  const std::string not_torchscript = ", not TorchScript; save it with torch.jit.save";
  EXPECT_EQ(error(path("missing.pt")), "No such file or directory");
  EXPECT_EQ(error(folder_.string()), "is a directory, expected a .pt file");
  EXPECT_EQ(error(write("empty.pt", "")), "the file is empty");
  EXPECT_EQ(error(write("text.pt", "hello")), "not a zip archive" + not_torchscript);
  EXPECT_EQ(error(write("legacy.pt", "\x80\x02\x8a\x0al")),
            "a pickled module or state dict" + not_torchscript);
  EXPECT_EQ(error(write("damaged.pt", "PK\x03\x04 and no more")),
            "the zip archive is truncated or damaged");
  EXPECT_EQ(error(write_zip("pickled.pt", {"data.pkl"})),
            "a pickled module or state dict" + not_torchscript);
  EXPECT_EQ(error(write_zip("exported.pt2", {"archive_format", "models/model.json"})),
            "a torch.export archive; name it .pt2 for the program qcdq, or use qcdq::load_pt2 in "
            "C++");
  EXPECT_EQ(error(write_zip("other.zip", {"readme"})),
            "a zip archive without TorchScript code" + not_torchscript);
}

TEST_F(LoadTorchScript, NamesTheLibraryOfAnUnknownOp) {
  {
    torch::Library ours(torch::Library::FRAGMENT, "qcdq", std::nullopt, __FILE__, __LINE__);
    ours.def("not_of_this_build(Tensor x) -> Tensor");
    torch::Library theirs(torch::Library::DEF, "front_test", std::nullopt, __FILE__, __LINE__);
    theirs.def("twice(Tensor x) -> Tensor");
    for (const std::string op : {"qcdq::not_of_this_build", "front_test::twice"}) {
      torch::jit::Module module = module_of("def forward(self, x):\n    return torch.relu(x)\n");
      auto graph = module.get_method("forward").graph();
      torch::jit::Node* relu = *graph->nodes().begin();
      torch::jit::WithInsertPoint guard(relu);
      torch::jit::Node* call = graph->insertNode(
          graph->create(c10::Symbol::fromQualString(op), {graph->inputs()[1]}, 1));
      relu->output()->replaceAllUsesWith(call->output());
      relu->destroy();
      module.save(path(op.substr(0, 4) + ".pt"));
    }
  }
  EXPECT_EQ(error(path("qcdq.pt")),
            "qcdq::not_of_this_build is not registered: load libqcdq_ops.so first");
  EXPECT_EQ(error(path("fron.pt")),
            "front_test::twice is not registered: load the library that defines it first (qcdq "
            "export --plugin LIB.so)");
}

TEST_F(LoadTorchScript, LoadsInEvalMode) {
  torch::jit::Module module = module_of("def forward(self, x):\n    return torch.relu(x)\n");
  module.train();
  module.save(path("model.pt"));
  const torch::jit::Module loaded = load_torchscript(path("model.pt"));
  EXPECT_FALSE(loaded.is_training());
  EXPECT_EQ(std::string(loaded.attr("w").toTensor().device().str()), "cpu");
}

TEST(TorchScriptSource, NamesInputsAndFillsDefaults) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x, y, scale: float = 2.0, flag: bool = False):
    if flag:
        return x
    return (x + y) * scale
)");
  Program program = program_from_torchscript(module, {at::ones({2}), at::ones({2})}, {});
  ASSERT_EQ(program.inputs.size(), 2U);
  EXPECT_EQ(program.inputs[0].name, "x");
  EXPECT_EQ(program.inputs[1].name, "y");
  EXPECT_EQ(program.graph->inputs().size(), 2U);
  EXPECT_EQ(program.notes,
            (std::vector<std::string>{"input 'scale' is left out: fixed to its default, 2.",
                                      "input 'flag' is left out: fixed to its default, False"}));
  lower(program);
  EXPECT_EQ(ops(program), (Ops{{"aten::add.Tensor", 1}, {"aten::mul.Scalar", 1}}));
  EXPECT_TRUE(at::equal(run_graph(program).at(0), at::full({2}, 4.0)));
  EXPECT_TRUE(
      at::equal(program.reference({at::ones({2}), at::ones({2})}).at(0), at::full({2}, 4.0)));

  Program given = program_from_torchscript(module, {at::ones({2}), at::ones({2}), 3.0}, {});
  EXPECT_EQ(given.notes,
            (std::vector<std::string>{"input 'scale' is no tensor: fixed to 3.",
                                      "input 'flag' is left out: fixed to its default, False"}));
  EXPECT_TRUE(at::equal(run_graph(given).at(0), at::full({2}, 6.0)));
}

TEST(TorchScriptSource, NotesANumberInATuple) {
  const torch::jit::Module module = module_of(R"(
def forward(self, pair: Tuple[Tensor, int]):
    return pair[0] * pair[1]
)");
  Program program = program_from_torchscript(
      module, {c10::ivalue::Tuple::create({at::ones({2}), int64_t{3}})}, {});
  EXPECT_EQ(program.notes,
            (std::vector<std::string>{"a part of input 'pair' is no tensor: fixed to 3"}));
  lower(program);
  EXPECT_TRUE(at::equal(run_graph(program).at(0), at::full({2}, 3.0)));
}

TEST(TorchScriptSource, RefusesWrongArguments) {
  const torch::jit::Module module =
      module_of("def forward(self, x, k: int = 1):\n    return x * k\n");
  const auto error = [&](const std::vector<c10::IValue>& inputs,
                         const ExportOptions& options = {}) {
    return error_of([&] { program_from_torchscript(module, inputs, options); });
  };
  EXPECT_EQ(error({}), "forward(x, k=1): input 'x' has no default and was not given");
  EXPECT_EQ(error({at::ones({1}), 1, 2}), "forward(x, k=1) takes 2 inputs, got 3");
  EXPECT_EQ(error({1}), "forward(x, k=1): input 'x' is a int, expected Tensor");
  EXPECT_EQ(error({at::ones({1}), at::ones({1})}),
            "forward(x, k=1): input 'k' is a Tensor, expected int");
  ExportOptions options;
  options.method = "predict";
  EXPECT_EQ(error({at::ones({1})}, options), "the module has no method 'predict' (it has forward)");
  options = {};
  options.input_names = {"a", "b"};
  EXPECT_EQ(error({at::ones({1})}, options), "input names: 2 given, the model has 1 tensor inputs");
  options = {};
  options.output_names = {"y", "y"};
  EXPECT_EQ(error({at::ones({1})}, options), "output names: 'y' is given twice");
}

TEST(TorchScriptSource, ChecksDynamicAxes) {
  const torch::jit::Module module = module_of("def forward(self, x, y):\n    return x + y.sum()\n");
  const auto error = [&](std::vector<DynamicAxis> axes) {
    ExportOptions options;
    options.dynamic_axes = std::move(axes);
    return error_of([&] {
      program_from_torchscript(module, {at::ones({2, 3}), at::ones({0, 4})}, options);
    });
  };
  EXPECT_EQ(error({{"z", 0, "N"}}), "dynamic axis z:0: the model has no input 'z' (it has x, y)");
  EXPECT_EQ(error({{"x", 2, "N"}}),
            "dynamic axis x:2: axis out of range, the example has 2 dimensions");
  EXPECT_EQ(error({{"x", 0, ""}}), "dynamic axis x:0: its symbol is empty");
  EXPECT_EQ(error({{"y", 0, "N"}}),
            "dynamic axis y:0: the example's size is 0, expected at least 1");
  EXPECT_EQ(error({{"x", 0, "N"}, {"x", -2, "M"}}), "dynamic axis x:-2: given twice");
  EXPECT_EQ(error({{"x", 0, "N"}, {"x", 1, "N"}}),
            "dynamic axis x:1: symbol 'N' has size 2 elsewhere, and 3 here");
}

TEST(TorchScriptSource, SecondExamplesRepeatTheFirst) {
  std::vector<ProgramInput> inputs = {{"x", {torch::tensor({{1, 2}, {3, 4}}, at::kLong)}, {}},
                                      {"y", {at::ones({2}, at::kFloat)}, {}}};
  apply_dynamic_axes(inputs, {{"x", 0, "N"}, {"y", 0, "M"}});
  EXPECT_TRUE(at::equal(inputs[0].examples.at(1).toTensor(),
                        torch::tensor({{1, 2}, {3, 4}, {1, 2}}, at::kLong)));
  EXPECT_EQ(inputs[1].examples.at(1).toTensor().sizes(), (c10::IntArrayRef{4}));
  EXPECT_EQ(inputs[0].symbols, (std::vector<std::string>{"N", ""}));
}

/// forward(self, x.1, x.2, x_1, y): what argument_names has to keep apart.
torch::jit::Module module_with_like_names() {
  torch::jit::Module module("M");
  module.define("def forward(self, a, b, c, d):\n    return a + b * c - d\n");
  torch::jit::Function& forward = module.get_method("forward").function();
  const char* names[] = {"self", "x.1", "x.2", "x_1", "y"};
  std::vector<c10::Argument> arguments;
  for (size_t i = 0; i < 5; ++i) {
    arguments.emplace_back(names[i], forward.getSchema().arguments()[i].type());
  }
  forward.setSchema(forward.getSchema().cloneWithArguments(std::move(arguments)));
  return module;
}

TEST(TorchScriptSource, ArgumentNamesAreThoseOfTheInputsAndTheDynamicAxes) {
  const torch::jit::Module module = module_with_like_names();
  const std::vector<std::string> names = argument_names(module);
  EXPECT_EQ(names, (std::vector<std::string>{"x", "x_1", "x_1_1", "y"}));
  const std::vector<c10::IValue> inputs(4, torch::ones({2, 3}));
  for (size_t i = 0; i < names.size(); ++i) {
    ExportOptions options;
    options.dynamic_axes = {{names[i], 0, "N"}};
    const Program program = program_from_torchscript(module, inputs, options);
    EXPECT_EQ(program.inputs.at(i).name, names[i]);
    EXPECT_EQ(program.inputs.at(i).symbols.at(0), "N");
  }
  EXPECT_EQ(error_of([&] { argument_names(module, "backward"); }),
            "the module has no method 'backward' (it has forward)");
}

TEST(TorchScriptSource, StripsTheSuffixOfTracedNames) {
  EXPECT_EQ(plain_name("x.1"), "x");
  EXPECT_EQ(plain_name("input.12"), "input");
  EXPECT_EQ(plain_name("x"), "x");
  EXPECT_EQ(plain_name("x.y"), "x.y");
}

TEST(TorchScriptSource, RefusesAModelThatChangesItself) {
  torch::jit::Module module("Counter");
  module.register_attribute("count", c10::IntType::get(), 0);
  module.define(R"(
def forward(self, x):
    self.count = self.count + 1
    return x * self.count
)");
  const std::string error =
      error_of([&] { program_from_torchscript(module, {at::ones({1})}, {}); });
  EXPECT_NE(error.find("the model changes its own attribute 'count' as it runs"), std::string::npos)
      << error;
}

TEST(TorchScriptSource, ReadsAttributesThatOnlyTrainingWrites) {
  torch::jit::Module module("Counter");
  module.register_attribute("training", c10::BoolType::get(), true);
  module.register_attribute("count", c10::IntType::get(), 3);
  module.define(R"(
def forward(self, x):
    if self.training:
        self.count = self.count + 1
    return x * self.count
)");
  Program program = program_from_torchscript(module, {at::ones({1})}, {});
  lower(program);
  EXPECT_EQ(run_graph(program).at(0).item<float>(), 3.0F);
}

struct NetImpl : torch::nn::Module {
  NetImpl() {
    conv = register_module("conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 2, 3)));
    norm = register_module("norm", torch::nn::BatchNorm2d(2));
    fc = register_module("fc", torch::nn::Linear(8, 3));
    frozen = at::full({3, 3}, 0.5F);  // not registered: a constant of the trace
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = torch::relu(norm(conv(x)));
    y = torch::dropout(y.flatten(1), 0.5, is_training());
    y = fc(y);
    const at::Tensor w = at::fake_quantize_per_tensor_affine(frozen, 0.1, 0, -128, 127);
    return at::linear(y, w);
  }
  torch::nn::Conv2d conv{nullptr};
  torch::nn::BatchNorm2d norm{nullptr};
  torch::nn::Linear fc{nullptr};
  at::Tensor frozen;
};

BoxedForward boxed(const std::shared_ptr<NetImpl>& net) {
  return [net](const std::vector<c10::IValue>& inputs) -> c10::IValue {
    return net->forward(inputs.at(0).toTensor());
  };
}

TEST(TraceModule, TracesInEvalModeWithNamedWeights) {
  torch::manual_seed(1);
  const auto net = std::make_shared<NetImpl>();
  net->train();
  net->norm->eval();  // a mode of its own
  ExportOptions options;
  options.dynamic_axes = {{"input", 0, "N"}};
  const at::Tensor x = at::rand({2, 1, 4, 4});
  Program program = program_from_module(net, boxed(net), {x}, options);
  EXPECT_TRUE(net->is_training());
  EXPECT_TRUE(net->conv->is_training());
  EXPECT_FALSE(net->norm->is_training());
  settle(program);
  EXPECT_EQ(program.inputs.at(0).name, "input");
  EXPECT_EQ(program.output_names, (std::vector<std::string>{"output"}));
  Ops counts = ops(program);
  EXPECT_EQ(counts["aten::fake_quantize_per_tensor_affine"], 1);  // of a traced constant
  EXPECT_EQ(counts["aten::dropout"], 0);
  EXPECT_EQ(counts["aten::addmm"], 1);
  EXPECT_EQ(counts["aten::linear"], 1);
  EXPECT_EQ(program.types.at(program.graph->outputs()[0]).symbols,
            (std::vector<std::string>{"N", ""}));
  EXPECT_EQ(program.parameter_paths.at(net->conv->weight.const_data_ptr()), "conv.weight");
  EXPECT_EQ(program.parameter_paths.at(net->norm->running_mean.const_data_ptr()),
            "norm.running_mean");
  EXPECT_TRUE(net->is_training());
  net->eval();
  EXPECT_TRUE(at::allclose(run_graph(program).at(0), net->forward(x)));
}

TEST(TraceModule, RefusesABakedSize) {
  const auto net = std::make_shared<torch::nn::LinearImpl>(4, 2);
  const BoxedForward baked = [net](const std::vector<c10::IValue>& inputs) -> c10::IValue {
    const at::Tensor x = inputs.at(0).toTensor();
    return x.view({x.size(0), -1}).relu();
  };
  ExportOptions options;
  options.dynamic_axes = {{"input", 0, "N"}};
  Program program = program_from_module(net, baked, {at::rand({2, 2, 2})}, options);
  lower(program);
  try {
    settle_lowered(program);
    FAIL() << "a baked size was not refused";
  } catch (const UnsupportedOp& error) {
    EXPECT_EQ(error.details().op, "aten::view");
    EXPECT_EQ(error.details().reason,
              "output 'output' has the shape [2, 6], the model gives [3, 4] at N=3");
  }
}

TEST(TraceModule, NamesInputsAndOutputs) {
  const auto net = std::make_shared<torch::nn::LinearImpl>(2, 2);
  const BoxedForward forward = [net](const std::vector<c10::IValue>& inputs) -> c10::IValue {
    const at::Tensor sum =
        inputs.at(0).toTensor() + inputs.at(2).toTensor() * inputs.at(1).toDouble();
    return c10::ivalue::Tuple::create({net->forward(sum), sum});
  };
  Program program =
      program_from_module(net, forward, {at::ones({1, 2}), 3.0, at::ones({1, 2})}, {});
  lower(program);
  ASSERT_EQ(program.inputs.size(), 2U);
  EXPECT_EQ(program.inputs[0].name, "input_0");
  EXPECT_EQ(program.inputs[1].name, "input_1");
  EXPECT_EQ(program.output_names, (std::vector<std::string>{"output_0", "output_1"}));
  EXPECT_EQ(program.notes, (std::vector<std::string>{"input 1 is no tensor: fixed to 3."}));
  EXPECT_TRUE(at::equal(run_graph(program).at(1), at::full({1, 2}, 4.0F)));

  ExportOptions options;
  options.input_names = {"a"};
  EXPECT_EQ(error_of([&] {
              program_from_module(net, forward, {at::ones({1, 2}), 3.0, at::ones({1, 2})}, options);
            }),
            "input names: 1 given, the model has 2 tensor inputs");
}

}  // namespace
}  // namespace qcdq
