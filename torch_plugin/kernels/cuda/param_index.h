// Which parameter an element takes, on the GPU: what param_layout.h says with runs, as arithmetic
// on one element's number. Every function compiles for the host too, where
// tests/torch_plugin/cuda_plan_test.cpp compares it with ParamLayout. Torch-free.
#pragma once

#include <qcdq/affine.h>

#include <algorithm>
#include <cstdint>

#include "torch_plugin/kernels/param_layout.h"

namespace qcdq::cuda {

/// Division by a number that is known at launch. A GPU has no integer division (about 20
/// instructions for 32 bits, 70 for 64): dividends below 2^31 take a multiplication and a shift
/// (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994).
class Divisor {
 public:
  Divisor() : Divisor(1) {}
  /// A divisor of 0 (a tensor without elements, which nothing divides) counts as 1.
  explicit Divisor(int64_t divisor) : divisor_(std::max<int64_t>(divisor, 1)) {
    if (divisor_ > kLargest) {  // every small dividend gives 0
      shift_ = 31;
      return;
    }
    while ((int64_t{1} << shift_) < divisor_) ++shift_;
    magic_ = static_cast<uint32_t>((uint64_t{1} << 32) *
                                       static_cast<uint64_t>((int64_t{1} << shift_) - divisor_) /
                                       static_cast<uint64_t>(divisor_) +
                                   1);
  }

  /// dividend / divisor, for dividends >= 0.
  QCDQ_HOST_DEVICE int64_t quotient(int64_t dividend) const {
    if (dividend > kLargest) return dividend / divisor_;
    const auto n = static_cast<uint32_t>(dividend);
    const auto high = static_cast<uint32_t>((static_cast<uint64_t>(n) * magic_) >> 32);
    return (high + n) >> shift_;  // high <= n < 2^31: the sum fits 32 bits
  }
  QCDQ_HOST_DEVICE int64_t divisor() const { return divisor_; }

 private:
  static constexpr int64_t kLargest = 0x7FFFFFFF;
  int64_t divisor_;
  uint32_t magic_ = 0;
  uint32_t shift_ = 0;
};

/// A ParamLayout (not a cyclic one) as a kernel takes it.
struct ParamIndex {
  ParamIndex() = default;
  explicit ParamIndex(const ParamLayout& layout)
      : inner(layout.inner),
        axis(layout.axis),
        block(layout.block),
        outer_step(layout.outer_step),
        axis_step(layout.axis_step),
        inner_step(layout.inner_step) {}

  Divisor inner;
  Divisor axis;
  Divisor block;
  int64_t outer_step = 0;
  int64_t axis_step = 0;
  int64_t inner_step = 0;
};

/// The parameter of an element and of those after it: three divisions at the start, additions from
/// there on. Example: `for (ParamCursor c(index, first); i < last; ++i, c.next()) use(c.param());`
class ParamCursor {
 public:
  QCDQ_HOST_DEVICE ParamCursor(const ParamIndex& index, int64_t element) : index_(index) {
    const int64_t row = index.inner.quotient(element);
    inner_ = element - row * index.inner.divisor();
    outer_ = index.axis.quotient(row);
    axis_ = row - outer_ * index.axis.divisor();
    block_ = index.block.quotient(axis_);
    in_block_ = axis_ - block_ * index.block.divisor();
    find_param();
  }

  QCDQ_HOST_DEVICE int64_t param() const { return param_; }

  QCDQ_HOST_DEVICE void next() {
    if (++inner_ < index_.inner.divisor()) {
      param_ += index_.inner_step;
      return;
    }
    inner_ = 0;
    if (++axis_ == index_.axis.divisor()) {
      axis_ = block_ = in_block_ = 0;
      ++outer_;
    } else if (++in_block_ == index_.block.divisor()) {
      in_block_ = 0;
      ++block_;
    }
    find_param();
  }

 private:
  QCDQ_HOST_DEVICE void find_param() {
    param_ = outer_ * index_.outer_step + block_ * index_.axis_step + inner_ * index_.inner_step;
  }

  const ParamIndex& index_;
  int64_t outer_;
  int64_t axis_;
  int64_t inner_;
  int64_t block_;
  int64_t in_block_;
  int64_t param_;
};

}  // namespace qcdq::cuda
