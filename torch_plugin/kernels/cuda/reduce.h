// The reducing kernels of the GPU as plain functions of (block, thread): the gradients of
// fake_quantize_learned, and minima with maxima. A first kernel sums the pieces of reduce_plan.h, a
// second one the slots of each parameter, where a parameter has more than one. Both add up a team's
// lanes by the same tree: `fold` with half of the team, a quarter, ... with a barrier before each
// step. reduce.cu launches them; on the host tests/torch_plugin/cuda_plan_test.cpp runs every
// thread. Torch-free.
#pragma once

#include "torch_plugin/kernels/cpu_kernels.h"
#include "torch_plugin/kernels/cuda/element_types.h"
#include "torch_plugin/kernels/cuda/reduce_plan.h"

namespace qcdq::cuda {

// --- what is summed --------------------------------------------------------------------------

/// LearnedSums (cpu_kernels.h) of a part of the elements.
struct LearnedSum {
  double scale = 0.0;
  double outside = 0.0;
  QCDQ_HOST_DEVICE void add(const LearnedSum& other) {
    scale += other.scale;
    outside += other.outside;
  }
};

/// Extremes (cpu_kernels.h): NaN fails both comparisons, 0 is always counted.
template <typename T>
struct ExtremesSum {
  T lowest = 0;
  T highest = 0;
  QCDQ_HOST_DEVICE void add(const ExtremesSum& other) {
    lowest = other.lowest < lowest ? other.lowest : lowest;
    highest = other.highest > highest ? other.highest : highest;
  }
};

/// The backward of fake_quantize_learned: stores the gradient of x and sums those of scale and zero
/// point, in one pass over grad and x.
template <typename XType, typename AccType>
struct LearnedBackward {
  using X = XType;
  using T = ComputeType<X>;
  using Acc = AccType;
  using Sum = LearnedSum;
  static constexpr int kVector = kVectorBytes / sizeof(X);
  static constexpr int kAtOnce = 1;  // loads of a lane before it computes the first of them

  /// What all elements of a piece share.
  struct Param {
    T scale;
    Acc zero_point;
  };
  QCDQ_HOST_DEVICE Param param(int64_t index) const {
    return {params.scale(index), params.zero_point(index)};
  }

  /// `count` <= kVector neighbours: what is read of them, and what is done with it.
  struct Loaded {
    Vector<X, kVector> grad;
    Vector<X, kVector> x;
  };
  QCDQ_HOST_DEVICE Loaded load(int64_t at, int64_t count) const {
    return {load_vector<X, kVector>(grad + at, count, aligned),
            load_vector<X, kVector>(x + at, count, aligned)};
  }
  QCDQ_HOST_DEVICE void take(const Param& p, const Loaded& loaded, int64_t at, int64_t count,
                             Sum* sum) const {
    Vector<X, kVector> result;
    QCDQ_UNROLL
    for (int k = 0; k < kVector; ++k) {
      if (k < count) result.v[k] = take_one(p, loaded.grad.v[k], loaded.x.v[k], sum);
    }
    store_vector<X, kVector>(result, grad_x + at, count, aligned);
  }
  QCDQ_HOST_DEVICE X take_one(const Param& p, X g, X v, Sum* sum) const {
    const T ratio = widen(v) / p.scale;
    const Acc unclamped = static_cast<Acc>(round_half_even(ratio)) + p.zero_point;
    const Acc distance = params.clamp(unclamped) - p.zero_point;
    const bool inside = params.inside(unclamped);
    const double gradient = static_cast<double>(widen(g));
    // distance - ratio is exact (a rounded number and its fraction), and so is the product in f64
    // where x is narrower than f64.
    const Acc factor = inside ? distance - static_cast<Acc>(ratio) : distance;
    sum->scale += gradient * static_cast<double>(factor);
    if (!inside) sum->outside += gradient;
    return inside ? g : X{};
  }

  const X* grad;
  const X* x;
  X* grad_x;
  bool aligned;
  Params<T, Acc> params;
};

template <typename XType>
struct FindExtremes {
  using X = XType;
  using Sum = ExtremesSum<ComputeType<X>>;
  static constexpr int kVector = kVectorBytes / sizeof(X);
  static constexpr int kAtOnce = 4;

