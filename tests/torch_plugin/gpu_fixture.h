// What cuda_test.cpp and cuda_division_test.cpp share: a fixture that skips where there is no GPU,
// inputs, comparison of bits, the formula of affine.h over a tensor.
#pragma once

#include <gtest/gtest.h>
#include <qcdq/affine.h>
#include <torch/torch.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace qcdq {

inline const std::vector<torch::ScalarType> kFloatTypes = {torch::kFloat, torch::kHalf,
                                                           torch::kBFloat16, torch::kDouble};

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available())
      GTEST_SKIP() << "no GPU: torch::cuda::is_available() is false";
    torch::manual_seed(0);
  }
};

inline torch::Tensor cuda(const torch::Tensor& t) { return t.to(torch::kCUDA); }

// Sizes, type and every bit (the sign of zeros too).
inline bool same(const torch::Tensor& gpu, const torch::Tensor& cpu) {
  if (!gpu.is_cuda() || gpu.sizes() != cpu.sizes() || gpu.scalar_type() != cpu.scalar_type()) {
    return false;
  }
  const torch::Tensor a = gpu.cpu().contiguous();
  const torch::Tensor b = cpu.contiguous();
  return a.numel() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

// Ties of the scale 0.5, +-0, denormals, infinities, NaN, values past the range; then random ones.
inline torch::Tensor sample(torch::IntArrayRef sizes, torch::ScalarType type) {
  torch::Tensor x = torch::randn(sizes) * 5;
  torch::Tensor flat = x.view(-1);
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> edges = {0.25f, -0.0f,  inf,   -inf,   std::nanf(""), 1e-40f,  -1e-40f,
                                    0.75f, -0.75f, 1.25f, -1.25f, 63.75f,        -64.25f, 1e30f};
  for (int64_t i = 0; i < flat.numel(); i += 3) flat[i] = edges[i / 3 % edges.size()];
  return x.to(type);
}

template <typename T>
torch::Tensor by_affine(const torch::Tensor& x, T scale, int64_t zero_point, int64_t quant_min,
                        int64_t quant_max) {
  torch::Tensor y = x.to(c10::CppTypeToScalarType<T>::value).clone();
  T* values = y.mutable_data_ptr<T>();
  for (int64_t i = 0; i < y.numel(); ++i) {
    values[i] = fake_quantize_one(values[i], scale, zero_point, quant_min, quant_max);
  }
  return y.to(x.scalar_type());
}

}  // namespace qcdq
