// Codes on a GPU are those of a true division (divide_all in kernels/cuda/elementwise.h): against
// affine.h, and over every float against torch's ops, whose division is a true one too. Needs a
// GPU.
#include <gtest/gtest.h>
#include <qcdq/affine.h>
#include <qcdq/ops.h>
#include <torch/torch.h>

#include "gpu_fixture.h"

namespace qcdq {
namespace {

TEST_F(CudaTest, DividesAsTheFormula) {
  // Random bits: every exponent, denormals included; scales at which a reciprocal gives other
  // codes.
  const torch::Tensor bits = torch::randint(INT32_MIN, INT32_MAX, {1 << 22}, torch::kInt);
  const torch::Tensor x = bits.view(torch::kFloat);
  const torch::Tensor near = torch::randn({1 << 22});
  for (const float scale : {0.0123f, 0.0021485f, 0.1f, 1e-38f, 1e-42f, 1e30f}) {
    for (const torch::Tensor& values : {x, near, near * scale * 100}) {
      const torch::Tensor y = fake_quantize(cuda(values), cuda(torch::full({}, scale)),
                                            cuda(torch::zeros({}, torch::kInt)), -128, 127);
      ASSERT_TRUE(same(y, by_affine<float>(values, scale, 0, -128, 127))) << scale;
    }
  }
}

// round(x / scale) + zero_point and so on by torch's ops, NaN taken for the lowest code.
torch::Tensor by_torch(const torch::Tensor& x, const torch::Tensor& scale, double zero_point,
                       double quant_min, double quant_max) {
  const torch::Tensor code = ((x / scale).round() + zero_point).clamp(quant_min, quant_max);
  return (code.nan_to_num(quant_min) - zero_point) * scale;
}

TEST_F(CudaTest, EveryFloat) {
  constexpr int64_t kChunk = int64_t{1} << 26;
  const torch::Tensor zero_point = cuda(torch::full({}, 3, torch::kInt));
  const torch::Tensor offsets =
      torch::arange(kChunk, torch::device(torch::kCUDA).dtype(torch::kInt));
  std::vector<torch::Tensor> scales;
  for (const float scale : {0.0123f, 0.25f, 0.0021485f}) {
    scales.push_back(cuda(torch::full({1}, scale)));
  }
  for (int64_t first = INT32_MIN; first <= INT32_MAX; first += kChunk) {
    const torch::Tensor x = (offsets + static_cast<int32_t>(first)).view(torch::kFloat);
    for (const torch::Tensor& scale : scales) {
      const torch::Tensor y = fake_quantize(x, scale.squeeze(), zero_point, -128, 127);
      ASSERT_TRUE(torch::equal(y, by_torch(x, scale, 3, -128, 127))) << "from bits " << first;
    }
  }
}

// Scales around powers of two, random ones, and ones at which a reciprocal over- or underflows.
torch::Tensor many_scales(int64_t count) {
  torch::Tensor scales = torch::exp2(torch::rand({count}) * 12 - 10);
  float* values = scales.mutable_data_ptr<float>();
  for (int64_t i = 0; i < 40; ++i) values[i] = std::ldexp(1.0f, static_cast<int>(i) - 30);
  for (int64_t i = 40; i < 80; ++i) values[i] = std::nextafter(values[i - 40], i % 2 ? 0.0f : 1e9f);
  const std::vector<float> far = {1e-45f,   1e-40f, 1.2e-38f, 1e-30f,  0x1p-60f, 0x0.fffffep-60f,
                                  0x1p+60f, 1e18f,  1e30f,    3.4e38f, 1e-19f,   1e-18f};
  std::copy(far.begin(), far.end(), values + 80);
  return scales;
}

TEST_F(CudaTest, EveryHalfAndBFloat16ByManyScales) {
  constexpr int64_t kScales = 1024;
  const torch::Tensor scale = cuda(many_scales(kScales));
  const torch::Tensor zero_point = cuda(torch::full({kScales}, 3, torch::kInt));
  const torch::Tensor bits = torch::arange(65536, torch::kInt).to(torch::kUInt16);
  for (const auto type : {torch::kHalf, torch::kBFloat16}) {
    const torch::Tensor x = cuda(bits.view(type)).expand({kScales, 65536}).contiguous();
    const torch::Tensor expected =
        by_torch(x.to(torch::kFloat), scale.view({-1, 1}), 3, -128, 127).to(type);
    const torch::Tensor y = fake_quantize(x, scale, zero_point, -128, 127, 0);
    EXPECT_TRUE(torch::equal(y, expected)) << type;  // no NaN: torch::equal can compare
    const torch::Tensor codes = quantize(x, scale, zero_point, -128, 127, torch::kChar, 0);
    EXPECT_TRUE(torch::equal(dequantize(codes, scale, zero_point, 0, std::nullopt, type), y))
        << type;
    const torch::Tensor leaf = x.detach().requires_grad_();
    const torch::Tensor grad = torch::autograd::grad(
        {fake_quantize(leaf, scale, zero_point, -128, 127, 0)}, {leaf}, {torch::ones_like(x)})[0];
    const torch::Tensor code = (x.to(torch::kFloat) / scale.view({-1, 1})).round() + 3;
    EXPECT_TRUE(torch::equal(grad, code.ge(-128).logical_and(code.le(127)).to(type))) << type;
  }
}

// A vector of scales is read at once only where it lies at a vector's place.
TEST_F(CudaTest, ScalesThatStartAnywhere) {
  for (const int64_t start : {0, 1, 2, 4}) {
    for (const auto type : kFloatTypes) {
      const torch::Tensor x = sample({50, 64}, type);
      const torch::Tensor scale = (torch::rand({70}) * 0.1 + 0.01).narrow(0, start, 64);
      const torch::Tensor zero_point =
          torch::randint(-8, 8, {70}, torch::kInt).narrow(0, start, 64);
      const torch::Tensor y = fake_quantize(
          cuda(x), cuda(torch::zeros({70})).narrow(0, start, 64).copy_(scale),
          cuda(torch::zeros({70}, torch::kInt)).narrow(0, start, 64).copy_(zero_point), -8, 7, 1);
      EXPECT_TRUE(same(y, fake_quantize(x, scale.contiguous(), zero_point.contiguous(), -8, 7, 1)))
          << type << " from " << start;
    }
  }
}

}  // namespace
}  // namespace qcdq
