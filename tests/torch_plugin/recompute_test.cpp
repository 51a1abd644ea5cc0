// recompute_quantized and autocast: the gradients' bits stay, the quantised operands are not kept.
// Code under test: torch_plugin/recompute.cpp, and the layers of modules.cpp that call it.
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/torch.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "expect_message.h"
#include "qcdq/modules.h"
#include "qcdq/ops.h"

namespace {

using torch::Tensor;
using torch::autograd::generated::AddmmBackward0;
using torch::autograd::generated::ConvolutionBackward0;

// An input and a weight, each quantised: per tensor and per channel, fixed or learned.
struct Operands {
  Operands(torch::IntArrayRef x_sizes, torch::IntArrayRef weight_sizes, bool learned)
      : is_learned(learned) {
    torch::manual_seed(11);
    x = torch::randn(x_sizes).requires_grad_();
    weight = torch::randn(weight_sizes).requires_grad_();
    x_scale = torch::full({}, 0.02).requires_grad_(learned);
    weight_scale = (weight.detach().abs().flatten(1).amax(1) / 100).requires_grad_(learned);
    bias = torch::randn({weight_sizes[0]}).requires_grad_();
  }
  Tensor quantized(const Tensor& t, const Tensor& scale, std::optional<int64_t> axis) const {
    const Tensor zero_point = torch::zeros_like(scale, is_learned ? torch::kFloat : torch::kInt);
    return is_learned ? qcdq::fake_quantize_learned(t, scale, zero_point, -127, 127, axis, {}, 0.5)
                      : qcdq::fake_quantize(t, scale, zero_point, -127, 127, axis);
  }
  Tensor quantized_x() const { return quantized(x, x_scale, {}); }
  Tensor quantized_weight() const { return quantized(weight, weight_scale, 0); }
  std::vector<Tensor> leaves() const {
    std::vector<Tensor> all = {x, weight, bias};
    if (is_learned) all.insert(all.end(), {x_scale, weight_scale});
    return all;
  }

