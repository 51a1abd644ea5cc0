// Statistics that scales are started from: minmax and percentile, per batch and as a running mean,
// and the step from a range to scale and zero point. modules.h uses them; calibration after
// training can use Observer by itself.
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <tuple>

#include "qcdq/api.h"
#include "qcdq/quant_spec.h"

namespace qcdq {

/// The rank-th percentile of all elements of x: the k-th smallest, k = floor(0.01 * rank * N + 0.5)
/// kept in [1, N]. x: floating point, not empty (ValueError otherwise); rank in [0, 100]. Returns a
/// 0-d f32 tensor without gradient.
///
///   percentile(torch::arange(1, 101).to(torch::kFloat), 99.0)  ->  99
QCDQ_API at::Tensor percentile(const at::Tensor& x, double rank);

/// Scale (f32) and zero point (int32) for the range [low, high] (f32, same shape). Symmetric: scale
/// = max(|low|, |high|) / spec.divisor(), zero point 0. Else low and high are widened to hold 0,
/// scale = (high - low) / (quant_max - quant_min) and zero point = quant_min +
/// round_half_even(clamp(-low / scale)). The scale is at least 1e-10, and with spec.is_power_of_two
/// it is 2^ceil(log2(scale)). The gradient goes to low and high through the scale (straight through
/// the rounding to a power of two).
QCDQ_API std::tuple<at::Tensor, at::Tensor> qparams_from_range(const at::Tensor& low,
                                                               const at::Tensor& high,
                                                               const QuantSpec& spec);

/// Lowest and highest value of x per tensor, channel or block as spec.granularity says (f32;
/// symmetric: -absmax and absmax). The gradient flows. x is not empty.
QCDQ_API std::tuple<at::Tensor, at::Tensor> range_of(const at::Tensor& x, const QuantSpec& spec);

/// Options of Observer. statistic: kMinMax or kPercentile of Scaling; rank: of the percentile;
/// symmetric: the statistic is of |x| and the range is [-t, t]; else it is [percentile(100 - rank),
/// percentile(rank)].
struct QCDQ_API ObserverOptions {
  Scaling statistic = Scaling::kPercentile;
  double rank = 99.999;
  bool symmetric = true;
  double momentum = 0.1;
};

/// Running mean of a per-tensor statistic: the first batch is copied, then low = (1 - momentum) *
/// low + momentum * batch. Buffers low, high (f32, 0-d) and steps (int64, 0-d: batches seen) are
/// saved and loaded with it.
///
///   qcdq::Observer observer(qcdq::ObserverOptions{.statistic = qcdq::Scaling::kMinMax});
///   observer->observe(batch);                       // as often as there are batches
///   auto [scale, zero_point] = observer->qparams(qcdq::uint8());
class QCDQ_API ObserverImpl : public torch::nn::Cloneable<ObserverImpl> {
 public:
  explicit ObserverImpl(const ObserverOptions& options = {});
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  using torch::nn::Module::to;
  void to(torch::Device device, torch::Dtype dtype, bool non_blocking = false) override;
  void to(torch::Dtype dtype, bool non_blocking = false) override;  // statistics stay f32

  /// Takes one batch in; an empty one is passed over. No gradient.
  void observe(const at::Tensor& x);
  /// Scale and zero point of the range seen so far; an error before the first batch.
  std::tuple<at::Tensor, at::Tensor> qparams(const QuantSpec& spec) const;
  int64_t step_count() const;

  ObserverOptions options;
  at::Tensor low, high, steps;
};
TORCH_MODULE(Observer);

}  // namespace qcdq
