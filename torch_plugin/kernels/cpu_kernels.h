// Torch-free CPU loops over raw pointers: every op of one run of elements, by
// include/qcdq/affine.h. Called by torch_plugin/cpu_ops.cpp, which checks arguments, finds the runs
// and spreads them over threads. f16 and bf16 arrive here as f32.
#pragma once

#include <cstdint>

namespace qcdq {

/// How the elements of a contiguous [outer, axis, inner] array share parameters: element (o, a, i)
/// takes parameter o * outer_step + (a / block) * axis_step + i * inner_step.
struct ParamLayout {
  int64_t outer = 1;
  int64_t axis = 1;
  int64_t inner = 1;
  int64_t block = 1;
  int64_t outer_step = 0;
  int64_t axis_step = 0;
  int64_t inner_step = 0;

  static ParamLayout per_tensor(int64_t numel);
  static ParamLayout per_channel(int64_t outer, int64_t axis, int64_t inner);
  static ParamLayout blocked(int64_t outer, int64_t axis, int64_t inner, int64_t block);

  int64_t blocks() const { return (axis + block - 1) / block; }  // along the axis
  int64_t numel() const { return outer * axis * inner; }
  int64_t params() const;
  bool one_param() const { return axis_step == 0 && outer_step == 0 && inner_step == 0; }

  /// Consecutive elements whose parameters are all the same (step 0) or consecutive (step 1).
  struct Run {
    int64_t offset;
    int64_t count;
    int64_t param;
    int64_t param_step;
  };
  int64_t runs() const;
  Run run(int64_t index) const;

  /// The elements of one parameter: outer_count rows, outer_stride apart, of inner_count elements,
  /// inner_stride apart. In this order they are the parameter's elements in logical order.
  struct Elements {
    int64_t offset;
    int64_t outer_count;
    int64_t outer_stride;
    int64_t inner_count;
    int64_t inner_stride;
  };
  Elements elements(int64_t param) const;

 private:
  bool runs_cover_blocks() const;
};

/// Parameters of one run. zero_point is f64 so that it holds every int32; step 0 or 1.
template <typename T>
struct RunParams {
  const T* scale;
  const double* zero_point;
  int64_t step;
  int64_t quant_min;
  int64_t quant_max;
};

template <typename T, typename Code>
void quantize_run(const T* x, Code* codes, int64_t count, const RunParams<T>& params);

/// params.quant_min and quant_max are not read.
template <typename T, typename Code>
void dequantize_run(const Code* codes, T* y, int64_t count, const RunParams<T>& params);

template <typename T>
void fake_quantize_run(const T* x, T* y, int64_t count, const RunParams<T>& params);

/// grad_x = grad where the unclamped code lies in the range, else 0 (straight-through estimator).
template <typename T>
void fake_quantize_backward_run(const T* grad, const T* x, T* grad_x, int64_t count,
                                const RunParams<T>& params);

/// Sums of LSQ for one parameter, not multiplied by grad_factor.
struct LearnedSums {
  double scale = 0.0;
  double zero_point = 0.0;
};

/// Elements are added in blocks of this many, each in order in f64, then the block sums in order:
/// any division of work that respects the blocks gives the same bits.
inline constexpr int64_t kSumBlock = 4096;

/// The sums over the elements of one parameter (params.step is not read).
template <typename T>
LearnedSums learned_sums(const T* grad, const T* x, const ParamLayout::Elements& elements,
                         const RunParams<T>& params);

template <typename T>
struct Extremes {
  T lowest;
  T highest;
};

/// The smallest and largest element, NaN ignored; {0, 0} where nothing is left. 0 is always
/// counted.
template <typename T>
Extremes<T> find_extremes(const T* x, const ParamLayout::Elements& elements);

}  // namespace qcdq
