// The reducing GPU kernels on the host: the plans of sums visit every element once, and both
// kernels of a reduction, run thread by thread in a shuffled order between barriers, give what
// affine.h and plain sums give. cuda_plan_test.cpp says more.
#include <gtest/gtest.h>
#include <qcdq/affine.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "cuda_fixture.h"
#include "torch_plugin/kernels/cuda/reduce.h"

namespace qcdq::cuda {
namespace {

// Counts how often each element is visited, and by which parameter's pieces.
void check_plan(const ParamLayout& layout, int vector) {
  std::vector<int> visits(layout.numel());
  const auto visit = [&](int64_t at, int64_t count, int64_t param) {
    ASSERT_GE(at, 0);
    ASSERT_LE(at + count, layout.numel()) << name_of(layout);
    for (int64_t i = at; i < at + count; ++i) {
      ++visits[i];
      ASSERT_EQ(param, param_of(layout, i)) << name_of(layout) << " element " << i;
    }
  };
  if (has_runs(layout)) {
    const RunPlan plan(layout, vector);
    ASSERT_EQ(kReduceThreads % plan.team.size(), 0);
    ASSERT_GE(plan.blocks() * kReduceThreads, plan.pieces() * plan.team.size());
    for (int64_t piece = 0; piece < plan.pieces(); ++piece) {
      for (int lane = 0; lane < plan.team.size(); ++lane) {
        const RunPlan::Part part = plan.part(piece);
        // Lanes ask for loads beyond the last one too.
        for (uint32_t load = lane; load < part.loads + 4 * plan.team.size();
             load += plan.team.size()) {
          const auto [at, count] = plan.range(part, load);
          ASSERT_LE(count, plan.width);
          // A whole vector must lie where it can be loaded at once.
          if (count == vector) {
            ASSERT_EQ(at % vector, 0) << name_of(layout);
          }
          ASSERT_EQ(part.param, piece % plan.params);
          visit(at, count, part.param);
        }
      }
    }
  } else {
    const ColumnPlan plan(layout);
    ASSERT_GE(plan.blocks() * kReduceThreads, plan.pieces());
    for (int64_t piece = 0; piece < plan.pieces(); ++piece) {
      const ColumnPlan::Column column = plan.column(piece);
      for (int64_t r = 0; r < column.rows; ++r) {
        visit(column.first + r * plan.columns, 1, column.param);
      }
    }
  }
  for (int64_t i = 0; i < layout.numel(); ++i) {
    ASSERT_EQ(visits[i], 1) << name_of(layout) << " element " << i;
  }
}

TEST(CudaReducePlan, EveryElementIsTakenOnceByItsParameter) {
  for (const auto& layouts : {small_layouts(), large_layouts()}) {
    for (const ParamLayout& layout : layouts) {
      for (const int vector : {2, 4, 8}) {
        check_plan(layout, vector);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaReducePlan, PiecesFillTheGpu) {
  // 4 MiB of f32: pieces enough for 128 blocks; and no more slots than an eighth of the data.
  EXPECT_EQ(RunPlan(ParamLayout::per_tensor(1 << 20), 4).pieces(), 128);
  EXPECT_EQ(RunPlan(ParamLayout::per_tensor(1 << 20), 4).team.size(), kReduceThreads);
  EXPECT_EQ(RunPlan(ParamLayout::blocked(1024, 1024, 1, 32), 4).team.size(), 8);
  for (const ParamLayout& layout :
       {ParamLayout::per_channel(9000, 64, 2), ParamLayout::per_channel(1 << 14, 64, 1)}) {
    const int64_t slots =
        has_runs(layout) ? RunPlan(layout, 4).pieces() : ColumnPlan(layout).pieces();
    EXPECT_LE(slots * 16, layout.numel() * 4 / 8) << name_of(layout);
  }
}

// What reduce_kernel does, the threads of a block in a shuffled order between its barriers.
template <typename Pieces>
void run_reduction(const Pieces& pieces) {
  using Sum = typename Pieces::Sum;
  std::mt19937_64 random(7);
  std::vector<int> threads(kReduceThreads);
  std::iota(threads.begin(), threads.end(), 0);
  std::vector<Sum> sums(kReduceThreads);
  for (int64_t block = 0; block < pieces.blocks(); ++block) {
    std::shuffle(threads.begin(), threads.end(), random);
    for (const int t : threads) sums[t] = pieces.lane_sum(block, t);
    for (int half = pieces.team().size() / 2; half > 0; half /= 2) {
      std::shuffle(threads.begin(), threads.end(), random);
      for (const int t : threads) fold(sums.data(), t, pieces.team(), half);
    }
    for (const int t : threads) pieces.finish(block, t, sums[t]);
  }
}

// The kernels of a reduction; slots start as NaN, so that one that is not written shows.
template <typename Work, typename Store>
void run_both(const ParamLayout& layout, const Work& work, const Store& store) {
  using Sum = typename Work::Sum;
  const auto both = [&](const auto& make) {
    const int64_t count = make(nullptr).plan.slots();
    std::vector<Sum> slots(count);
    // memset takes no null pointer, which an empty vector has.
    if (count > 0) std::memset(static_cast<void*>(slots.data()), 0xFF, count * sizeof(Sum));
    const auto pieces = make(slots.data());
    run_reduction(pieces);
    if (pieces.plan.one_piece_each()) return;
    run_reduction(SlotTotals<Store>{SlotPlan(pieces.plan), store, slots.data()});
  };
  if (has_runs(layout)) {
    both([&](Sum* slots) {
      return RunPieces<Work, Store>{RunPlan(layout, Work::kVector), work, store, slots};
    });
  } else {
    both([&](Sum* slots) {
      return ColumnPieces<Work, Store>{ColumnPlan(layout), work, store, slots};
    });
  }
}

struct LearnedResult {
  std::vector<double> scale;
  std::vector<double> zero_point;
  bool operator==(const LearnedResult&) const = default;
};

// The gradients of a layout by all threads; grad_x is compared with affine.h.
template <typename X, typename Acc>
LearnedResult run_learned(const ParamLayout& layout, const ParamValues& params,
                          const std::vector<X>& grad, const std::vector<X>& x, int shift) {
  using T = ComputeType<X>;
  const int64_t count = layout.numel();
  const int64_t lowest = params.arrays.quant_min;
  const int64_t highest = params.arrays.quant_max;
  Guarded<X> g(count, shift);
  Guarded<X> v(count, shift);
  Guarded<X> result(count, shift);
  std::copy_n(grad.begin(), count, g.data());
  std::copy_n(x.begin(), count, v.data());
  const LearnedBackward<X, Acc> work{g.data(), v.data(), result.data(),
                                     all_aligned(g.data(), v.data(), result.data()),
                                     Params<T, Acc>(params.arrays)};
  LearnedResult totals{std::vector<double>(layout.params()), std::vector<double>(layout.params())};
  run_both(layout, work,
           StoreGradients{params.arrays.scale, 0.5, FloatType::kF64, FloatType::kF64,
                          totals.scale.data(), totals.zero_point.data()});
  EXPECT_TRUE(result.guards_intact()) << name_of(layout);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t p = param_of(layout, i);
    const int64_t code = quantize_one<T>(to_compute(x[i]), static_cast<T>(params.scale[p]),
                                         params.zero_point[p], lowest - 1, highest + 1);
    const bool inside = code >= lowest && code <= highest;
    EXPECT_TRUE(same_bits(result.data()[i], inside ? grad[i] : X{})) << name_of(layout);
  }
  return totals;
}

// Sums in f64, one element after the other.
template <typename X>
LearnedResult expected_learned(const ParamLayout& layout, const ParamValues& params,
                               const std::vector<X>& grad, const std::vector<X>& x) {
  using T = ComputeType<X>;
  LearnedResult totals{std::vector<double>(layout.params()), std::vector<double>(layout.params())};
  for (int64_t i = 0; i < layout.numel(); ++i) {
    const int64_t p = param_of(layout, i);
    const T scale = static_cast<T>(params.scale[p]);
    const double zero_point = static_cast<double>(params.zero_point[p]);
    const double ratio = static_cast<double>(to_compute(x[i]) / scale);
    const double code = std::nearbyint(ratio) + zero_point;
    const double lowest = static_cast<double>(params.arrays.quant_min);
    const double highest = static_cast<double>(params.arrays.quant_max);
    const bool inside = code >= lowest && code <= highest;
    const double g = static_cast<double>(to_compute(grad[i]));
    totals.scale[p] +=
        0.5 * g * (std::clamp(code, lowest, highest) - zero_point - (inside ? ratio : 0.0));
    if (!inside) totals.zero_point[p] -= 0.5 * g * static_cast<double>(scale);
  }
  return totals;
}

// Values whose sums are exact in any order: multiples of 1/8, and scales that are powers of two.
template <typename X, typename Acc>
void check_exact_sums(const ParamLayout& layout, ParamType scale_type, ParamType zero_point_type) {
  ParamValues params(layout.params(), -4, 3, scale_type, zero_point_type);
  for (int64_t p = 0; p < layout.params(); ++p) {
    params.scale[p] = params.scale_f32.data()[p] = p % 2 == 0 ? 0.5f : 0.25f;
    params.scale_f64[p] = params.scale[p];
  }
  std::mt19937_64 random(8);
  std::vector<X> x;
  std::vector<X> grad;
  for (int64_t i = 0; i < layout.numel(); ++i) {
    x.push_back(from_float<X>(static_cast<float>(static_cast<int>(random() % 81) - 40) / 8));
    grad.push_back(from_float<X>(static_cast<float>(static_cast<int>(random() % 7) - 3)));
  }
  const LearnedResult expected = expected_learned(layout, params, grad, x);
  for (const int shift : {0, 1}) {
    const LearnedResult got = run_learned<X, Acc>(layout, params, grad, x, shift);
    ASSERT_TRUE(got == expected) << name_of(layout) << " shift " << shift;
  }
}

TEST(CudaReduce, LearnedSumsAreComplete) {
  using enum ParamType;
  for (const auto& layouts : {small_layouts(), large_layouts()}) {
    for (const ParamLayout& layout : layouts) {
      check_exact_sums<float, float>(layout, kFloat32, kFloat32);
      check_exact_sums<F16, float>(layout, kFloat32, kInt32);
      check_exact_sums<double, double>(layout, kFloat64, kFloat64);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CudaReduce, LearnedSumsOfAnyValues) {
  for (const ParamLayout& layout : large_layouts()) {
    const ParamValues params(layout.params(), -8, 7, ParamType::kFloat32, ParamType::kFloat32);
    std::vector<float> x = values<float>(layout.numel(), 9);
    for (float& v : x) v = std::isfinite(v) ? v : 1.0f;
    std::vector<float> grad(layout.numel());
    std::mt19937_64 random(10);
    std::normal_distribution<float> normal;
    for (float& g : grad) g = normal(random);
    const LearnedResult expected = expected_learned(layout, params, grad, x);
    const LearnedResult aligned = run_learned<float, float>(layout, params, grad, x, 0);
    for (int64_t p = 0; p < layout.params(); ++p) {
      EXPECT_NEAR(aligned.scale[p], expected.scale[p], 1e-9) << name_of(layout);
      EXPECT_NEAR(aligned.zero_point[p], expected.zero_point[p], 1e-9) << name_of(layout);
    }
    // The order of a sum is a matter of the layout: where an array starts changes no bit.
    EXPECT_TRUE((run_learned<float, float>(layout, params, grad, x, 1) == aligned));
    // Nor does the type that codes are held in.
    EXPECT_TRUE((run_learned<float, double>(layout, params, grad, x, 0) == aligned));
  }
}

template <typename X>
void check_chosen(const ParamLayout& layout, bool symmetric, int shift) {
  using T = ComputeType<X>;
  std::vector<X> x = values<X>(layout.numel(), 11);
  for (X& v : x) {  // infinities would make every scale 1
    if (std::isinf(to_compute(v))) v = from_float<X>(9.0f);
  }
  Guarded<X> in(layout.numel(), shift);
  std::copy_n(x.begin(), layout.numel(), in.data());
  std::vector<float> scale(layout.params());
  std::vector<int32_t> zero_point(layout.params());
  run_both(layout, FindExtremes<X>{in.data(), all_aligned(in.data())},
           StoreChosen<T>{-127, 127, symmetric, scale.data(), zero_point.data()});
  std::vector<T> lowest(layout.params());
  std::vector<T> highest(layout.params());
  for (int64_t i = 0; i < layout.numel(); ++i) {
    const T v = to_compute(x[i]);
    if (std::isnan(v)) continue;
    T& low = lowest[param_of(layout, i)];
    T& high = highest[param_of(layout, i)];
    low = std::min(low, v);
    high = std::max(high, v);
  }
  for (int64_t p = 0; p < layout.params(); ++p) {
    const ScaleAndZeroPoint expected = choose_one(
        static_cast<float>(lowest[p]), static_cast<float>(highest[p]), -127, 127, symmetric);
    ASSERT_EQ(scale[p], expected.scale) << name_of(layout) << " parameter " << p;
    ASSERT_EQ(zero_point[p], expected.zero_point) << name_of(layout) << " parameter " << p;
  }
}

TEST(CudaReduce, ChosenParametersEqualTheFormula) {
  for (const auto& layouts : {small_layouts(), large_layouts()}) {
    for (const ParamLayout& layout : layouts) {
      for (const bool symmetric : {false, true}) {
        check_chosen<float>(layout, symmetric, 0);
        check_chosen<float>(layout, symmetric, 1);
        check_chosen<F16>(layout, symmetric, 0);
        check_chosen<BF16>(layout, symmetric, 1);
        check_chosen<double>(layout, symmetric, 0);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CudaReduce, GradientsComeInTheTypesOfTheParameters) {
  const float scale = 0.5f;
  float as_f32 = 0;
  F16 as_f16 = {0};
  const StoreGradients store{
      {&scale, ParamType::kFloat32}, 2.0, FloatType::kF32, FloatType::kF16, &as_f32, &as_f16};
  store(0, {1.25, 3.0});
  EXPECT_EQ(as_f32, 2.5f);
  EXPECT_EQ(to_compute(as_f16), -3.0f);
}

}  // namespace
}  // namespace qcdq::cuda
