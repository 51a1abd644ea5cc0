// Layers: default quantisers, statistics and learning, what eval freezes, bias.
// Code under test: torch_plugin/{modules,quantizer}.cpp; observers_test.cpp has the statistics,
// modules_state_test.cpp files, clones and traces.
#include "qcdq/modules.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <sstream>

#include "expect_message.h"
#include "qcdq/ops.h"

namespace {

using qcdq::QuantSpec;
using qcdq::Scaling;
using torch::Tensor;

class Layers : public testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(7); }
};

float value(const Tensor& t) { return t.item<float>(); }

// The integer codes behind fake-quantised values.
Tensor codes_of(const Tensor& y, const Tensor& scale) {
  const Tensor codes = y / scale;
  EXPECT_LT((codes - codes.round()).abs().max().item<float>(), 1e-2);
  return codes.round().to(torch::kLong);
}

template <typename Holder>
void through_file(const Holder& from, Holder& to) {
  std::stringstream file;
  torch::save(from, file);
  torch::load(to, file);
}

TEST_F(Layers, WidthsThatLayersRefuse) {
  EXPECT_MESSAGE(qcdq::QuantLinear(qcdq::QuantLinearOptions(2, 2).weight(qcdq::intn(9))),
                 "QuantLinear: weight quantiser int9; expected 2 to 8 bits");
  EXPECT_MESSAGE(qcdq::QuantReLU(qcdq::uintn(17)),
                 "QuantReLU: activation quantiser uint17; expected 2 to 16");
  EXPECT_MESSAGE(qcdq::QuantIdentity(qcdq::int8().per_channel(1)), "expected per_tensor");
  EXPECT_MESSAGE(
      qcdq::QuantLinear(qcdq::QuantLinearOptions(2, 2).weight(qcdq::int8().per_channel(2))),
      "expected an axis of a weight with 2 dimensions");
  EXPECT_MESSAGE(qcdq::QuantLinear(qcdq::QuantLinearOptions(2, 2).weight(
                     qcdq::int8().scaling(Scaling::kPercentile))),
                 "expected scaling minmax, learned or fixed");
  EXPECT_MESSAGE(qcdq::QuantLinear(0, 2), "QuantLinear: in_features = 0");
  EXPECT_MESSAGE(qcdq::QuantConv2d(qcdq::QuantConv2dOptions(3, 4, 3).groups(2)),
                 "groups = 2; expected channels");
}

TEST_F(Layers, EveryWidthStaysInItsRange) {
  const Tensor x = torch::randn({64, 16}) * 3;
  const auto check = [&](const QuantSpec& spec) {
    qcdq::QuantIdentity act(spec.collect_steps(1));
    act->train();
    act->forward(x);
    act->eval();
    const Tensor codes = codes_of(act->forward(x * 2), act->act_quant->scale) +
                         act->act_quant->zero_point.to(torch::kLong);
    EXPECT_EQ(codes.max().item<int64_t>(), spec.quant_max()) << spec;
    EXPECT_EQ(codes.min().item<int64_t>(), spec.quant_min()) << spec;
    EXPECT_TRUE(torch::equal(
        act->forward(x), qcdq::fake_quantize(x, act->act_quant->scale, act->act_quant->zero_point,
                                             spec.quant_min(), spec.quant_max())));
  };
  for (int64_t bits = 1; bits <= 16; ++bits) {
    check(qcdq::uintn(bits));
    check(qcdq::uintn(bits).symmetric(false));
    if (bits == 1) continue;
    check(qcdq::intn(bits));
    check(qcdq::intn(bits).narrow());
    check(qcdq::intn(bits).symmetric(false));
  }
  for (int64_t bits = 2; bits <= 8; ++bits) {
    const auto spec = qcdq::intn(bits).narrow();
    qcdq::QuantLinear fc(qcdq::QuantLinearOptions(16, 4).weight(spec));
    fc->eval();
    const Tensor codes = codes_of(fc->weight_quant->forward(fc->weight), fc->weight_quant->scale);
    EXPECT_EQ(codes.abs().max().item<int64_t>(), spec.quant_max());
  }
}

