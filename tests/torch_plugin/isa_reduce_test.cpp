// The SIMD kernels that reduce, of every instruction set that this CPU runs: sums with the bits of
// the plain loops, minima and maxima. The elementwise kernels are in isa_test.cpp.
#include <gtest/gtest.h>

#include "tests/torch_plugin/isa_fixture.h"

namespace qcdq {
namespace {

template <typename X>
class IsaReduceTest : public testing::Test {};
using StorageTypes = testing::Types<float, F16, BF16>;
TYPED_TEST_SUITE(IsaReduceTest, StorageTypes);

TYPED_TEST(IsaReduceTest, LearnedSpanHasTheBitsOfThePlainLoop) {
  using X = TypeParam;
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (const Setting& s : kSettings) {
      for (const int64_t n : {0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 100, 4095, 4096, 4097, 9001}) {
        const std::vector<X> values = stored<X>(interesting_values(s));
        GuardedArray<X> x(n);
        GuardedArray<X> grad(n);
        for (int64_t i = 0; i < n; ++i) {
          x[i] = values[i % values.size()];
          grad[i] = from_compute<X>(std::exp(3.0f * normal(random)) * (i % 3 == 0 ? -1.0f : 1.0f));
        }
        const int64_t blocks = (n + kSumBlock - 1) / kSumBlock;
        GuardedArray<X> grad_x(n);
        GuardedArray<LearnedSums> sums(blocks);
        const Call call(ParamLayout::per_tensor(n), s);
        table->learned_span[kFloatIndex<X>](grad.data(), x.data(), grad_x.data(), n, call.params(),
                                            sums.data());
        const double zero_point = static_cast<double>(s.zero_point);
        std::vector<X> plain_grad_x(n);
        std::vector<LearnedSums> plain_sums(blocks);
        learned_backward_span(
            grad.data(), x.data(), plain_grad_x.data(), n,
            KernelParams<float, double>{&s.scale, &zero_point, s.quant_min, s.quant_max},
            plain_sums.data());
        for (int64_t i = 0; i < n; ++i) ASSERT_TRUE(same_bits(grad_x[i], plain_grad_x[i]));
        for (int64_t b = 0; b < blocks; ++b) {
          ASSERT_TRUE(same_bits(sums[b], plain_sums[b]))
              << table->isa << " n=" << n << " scale=" << s.scale << ": " << sums[b].scale << " "
              << plain_sums[b].scale << ", " << sums[b].outside << " " << plain_sums[b].outside;
        }
      }
    }
  }
}

TYPED_TEST(IsaReduceTest, LearnedColumnsHaveTheBitsOfThePlainLoop) {
  using X = TypeParam;
  std::mt19937 random(13);
  std::normal_distribution<float> normal;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (const int64_t columns : {1, 2, 3, 7, 8, 9, 16, 33, 255, 256, 257, 300}) {
      for (const int64_t rows : {1, 7, 8, 9, 40}) {
        const int64_t stride = columns + 2;
        const int64_t n = (rows - 1) * stride + columns;
        Call call(ParamLayout::per_channel(rows, columns, 1), {0.1f, 0, -8, 7});
        std::vector<double> zero_points;
        for (int64_t c = 0; c < columns; ++c) {
          call.scale[c] = 0.05f + 0.01f * static_cast<float>(c);
          call.zero_point[c] = static_cast<float>(c % 5 - 2);
          zero_points.push_back(call.zero_point[c]);
        }
        GuardedArray<X> x(n);
        GuardedArray<X> grad(n);
        for (int64_t i = 0; i < n; ++i) {
          x[i] = from_compute<X>(normal(random));
          grad[i] = from_compute<X>(std::exp(3.0f * normal(random)) * (i % 3 == 0 ? -1.0f : 1.0f));
        }
        GuardedArray<X> grad_x(n);
        GuardedArray<LearnedSums> sums(columns);
        std::vector<X> plain_grad_x(n);
        std::vector<LearnedSums> plain_sums(columns);
        table->learned_columns[kFloatIndex<X>](grad.data(), x.data(), grad_x.data(), rows, stride,
                                               columns, call.params(), sums.data());
        learned_backward_columns(
            grad.data(), x.data(), plain_grad_x.data(), rows, stride, columns,
            KernelParams<float, double>{call.scale.data(), zero_points.data(), -8, 7},
            plain_sums.data());
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < columns; ++c) {
            ASSERT_TRUE(same_bits(grad_x[r * stride + c], plain_grad_x[r * stride + c]));
          }
        }
        for (int64_t c = 0; c < columns; ++c) {
          ASSERT_TRUE(same_bits(sums[c], plain_sums[c])) << table->isa << " column " << c;
        }
      }
    }
  }
}

TYPED_TEST(IsaReduceTest, ExtremesIgnoreNaNAndCountZero) {
  using X = TypeParam;
  std::mt19937 random(17);
  std::normal_distribution<float> normal;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (int64_t n = 0; n <= 140; ++n) {
      GuardedArray<X> x(n);
      for (int64_t i = 0; i < n; ++i) {
        x[i] = from_compute<X>(i % 5 == 1 ? std::nanf("") : normal(random) + (n % 3 - 1) * 4.0f);
      }
      Extremes<float> expected;
      for (int64_t i = 0; i < n; ++i) {
        const float v = to_compute(x[i]);
        if (v < expected.lowest) expected.lowest = v;
        if (v > expected.highest) expected.highest = v;
      }
      Extremes<float> found;
      table->extremes[kFloatIndex<X>](x.data(), n, &found);
      ASSERT_TRUE(same_bits(found, expected)) << table->isa << " n=" << n;
    }
    for (const int64_t columns : {1, 3, 8, 17}) {
      const int64_t rows = 70;
      GuardedArray<X> x(rows * columns);
      std::vector<Extremes<float>> expected(columns);
      for (int64_t i = 0; i < x.size(); ++i) {
        x[i] = from_compute<X>(i % 7 == 1 ? std::nanf("") : normal(random));
        const float v = to_compute(x[i]);
        Extremes<float>& e = expected[i % columns];
        if (v < e.lowest) e.lowest = v;
        if (v > e.highest) e.highest = v;
      }
      std::vector<Extremes<float>> found(columns);
      table->extremes_columns[kFloatIndex<X>](x.data(), rows, columns, columns, found.data());
      for (int64_t c = 0; c < columns; ++c) {
        ASSERT_TRUE(same_bits(found[c], expected[c])) << table->isa << " column " << c;
      }
    }
  }
}

}  // namespace
}  // namespace qcdq
