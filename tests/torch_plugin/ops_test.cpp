// The ops through the dispatcher: numbers against include/qcdq/affine.h for every granularity, type
// and stride, and gradients. Refusals are in ops_errors_test.cpp.
#include <gtest/gtest.h>
#include <qcdq/affine.h>
#include <qcdq/ops.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <type_traits>

namespace qcdq {
namespace {

struct QParamsCase {
  std::string name;
  torch::Tensor scale;
  torch::Tensor zero_point;
  std::optional<int64_t> axis;
  std::optional<int64_t> block_size;
};

// Shape of the parameters, written independently of torch_plugin/checks.cpp.
std::vector<int64_t> param_shape(torch::IntArrayRef sizes, std::optional<int64_t> axis,
                                 std::optional<int64_t> block_size) {
  if (!axis) return {};
  const int64_t wrapped = *axis < 0 ? *axis + static_cast<int64_t>(sizes.size()) : *axis;
  if (!block_size) return {sizes[wrapped]};
  std::vector<int64_t> shape = sizes.vec();
  shape[wrapped] = (shape[wrapped] + *block_size - 1) / *block_size;
  return shape;
}

QParamsCase make_qparams(torch::IntArrayRef sizes, std::optional<int64_t> axis,
                         std::optional<int64_t> block_size, int64_t quant_min, int64_t quant_max) {
  const auto shape = param_shape(sizes, axis, block_size);
  return {"axis " + (axis ? std::to_string(*axis) : "none") + " block " +
              (block_size ? std::to_string(*block_size) : "none"),
          torch::rand(shape) * 0.1 + 0.01,
          torch::randint(quant_min, quant_max + 1, shape, torch::kInt), axis, block_size};
}

std::vector<QParamsCase> all_granularities(torch::IntArrayRef sizes, int64_t quant_min,
                                           int64_t quant_max) {
  std::vector<QParamsCase> cases = {
      make_qparams(sizes, std::nullopt, std::nullopt, quant_min, quant_max)};
  const int64_t rank = static_cast<int64_t>(sizes.size());
  for (int64_t axis = -rank; axis < rank; ++axis) {
    cases.push_back(make_qparams(sizes, axis, std::nullopt, quant_min, quant_max));
    for (const int64_t block : {1, 2, 3, 100}) {
      cases.push_back(make_qparams(sizes, axis, block, quant_min, quant_max));
    }
  }
  return cases;
}

// A parameter repeated to the shape of x.
torch::Tensor spread(const torch::Tensor& param, torch::IntArrayRef sizes, const QParamsCase& c) {
  if (!c.axis) return param.reshape({}).expand(sizes).contiguous();
  const int64_t axis = *c.axis < 0 ? *c.axis + static_cast<int64_t>(sizes.size()) : *c.axis;
  if (c.block_size) {
    return param.repeat_interleave(*c.block_size, axis).narrow(axis, 0, sizes[axis]).contiguous();
  }
  std::vector<int64_t> view(sizes.size(), 1);
  view[axis] = sizes[axis];
  return param.reshape(view).expand(sizes).contiguous();
}

// Applies one(x, scale, zero_point) to every element in T.
template <typename T, typename Body>
torch::Tensor elementwise(const torch::Tensor& x, const QParamsCase& c, const Body& one) {
  using Out = std::invoke_result_t<Body, T, T, int64_t>;
  const auto type = c10::CppTypeToScalarType<T>::value;
  const torch::Tensor from = x.to(type).contiguous();
  const torch::Tensor scale = spread(c.scale.to(type), x.sizes(), c);
  const torch::Tensor zero_point = spread(c.zero_point.to(torch::kLong), x.sizes(), c);
  torch::Tensor y = torch::empty(x.sizes(), c10::CppTypeToScalarType<Out>::value);
  for (int64_t i = 0; i < x.numel(); ++i) {
    y.mutable_data_ptr<Out>()[i] = one(from.const_data_ptr<T>()[i], scale.const_data_ptr<T>()[i],
                                       zero_point.const_data_ptr<int64_t>()[i]);
  }
  return y;
}

torch::Tensor expected_fake_quantize(const torch::Tensor& x, const QParamsCase& c, int64_t lowest,
                                     int64_t highest) {
  if (x.scalar_type() == torch::kDouble) {
    return elementwise<double>(x, c, [=](double v, double scale, int64_t zero_point) {
      return fake_quantize_one(v, scale, zero_point, lowest, highest);
    });
  }
  return elementwise<float>(x, c,
                            [=](float v, float scale, int64_t zero_point) {
                              return fake_quantize_one(v, scale, zero_point, lowest, highest);
                            })
      .to(x.scalar_type());
}

torch::Tensor expected_codes(const torch::Tensor& x, const QParamsCase& c, int64_t lowest,
                             int64_t highest) {
  const auto computed_in = [&](auto t) {
    using T = decltype(t);
    return elementwise<T>(x, c, [=](T v, T scale, int64_t zero_point) {
      return quantize_one(v, scale, zero_point, lowest, highest);
    });
  };
  return x.scalar_type() == torch::kDouble ? computed_in(double{}) : computed_in(float{});
}

// Ties, +-0, infinities, NaN and values past the range among random ones.
torch::Tensor sample(torch::IntArrayRef sizes, torch::ScalarType type) {
  torch::Tensor x = torch::randn(sizes) * 5;
  torch::Tensor flat = x.view(-1);
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> edges = {0.0f, -0.0f, 0.05f, -0.15f, inf, -inf, std::nanf(""), 1e-40f};
  for (int64_t i = 0; i < std::min<int64_t>(flat.numel(), edges.size()); ++i) flat[i] = edges[i];
  return x.to(type);
}

const std::vector<torch::ScalarType> kFloatTypes = {torch::kFloat, torch::kHalf, torch::kBFloat16,
                                                    torch::kDouble};

// The same values with other strides: contiguous, transposed, channels last, with gaps, expanded.
std::vector<torch::Tensor> with_strides(const torch::Tensor& x) {
  std::vector<torch::Tensor> all = {x};
  if (x.dim() >= 2) all.push_back(x.transpose(0, -1).contiguous().transpose(0, -1));
  if (x.dim() == 4) all.push_back(x.contiguous(torch::MemoryFormat::ChannelsLast));
  if (x.dim() >= 1) {
    all.push_back(torch::stack({x, x + 1}, -1).select(-1, 0));
    all.push_back(x.narrow(0, 0, 1).expand(x.sizes()));
  }
  return all;
}

class OpsTest : public testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

TEST_F(OpsTest, FakeQuantizeEqualsTheFormula) {
  for (const std::vector<int64_t>& sizes :
       std::vector<std::vector<int64_t>>{{7}, {3, 5}, {2, 3, 4}, {2, 3, 4, 5}}) {
    for (const auto type : kFloatTypes) {
      for (const torch::Tensor& x : with_strides(sample(sizes, type))) {
        for (const QParamsCase& c : all_granularities(sizes, -8, 7)) {
          const torch::Tensor y =
              fake_quantize(x, c.scale, c.zero_point, -8, 7, c.axis, c.block_size);
          ASSERT_EQ(y.scalar_type(), type);
          ASSERT_TRUE(torch::equal(y, expected_fake_quantize(x, c, -8, 7)))
              << c.name << " " << type << " sizes " << x.sizes() << " strides " << x.strides();
          ASSERT_EQ(y.strides(), torch::empty_like(x).strides());
        }
      }
    }
  }
}

TEST_F(OpsTest, QuantizeAndDequantizeEqualTheFormula) {
  struct Storage {
    torch::ScalarType type;
    int64_t lowest;
    int64_t highest;
  };
  const std::vector<int64_t> sizes = {3, 4, 5};
  for (const Storage& storage :
       {Storage{torch::kChar, -128, 127}, Storage{torch::kByte, 0, 255},
        Storage{torch::kShort, -32768, 32767}, Storage{torch::kUInt16, 0, 65535},
        Storage{torch::kInt, INT32_MIN, INT32_MAX}, Storage{torch::kInt, -3, 3}}) {
    for (const auto type : kFloatTypes) {
      for (const torch::Tensor& x : with_strides(sample(sizes, type))) {
        for (QParamsCase c : all_granularities(sizes, 0, 3)) {
          const torch::Tensor q = quantize(x, c.scale, c.zero_point, storage.lowest,
                                           storage.highest, storage.type, c.axis, c.block_size);
          ASSERT_EQ(q.scalar_type(), storage.type);
          ASSERT_TRUE(torch::equal(q.to(torch::kLong),
                                   expected_codes(x, c, storage.lowest, storage.highest)));
          const torch::Tensor y = dequantize(q, c.scale, c.zero_point, c.axis, c.block_size, type);
          const torch::Tensor fake = fake_quantize(x, c.scale, c.zero_point, storage.lowest,
                                                   storage.highest, c.axis, c.block_size);
          ASSERT_EQ(y.scalar_type(), type);
          ASSERT_TRUE(torch::equal(y, fake)) << c.name << " " << type << " " << storage.type;
        }
      }
    }
  }
}

TEST_F(OpsTest, DequantizeTakesTheTypeOfScaleByDefault) {
  const torch::Tensor q = torch::tensor({-3, 4}, torch::kChar);
  const torch::Tensor zero_point = torch::zeros({}, torch::kInt);
  for (const auto type : kFloatTypes) {
    const torch::Tensor y = dequantize(q, torch::ones({}, type) / 2, zero_point);
    EXPECT_EQ(y.scalar_type(), type);
    EXPECT_TRUE(torch::equal(y, torch::tensor({-1.5, 2.0}, type)));
  }
}

TEST_F(OpsTest, EmptyAndZeroDimensionalTensors) {
  const torch::Tensor scale = torch::full({}, 0.5);
  const torch::Tensor zero_point = torch::zeros({1}, torch::kLong);
  EXPECT_EQ(fake_quantize(torch::full({}, 1.3), scale, zero_point, -8, 7).item<float>(), 1.5f);
  EXPECT_EQ(fake_quantize(torch::empty({0, 3}), scale, zero_point, -8, 7).sizes(),
            (std::vector<int64_t>{0, 3}));
  const torch::Tensor none = torch::empty({0});
  const torch::Tensor no_zero_points = torch::empty({0}, torch::kInt);
  EXPECT_EQ(fake_quantize(torch::empty({2, 0}), none, no_zero_points, -8, 7, 1).numel(), 0);
  EXPECT_EQ(quantize(torch::empty({2, 0}), torch::empty({2, 0}), torch::empty({2, 0}, torch::kInt),
                     -8, 7, torch::kChar, 1, 4)
                .scalar_type(),
            torch::kChar);
  const auto [chosen, chosen_zero_point] = choose_qparams(torch::empty({0}), 0, 255);
  EXPECT_EQ(chosen.item<float>(), 1.0f);
  EXPECT_EQ(chosen_zero_point.item<int>(), 0);
  torch::Tensor x = torch::empty({0}, torch::requires_grad());
  torch::Tensor learned = torch::ones({1}, torch::requires_grad());
  fake_quantize_learned(x, learned, torch::zeros({1}), -8, 7).sum().backward();
  EXPECT_EQ(learned.grad().item<float>(), 0.0f);
}

TEST_F(OpsTest, EveryIntegerTypeServesAsZeroPoint) {
  const torch::Tensor x = torch::randn({64});
  const torch::Tensor scale = torch::full({}, 0.1);
  const torch::Tensor expected = fake_quantize(x, scale, torch::full({}, 3, torch::kInt), 0, 15);
  for (const auto type :
       {torch::kChar, torch::kByte, torch::kShort, torch::kUInt16, torch::kLong}) {
    EXPECT_TRUE(torch::equal(fake_quantize(x, scale, torch::full({}, 3, type), 0, 15), expected));
  }
}

TEST_F(OpsTest, ThreadsDoNotChangeResults) {
  const torch::Tensor x = torch::randn({3, 70001});
  const int threads = at::get_num_threads();
  const auto run = [&](std::optional<int64_t> axis) {
    torch::Tensor leaf = x.clone().requires_grad_();
    torch::Tensor scale = axis ? torch::tensor({0.1, 0.2, 0.3}) : torch::full({}, 0.1);
    torch::Tensor zero_point = torch::zeros_like(scale);
    scale.requires_grad_();
    zero_point.requires_grad_();
    const torch::Tensor y = fake_quantize_learned(leaf, scale, zero_point, -8, 7, axis);
    (y * x.cos()).sum().backward();
    return std::vector<torch::Tensor>{y.detach(), leaf.grad(), scale.grad(), zero_point.grad()};
  };
  for (const std::optional<int64_t> axis : {std::optional<int64_t>(), std::optional<int64_t>(0)}) {
    at::set_num_threads(1);
    const auto one = run(axis);
    at::set_num_threads(4);
    const auto four = run(axis);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(torch::equal(one[i], four[i])) << i;
  }
  at::set_num_threads(threads);
}

TEST_F(OpsTest, StraightThroughGradient) {
  for (const auto type : kFloatTypes) {
    for (const torch::Tensor& view : with_strides(sample({3, 4, 5}, type))) {
      for (const QParamsCase& c : all_granularities({3, 4, 5}, -8, 7)) {
        torch::Tensor x = view.detach().requires_grad_();
        const torch::Tensor grad = torch::randn({5, 4, 3}).to(type).permute({2, 1, 0});
        fake_quantize(x, c.scale, c.zero_point, -8, 7, c.axis, c.block_size).backward(grad);
        // The range widened by one on each side tells inside from outside.
        const torch::Tensor code = expected_codes(view, c, -9, 8);
        const torch::Tensor inside = (code >= -8) & (code <= 7);
        ASSERT_TRUE(torch::equal(x.grad(), torch::where(inside, grad, torch::zeros_like(grad))))
            << c.name;
      }
    }
  }
}

TEST_F(OpsTest, LearnedGradientsFollowLsq) {
  for (const std::vector<int64_t>& sizes : std::vector<std::vector<int64_t>>{{9}, {3, 4, 5}}) {
    for (const QParamsCase& c : all_granularities(sizes, -2, 2)) {
      // Values are multiples of 1/8 and scales powers of two: all sums are exact in any order.
      const torch::Tensor values = torch::randint(-40, 41, sizes).to(torch::kFloat) / 8;
      const torch::Tensor grad = torch::randint(-3, 4, sizes).to(torch::kFloat);
      const torch::Tensor powers = torch::pow(2.0, torch::randint(-2, 1, c.scale.sizes()));
      torch::Tensor x = values.clone().requires_grad_();
      torch::Tensor scale = powers.to(torch::kFloat).requires_grad_();
      torch::Tensor zero_point = (c.zero_point.to(torch::kFloat) + 0.25).requires_grad_();
      fake_quantize_learned(x, scale, zero_point, -4, 3, c.axis, c.block_size, 0.5).backward(grad);

      const torch::Tensor full_scale = spread(scale.detach(), sizes, c);
      const torch::Tensor full_zero_point = spread(c.zero_point.to(torch::kFloat), sizes, c);
      const torch::Tensor ratio = values / full_scale;
      const torch::Tensor code = ratio.round() + full_zero_point;
      const torch::Tensor inside = (code >= -4) & (code <= 3);
      const torch::Tensor distance = code.clamp(-4, 3) - full_zero_point;
      const torch::Tensor per_scale =
          0.5 * grad * (distance - torch::where(inside, ratio, torch::zeros_like(ratio)));
      const torch::Tensor per_zero_point = -0.5 * grad * full_scale * (~inside);
      const auto gather = [&](const torch::Tensor& terms) {
        QParamsCase ids = c;
        ids.scale = torch::arange(c.scale.numel()).reshape(c.scale.sizes());
        return torch::zeros({c.scale.numel()})
            .index_add(0, spread(ids.scale, sizes, c).flatten(), terms.flatten())
            .reshape(c.scale.sizes());
      };
      ASSERT_TRUE(torch::equal(x.grad(), grad * inside)) << c.name;
      ASSERT_TRUE(torch::equal(scale.grad(), gather(per_scale))) << c.name;
      ASSERT_TRUE(torch::equal(zero_point.grad(), gather(per_zero_point))) << c.name;
    }
  }
}

TEST_F(OpsTest, LearnedZeroPointIsRoundedAndClamped) {
  const torch::Tensor x = torch::randn({100});
  const torch::Tensor scale = torch::full({1}, 0.1);
  for (const auto& [learned, used] :
       std::vector<std::pair<double, int>>{{2.5, 2}, {3.5, 4}, {-20.0, -8}, {1e9, 7}}) {
    EXPECT_TRUE(torch::equal(fake_quantize_learned(x, scale, torch::full({1}, learned), -8, 7),
                             fake_quantize(x, scale, torch::full({1}, used, torch::kInt), -8, 7)));
  }
  torch::Tensor integral = torch::full({1}, 2, torch::kInt);
  torch::Tensor learned_scale = scale.clone().requires_grad_();
  fake_quantize_learned(x, learned_scale, integral, -8, 7).sum().backward();
  EXPECT_TRUE(learned_scale.grad().defined());
}

TEST_F(OpsTest, ChooseQparamsPerGroup) {
  const torch::Tensor x = torch::randn({4, 6, 3});
  for (const QParamsCase& c : all_granularities({4, 6, 3}, -8, 7)) {
    for (const bool symmetric : {false, true}) {
      const auto [scale, zero_point] =
          choose_qparams(x, -127, 127, symmetric, c.axis, c.block_size);
      ASSERT_EQ(scale.sizes(), c.scale.sizes());
      ASSERT_EQ(scale.scalar_type(), torch::kFloat);
      ASSERT_EQ(zero_point.scalar_type(), torch::kInt);
      for (int64_t p = 0; p < scale.numel(); ++p) {
        torch::Tensor ids = torch::arange(scale.numel()).reshape(scale.sizes());
        const torch::Tensor group = x.masked_select(spread(ids, x.sizes(), c) == p);
        const ScaleAndZeroPoint expected =
            choose_one(group.min().item<float>(), group.max().item<float>(), -127, 127, symmetric);
        ASSERT_EQ(scale.flatten()[p].item<float>(), expected.scale) << c.name;
        ASSERT_EQ(zero_point.flatten()[p].item<int>(), expected.zero_point) << c.name;
      }
    }
  }
}

TEST_F(OpsTest, DynamicIsChooseThenFakeQuantize) {
  for (const auto type : kFloatTypes) {
    for (const torch::Tensor& view : with_strides((torch::randn({3, 4, 5}) * 3).to(type))) {
      for (const QParamsCase& c : all_granularities({3, 4, 5}, 0, 255)) {
        torch::Tensor x = view.detach().requires_grad_();
        const auto [scale, zero_point] = choose_qparams(x, 0, 255, false, c.axis, c.block_size);
        const torch::Tensor y = fake_quantize_dynamic(x, 0, 255, false, c.axis, c.block_size);
        ASSERT_TRUE(
            torch::equal(y, fake_quantize(x, scale, zero_point, 0, 255, c.axis, c.block_size)));
        y.sum().backward();
        torch::Tensor twin = view.detach().requires_grad_();
        fake_quantize(twin, scale, zero_point, 0, 255, c.axis, c.block_size).sum().backward();
        ASSERT_TRUE(torch::equal(x.grad(), twin.grad()));
      }
    }
  }
}

}  // namespace
}  // namespace qcdq
