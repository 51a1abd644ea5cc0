// The GPU kernels on the host: their functions of (block, thread) compile for both, so every thread
// of a grid is run here, in a shuffled order between barriers, and the results are compared with
// affine.h: index arithmetic, vectors and tails, the plans of sums. What this cannot show, launches
// and the GPU's own arithmetic, is in cuda_test.cpp, which needs a GPU.
#include <gtest/gtest.h>
#include <qcdq/affine.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "torch_plugin/kernels/cuda/elementwise.h"
#include "torch_plugin/kernels/cuda/reduce.h"

namespace qcdq::cuda {
namespace {

// --- layouts
// -------------------------------------------------------------------------------------

// The parameter of an element by the definition in param_layout.h.
int64_t param_of(const ParamLayout& l, int64_t element) {
  const int64_t i = element % l.inner;
  const int64_t a = element / l.inner % l.axis;
  const int64_t o = element / l.inner / l.axis;
  return o * l.outer_step + a / l.block * l.axis_step + i * l.inner_step;
}

// All granularities, with sizes around the widths of vectors, teams and pieces.
std::vector<ParamLayout> small_layouts() {
  std::vector<ParamLayout> layouts;
  for (const int64_t n : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 1023, 1024, 1025, 4099}) {
    layouts.push_back(ParamLayout::per_tensor(n));
  }
  for (const int64_t outer : {1, 2, 5}) {
    for (const int64_t axis : {1, 3, 8}) {
      for (const int64_t inner : {1, 2, 4, 7, 16, 49}) {
        layouts.push_back(ParamLayout::per_channel(outer, axis, inner));
        for (const int64_t block : {1, 2, 3, 4, 8, 100}) {
          layouts.push_back(ParamLayout::blocked(outer, axis, inner, block));
        }
      }
    }
  }
  for (const int64_t axis : {32, 70, 128, 131}) {
    layouts.push_back(ParamLayout::blocked(3, axis, 1, 32));
    layouts.push_back(ParamLayout::per_channel(130, axis, 1));
    layouts.push_back(ParamLayout::blocked(2, axis, 5, 100));
  }
  layouts.push_back(ParamLayout::per_channel(3, 0, 4));
  layouts.push_back(ParamLayout::per_channel(0, 4, 4));
  layouts.push_back(ParamLayout::blocked(2, 8, 0, 4));
  return layouts;
}

// Runs longer than a piece, and many short runs.
std::vector<ParamLayout> large_layouts() {
  constexpr int64_t kPiece = RunPlan::kPiece;
  return {ParamLayout::per_tensor(kPiece),
          ParamLayout::per_tensor(kPiece + 1),
          ParamLayout::per_tensor(3 * kPiece - 1),
          ParamLayout::per_channel(2, 3, kPiece + 5),
          ParamLayout::per_channel(2, 3, 2 * kPiece),
          ParamLayout::per_channel(700, 3, 49),
          ParamLayout::per_channel(9000, 2, 2),
          ParamLayout::blocked(2, 2 * kPiece + 100, 1, kPiece + 8),
          ParamLayout::blocked(3, 5000, 1, 32),
          ParamLayout::blocked(2, 300, 33, 128),
          ParamLayout::per_channel(1000, 17, 1)};
}

std::string name_of(const ParamLayout& l) {
  return "outer " + std::to_string(l.outer) + " axis " + std::to_string(l.axis) + " inner " +
         std::to_string(l.inner) + " block " + std::to_string(l.block) + " params " +
         std::to_string(l.params());
}

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
    }
  }
}

// --- elementwise
// ---------------------------------------------------------------------------------

template <typename X>
X from_float(float v) {
  return from_compute<X>(static_cast<ComputeType<X>>(v));
}

// Ties of the scales below, +-0, denormals, infinities, NaN, the ends of ranges, random values.
template <typename X>
std::vector<X> values(int64_t count, uint64_t seed) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> edges = {0.0f,    -0.0f, 0.25f,  -0.25f, 0.75f,  -0.75f,       1e-40f,
                                    -1e-40f, inf,   -inf,   3.875f, -4.25f, 63.75f,       64.0f,
                                    -65.0f,  1e30f, -1e30f, 1e-30f, 0.1f,   std::nanf("")};
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, 5.0f);
  std::vector<X> result;
  for (int64_t i = 0; i < count; ++i) {
    const bool edge = random() % 3 == 0;
    result.push_back(from_float<X>(edge ? edges[random() % edges.size()] : normal(random)));
  }
  return result;
}