  struct Param {};
  QCDQ_HOST_DEVICE Param param(int64_t) const { return {}; }
  using Loaded = Vector<X, kVector>;  // zeros past the end
  QCDQ_HOST_DEVICE Loaded load(int64_t at, int64_t count) const {
    return load_vector<X, kVector>(x + at, count, aligned);
  }
  QCDQ_HOST_DEVICE void take(const Param&, const Loaded& loaded, int64_t, int64_t, Sum* sum) const {
    QCDQ_UNROLL
    for (int k = 0; k < kVector; ++k) sum->add({widen(loaded.v[k]), widen(loaded.v[k])});
  }

  const X* x;
  bool aligned;
};

// --- what is stored of a parameter's total
// ---------------------------------------------------------------

template <typename X>
QCDQ_HOST_DEVICE void store_gradient(void* to, int64_t index, double value) {
  static_cast<X*>(to)[index] = narrow<X>(static_cast<ComputeType<X>>(value));
}
QCDQ_HOST_DEVICE inline void store_gradient(FloatType type, void* to, int64_t index, double value) {
  switch (type) {
    case FloatType::kF32:
      return store_gradient<float>(to, index, value);
    case FloatType::kF16:
      return store_gradient<F16>(to, index, value);
    case FloatType::kBF16:
      return store_gradient<BF16>(to, index, value);
    case FloatType::kF64:
      return store_gradient<double>(to, index, value);
  }
}

/// Stores the gradients of scale and zero point, in the types of the parameters.
struct StoreGradients {
  using Sum = LearnedSum;
  QCDQ_HOST_DEVICE void operator()(int64_t param, const Sum& total) const {
    const double value = scale.type == ParamType::kFloat64
                             ? static_cast<const double*>(scale.data)[param]
                             : static_cast<double>(static_cast<const float*>(scale.data)[param]);
    store_gradient(scale_type, grad_scale, param, grad_factor * total.scale);
    store_gradient(zero_point_type, grad_zero_point, param, -grad_factor * (value * total.outside));
  }
  ParamArray scale;
  double grad_factor;
  FloatType scale_type;
  FloatType zero_point_type;
  void* grad_scale;
  void* grad_zero_point;
};

/// Stores the scale and zero point that the extremes give.
template <typename T>
struct StoreChosen {
  using Sum = ExtremesSum<T>;
  QCDQ_HOST_DEVICE void operator()(int64_t param, const Sum& total) const {
    const ScaleAndZeroPoint chosen =
        choose_one(static_cast<float>(total.lowest), static_cast<float>(total.highest), quant_min,
                   quant_max, symmetric);
    scale[param] = chosen.scale;
    zero_point[param] = static_cast<int32_t>(chosen.zero_point);
  }
  int64_t quant_min;
  int64_t quant_max;
  bool symmetric;
  float* scale;
  int32_t* zero_point;
};

// --- the first kernel
// ----------------------------------------------------------------------------

template <typename Plan, typename Store, typename Sum>
QCDQ_HOST_DEVICE void finish_piece(const Plan& plan, const Store& store, Sum* slots, int64_t piece,
                                   const Sum& sum) {
  if (plan.one_piece_each()) {
    store(piece, sum);
  } else {
    slots[piece] = sum;
  }
}

/// The pieces of a RunPlan.
template <typename WorkType, typename StoreType>
struct RunPieces {
  using Work = WorkType;
  using Store = StoreType;
  using Sum = typename Work::Sum;

  int64_t blocks() const { return plan.blocks(); }
  QCDQ_HOST_DEVICE Team team() const { return plan.team; }

