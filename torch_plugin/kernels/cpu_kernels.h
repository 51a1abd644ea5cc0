// Torch-free CPU kernels over raw pointers: every op on the runs of a ParamLayout, exactly equal to
// include/qcdq/affine.h. Called by torch_plugin/cpu_ops.cpp and cpu_reduce_ops.cpp, which check
// arguments and spread runs over threads. f32, f16 and bf16 data with a range that f32 holds goes
// to the SIMD kernels (kernel_table.h); f64 data and wider ranges to plain_kernels.cpp.
#pragma once

#include <cstdint>
#include <type_traits>

#include "torch_plugin/kernels/float_types.h"
#include "torch_plugin/kernels/kernel_table.h"
#include "torch_plugin/kernels/param_layout.h"

namespace qcdq {

/// The parameters of a call; run() of the layout indexes both arrays. T is the computing type. Acc
/// is float for f32 computing where needs_wide_accumulator(quant_min, quant_max) is false, else
/// double.
template <typename T, typename Acc>
struct KernelParams {
  const T* scale;
  const Acc* zero_point;
  int64_t quant_min;
  int64_t quant_max;
};

/// Runs [begin, end) of a layout.
struct RunRange {
  const ParamLayout& layout;
  int64_t begin;
  int64_t end;
  int64_t array_elements = layout.numel();  // more where the layout is of a part of an array
};

/// Elements of one parameter are summed in blocks of this many (the last may be shorter), from the
/// start of each contiguous run of it; block sums are added in order in f64. A block within a run
/// has rows of kSumLanes neighbours, a block down a column has rows of one element. kSumRows rows
/// at a time (the last time fewer; then, in a run, the elements past the last whole row) are added
/// in the computing type: neighbours in pairs, the pairs in pairs, and so on. Their sums are added
/// to sums in f64, one for each lane, which end as ((0+4)+(2+6))+((1+5)+(3+7)). Nothing depends on
/// the number of threads or the instruction set, so neither do the bits of the result. f32 sums are
/// off by at most 5 * 2^-24 of the sum of the terms' magnitudes, about what rounding the result to
/// f32 does; a conversion of each term to f64 would take longer than all else.
inline constexpr int64_t kSumBlock = 4096;
inline constexpr int64_t kSumLanes = 8;
inline constexpr int64_t kSumRows = 16;

/// Sums of LSQ over a block, not multiplied by grad_factor: of g * (inside ? code - zp - x/scale :
/// code - zp), each product rounded to the computing type, and of g over the elements outside (the
/// zero point's gradient is -scale times it).
struct LearnedSums {
  double scale = 0.0;
  double outside = 0.0;
};

/// The smallest and largest element, NaN ignored; 0 is always counted.
template <typename T>
struct Extremes {
  T lowest = 0;
  T highest = 0;
};

// --- plain loops: f64, and ranges beyond 2^24
// -----------------------------------------------------

template <typename X, typename T>
void fake_quantize_runs(const X* x, X* y, const RunRange& runs, const KernelParams<T, double>& q);
template <typename X, typename T>
void fake_quantize_backward_runs(const X* grad, const X* x, X* grad_x, const RunRange& runs,
                                 const KernelParams<T, double>& q);
template <typename X, typename Code, typename T>
void quantize_runs(const X* x, Code* codes, const RunRange& runs, const KernelParams<T, double>& q);
/// quant_min and quant_max are not read. int32 codes always come here: their distances to a zero
/// point need f64.
template <typename X, typename Code, typename T>
void dequantize_runs(const Code* codes, X* y, const RunRange& runs,
                     const KernelParams<T, double>& q);

/// grad_x and the sums of `count` contiguous elements of one parameter (q.scale[0] and
/// q.zero_point[0]); sums has a place for each block of kSumBlock.
template <typename X, typename T>
void learned_backward_span(const X* grad, const X* x, X* grad_x, int64_t count,
                           const KernelParams<T, double>& q, LearnedSums* sums);
/// grad_x and the sums of `rows` <= kSumBlock rows, `stride` elements apart, of `columns` elements,
/// each column with a parameter of its own.
template <typename X, typename T>
void learned_backward_columns(const X* grad, const X* x, X* grad_x, int64_t rows, int64_t stride,
                              int64_t columns, const KernelParams<T, double>& q, LearnedSums* sums);

// --- SIMD: f32 computing and accumulating
// ---------------------------------------------------------

template <typename X>
inline constexpr int kFloatIndex = std::is_same_v<X, float> ? 0
                                   : std::is_same_v<X, F16> ? 1
                                                            : 2;
template <typename Code>
inline constexpr int kCodeIndex = std::is_same_v<Code, int8_t>     ? 0
                                  : std::is_same_v<Code, uint8_t>  ? 1
                                  : std::is_same_v<Code, int16_t>  ? 2
                                  : std::is_same_v<Code, uint16_t> ? 3
                                                                   : 4;

/// Results of fake_quantize and its backward that are at least this large are stored past the
/// caches: a cached store first loads the line it writes to, which is wasted where the line is gone
/// again before anyone reads it. Measured (one thread, last cache 32 MiB, times that of cached
/// stores): 1.4 at 4 MiB, 0.83 at 16 MiB, 0.82 at 32 to 128 MiB in pages that were used before;
/// 1.03 in fresh ones, which the kernel has just cleared in the cache. Twice the size from which it
/// won here, since last caches differ.
inline constexpr int64_t kLeastStreamedBytes = int64_t{32} << 20;

template <typename Y>
SimdRuns simd_runs(const RunRange& runs, const KernelParams<float, float>& q) {
  return {&runs.layout,
          runs.begin,
          runs.end,
          q.scale,
          q.zero_point,
          static_cast<float>(q.quant_min),
          static_cast<float>(q.quant_max),
          runs.array_elements * static_cast<int64_t>(sizeof(Y)) >= kLeastStreamedBytes};
}

template <typename X>
void fake_quantize_runs(const X* x, X* y, const RunRange& runs,
                        const KernelParams<float, float>& q) {
  kernel_table().fake_quantize[kFloatIndex<X>](x, y, simd_runs<X>(runs, q));
}
template <typename X>
void fake_quantize_backward_runs(const X* grad, const X* x, X* grad_x, const RunRange& runs,
                                 const KernelParams<float, float>& q) {
  kernel_table().fake_quantize_backward[kFloatIndex<X>](grad, x, grad_x, simd_runs<X>(runs, q));
}
template <typename X, typename Code>
void quantize_runs(const X* x, Code* codes, const RunRange& runs,
                   const KernelParams<float, float>& q) {
  kernel_table().quantize[kFloatIndex<X>][kCodeIndex<Code>](x, codes, simd_runs<Code>(runs, q));
}
/// Code is not int32_t.
template <typename X, typename Code>
void dequantize_runs(const Code* codes, X* y, const RunRange& runs,
                     const KernelParams<float, float>& q) {
  static_assert(sizeof(Code) < 4);
  kernel_table().dequantize[kFloatIndex<X>][kCodeIndex<Code>](codes, y, simd_runs<X>(runs, q));
}
template <typename X>
void learned_backward_span(const X* grad, const X* x, X* grad_x, int64_t count,
                           const KernelParams<float, float>& q, LearnedSums* sums) {
  kernel_table().learned_span[kFloatIndex<X>](
      grad, x, grad_x, count,
      {q.scale, q.zero_point, static_cast<float>(q.quant_min), static_cast<float>(q.quant_max)},
      sums);
}
template <typename X>
void learned_backward_columns(const X* grad, const X* x, X* grad_x, int64_t rows, int64_t stride,
                              int64_t columns, const KernelParams<float, float>& q,
                              LearnedSums* sums) {
  kernel_table().learned_columns[kFloatIndex<X>](
      grad, x, grad_x, rows, stride, columns,
      {q.scale, q.zero_point, static_cast<float>(q.quant_min), static_cast<float>(q.quant_max)},
      sums);
}

/// Widens `found` by `count` contiguous elements.
template <typename X>
void find_extremes(const X* x, int64_t count, Extremes<ComputeType<X>>* found);
/// Widens found[c] by column c of `rows` rows, `stride` elements apart.
template <typename X>
void find_extremes_columns(const X* x, int64_t rows, int64_t stride, int64_t columns,
                           Extremes<ComputeType<X>>* found);

template <>
void find_extremes(const double* x, int64_t count, Extremes<double>* found);
template <>
void find_extremes_columns(const double* x, int64_t rows, int64_t stride, int64_t columns,
                           Extremes<double>* found);

}  // namespace qcdq