  bool is_learned;
  Tensor x, weight, bias, x_scale, weight_scale;
};

struct Case {
  const char* name;
  std::vector<int64_t> x_sizes, weight_sizes;
  std::function<Tensor(const Tensor& x, const Tensor& weight, const Tensor& bias)> layer;
};

const std::vector<Case> kCases = {
    {"conv2d",
     {2, 4, 9, 9},
     {6, 2, 3, 3},
     [](const Tensor& x, const Tensor& w, const Tensor& b) {
       return at::conv2d(x, w, b, 2, 1, 1, /*groups=*/2);
     }},
    {"conv1d",
     {2, 4, 9},
     {6, 4, 3},
     [](const Tensor& x, const Tensor& w, const Tensor& b) { return at::conv1d(x, w, b); }},
    {"conv_transpose2d",
     {2, 6, 5, 5},
     {6, 6, 3, 3},
     [](const Tensor& x, const Tensor& w, const Tensor& b) {
       return at::conv_transpose2d(x, w, b, 2);
     }},
    {"linear",
     {5, 7},
     {6, 7},
     [](const Tensor& x, const Tensor& w, const Tensor& b) { return at::linear(x, w, b); }},
    {"linear of three dimensions",
     {3, 5, 7},
     {6, 7},
     [](const Tensor& x, const Tensor& w, const Tensor& b) { return at::linear(x, w, b); }},
    {"linear without bias",
     {5, 7},
     {6, 7},
     [](const Tensor& x, const Tensor& w, const Tensor& b) { return at::linear(x, w) + b; }},
};

TEST(Recompute, GradientsKeepTheirBits) {
  for (const Case& c : kCases) {
    for (const bool learned : {false, true}) {
      const Operands o(c.x_sizes, c.weight_sizes, learned);
      const auto gradients = [&](bool recompute) {
        Tensor y = c.layer(o.quantized_x(), o.quantized_weight(), o.bias);
        if (recompute) y = qcdq::recompute_quantized(y);
        return torch::autograd::grad({(y * y).sum()}, o.leaves());
      };
      const auto plain = gradients(false);
      const auto recomputed = gradients(true);
      for (size_t i = 0; i < plain.size(); ++i) {
        EXPECT_TRUE(torch::equal(plain[i], recomputed[i])) << c.name << ", leaf " << i;
      }
    }
  }
}

// Whether quantised tensors live on after the call that used them, in what the backward keeps.
TEST(Recompute, QuantizedOperandsAreNotKept) {
  for (const Case& c : kCases) {
    if (std::string(c.name) == "linear without bias") continue;  // y there is a sum's
    for (const bool recompute : {false, true}) {
      const Operands o(c.x_sizes, c.weight_sizes, /*learned=*/true);
      Tensor x = o.quantized_x();
      Tensor weight = o.quantized_weight();
      const auto x_memory = x.storage().getWeakStorageImpl();
      const auto weight_memory = weight.storage().getWeakStorageImpl();
      Tensor y = c.layer(x, weight, o.bias);
      if (recompute) y = qcdq::recompute_quantized(y);
      x = weight = Tensor();
      EXPECT_EQ(x_memory.expired(), recompute) << c.name;
      EXPECT_EQ(weight_memory.expired(), recompute) << c.name;
    }
  }
}

TEST(Recompute, AGraphIsWalkedTwiceAndInParts) {
  const Operands o({2, 4, 9, 9}, {6, 4, 3, 3}, false);
  const Tensor x = o.quantized_x();
  const Tensor y = qcdq::recompute_quantized(at::conv2d(x, o.quantized_weight()));
  const auto gradient = [&](const Tensor& of, const Tensor& by, bool retain) {
    return torch::autograd::grad({of.sum()}, {by}, {}, retain)[0];
  };
  const Tensor first = gradient(y, o.weight, true);
  EXPECT_TRUE(torch::equal(first, gradient(y, o.weight, true)));
  gradient(x, o.x, false);  // releases what the quantiser of x keeps
  EXPECT_TRUE(torch::equal(first, gradient(y, o.weight, false)));
}

TEST(Recompute, AChangedWeightIsNoticed) {
  const Operands o({2, 4, 9, 9}, {6, 4, 3, 3}, false);
  const Tensor y = qcdq::recompute_quantized(at::conv2d(o.x, o.quantized_weight()));
  {
    const torch::NoGradGuard no_grad;
    o.weight.mul_(2);
  }
  EXPECT_MESSAGE(y.sum().backward(), "modified by an inplace operation");
}

TEST(Recompute, ChangesNothingElsewhere) {
  const Operands o({2, 4, 9, 9}, {6, 4, 3, 3}, false);
  const auto kept_as_it_is = [](const Tensor& y) {
    qcdq::recompute_quantized(y);
    const auto* node = dynamic_cast<ConvolutionBackward0*>(y.grad_fn().get());
    return node != nullptr && !node->input_.has_hooks() && !node->weight_.has_hooks();
  };
  EXPECT_TRUE(kept_as_it_is(at::conv2d(o.x, o.weight)));                      // float
  EXPECT_TRUE(kept_as_it_is(at::conv2d(o.quantized_x() + 1, o.weight * 2)));  // other results
  EXPECT_FALSE(kept_as_it_is(at::conv2d(o.x, o.quantized_weight())));
  const torch::NoGradGuard no_grad;
  const Tensor y = at::conv2d(o.x, o.quantized_weight());
  EXPECT_TRUE(qcdq::recompute_quantized(y).is_same(y));
}

TEST(Recompute, LayersDoIt) {
  torch::manual_seed(0);
  qcdq::QuantConv2d conv{qcdq::QuantConv2dOptions(3, 8, 3)
                             .weight(qcdq::int8().narrow().per_channel(0))
                             .input(qcdq::uint8())};
  const Tensor y = conv->forward(torch::rand({2, 3, 8, 8}).requires_grad_());
  const auto* convolution = dynamic_cast<ConvolutionBackward0*>(y.grad_fn().get());
  ASSERT_NE(convolution, nullptr);
  EXPECT_TRUE(convolution->input_.has_hooks());
  EXPECT_TRUE(convolution->weight_.has_hooks());
  qcdq::QuantLinear linear{qcdq::QuantLinearOptions(8, 4).input(qcdq::uint8())};
  const Tensor z = linear->forward(torch::rand({2, 8}).requires_grad_());
  const auto* product = dynamic_cast<AddmmBackward0*>(z.grad_fn().get());
  ASSERT_NE(product, nullptr);
  EXPECT_TRUE(product->mat1_.has_hooks());
  EXPECT_TRUE(product->mat2_.has_hooks());
}

// Autocast does not know the ops: types stay as they are, and layers run their float op in bf16.
TEST(Autocast, LeavesTheOpsAlone) {
  torch::manual_seed(0);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const Operands o({5, 7}, {6, 7}, false);
  const Tensor x = o.quantized_x();
  qcdq::QuantLinear linear{qcdq::QuantLinearOptions(7, 6).input(qcdq::int8())};
  const Tensor y = linear->forward(o.x);
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(x.scalar_type(), at::kFloat);
  EXPECT_TRUE(torch::equal(x, o.quantized_x()));
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  y.sum().backward();
  EXPECT_EQ(linear->weight.grad().scalar_type(), at::kFloat);
}

}  // namespace
