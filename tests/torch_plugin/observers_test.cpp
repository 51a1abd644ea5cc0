// Statistics: percentile ranks, ranges per tensor, channel and block, scale and zero point from a
// range, running means. Code under test: torch_plugin/observers.cpp.
#include "qcdq/observers.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <limits>
#include <sstream>
#include <vector>

#include "expect_message.h"

namespace {

using qcdq::Scaling;
using torch::Tensor;

float value(const Tensor& t) { return t.item<float>(); }

TEST(Percentile, TakesTheKthSmallest) {
  const Tensor x = torch::arange(100, 0, -1).to(torch::kFloat);
  EXPECT_EQ(value(qcdq::percentile(x, 99.0)), 99);   // k = floor(99.5)
  EXPECT_EQ(value(qcdq::percentile(x, 99.6)), 100);  // k = floor(100.1)
  EXPECT_EQ(value(qcdq::percentile(x, 99.999)), 100);
  EXPECT_EQ(value(qcdq::percentile(x, 50.0)), 50);  // k = floor(50.5)
  EXPECT_EQ(value(qcdq::percentile(x, 0.001)), 1);  // k = 0, kept at 1
  EXPECT_EQ(value(qcdq::percentile(torch::arange(300).to(torch::kFloat), 99.0)), 296);  // k = 297
  EXPECT_EQ(value(qcdq::percentile(torch::full({}, 3.5), 99.0)), 3.5f);
  // 100,000 values: the default rank drops exactly the largest one.
  EXPECT_EQ(value(qcdq::percentile(torch::arange(100000).to(torch::kFloat), 99.999)), 99998);
}

TEST(Percentile, TakesAnyFloatTypeAndStrides) {
  const Tensor x = torch::arange(100).to(torch::kFloat).view({10, 10}).t();
  for (auto type : {torch::kFloat, torch::kDouble, torch::kHalf, torch::kBFloat16}) {
    const Tensor p = qcdq::percentile(x.to(type), 90.0);
    EXPECT_EQ(p.scalar_type(), torch::kFloat);
    EXPECT_EQ(value(p), 89);
  }
}

TEST(Percentile, RefusesByName) {
  const Tensor x = torch::ones({3});
  EXPECT_MESSAGE(qcdq::percentile(x, 101), "percentile: rank = 101; expected 0 to 100");
  EXPECT_MESSAGE(qcdq::percentile(torch::empty({0}), 99), "expected at least one element");
  EXPECT_MESSAGE(qcdq::percentile(torch::ones({3}, torch::kLong), 99), "expected a floating-point");
}

TEST(RangeOf, PerTensorChannelAndBlock) {
  const Tensor x = torch::tensor({{1.f, -2.f, 3.f, -9.f, 4.f}, {0.5f, 0.25f, -7.f, 1.f, 2.f}});
  auto [low, high] = qcdq::range_of(x, qcdq::int8());
  EXPECT_EQ(value(low), -9);
  EXPECT_EQ(value(high), 9);
  std::tie(low, high) = qcdq::range_of(x, qcdq::int8().symmetric(false));
  EXPECT_EQ(value(low), -9);
  EXPECT_EQ(value(high), 4);
  std::tie(low, high) = qcdq::range_of(x, qcdq::int8().per_channel(0));
  EXPECT_TRUE(torch::equal(high, torch::tensor({9.f, 7.f})));
  std::tie(low, high) = qcdq::range_of(x, qcdq::int8().per_channel(-1));
  EXPECT_TRUE(torch::equal(high, torch::tensor({1.f, 2.f, 7.f, 9.f, 4.f})));
  std::tie(low, high) = qcdq::range_of(x, qcdq::int8().blocked(1, 2));
  EXPECT_TRUE(torch::equal(high, torch::tensor({{2.f, 9.f, 4.f}, {0.5f, 7.f, 2.f}})));
  EXPECT_TRUE(torch::equal(low, -high));
  std::tie(low, high) = qcdq::range_of(x, qcdq::int8().blocked(0, 2));
  EXPECT_TRUE(torch::equal(high, torch::tensor({{1.f, 2.f, 7.f, 9.f, 4.f}})));
  EXPECT_MESSAGE(qcdq::range_of(x, qcdq::int8().per_channel(2)),
                 "QuantSpec: axis = 2; expected a dimension");
}

TEST(QparamsFromRange, Symmetric) {
  const Tensor low = torch::tensor(-2.f), high = torch::tensor(1.f);
  auto [scale, zero_point] = qcdq::qparams_from_range(low, high, qcdq::int8());
  EXPECT_EQ(value(scale), 2.f / 128);
  EXPECT_EQ(zero_point.scalar_type(), torch::kInt);
  EXPECT_EQ(zero_point.item<int>(), 0);
  EXPECT_EQ(value(std::get<0>(qcdq::qparams_from_range(low, high, qcdq::int8().narrow()))),
            2.f / 127);
  EXPECT_EQ(value(std::get<0>(qcdq::qparams_from_range(low, high, qcdq::uint8()))), 2.f / 255);
  EXPECT_EQ(value(std::get<0>(qcdq::qparams_from_range(low, high, qcdq::uint4()))), 2.f / 15);
  EXPECT_EQ(value(std::get<0>(qcdq::qparams_from_range(low * 0, high * 0, qcdq::int8()))), 1e-10f);
}

TEST(QparamsFromRange, Asymmetric) {
  const auto spec = qcdq::uint8().symmetric(false);
  auto [scale, zero_point] =
      qcdq::qparams_from_range(torch::tensor(-1.f), torch::tensor(3.f), spec);
  EXPECT_EQ(value(scale), 4.f / 255);
  EXPECT_EQ(zero_point.item<int>(), 64);  // 63.75
  std::tie(scale, zero_point) = qcdq::qparams_from_range(torch::tensor(-1.f), torch::tensor(3.f),
                                                         qcdq::int8().symmetric(false));
  EXPECT_EQ(zero_point.item<int>(), -64);
  std::tie(scale, zero_point) =
      qcdq::qparams_from_range(torch::tensor(2.f), torch::tensor(4.f), spec);
  EXPECT_EQ(value(scale), 4.f / 255);  // widened to hold 0
  EXPECT_EQ(zero_point.item<int>(), 0);
  std::tie(scale, zero_point) =
      qcdq::qparams_from_range(torch::tensor(-4.f), torch::tensor(-2.f), spec);
  EXPECT_EQ(zero_point.item<int>(), 255);
  EXPECT_MESSAGE(qcdq::qparams_from_range(torch::zeros({2}), torch::zeros({3}), spec),
                 "expected the same shape");
}

TEST(QparamsFromRange, PowerOfTwoIsExactAndNeverSmaller) {
  const auto spec = qcdq::int8().power_of_two();
  for (int exponent = -30; exponent <= 30; ++exponent) {
    const float power = std::ldexp(1.f, exponent);
    const auto scale_of = [&](float scale) {
      const Tensor t = torch::tensor(scale * 128);
      return value(std::get<0>(qcdq::qparams_from_range(-t, t, spec)));
    };
    EXPECT_EQ(scale_of(power), power);
    EXPECT_EQ(scale_of(std::nextafter(power, std::numeric_limits<float>::max())), 2 * power);
    EXPECT_EQ(scale_of(std::nextafter(power, 0.f)), power);
  }
}

TEST(QparamsFromRange, GradientGoesToTheLargestValue) {
  for (bool power_of_two : {false, true}) {
    Tensor w = torch::tensor({{1.f, -3.f}, {2.f, 0.5f}}).requires_grad_();
    const auto spec = qcdq::int8().narrow().per_channel(0).power_of_two(power_of_two);
    auto [low, high] = qcdq::range_of(w, spec);
    std::get<0>(qcdq::qparams_from_range(low, high, spec)).sum().backward();
    EXPECT_TRUE(
        torch::allclose(w.grad(), torch::tensor({{0.f, -1.f}, {1.f, 0.f}}) / 127.f, 1e-6, 0));
  }
}

// What torch's own ops give: the values, and a gradient that ties share.
TEST(RangeOf, AbsmaxAndItsGradientAreThoseOfTheComposition) {
  torch::manual_seed(3);
  const qcdq::QuantSpec narrow = qcdq::int8().narrow();
  struct Case {
    qcdq::QuantSpec spec;
    std::function<Tensor(const Tensor&)> absmax;
  };
  const auto blocks = [](const Tensor& x, int64_t axis, int64_t size, int64_t missing) {
    std::vector<int64_t> padding(2 * (x.dim() - axis), 0);
    padding.back() = missing;
    const Tensor padded = torch::constant_pad_nd(x.abs(), padding, 0);
    return padded.unflatten(axis, {-1, size}).amax(axis + 1);
  };
  const std::vector<Case> cases = {
      {narrow, [](const Tensor& x) { return x.abs().amax(); }},
      {narrow.per_channel(0),
       [](const Tensor& x) {
         return x.abs().amax({1, 2});
       }},
      {narrow.per_channel(1),
       [](const Tensor& x) {
         return x.abs().amax({0, 2});
       }},
      {narrow.per_channel(-1),
       [](const Tensor& x) {
         return x.abs().amax({0, 1});
       }},
      {narrow.blocked(0, 2), [&](const Tensor& x) { return blocks(x, 0, 2, 1); }},
      {narrow.blocked(1, 8), [&](const Tensor& x) { return blocks(x, 1, 8, 3); }},
      {narrow.blocked(2, 71), [&](const Tensor& x) { return blocks(x, 2, 71, 0); }},
      {narrow.blocked(2, 100), [&](const Tensor& x) { return blocks(x, 2, 100, 58); }},
  };
  // Whole numbers up to 8 tie often; zeros: whole groups of each granularity.
  Tensor start = torch::randint(-8, 9, {5, 13, 142}).to(torch::kDouble) / 3;
  start[2].zero_();
  start.select(1, 4).zero_();
  start.select(2, 141).zero_();
  for (auto type : {torch::kFloat, torch::kDouble, torch::kHalf, torch::kBFloat16}) {
    for (const Tensor& values :
         {start.to(type), start.to(type).transpose(0, 2).contiguous().transpose(0, 2),
          torch::zeros_like(start).to(type), torch::randn_like(start).to(type)}) {
      for (const Case& c : cases) {
        const Tensor x = values.detach().requires_grad_();
        const Tensor want_x = values.detach().clone().requires_grad_();
        const Tensor high = std::get<1>(qcdq::range_of(x, c.spec));
        const Tensor want = c.absmax(type == torch::kDouble ? want_x : want_x.to(torch::kFloat));
        SCOPED_TRACE(c.spec.to_string() + ", " + torch::toString(type));
        ASSERT_TRUE(torch::equal(high, want));
        const Tensor grad = torch::randn_like(want);
        high.backward(grad);
        want.backward(grad);
        ASSERT_EQ(x.grad().scalar_type(), type);
        ASSERT_TRUE(torch::equal(x.grad(), want_x.grad()));
      }
    }
  }
}

TEST(RangeOf, AbsmaxKeepsNaNAndHasASecondGradient) {
  Tensor x = torch::tensor({1.f, std::numeric_limits<float>::quiet_NaN(), 2.f});
  EXPECT_TRUE(std::isnan(value(std::get<1>(qcdq::range_of(x, qcdq::int8())))));
  x = torch::tensor({1.f, -3.f, 2.f}).requires_grad_();
  const Tensor high = std::get<1>(qcdq::range_of(x, qcdq::int8()));
  const Tensor first = torch::autograd::grad({high * high}, {x}, {}, {}, /*create_graph=*/true)[0];
  EXPECT_TRUE(torch::equal(first.detach(), torch::tensor({0.f, -6.f, 0.f})));
  EXPECT_TRUE(
      torch::equal(torch::autograd::grad({first.sum()}, {x})[0], torch::tensor({0.f, 2.f, 0.f})));
}

TEST(Observer, RunningMeanStartsWithTheFirstBatch) {
  for (auto statistic : {Scaling::kMinMax, Scaling::kPercentile}) {
    qcdq::Observer observer(qcdq::ObserverOptions{.statistic = statistic});
    observer->observe(torch::tensor({-4.f, 2.f}));
    EXPECT_EQ(value(observer->high), 4);
    EXPECT_EQ(value(observer->low), -4);
    observer->observe(torch::empty({0}));
    EXPECT_EQ(observer->step_count(), 1);
    observer->observe(torch::tensor({1.f, 14.f}));
    EXPECT_FLOAT_EQ(value(observer->high), 0.9f * 4 + 0.1f * 14);
    EXPECT_EQ(observer->step_count(), 2);
  }
}

TEST(Observer, AsymmetricInterval) {
  qcdq::Observer minmax(qcdq::ObserverOptions{.statistic = Scaling::kMinMax, .symmetric = false});
  minmax->observe(torch::tensor({-1.f, 3.f}));
  auto [scale, zero_point] = minmax->qparams(qcdq::uint8().symmetric(false));
  EXPECT_EQ(value(scale), 4.f / 255);
  EXPECT_EQ(zero_point.item<int>(), 64);
  qcdq::Observer interval(qcdq::ObserverOptions{.rank = 90, .symmetric = false});
  interval->observe(torch::arange(1, 101).to(torch::kFloat) - 50);
  EXPECT_EQ(value(interval->low), 10 - 50);
  EXPECT_EQ(value(interval->high), 90 - 50);
}

TEST(Observer, KeepsItsTypeAndGoesThroughAFile) {
  qcdq::Observer observer, loaded;
  observer->observe(torch::tensor({-4.f, 2.f}));
  observer->to(torch::kHalf);
  EXPECT_EQ(observer->high.scalar_type(), torch::kFloat);
  EXPECT_EQ(observer->steps.scalar_type(), torch::kLong);
  std::stringstream file;
  torch::save(observer, file);
  torch::load(loaded, file);
  EXPECT_EQ(value(loaded->high), 4);
  EXPECT_EQ(loaded->step_count(), 1);
}

TEST(Observer, RefusesByName) {
  qcdq::Observer observer;
  EXPECT_MESSAGE(observer->qparams(qcdq::int8()), "no batch has been observed");
  EXPECT_MESSAGE(qcdq::Observer(qcdq::ObserverOptions{.statistic = Scaling::kFixed}),
                 "statistic = 4");
  EXPECT_MESSAGE(qcdq::Observer(qcdq::ObserverOptions{.rank = 50}), "rank = 50");
  EXPECT_MESSAGE(qcdq::Observer(qcdq::ObserverOptions{.momentum = 0}), "momentum = 0");
}

}  // namespace