TEST_F(Layers, LinearDefaultQuantizesTheWeightOnly) {
  qcdq::QuantLinear fc(3, 128);
  EXPECT_FALSE(fc->input_quant);
  EXPECT_FALSE(fc->bias_quant);
  const Tensor x = torch::randn({5, 3});
  const Tensor scale = fc->weight.detach().abs().max() / 127.0;
  const Tensor w =
      qcdq::fake_quantize(fc->weight.detach(), scale, torch::zeros({}, torch::kInt), -127, 127);
  const Tensor expected = at::linear(x, w, fc->bias.detach());
  EXPECT_TRUE(torch::equal(fc->forward(x).detach(), expected));  // training
  fc->eval();
  EXPECT_TRUE(torch::equal(fc->weight_quant->scale, scale));
  EXPECT_TRUE(torch::equal(fc->forward(x).detach(), expected));
  EXPECT_EQ(codes_of(w, scale).abs().max().item<int64_t>(), 127);
  std::ostringstream text;
  text << *fc;
  EXPECT_EQ(text.str().substr(0, text.str().find('\n')),
            "qcdq::QuantLinear(3, 128, weight=int8 narrow minmax, bias=float)(");
}

TEST_F(Layers, WeightGradientGoesThroughTheScale) {
  qcdq::QuantLinear fc(qcdq::QuantLinearOptions(6, 4).weight(qcdq::int4().narrow()).bias(false));
  const Tensor g = torch::randn({4, 6});
  const Tensor w = fc->weight.detach().clone();
  (fc->weight_quant->forward(fc->weight) * g).sum().backward();
  const Tensor scale = w.abs().max() / 7.0;
  // Nothing lies outside [-7, 7]: the scale's gradient is sum g * (code - w / scale), and reaches
  // the largest weight.
  const Tensor d_scale = (g * ((w / scale).round() - w / scale)).sum();
  const Tensor at_max = (w.abs() == w.abs().max()).to(torch::kFloat) * w.sign() / 7.0;
  EXPECT_TRUE(torch::allclose(fc->weight.grad(), g + d_scale * at_max, 1e-5, 1e-6));
  EXPECT_GT(d_scale.abs().item<float>(), 0.01);
}

TEST_F(Layers, ActivationCollectsThenLearns) {
  qcdq::QuantReLU relu(qcdq::uint8().collect_steps(3));
  auto& quantizer = relu->act_quant;
  torch::optim::SGD sgd(relu->parameters(), torch::optim::SGDOptions(0.01));
  double running = 0;
  for (int step = 0; step < 3; ++step) {
    const Tensor x = torch::randn({8, 16});
    const float batch =
        value(torch::relu(x).max());  // 128 values: the 99.999 % percentile is the largest
    running = step == 0 ? batch : 0.9 * running + 0.1 * batch;
    const Tensor y = relu->forward(x);
    EXPECT_NEAR(value(quantizer->observer->high), running, 1e-6);
    const Tensor scale = quantizer->observer->high / 255.0;
    EXPECT_TRUE(
        torch::equal(y, qcdq::fake_quantize(torch::relu(x), scale, quantizer->zero_point, 0, 255)));
    EXPECT_FALSE(quantizer->threshold.grad().defined());
  }
  EXPECT_NEAR(value(quantizer->threshold), running, 1e-6);
  const float before = value(quantizer->threshold);
  const Tensor x = torch::randn({8, 16}) * 4;
  relu->forward(x).sum().backward();
  EXPECT_NEAR(value(quantizer->observer->high), running, 1e-6);  // the statistics have stopped
  // Almost all of the gradient comes from the clipped values: code / divisor = 1 each.
  const float clipped = value((x > before).sum());
  EXPECT_NEAR(value(quantizer->threshold.grad()), clipped, 1);
  sgd.step();
  EXPECT_LT(value(quantizer->threshold), before);
  relu->eval();
  EXPECT_FLOAT_EQ(value(quantizer->scale), value(quantizer->threshold) / 255);
}

TEST_F(Layers, StatisticsAloneNeverLearn) {
  for (auto scaling : {Scaling::kMinMax, Scaling::kPercentile}) {
    qcdq::QuantIdentity act(qcdq::uint8().symmetric(false).scaling(scaling));
    EXPECT_EQ(act->parameters().size(), 0u);
    act->forward(torch::tensor({-1.f, 3.f}));
    act->eval();
    EXPECT_EQ(value(act->act_quant->scale), 4.f / 255);
    EXPECT_EQ(act->act_quant->zero_point.item<int>(), 64);
  }
}

