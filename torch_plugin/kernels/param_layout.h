// Which element of a contiguous array takes which quantisation parameter, and the runs of elements
// that the kernels walk. Used by cpu_kernels.h and by torch_plugin/cpu_tensors.h. Torch-free.
#pragma once

#include <algorithm>
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
  int64_t cut = 0;  // elements that the last run lacks; 0 except in cyclic layouts

  static ParamLayout per_tensor(int64_t numel);
  static ParamLayout per_channel(int64_t outer, int64_t axis, int64_t inner);
  static ParamLayout blocked(int64_t outer, int64_t axis, int64_t inner, int64_t block);
  /// Element i takes parameter i % period.
  static ParamLayout cyclic(int64_t numel, int64_t period);

  int64_t blocks() const { return (axis + block - 1) / block; }  // along the axis
  int64_t numel() const { return outer * axis * inner - cut; }
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

  /// With inner == 1 a run along the axis is longer than a run of one element.
  bool runs_cover_blocks() const { return inner == 1 && block > 1; }
  /// The size of blocks that follow each other without a shorter one: run r is elements
  /// [r * size, (r + 1) * size), its parameter r. Else 0.
  int64_t equal_blocks() const {
    return runs_cover_blocks() && axis_step == 1 && outer_step == blocks() && axis % block == 0
               ? block
               : 0;
  }
  /// The length of rows that follow each other and all take parameters 0, 1, 2, ...: run r is row r
  /// (the last one may be cut). Else 0.
  int64_t columns_that_repeat() const {
    return inner == 1 && block == 1 && axis_step == 1 && outer_step == 0 ? axis : 0;
  }
};

/// Walks runs in order without a division per run. Example:
/// `for (RunCursor c(layout, first); first < last; ++first, c.next()) use(c.run());`
class RunCursor {
 public:
  RunCursor(const ParamLayout& layout, int64_t index) : layout_(layout) {
    if (layout.runs_cover_blocks()) {
      outer_ = index / layout.blocks();
      block_ = index % layout.blocks();
    } else if (layout.inner == 1) {
      outer_ = index;
    } else {
      outer_ = index / layout.axis;
      axis_ = index % layout.axis;
      block_ = axis_ / layout.block;
      in_block_ = axis_ % layout.block;
    }
  }

  ParamLayout::Run run() const {
    const ParamLayout& l = layout_;
    if (l.runs_cover_blocks()) {
      const int64_t begin = block_ * l.block;
      return {outer_ * l.axis + begin, std::min(l.block, l.axis - begin),
              outer_ * l.outer_step + block_ * l.axis_step, 0};
    }
    if (l.inner == 1) {
      const int64_t offset = outer_ * l.axis;
      return {offset, std::min(l.axis, l.numel() - offset), outer_ * l.outer_step, l.axis_step};
    }
    return {(outer_ * l.axis + axis_) * l.inner, l.inner,
            outer_ * l.outer_step + block_ * l.axis_step, l.inner_step};
  }

  void next() {
    const ParamLayout& l = layout_;
    if (l.runs_cover_blocks()) {
      if (++block_ * l.block >= l.axis) {
        block_ = 0;
        ++outer_;
      }
    } else if (l.inner == 1) {
      ++outer_;
    } else {
      if (++in_block_ == l.block) {
        in_block_ = 0;
        ++block_;
      }
      if (++axis_ == l.axis) {
        axis_ = block_ = in_block_ = 0;
        ++outer_;
      }
    }
  }

 private:
  const ParamLayout layout_;  // a copy: a reference would be read again after every store
  int64_t outer_ = 0;
  int64_t axis_ = 0;
  int64_t block_ = 0;
  int64_t in_block_ = 0;
};

}  // namespace qcdq
