// The loops of cpu_kernels.h without SIMD intrinsics: f64 data, and ranges whose codes need f64.
// Rare in networks, so they are written to be read; each is the formula of affine.h, element by
// element.
#include <qcdq/affine.h>

#include "torch_plugin/kernels/cpu_kernels.h"

namespace qcdq {
namespace {

// Calls body(i, scale, zero_point) for every element i of the runs.
template <typename T, typename Body>
void for_each_element(const RunRange& runs, const KernelParams<T, double>& q, Body&& body) {
  RunCursor cursor(runs.layout, runs.begin);
  for (int64_t r = runs.begin; r < runs.end; ++r, cursor.next()) {
    const ParamLayout::Run run = cursor.run();
    for (int64_t i = 0; i < run.count; ++i) {
      const int64_t param = run.param + i * run.param_step;
      body(run.offset + i, q.scale[param], q.zero_point[param]);
    }
  }
}

template <typename T>
struct ClampBounds {
  explicit ClampBounds(const KernelParams<T, double>& q)
      : lowest(static_cast<double>(q.quant_min)), highest(static_cast<double>(q.quant_max)) {}
  double code(T x, T scale, double zero_point) const {
    return clamp_code(unclamped_code<T, double>(x, scale, zero_point), lowest, highest);
  }
  bool inside(double unclamped) const { return unclamped >= lowest && unclamped <= highest; }
  double lowest;
  double highest;
};

// What elements of the learned backward add to the sums.
template <typename T>
struct PlainTerms {
  T scale = 0;
  T outside = 0;
  template <typename Other>
  void add(const Other& other) {
    scale += other.scale;
    outside += other.outside;
  }
};

// One element: stores its gradient.
template <typename X, typename T>
PlainTerms<T> learned_element(X grad, X x, X* grad_x, T scale, double zero_point,
                              const ClampBounds<T>& range) {
  const T g = to_compute(grad);
  const T ratio = to_compute(x) / scale;
  const double unclamped = static_cast<double>(round_half_even(ratio)) + zero_point;
  const double distance = clamp_code(unclamped, range.lowest, range.highest) - zero_point;
  if (range.inside(unclamped)) {
    *grad_x = grad;
    return {g * static_cast<T>(distance - static_cast<double>(ratio)), T(0)};
  }
  *grad_x = X{};
  return {g * static_cast<T>(distance), g};
}

// Sums of kSumRows rows of `columns` terms, in the first row: pairs of rows, pairs of pairs, ...
template <typename T>
void add_in_pairs(PlainTerms<T>* terms, int64_t columns) {
  for (int64_t step = 1; step < kSumRows; step *= 2) {
    for (int64_t row = 0; row < kSumRows; row += 2 * step) {
      for (int64_t c = 0; c < columns; ++c) {
        terms[row * columns + c].add(terms[(row + step) * columns + c]);
      }
    }
  }
}

}  // namespace

template <typename X, typename T>
void fake_quantize_runs(const X* x, X* y, const RunRange& runs, const KernelParams<T, double>& q) {
  const ClampBounds<T> range(q);
  for_each_element(runs, q, [&](int64_t i, T scale, double zero_point) {
    const double code = range.code(to_compute(x[i]), scale, zero_point);
    y[i] = from_compute<X>(value_of_code<T, double>(code, scale, zero_point));
  });
}

template <typename X, typename T>
void fake_quantize_backward_runs(const X* grad, const X* x, X* grad_x, const RunRange& runs,
                                 const KernelParams<T, double>& q) {
  const ClampBounds<T> range(q);
  for_each_element(runs, q, [&](int64_t i, T scale, double zero_point) {
    const double code = unclamped_code<T, double>(to_compute(x[i]), scale, zero_point);
    grad_x[i] = range.inside(code) ? grad[i] : X{};
  });
}

template <typename X, typename Code, typename T>
void quantize_runs(const X* x, Code* codes, const RunRange& runs,
                   const KernelParams<T, double>& q) {
  const ClampBounds<T> range(q);
  for_each_element(runs, q, [&](int64_t i, T scale, double zero_point) {
    const double code = range.code(to_compute(x[i]), scale, zero_point);
    codes[i] = static_cast<Code>(static_cast<int32_t>(code));  // every storage type is in int32
  });
}

template <typename X, typename Code, typename T>
void dequantize_runs(const Code* codes, X* y, const RunRange& runs,
                     const KernelParams<T, double>& q) {
  for_each_element(runs, q, [&](int64_t i, T scale, double zero_point) {
    y[i] =
        from_compute<X>(value_of_code<T, double>(static_cast<double>(codes[i]), scale, zero_point));
  });
}

template <typename X, typename T>
void learned_backward_span(const X* grad, const X* x, X* grad_x, int64_t count,
                           const KernelParams<T, double>& q, LearnedSums* sums) {
  const ClampBounds<T> range(q);
  for (int64_t begin = 0; begin < count; begin += kSumBlock) {
    PlainTerms<double> lanes[kSumLanes];
    const int64_t end = std::min(begin + kSumBlock, count);
    int64_t i = begin;
    while (i < end) {
      const int64_t rows = std::min(kSumRows, (end - i) / kSumLanes);
      const int64_t last = rows > 0 ? i + rows * kSumLanes : end;
      PlainTerms<T> terms[kSumRows * kSumLanes];
      for (PlainTerms<T>* term = terms; i < last; ++i) {
        *term++ = learned_element(grad[i], x[i], &grad_x[i], q.scale[0], q.zero_point[0], range);
      }
      add_in_pairs(terms, kSumLanes);
      for (int64_t lane = 0; lane < kSumLanes; ++lane) lanes[lane].add(terms[lane]);
    }
    const auto total = [&](double PlainTerms<double>::*m) {
      return ((lanes[0].*m + lanes[4].*m) + (lanes[2].*m + lanes[6].*m)) +
             ((lanes[1].*m + lanes[5].*m) + (lanes[3].*m + lanes[7].*m));
    };
    *sums++ = {total(&PlainTerms<double>::scale), total(&PlainTerms<double>::outside)};
  }
}

template <typename X, typename T>
void learned_backward_columns(const X* grad, const X* x, X* grad_x, int64_t rows, int64_t stride,
                              int64_t columns, const KernelParams<T, double>& q,
                              LearnedSums* sums) {
  const ClampBounds<T> range(q);
  for (int64_t c = 0; c < columns; ++c) {
    PlainTerms<double> sum;
    for (int64_t first = 0; first < rows; first += kSumRows) {
      PlainTerms<T> terms[kSumRows];
      for (int64_t r = first; r < std::min(first + kSumRows, rows); ++r) {
        const int64_t i = r * stride + c;
        terms[r - first] =
            learned_element(grad[i], x[i], &grad_x[i], q.scale[c], q.zero_point[c], range);
      }
      add_in_pairs(terms, 1);
      sum.add(terms[0]);
    }
    sums[c] = {sum.scale, sum.outside};
  }
}

template <>
void find_extremes(const double* x, int64_t count, Extremes<double>* found) {
  for (int64_t i = 0; i < count; ++i) {
    // NaN fails both comparisons.
    found->lowest = x[i] < found->lowest ? x[i] : found->lowest;
    found->highest = x[i] > found->highest ? x[i] : found->highest;
  }
}

template <>
void find_extremes_columns(const double* x, int64_t rows, int64_t stride, int64_t columns,
                           Extremes<double>* found) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) find_extremes(x + r * stride + c, 1, &found[c]);
  }
}