TEST_F(Layers, AsymmetricLearnedScaleHasAnOffset) {
  qcdq::QuantIdentity act(qcdq::uint8().symmetric(false).collect_steps(1));
  act->forward(torch::tensor({-1.f, 3.f}));
  EXPECT_EQ(value(act->act_quant->offset), 64);
  act->forward(torch::tensor({-2.f, 0.2f, 5.f})).sum().backward();
  EXPECT_TRUE(act->act_quant->offset.grad().defined());
  EXPECT_TRUE(act->act_quant->threshold.grad().defined());
  {
    torch::NoGradGuard no_grad;
    act->act_quant->offset.fill_(70.4);
  }
  act->eval();
  EXPECT_EQ(act->act_quant->zero_point.item<int>(), 70);
  EXPECT_FLOAT_EQ(value(act->act_quant->scale), 4.f / 255);
}

TEST_F(Layers, EvalBeforeStatisticsNamesTheLayer) {
  torch::nn::Sequential net(qcdq::QuantLinear(3, 4), qcdq::QuantReLU());
  net->eval();
  const Tensor x = torch::randn({2, 3});
  EXPECT_MESSAGE(net->forward(x),
                 "QuantReLU: eval mode before any statistics: its uint8 learned quantiser");
  qcdq::name_layers(*net);
  EXPECT_MESSAGE(net->forward(x), "QuantReLU '1': eval mode before any statistics");
  net->train();
  net->forward(x);
  net->eval();
  net->forward(x);
}

TEST_F(Layers, LearnedWeightScaleStartsFromTheWeight) {
  qcdq::QuantConv1d conv(qcdq::QuantConv1dOptions(2, 3, 3).weight(
      qcdq::int4().narrow().per_channel(0).scaling(Scaling::kLearned)));
  auto& quantizer = conv->weight_quant;
  conv->eval();  // before training: from the weight, and not started for good
  {
    torch::NoGradGuard no_grad;
    conv->weight.mul_(2);
  }
  conv->train();
  conv->forward(torch::randn({1, 2, 8})).sum().backward();
  const Tensor absmax = conv->weight.detach().abs().amax({1, 2});
  EXPECT_TRUE(torch::allclose(quantizer->threshold.detach(), absmax));
  EXPECT_EQ(quantizer->threshold.grad().sizes(), torch::IntArrayRef({3}));
  {
    torch::NoGradGuard no_grad;
    conv->weight.mul_(3);
    quantizer->threshold.neg_();
  }
  conv->eval();
  EXPECT_TRUE(torch::allclose(quantizer->scale, absmax / 7));
}

TEST_F(Layers, FixedAndPowerOfTwoScales) {
  qcdq::QuantIdentity fixed(qcdq::int8().fixed(0.5));
  fixed->eval();
  EXPECT_TRUE(
      torch::equal(fixed->forward(torch::tensor({0.6f, 100.f})), torch::tensor({0.5f, 63.5f})));
  qcdq::QuantLinear fc(
      qcdq::QuantLinearOptions(4, 2).weight(qcdq::int8().per_channel(0).power_of_two()));
  {
    torch::NoGradGuard no_grad;
    fc->weight.copy_(torch::tensor({{1.f, 0.f, 0.f, 0.f}, {0.f, 1.01f, 0.f, 0.f}}));
  }
  fc->eval();
  EXPECT_TRUE(torch::equal(fc->weight_quant->scale, torch::tensor({1.f / 128, 2.f / 128})));
  EXPECT_EQ(value(qcdq::QuantIdentity(qcdq::int8().fixed(0.3).power_of_two())->act_quant->scale),
            0.5f);
}

TEST_F(Layers, BiasTakesInputTimesWeightScale) {
  qcdq::QuantConv2d conv(qcdq::QuantConv2dOptions(2, 4, 3)
                             .padding(1)
                             .weight(qcdq::int8().narrow().per_channel(0))
                             .input(qcdq::uint8()));
  ASSERT_TRUE(conv->bias_quant);
  const Tensor x = torch::rand({1, 2, 5, 5});
  const Tensor trained = conv->forward(x).detach();
  conv->eval();
  const Tensor scale = conv->input_quant->scale * conv->weight_quant->scale;
  EXPECT_TRUE(torch::equal(conv->bias_quant->scale, scale));
  const Tensor codes = (conv->bias.detach() / scale).round();
  const Tensor qx = conv->input_quant->forward(x), qw = conv->weight_quant->forward(conv->weight);
  EXPECT_TRUE(torch::allclose(conv->bias_quant->forward(conv->bias), codes * scale, 1e-6, 0));
  EXPECT_TRUE(
      torch::equal(conv->forward(x).detach(),
                   at::conv2d(qx, qw, conv->bias_quant->forward(conv->bias), 1, 1).detach()));
  EXPECT_TRUE(torch::equal(conv->forward(x).detach(), trained));
}

