// The elementwise GPU kernels on the host: their functions of (block, thread) compile for both, so
// every thread of a grid is run here and the results are compared with affine.h: index arithmetic,
// vectors and tails. The kernels that sum are in cuda_reduce_test.cpp. What this cannot show,
// launches and the GPU's own arithmetic, is in cuda_test.cpp, which needs a GPU.
#include <gtest/gtest.h>
#include <qcdq/affine.h>

#include <numeric>
#include <random>
#include <vector>

#include "cuda_fixture.h"
#include "torch_plugin/kernels/cuda/elementwise.h"

namespace qcdq::cuda {
namespace {

TEST(CudaDivisor, EqualsDivision) {
  std::vector<int64_t> divisors(70);
  std::iota(divisors.begin(), divisors.end(), 1);
  for (int shift = 7; shift < 42; ++shift) {
    for (int64_t d = -1; d <= 1; ++d) divisors.push_back((int64_t{1} << shift) + d);
  }
  for (const int64_t d : std::vector<int64_t>{641, 1000003, 2147483629, 3000000019})
    divisors.push_back(d);
  std::mt19937_64 random(1);
  for (int i = 0; i < 300; ++i) divisors.push_back(static_cast<int64_t>(random() >> 33) + 1);
  for (const int64_t divisor : divisors) {
    const Divisor by(divisor);
    const auto check = [&](int64_t dividend) {
      ASSERT_EQ(by.quotient(dividend), dividend / divisor) << dividend << " / " << divisor;
    };
    for (int64_t n = 0; n < 200; ++n) check(n);
    for (int64_t n = -3; n <= 3; ++n) check((int64_t{1} << 31) + n);
    for (int i = 0; i < 300; ++i) {
      check(static_cast<int64_t>(random() >> 33));
      check(static_cast<int64_t>(random() >> 20));
      // Around multiples, where a quotient changes.
      const int64_t multiple =
          static_cast<int64_t>(random() % (0x7FFFFFFF / divisor + 3)) * divisor;
      for (int64_t d = -1; d <= 1; ++d) check(std::max<int64_t>(0, multiple + d));
    }
  }
}

TEST(CudaParamCursor, FollowsTheLayout) {
  for (const ParamLayout& layout : small_layouts()) {
    const ParamIndex index(layout);
    for (int64_t first = 0; first < layout.numel(); ++first) {
      ParamCursor cursor(index, first);
      for (int64_t i = first; i < std::min(first + 20, layout.numel()); ++i, cursor.next()) {
        ASSERT_EQ(cursor.param(), param_of(layout, i)) << name_of(layout) << " element " << i;
        ASSERT_EQ(index.param(i), param_of(layout, i)) << name_of(layout) << " element " << i;
      }
    }
  }
}

TEST(CudaParamCursor, CountsBeyond32Bits) {
  // 2^33 elements: the division that a large array needs.
  for (const ParamLayout& layout : {ParamLayout::per_channel(1 << 13, 1000, 1051),
                                    ParamLayout::blocked(1 << 17, 1 << 16, 1, 48)}) {
    const ParamIndex index(layout);
    std::mt19937_64 random(2);
    for (int i = 0; i < 1000; ++i) {
      const int64_t element = static_cast<int64_t>(random() % layout.numel());
      ASSERT_EQ(ParamCursor(index, element).param(), param_of(layout, element)) << element;
      ASSERT_EQ(index.param(element), param_of(layout, element)) << element;
    }
  }
}

TEST(CudaSharing, HoldsForEveryVector) {
  int found[4] = {};
  for (const ParamLayout& layout : small_layouts()) {
    for (const int vector : {2, 4, 8}) {
      const Sharing sharing = sharing_of(layout, vector);
      ++found[static_cast<int>(sharing)];
      if (sharing == Sharing::kAny) continue;
      for (int64_t i = 0; i < layout.numel(); ++i) {
        const int64_t first = param_of(layout, i - i % vector);
        const int64_t step = sharing == Sharing::kConsecutive ? i % vector : 0;
        ASSERT_EQ(param_of(layout, i), first + step) << name_of(layout) << " element " << i;
        if (sharing == Sharing::kConsecutive) {
          ASSERT_EQ(first % vector, 0) << name_of(layout);
          ASSERT_EQ(layout.numel() % vector, 0) << name_of(layout);  // else too many were read
        }
      }
    }
  }
  for (const int count : found) EXPECT_GT(count, 10);
}

template <typename Op, Sharing kSharing>
void run_grid(const Elementwise<Op, kSharing>& body) {
  for (int64_t block = 0; block < body.blocks(); ++block) {
    for (int thread = 0; thread < kThreads; ++thread) body.run(block, thread);
  }
}

// Runs Op over `first` (and `second`) by all threads of its grid and gives each result to
// check(element, result, param).
template <typename Op, Sharing kSharing, typename Check>
void run_op(const ParamLayout& layout, const ParamValues& params,
            const std::vector<typename Op::First>& first, const void* second, int shift,
            Check&& check) {
  using Body = Elementwise<Op, kSharing>;
  const int64_t count = layout.numel();
  Guarded<typename Op::First> in(count, shift);
  std::copy_n(first.begin(), count, in.data());
  Guarded<typename Op::Out> out(count, shift);
  const Body body{in.data(),
                  static_cast<const typename Body::Second*>(second),
                  out.data(),
                  count,
                  all_aligned(in.data(), second, out.data()),
                  ParamIndex(layout),
                  Params<typename Op::T, typename Op::Acc>(params.arrays)};
  run_grid(body);
  ASSERT_TRUE(out.guards_intact()) << name_of(layout);
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_TRUE(check(i, out.data()[i], param_of(layout, i)))
        << name_of(layout) << " element " << i << " shift " << shift;
  }
}

template <typename Op, typename Check>
void run_op(const ParamLayout& layout, const ParamValues& params,
            const std::vector<typename Op::First>& first, const void* second, int shift,
            Check&& check) {
  const auto run = [&]<Sharing kSharing>() {
    run_op<Op, kSharing>(layout, params, first, second, shift, check);
  };
  // The general kernel serves every layout, and f64 and wide ranges always.
  run.template operator()<Sharing::kAny>();
  if constexpr (std::is_same_v<typename Op::Acc, float>) {
    switch (sharing_of(layout, vector_of<Op>())) {
      case Sharing::kAll:
        return run.template operator()<Sharing::kAll>();
      case Sharing::kVector:
        return run.template operator()<Sharing::kVector>();
      case Sharing::kConsecutive:
        return run.template operator()<Sharing::kConsecutive>();
      case Sharing::kAny:
        return;
    }
  }
}

template <typename X, typename Acc>
void check_fake_quantize(const ParamLayout& layout, int64_t lowest, int64_t highest,
                         ParamType scale_type, ParamType zero_point_type, int shift) {
  using T = ComputeType<X>;
  const ParamValues params(layout.params(), lowest, highest, scale_type, zero_point_type);
  const std::vector<X> x = values<X>(layout.numel(), 4);
  run_op<FakeQuantize<X, Acc>>(layout, params, x, nullptr, shift, [&](int64_t i, X y, int64_t p) {
    return same_bits(
        y, from_compute<X>(fake_quantize_one(to_compute(x[i]), static_cast<T>(params.scale[p]),
                                             params.zero_point[p], lowest, highest)));
  });
  const std::vector<X> grad = values<X>(layout.numel(), 5);
  Guarded<X> second(layout.numel(), shift);
  std::copy_n(x.begin(), layout.numel(), second.data());
  run_op<FakeQuantizeBackward<X, Acc>>(
      layout, params, grad, second.data(), shift, [&](int64_t i, X result, int64_t p) {
        // The range widened by one on each side tells inside from outside.
        const int64_t code = quantize_one<T>(to_compute(x[i]), static_cast<T>(params.scale[p]),
                                             params.zero_point[p], lowest - 1, highest + 1);
        return same_bits(result, code >= lowest && code <= highest ? grad[i] : X{});
      });
}

TEST(CudaElementwise, FakeQuantizeEqualsTheFormula) {
  using enum ParamType;
  for (const ParamLayout& layout : small_layouts()) {
    for (const int shift : {0, 1}) {
      check_fake_quantize<float, float>(layout, -8, 7, kFloat32, kInt32, shift);
      check_fake_quantize<float, double>(layout, INT32_MIN + 1, INT32_MAX - 1, kFloat32, kInt32,
                                         shift);
      check_fake_quantize<F16, float>(layout, -128, 127, kFloat32, kFloat32, shift);
      check_fake_quantize<BF16, float>(layout, 0, 255, kFloat32, kInt32, shift);
      check_fake_quantize<double, double>(layout, -8, 7, kFloat64, kFloat64, shift);
      check_fake_quantize<double, double>(layout, -8, 7, kFloat32, kInt32, shift);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaElementwise, ManyBlocks) {
  for (const ParamLayout& layout : large_layouts()) {
    check_fake_quantize<float, float>(layout, -8, 7, ParamType::kFloat32, ParamType::kInt32, 0);
    check_fake_quantize<BF16, float>(layout, -8, 7, ParamType::kFloat32, ParamType::kInt32, 1);
    if (HasFatalFailure()) return;
  }
}

template <typename X, typename Code, typename Acc>
void check_codes(const ParamLayout& layout, int64_t lowest, int64_t highest, int shift) {
  using T = ComputeType<X>;
  const ParamValues params(layout.params(), lowest, highest, ParamType::kFloat32,
                           ParamType::kInt32);
  const std::vector<X> x = values<X>(layout.numel(), 6);
  std::vector<Code> codes(layout.numel());
  run_op<Quantize<X, Code, Acc>>(
      layout, params, x, nullptr, shift, [&](int64_t i, Code code, int64_t p) {
        codes[i] = code;
        return code == quantize_one<T>(to_compute(x[i]), static_cast<T>(params.scale[p]),
                                       params.zero_point[p], lowest, highest);
      });
  if constexpr (sizeof(Code) < 4 || std::is_same_v<Acc, double>) {
    run_op<Dequantize<X, Code, Acc>>(
        layout, params, codes, nullptr, shift, [&](int64_t i, X y, int64_t p) {
          return same_bits(
              y, from_compute<X>(dequantize_one(int64_t{codes[i]}, static_cast<T>(params.scale[p]),
                                                params.zero_point[p])));
        });
  }
}

TEST(CudaElementwise, CodesEqualTheFormula) {
  for (const ParamLayout& layout : small_layouts()) {
    for (const int shift : {0, 1}) {
      check_codes<float, int8_t, float>(layout, -128, 127, shift);
      check_codes<float, uint16_t, float>(layout, 0, 65535, shift);
      check_codes<float, int32_t, float>(layout, -3, 3, shift);
      check_codes<float, int32_t, double>(layout, INT32_MIN, INT32_MAX, shift);
      check_codes<F16, uint8_t, float>(layout, 0, 255, shift);
      check_codes<BF16, int16_t, float>(layout, -32768, 32767, shift);
      check_codes<double, int8_t, double>(layout, -128, 127, shift);
      if (HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace qcdq::cuda