#define QCDQ_INSTANTIATE_CODE(X, T, Code)                                     \
  template void quantize_runs<X, Code, T>(const X*, Code*, const RunRange&,   \
                                          const KernelParams<T, double>&);    \
  template void dequantize_runs<X, Code, T>(const Code*, X*, const RunRange&, \
                                            const KernelParams<T, double>&);

#define QCDQ_INSTANTIATE(X, T)                                                                    \
  QCDQ_INSTANTIATE_CODE(X, T, int8_t)                                                             \
  QCDQ_INSTANTIATE_CODE(X, T, uint8_t)                                                            \
  QCDQ_INSTANTIATE_CODE(X, T, int16_t)                                                            \
  QCDQ_INSTANTIATE_CODE(X, T, uint16_t)                                                           \
  QCDQ_INSTANTIATE_CODE(X, T, int32_t)                                                            \
  template void fake_quantize_runs<X, T>(const X*, X*, const RunRange&,                           \
                                         const KernelParams<T, double>&);                         \
  template void fake_quantize_backward_runs<X, T>(const X*, const X*, X*, const RunRange&,        \
                                                  const KernelParams<T, double>&);                \
  template void learned_backward_span<X, T>(const X*, const X*, X*, int64_t,                      \
                                            const KernelParams<T, double>&, LearnedSums*);        \
  template void learned_backward_columns<X, T>(const X*, const X*, X*, int64_t, int64_t, int64_t, \
                                               const KernelParams<T, double>&, LearnedSums*);

QCDQ_INSTANTIATE(float, float)
QCDQ_INSTANTIATE(F16, float)
QCDQ_INSTANTIATE(BF16, float)
QCDQ_INSTANTIATE(double, double)

}  // namespace qcdq