TEST_F(Layers, BiasDefaultsToFloatWhereOneScaleIsMissing) {
  EXPECT_FALSE(qcdq::QuantLinear(qcdq::QuantLinearOptions(4, 4))->bias_quant);
  EXPECT_FALSE(
      qcdq::QuantLinear(qcdq::QuantLinearOptions(4, 4).weight(std::nullopt).input(qcdq::int8()))
          ->bias_quant);
  EXPECT_FALSE(
      qcdq::QuantLinear(
          qcdq::QuantLinearOptions(4, 4).weight(qcdq::int8().blocked(1, 2)).input(qcdq::int8()))
          ->bias_quant);
  EXPECT_FALSE(
      qcdq::QuantLinear(
          qcdq::QuantLinearOptions(4, 4).weight(qcdq::int8().per_channel(1)).input(qcdq::int8()))
          ->bias_quant);
  EXPECT_FALSE(
      qcdq::QuantLinear(qcdq::QuantLinearOptions(4, 4).input(qcdq::int8()).bias(std::nullopt))
          ->bias_quant);
  EXPECT_FALSE(qcdq::QuantLinear(qcdq::QuantLinearOptions(4, 4).input(qcdq::int8()).bias(false))
                   ->bias.defined());
  EXPECT_EQ(
      qcdq::QuantLinear(qcdq::QuantLinearOptions(4, 4).input(qcdq::int8()).bias(qcdq::intn(16)))
          ->bias_quant->spec()
          .bits,
      16);
  EXPECT_MESSAGE(
      qcdq::QuantLinear(
          qcdq::QuantLinearOptions(4, 4).weight(qcdq::int8().blocked(1, 2)).bias(qcdq::int32())),
      "expected a weight quantised per tensor or per channel along axis 0");
  EXPECT_MESSAGE(
      qcdq::QuantLinear(qcdq::QuantLinearOptions(4, 4).input(qcdq::int8()).bias(qcdq::uint8())),
      "bias quantiser uint8; expected a signed symmetric range");
  EXPECT_MESSAGE(
      qcdq::QuantLinear(
          qcdq::QuantLinearOptions(4, 4).input(qcdq::int8()).bias(qcdq::int32().fixed(1))),
      "the scale is input scale * weight scale");
}

TEST_F(Layers, DeadChannelKeepsItsBias) {
  // At the floor of 1e-10 a weight's scale leaves the int32 bias a range of about 1e-3.
  for (const auto& spec : {qcdq::int8().narrow(), qcdq::int8().narrow().per_channel(0)}) {
    qcdq::QuantLinear fc(
        qcdq::QuantLinearOptions(4, 3).weight(spec).input(qcdq::int8().collect_steps(1)));
    {
      torch::NoGradGuard no_grad;
      fc->weight.fill_(0);
      fc->bias.copy_(torch::tensor({0.5f, -40.f, 0.f}));
    }
    const Tensor x = torch::rand({2, 4});
    for (bool training : {true, false}) {
      fc->train(training);
      EXPECT_TRUE(torch::allclose(fc->forward(x), fc->bias.expand({2, 3}), 1e-6, 1e-7)) << spec;
    }
  }
}

struct LinkedNetImpl : torch::nn::Cloneable<LinkedNetImpl> {
  LinkedNetImpl() { reset(); }
  void reset() override {
    relu = register_module("relu", qcdq::QuantReLU(qcdq::uint8().collect_steps(2)));
    fc = register_module("fc", qcdq::QuantLinear(qcdq::QuantLinearOptions(6, 3)));
    fc->set_input_quantizer(relu->act_quant);
  }
  Tensor forward(Tensor x) { return fc(relu(x)); }
  qcdq::QuantReLU relu{nullptr};
  qcdq::QuantLinear fc{nullptr};
};
TORCH_MODULE(LinkedNet);

