// The sums of learned gradients by the plain loops (kernels/plain_kernels.cpp): the formula, the
// order that kSumBlock documents, and how exact they are. isa_reduce_test.cpp has the SIMD kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "torch_plugin/kernels/cpu_kernels.h"

namespace qcdq {
namespace {

TEST(Learned, SumsFollowTheFormula) {
  const float scale = 0.5f;
  const double zero_point = 1.0;
  const std::vector<float> x = {0.26f, 10.0f, -10.0f, std::nanf("")};
  const std::vector<float> grad = {2.0f, 3.0f, 5.0f, 7.0f};
  std::vector<float> grad_x(4);
  LearnedSums sums;
  learned_backward_span(grad.data(), x.data(), grad_x.data(), 4,
                        KernelParams<float, double>{&scale, &zero_point, -8, 7}, &sums);
  // inside: 1 - 0.52; above: 7 - 1; below and NaN: -8 - 1.
  const double inside = 1.0 - static_cast<double>(0.26f / 0.5f);
  EXPECT_EQ(sums.scale, (2.0 * inside + 5.0 * -9.0) + (3.0 * 6.0 + 7.0 * -9.0));
  EXPECT_EQ(sums.outside, 3.0 + 5.0 + 7.0);
  EXPECT_EQ(grad_x, (std::vector<float>{2.0f, 0.0f, 0.0f, 0.0f}));
}

// One parameter's values whose sums show the order in which they were added.
struct LearnedValues {
  explicit LearnedValues(int64_t n) : x(n), grad(n), terms(n), grad_x(n) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < n; ++i) {
      x[i] = 0.05f * normal(random);
      grad[i] = std::exp(10.0f * normal(random)) * (i % 3 == 0 ? -1.0f : 1.0f);
      const float ratio = x[i] / scale;
      const float code = std::nearbyint(ratio);
      terms[i] = grad[i] * (code < -8.0f ? -8.0f : code > 7.0f ? 7.0f : code - ratio);
    }
  }
  KernelParams<float, double> params() const { return {&scale, &zero_point, -8, 7}; }

  float scale = 0.01f;
  double zero_point = 0.0;
  std::vector<float> x, grad, terms, grad_x;
};

// The sum of 16 numbers by the tree of kSumBlock, those from `count` on being 0.
float sum_of_sixteen(const std::vector<float>& terms, int64_t first, int64_t step, int64_t count) {
  const auto t = [&](int64_t i) { return i < count ? terms[first + i * step] : 0.0f; };
  const auto four = [&](int64_t i) { return (t(i) + t(i + 1)) + (t(i + 2) + t(i + 3)); };
  return (four(0) + four(4)) + (four(8) + four(12));
}

TEST(Learned, ABlockIsSummedInTheDocumentedOrder) {
  const int64_t n = kSumBlock + 128 + 21;
  LearnedValues v(n);
  LearnedSums sums[2];
  learned_backward_span(v.grad.data(), v.x.data(), v.grad_x.data(), n, v.params(), sums);
  for (int64_t block = 0; block < 2; ++block) {
    double lanes[8] = {};
    int64_t i = block * 4096;
    const int64_t end = std::min<int64_t>(i + 4096, n);
    while (i < end) {
      const int64_t rows = std::min<int64_t>(16, (end - i) / 8);
      for (int64_t lane = 0; lane < std::min<int64_t>(8, end - i); ++lane) {
        lanes[lane] +=
            static_cast<double>(sum_of_sixteen(v.terms, i + lane, 8, std::max<int64_t>(rows, 1)));
      }
      i += rows > 0 ? 8 * rows : end - i;
    }
    EXPECT_EQ(sums[block].scale, ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                                     ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])));
  }
}

TEST(Learned, AColumnIsSummedInTheDocumentedOrder) {
  const int64_t rows = 16 * 3 + 5;
  LearnedValues v(rows);
  LearnedSums sum;
  learned_backward_columns(v.grad.data(), v.x.data(), v.grad_x.data(), rows, 1, 1, v.params(),
                           &sum);
  double expected = 0.0;
  for (int64_t r = 0; r < rows; r += 16) {
    expected += static_cast<double>(sum_of_sixteen(v.terms, r, 1, std::min<int64_t>(16, rows - r)));
  }
  EXPECT_EQ(sum.scale, expected);
}

TEST(Learned, SumsAreAsGoodAsAnF32Result) {
  const int64_t n = kSumBlock;
  LearnedValues v(n);
  LearnedSums sum;
  learned_backward_span(v.grad.data(), v.x.data(), v.grad_x.data(), n, v.params(), &sum);
  double exact = 0.0;
  double magnitude = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const float ratio = v.x[i] / v.scale;
    const double code = std::nearbyint(ratio);
    const double factor = code < -8 ? -8.0 : code > 7 ? 7.0 : code - static_cast<double>(ratio);
    exact += static_cast<double>(v.grad[i]) * factor;
    magnitude += std::abs(static_cast<double>(v.grad[i]) * factor);
  }
  EXPECT_NEAR(sum.scale, exact, 5 * 0x1p-24 * magnitude);
}

}  // namespace
}  // namespace qcdq
