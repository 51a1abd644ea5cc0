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
    return quotient(static_cast<uint32_t>(dividend));
  }
  /// The same for dividends <= kLargest.
  QCDQ_HOST_DEVICE uint32_t quotient(uint32_t dividend) const {
    const auto high = static_cast<uint32_t>((static_cast<uint64_t>(dividend) * magic_) >> 32);
    return (high + dividend) >> shift_;  // high <= dividend < 2^31: the sum fits 32 bits
  }
  QCDQ_HOST_DEVICE int64_t divisor() const { return divisor_; }

  static constexpr int64_t kLargest = 0x7FFFFFFF;

 private:
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
        inner_step(layout.inner_step) {
    if (layout.equal_blocks() > 0) {  // channels that never repeat
      inner = block;
      axis = Divisor(std::max<int64_t>(layout.numel() / layout.block, 1));
      block = Divisor(1);
      outer_step = 0;
      inner_step = 0;
    }
    channels = block.divisor() == 1 && outer_step == 0 && axis_step == 1 && inner_step == 0;
  }

  /// The parameter of an element.
  QCDQ_HOST_DEVICE int64_t param(int64_t element) const;

  Divisor inner;
  Divisor axis;
  Divisor block;
  int64_t outer_step = 0;
  int64_t axis_step = 0;
  int64_t inner_step = 0;
  bool channels = false;  // the parameter is element / inner % axis
};

/// The parameter of an element and of those after it: three divisions at the start, additions from
/// there on. Example: `for (ParamCursor c(index, first); i < last; ++i, c.next()) use(c.param());`
class ParamCursor {
 public:
  QCDQ_HOST_DEVICE ParamCursor(const ParamIndex& index, int64_t element) : index_(index) {
    if (element <= Divisor::kLargest) {
      locate(static_cast<uint32_t>(element));
    } else {
      locate(element);
    }
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
  // In 32 bits a divisor or step may be cut off: only where it is larger than `element`, and then
  // it is multiplied by 0. A parameter's number is never above its element's.
  template <typename Int>
  QCDQ_HOST_DEVICE void locate(Int element) {
    const auto cut = [](int64_t value) { return static_cast<Int>(value); };
    const Int row = index_.inner.quotient(element);
    const Int inner = element - row * cut(index_.inner.divisor());
    const Int outer = index_.axis.quotient(row);
    const Int axis = row - outer * cut(index_.axis.divisor());
    const Int block = index_.block.quotient(axis);
    inner_ = inner;
    outer_ = outer;
    axis_ = axis;
    block_ = block;
    in_block_ = axis - block * cut(index_.block.divisor());
    param_ = outer * cut(index_.outer_step) + block * cut(index_.axis_step) +
             inner * cut(index_.inner_step);
  }

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

QCDQ_HOST_DEVICE inline int64_t ParamIndex::param(int64_t element) const {
  if (channels && element <= Divisor::kLargest) {
    const uint32_t row = inner.quotient(static_cast<uint32_t>(element));
    return row - axis.quotient(row) * static_cast<uint32_t>(axis.divisor());
  }
  return ParamCursor(*this, element).param();
}

}  // namespace qcdq::cuda