TEST_F(Layers, BiasScaleFromAnEarlierLayer) {
  LinkedNet net;
  ASSERT_TRUE(net->fc->bias_quant);
  const Tensor x = torch::randn({4, 6});
  for (int i = 0; i < 4; ++i) net->forward(x).sum().backward();
  net->eval();
  EXPECT_TRUE(torch::equal(net->fc->bias_quant->scale,
                           net->relu->act_quant->scale * net->fc->weight_quant->scale));
  LinkedNet loaded;
  loaded->eval();
  through_file(net, loaded);
  EXPECT_TRUE(torch::equal(net->forward(x), loaded->forward(x)));

  auto copy = std::dynamic_pointer_cast<LinkedNetImpl>(net->clone());
  EXPECT_TRUE(torch::equal(net->forward(x), copy->forward(x)));
  copy->train();
  EXPECT_MESSAGE(copy->forward(x), "QuantLinear: its int32 bias takes input scale * weight scale");
  copy->fc->set_input_quantizer(copy->relu->act_quant);
  copy->forward(x);

  qcdq::QuantLinear alone(qcdq::QuantLinearOptions(6, 3).bias(qcdq::int32()));
  EXPECT_MESSAGE(alone->forward(x), "the input's scale is not known");
  alone->eval();
  EXPECT_MESSAGE(alone->forward(x), "bias quantiser has no input scale yet");
  EXPECT_MESSAGE(alone->set_input_quantizer(net->fc->weight_quant),
                 "expected the quantiser of an activation");
  EXPECT_MESSAGE(qcdq::QuantLinear(qcdq::QuantLinearOptions(6, 3).input(qcdq::int8()))
                     ->set_input_quantizer(net->relu->act_quant),
                 "expected a layer without an input quantiser of its own");
}

TEST_F(Layers, ConvolutionsEqualTheFloatOpOnQuantizedValues) {
  const auto channel = qcdq::int4().narrow();
  qcdq::QuantConv1d c1(qcdq::QuantConv1dOptions(4, 6, 3).stride(2).padding(1).groups(2).weight(
      channel.per_channel(0)));
  const Tensor x1 = torch::randn({2, 4, 9});
  c1->eval();
  EXPECT_TRUE(torch::equal(c1->forward(x1), at::conv1d(x1, c1->weight_quant->forward(c1->weight),
                                                       c1->bias, 2, 1, 1, 2)));
  qcdq::QuantConv2d c2(qcdq::QuantConv2dOptions(3, 6, {3, 5})
                           .stride({1, 2})
                           .padding({1, 2})
                           .dilation(2)
                           .bias(false));
  const Tensor x2 = torch::randn({2, 3, 12, 14});
  c2->eval();
  EXPECT_TRUE(torch::equal(c2->forward(x2), at::conv2d(x2, c2->weight_quant->forward(c2->weight),
                                                       {}, {1, 2}, {1, 2}, 2)));
  qcdq::QuantConvTranspose1d t1(
      qcdq::QuantConvTranspose1dOptions(4, 6, 3).stride(2).output_padding(1).groups(2));
  t1->eval();
  EXPECT_TRUE(torch::equal(
      t1->forward(x1),
      at::conv_transpose1d(x1, t1->weight_quant->forward(t1->weight), t1->bias, 2, 0, 1, 2)));
  qcdq::QuantConvTranspose2d t2(qcdq::QuantConvTranspose2dOptions(4, 6, 3)
                                    .stride(2)
                                    .padding(1)
                                    .groups(2)
                                    .weight(channel.per_channel(1))
                                    .input(qcdq::int8().collect_steps(1)));
  const Tensor x4 = torch::randn({2, 4, 5, 5});
  t2->forward(x4);
  t2->eval();
  EXPECT_EQ(t2->weight_quant->scale.sizes(), torch::IntArrayRef({3}));
  EXPECT_TRUE(torch::equal(t2->bias_quant->scale,
                           (t2->input_quant->scale * t2->weight_quant->scale).repeat({2})));
  EXPECT_TRUE(torch::equal(
      t2->forward(x4),
      at::conv_transpose2d(t2->input_quant->forward(x4), t2->weight_quant->forward(t2->weight),
                           t2->bias_quant->forward(t2->bias), 2, 1, 0, 2)));
  qcdq::QuantLinear blocked(qcdq::QuantLinearOptions(10, 3).weight(channel.blocked(-1, 4)));
  blocked->forward(torch::randn({2, 10})).sum().backward();
  blocked->eval();
  EXPECT_EQ(blocked->weight_quant->scale.sizes(), torch::IntArrayRef({3, 3}));
  EXPECT_TRUE(torch::equal(blocked->weight_quant->forward(blocked->weight),
                           qcdq::fake_quantize(blocked->weight, blocked->weight_quant->scale,
                                               blocked->weight_quant->zero_point, -7, 7, 1, 4)));
}

}  // namespace