  QCDQ_HOST_DEVICE Sum lane_sum(int64_t block, int thread) const {
    Sum sum;
    const int64_t piece = plan.team.number(block, thread);
    if (piece >= plan.pieces()) return sum;
    const RunPlan::Part part = plan.part(piece);
    const auto param = work.param(part.param);
    if (part.loads <= static_cast<uint32_t>(plan.team.size())) {  // short runs, in blocks
      const auto [at, count] = plan.range(part, plan.team.lane(thread));
      if (count > 0) work.take(param, work.load(at, count), at, count, &sum);
      return sum;
    }
    for (uint32_t load = plan.team.lane(thread); load < part.loads;
         load += Work::kAtOnce * plan.team.size()) {
      RunPlan::Range ranges[Work::kAtOnce];
      typename Work::Loaded loaded[Work::kAtOnce];
      QCDQ_UNROLL
      for (int i = 0; i < Work::kAtOnce; ++i) {
        ranges[i] = plan.range(part, load + i * plan.team.size());
        if (ranges[i].count > 0) loaded[i] = work.load(ranges[i].at, ranges[i].count);
      }
      QCDQ_UNROLL
      for (int i = 0; i < Work::kAtOnce; ++i) {
        if (ranges[i].count > 0) {
          work.take(param, loaded[i], ranges[i].at, ranges[i].count, &sum);
        }
      }
    }
    return sum;
  }
  /// `sum`: of the team, in its first lane.
  QCDQ_HOST_DEVICE void finish(int64_t block, int thread, const Sum& sum) const {
    const int64_t piece = plan.team.number(block, thread);
    if (plan.team.lane(thread) == 0 && piece < plan.pieces()) {
      finish_piece(plan, store, slots, piece, sum);
    }
  }

  RunPlan plan;
  Work work;
  Store store;
  Sum* slots;
};

inline constexpr int kRowsAtOnce = 4;  // of a column: loaded before the first of them is stored

/// The pieces of a ColumnPlan: one thread each.
template <typename WorkType, typename StoreType>
struct ColumnPieces {
  using Work = WorkType;
  using Store = StoreType;
  using Sum = typename Work::Sum;

  int64_t blocks() const { return plan.blocks(); }
  QCDQ_HOST_DEVICE Team team() const { return Team(1); }

  QCDQ_HOST_DEVICE Sum lane_sum(int64_t block, int thread) const {
    Sum sum;
    const int64_t piece = block * kReduceThreads + thread;
    if (piece >= plan.pieces()) return sum;
    const ColumnPlan::Column column = plan.column(piece);
    const auto param = work.param(column.param);
    for (int64_t r = 0; r < column.rows; r += kRowsAtOnce) {
      typename Work::Loaded loaded[kRowsAtOnce];
      QCDQ_UNROLL
      for (int i = 0; i < kRowsAtOnce; ++i) {
        if (r + i < column.rows) loaded[i] = work.load(column.first + (r + i) * plan.columns, 1);
      }
      QCDQ_UNROLL
      for (int i = 0; i < kRowsAtOnce; ++i) {
        if (r + i >= column.rows) break;
        work.take(param, loaded[i], column.first + (r + i) * plan.columns, 1, &sum);
      }
    }
    return sum;
  }
  QCDQ_HOST_DEVICE void finish(int64_t block, int thread, const Sum& sum) const {
    const int64_t piece = block * kReduceThreads + thread;
    if (piece < plan.pieces()) finish_piece(plan, store, slots, piece, sum);
  }

  ColumnPlan plan;
  Work work;
  Store store;
  Sum* slots;
};

// --- the second kernel
// ---------------------------------------------------------------------------

/// Adds the slots of each parameter and stores what follows from the total.
template <typename Store>
struct SlotTotals {
  using Sum = typename Store::Sum;

  int64_t blocks() const { return plan.blocks(); }
  QCDQ_HOST_DEVICE Team team() const { return plan.team; }

  QCDQ_HOST_DEVICE Sum lane_sum(int64_t block, int thread) const {
    Sum sum;
    const int64_t param = plan.team.number(block, thread);
    if (param >= plan.params) return sum;
    for (int64_t k = plan.team.lane(thread); k < plan.slots_per_param; k += plan.team.size()) {
      sum.add(slots[k * plan.params + param]);
    }
    return sum;
  }
  QCDQ_HOST_DEVICE void finish(int64_t block, int thread, const Sum& sum) const {
    const int64_t param = plan.team.number(block, thread);
    if (plan.team.lane(thread) == 0 && param < plan.params) store(param, sum);
  }

  SlotPlan plan;
  Store store;
  const Sum* slots;
};

/// One step of a team's tree: the first `half` lanes each add the lane `half` behind them.
template <typename Sum>
QCDQ_HOST_DEVICE void fold(Sum* sums, int thread, const Team& team, int half) {
  if (team.lane(thread) < half) sums[thread].add(sums[thread + half]);
}

}  // namespace qcdq::cuda
