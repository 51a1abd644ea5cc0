// See compare_tensors.h.
#include "symbolic/program/compare_tensors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace qcdq {

TensorDifference compare_tensors(const at::Tensor& expected, const at::Tensor& actual) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const at::Tensor a = expected.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor b = actual.detach().to(at::kCPU, at::kDouble).contiguous();
  const double* pa = a.const_data_ptr<double>();
  const double* pb = b.const_data_ptr<double>();
  TensorDifference result;
  double largest = 0;
  double dot = 0;
  double norm_a = 0;
  double norm_b = 0;
  double norm_difference = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double x = pa[i];
    const double y = pb[i];
    if (std::isnan(x) && std::isnan(y)) continue;
    if (x != y) ++result.differing;
    if (!std::isfinite(x) || !std::isfinite(y)) {
      if (x != y) result.max_abs = kInfinity;  // NaN differs from anything
      continue;
    }
    result.max_abs = std::max(result.max_abs, std::abs(x - y));
    largest = std::max(largest, std::abs(x));
    dot += x * y;
    norm_difference += (x - y) * (x - y);
    norm_a += x * x;
    norm_b += y * y;
  }
  // Where `a` is all zeros, any difference is infinitely large beside it.
  result.max_relative = result.max_abs == 0 ? 0 : result.max_abs / largest;
  result.rms_relative = std::isinf(result.max_abs) ? kInfinity
                        : norm_difference == 0     ? 0
                                                   : std::sqrt(norm_difference / norm_a);
  const double norms = std::sqrt(norm_a) * std::sqrt(norm_b);
  result.cosine =
      norms > 0 ? std::min(1.0, std::max(-1.0, dot / norms)) : (norm_a == norm_b ? 1.0 : 0.0);
  return result;
}

}  // namespace qcdq
