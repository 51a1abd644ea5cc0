// A small net of quantised layers as a whole: what tracing sees, state dicts, clones, other types.
// Code under test: torch_plugin/{modules,quantizer}.cpp; modules_test.cpp has the layers one by
// one.
#include "qcdq/modules.h"

#include <gtest/gtest.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <sstream>

#include "expect_message.h"
#include "qcdq/ops.h"

namespace {

using qcdq::QuantSpec;
using torch::Tensor;

class LayerState : public testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(7); }
};

template <typename Holder>
void through_file(const Holder& from, Holder& to) {
  std::stringstream file;
  torch::save(from, file);
  torch::load(to, file);
}

struct NetImpl : torch::nn::Cloneable<NetImpl> {
  explicit NetImpl(QuantSpec weight = qcdq::int4().per_channel(0).narrow()) : weight_spec(weight) {
    reset();
  }
  void reset() override {
    conv = register_module(
        "conv", qcdq::QuantConv2d(qcdq::QuantConv2dOptions(1, 4, 3).weight(weight_spec)));
    relu = register_module("relu", qcdq::QuantReLU(qcdq::uint4().collect_steps(2)));
    fc = register_module(
        "fc", qcdq::QuantLinear(
                  qcdq::QuantLinearOptions(4 * 6 * 6, 5).input(qcdq::uint8()).bias(qcdq::int32())));
  }
  Tensor forward(Tensor x) { return fc(relu(conv(x)).flatten(1)); }
  QuantSpec weight_spec;
  qcdq::QuantConv2d conv{nullptr};
  qcdq::QuantReLU relu{nullptr};
  qcdq::QuantLinear fc{nullptr};
};
TORCH_MODULE(Net);

void train_steps(Net& net, int steps) {
  torch::optim::SGD sgd(net->parameters(), torch::optim::SGDOptions(0.01));
  for (int i = 0; i < steps; ++i) {
    sgd.zero_grad();
    net->forward(torch::randn({4, 1, 8, 8})).pow(2).mean().backward();
    sgd.step();
  }
}

TEST_F(LayerState, TraceHoldsOneOpPerQuantizerAndNoArithmetic) {
  Net net;
  train_steps(net, 4);
  net->eval();
  for (Tensor parameter : net->parameters()) parameter.requires_grad_(false);
  const Tensor x = torch::randn({2, 1, 8, 8});
  using Values = std::vector<c10::IValue>;
  const auto traced = torch::jit::tracer::trace(
      Values{x}, [&](Values in) -> Values { return {net->forward(in[0].toTensor())}; },
      [](const torch::autograd::Variable&) { return std::string(); }, true, false);
  std::map<std::string, int> ops;
  for (const auto* node : traced.first->graph->nodes()) ++ops[node->kind().toQualString()];
  EXPECT_EQ(ops["qcdq::fake_quantize"], 5);  // two weights, relu, fc's input, fc's bias
  for (const auto& [op, count] : ops) {
    EXPECT_TRUE(op == "qcdq::fake_quantize" || op.rfind("prim::", 0) == 0 || op == "aten::relu" ||
                op == "aten::flatten" || op == "aten::linear" || op == "aten::_convolution" ||
                op == "aten::conv2d")
        << op << " x" << count;
  }
}

TEST_F(LayerState, StateDictRestoresEvalAndTraining) {
  const Tensor x = torch::randn({2, 1, 8, 8});
  for (int steps : {1, 4}) {  // while statistics run, and after
    for (bool save_in_eval : {false, true}) {
      Net net, in_eval, in_training;
      train_steps(net, steps);
      net->train(!save_in_eval);
      in_eval->eval();
      through_file(net, in_eval);
      through_file(net, in_training);
      net->eval();
      EXPECT_TRUE(torch::equal(in_eval->forward(x), net->forward(x))) << steps << save_in_eval;
      torch::manual_seed(1);
      net->train();
      train_steps(net, 3);
      torch::manual_seed(1);
      train_steps(in_training, 3);
      net->eval();
      in_training->eval();
      EXPECT_TRUE(torch::equal(in_training->forward(x), net->forward(x))) << steps << save_in_eval;
    }
  }
  Net net, other(qcdq::int8().per_channel(0).narrow());
  EXPECT_MESSAGE(through_file(net, other),
                 "QuantConv2d: the file holds a quantiser int4 narrow per_channel(0) minmax; "
                 "expected int8 narrow");
}

TEST_F(LayerState, CloneIsEqualAndIndependent) {
  Net net;
  train_steps(net, 4);
  net->eval();
  const Tensor x = torch::randn({2, 1, 8, 8});
  const Tensor y = net->forward(x);
  Net copy(std::dynamic_pointer_cast<NetImpl>(net->clone()));
  EXPECT_TRUE(torch::equal(copy->forward(x), y));
  copy->train();
  train_steps(copy, 4);
  copy->eval();
  EXPECT_FALSE(torch::equal(copy->forward(x), y));
  EXPECT_TRUE(torch::equal(net->forward(x), y));
}

TEST_F(LayerState, ToTypeLeavesQuantizersAlone) {
  Net net;
  train_steps(net, 4);
  net->to(torch::kDouble);
  EXPECT_EQ(net->conv->weight.scalar_type(), torch::kDouble);
  for (const auto& item : net->named_buffers()) {
    EXPECT_NE(item.value().scalar_type(), torch::kDouble) << item.key();
    if (item.key().ends_with("zero_point")) {
      EXPECT_EQ(item.value().scalar_type(), torch::kInt);
    }
  }
  const Tensor x = torch::randn({2, 1, 8, 8}, torch::kDouble);
  net->forward(x).sum().backward();
  net->eval();
  EXPECT_EQ(net->forward(x).scalar_type(), torch::kDouble);
  net->to(torch::Device(torch::kCPU), torch::kHalf);
  EXPECT_EQ(net->fc->weight.scalar_type(), torch::kHalf);
  EXPECT_EQ(net->fc->weight_quant->scale.scalar_type(), torch::kFloat);
  EXPECT_EQ(net->conv->weight_quant->forward(net->conv->weight).scalar_type(), torch::kHalf);
}

TEST_F(LayerState, EmptyBatchPassesThrough) {
  qcdq::QuantReLU relu;
  EXPECT_EQ(relu->forward(torch::empty({0, 3})).sizes(), torch::IntArrayRef({0, 3}));
  EXPECT_FALSE(relu->act_quant->is_ready());
}

}  // namespace