template <typename T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// Parameters in the types that the ops may come with.
struct ParamValues {
  ParamValues(int64_t count, int64_t lowest, int64_t highest, ParamType scale_type,
              ParamType zero_point_type)
      : arrays{{nullptr, scale_type}, {nullptr, zero_point_type}, lowest, highest} {
    std::mt19937_64 random(3);
    const std::vector<float> scales = {0.5f, 0.1f, 0.0123f, 2.0f};
    for (int64_t i = 0; i < count; ++i) {
      scale.push_back(scales[random() % scales.size()]);
      const int64_t width = std::min<int64_t>(highest - lowest + 1, 100);
      zero_point.push_back(lowest + static_cast<int64_t>(random() % width));
      // 0.375 more is rounded away again.
      const double learned = static_cast<double>(zero_point.back()) + 0.375;
      scale_f32.push_back(static_cast<float>(scale.back()));
      scale_f64.push_back(scale.back());
      zero_point_i32.push_back(static_cast<int32_t>(zero_point.back()));
      zero_point_f32.push_back(static_cast<float>(learned));
      zero_point_f64.push_back(learned);
    }
    arrays.scale.data = scale_type == ParamType::kFloat64
                            ? static_cast<const void*>(scale_f64.data())
                            : scale_f32.data();
    arrays.zero_point.data =
        zero_point_type == ParamType::kInt32     ? static_cast<const void*>(zero_point_i32.data())
        : zero_point_type == ParamType::kFloat64 ? static_cast<const void*>(zero_point_f64.data())
                                                 : zero_point_f32.data();
  }
  ParamValues(const ParamValues&) = delete;
  ParamValues& operator=(const ParamValues&) = delete;

  ParamArrays arrays;
  std::vector<float> scale;
  std::vector<int64_t> zero_point;
  std::vector<float> scale_f32;
  std::vector<double> scale_f64;
  std::vector<int32_t> zero_point_i32;
  std::vector<float> zero_point_f32;
  std::vector<double> zero_point_f64;
};

// An array with a guard on each side, that starts `shift` elements behind a vector's place.
template <typename X>
class Guarded {
 public:
  Guarded(int64_t count, int shift)
      : shift_(kVectorBytes + shift),
        bytes_(sizeof(X) * (count + shift_ + kVectorBytes) + 64, 0x5A) {
    count_ = count;
  }
  X* data() {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    return reinterpret_cast<X*>(address + (64 - address % 64) % 64) + shift_;
  }
  bool guards_intact() {
    const auto* begin = bytes_.data();
    const auto* from = reinterpret_cast<const unsigned char*>(data());
    const auto* to = reinterpret_cast<const unsigned char*>(data() + count_);
    for (const auto* p = begin; p < begin + bytes_.size(); ++p) {
      if ((p < from || p >= to) && *p != 0x5A) return false;
    }
    return true;
  }

 private:
  int64_t shift_;
  std::vector<unsigned char> bytes_;
  int64_t count_ = 0;
};

template <typename Op, bool kOneParam>
void run_grid(const Elementwise<Op, kOneParam>& body) {
  for (int64_t block = 0; block < body.blocks(); ++block) {
    for (int thread = 0; thread < kThreads; ++thread) body.run(block, thread);
  }
}

// Runs Op over `first` (and `second`) by all threads of its grid and gives each result to
// check(element, result, param).
template <typename Op, bool kOneParam, typename Check>
void run_op(const ParamLayout& layout, const ParamValues& params,
            const std::vector<typename Op::First>& first, const void* second, int shift,
            Check&& check) {
  using Body = Elementwise<Op, kOneParam>;
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
  if (layout.one_param()) run_op<Op, true>(layout, params, first, second, shift, check);
  run_op<Op, false>(layout, params, first, second, shift, check);
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

// --- plans of sums
// -------------------------------------------------------------------------------

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
    ASSERT_EQ(kReduceThreads % plan.team, 0);
    ASSERT_GE(plan.blocks() * kReduceThreads, plan.pieces() * plan.team);
    for (int64_t piece = 0; piece < plan.pieces(); ++piece) {
      for (int lane = 0; lane < plan.team; ++lane) {
        plan.for_each(piece, lane, [&](int64_t at, int64_t count) {
          ASSERT_LE(count, plan.width);
          // A whole vector must lie where it can be loaded at once.
          if (count == vector) {
            ASSERT_EQ(at % vector, 0) << name_of(layout);
          }
          visit(at, count, piece % plan.params);
        });
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
  EXPECT_EQ(RunPlan(ParamLayout::per_tensor(1 << 20), 4).team, kReduceThreads);
  EXPECT_EQ(RunPlan(ParamLayout::blocked(1024, 1024, 1, 32), 4).team, 8);
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
    for (int half = pieces.team() / 2; half > 0; half /= 2) {
      std::shuffle(threads.begin(), threads.end(), random);
      for (const int t : threads) fold(sums.data(), t, pieces.team(), half);
    }
    for (const int t : threads) pieces.finish(block, t, sums[t]);
  }
}

// Both kernels of a reduction; slots start as NaN, so that one that is not written shows.
template <typename Work, typename Store>
void run_both(const ParamLayout& layout, const Work& work, const Store& store) {
  using Sum = typename Work::Sum;
  const auto both = [&](const auto& make) {
    const int64_t count = make(nullptr).plan.pieces();
    std::vector<Sum> slots(count);
    std::memset(static_cast<void*>(slots.data()), 0xFF, count * sizeof(Sum));
    const auto pieces = make(slots.data());
    run_reduction(pieces);
    const SlotPlan plan(pieces.plan.params, pieces.plan.slots_per_param);
    run_reduction(SlotTotals<Store>{plan, store, slots.data()});
  };
  if (has_runs(layout)) {
    both([&](Sum* slots) { return RunPieces<Work>{RunPlan(layout, Work::kVector), work, slots}; });
  } else {
    both([&](Sum* slots) { return ColumnPieces<Work>{ColumnPlan(layout), work, slots}; });
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
    params.scale[p] = params.scale_f32[p] = p % 2 == 0 ? 0.5f : 0.25f;
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
