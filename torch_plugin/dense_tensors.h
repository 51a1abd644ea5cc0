// Tensors as the dense arrays that kernels take: without gaps, in the order of their memory, with
// the layout of the parameters in that order. Used for the CPU (cpu_tensors.h) and CUDA
// (cuda_ops.cpp).
#pragma once

#include <ATen/ATen.h>
#include <c10/util/SmallVector.h>

#include <algorithm>
#include <numeric>

#include "torch_plugin/checks.h"
#include "torch_plugin/kernels/param_layout.h"

namespace qcdq {

using OptionalInt = std::optional<int64_t>;

// A tensor of the strides that empty_like(x) gives, with no gaps and no overlaps; x itself if it is
// so.
inline at::Tensor make_dense(const at::Tensor& x) {
  if (x.unsafeGetTensorImpl()->is_non_overlapping_and_dense()) return x;
  return at::empty_like(x).copy_(x);
}

// `t` in the strides of `dense`.
inline at::Tensor with_strides_of(const at::Tensor& dense, const at::Tensor& t) {
  if (t.strides() == dense.strides()) return t;
  return at::empty_like(dense).copy_(t);
}

// The order of dimensions in which a dense tensor's memory is contiguous.
inline c10::SmallVector<int64_t, 6> memory_order(const at::Tensor& dense) {
  c10::SmallVector<int64_t, 6> order(dense.dim());
  std::iota(order.begin(), order.end(), 0);
  if (!dense.is_contiguous()) {
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return dense.stride(a) > dense.stride(b); });
  }
  return order;
}

// How dense x, seen as the contiguous array that its memory is, shares parameters.
inline ParamLayout layout_of(const at::Tensor& dense, const ParamShape& granularity) {
  if (!granularity.axis) return ParamLayout::per_tensor(dense.numel());
  int64_t outer = 1;
  int64_t inner = 1;
  bool before = true;
  for (const int64_t dim : memory_order(dense)) {
    if (dim == *granularity.axis) {
      before = false;
    } else {
      (before ? outer : inner) *= dense.size(dim);
    }
  }
  const int64_t length = dense.size(*granularity.axis);
  return granularity.block_size
             ? ParamLayout::blocked(outer, length, inner, *granularity.block_size)
             : ParamLayout::per_channel(outer, length, inner);
}

}  // namespace qcdq
