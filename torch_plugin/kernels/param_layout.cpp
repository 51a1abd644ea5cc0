// The layouts of param_layout.h.
#include "torch_plugin/kernels/param_layout.h"

namespace qcdq {

ParamLayout ParamLayout::per_tensor(int64_t numel) {
  ParamLayout layout;
  layout.inner = numel;
  return layout;
}

ParamLayout ParamLayout::per_channel(int64_t outer, int64_t axis, int64_t inner) {
  ParamLayout layout;
  layout.outer = outer;
  layout.axis = axis;
  layout.inner = inner;
  layout.axis_step = 1;
  return layout;
}

ParamLayout ParamLayout::blocked(int64_t outer, int64_t axis, int64_t inner, int64_t block) {
  ParamLayout layout = per_channel(outer, axis, inner);
  layout.block = std::max<int64_t>(1, std::min(block, axis));
  layout.outer_step = layout.blocks() * inner;
  layout.axis_step = inner;
  layout.inner_step = 1;
  return layout;
}

ParamLayout ParamLayout::cyclic(int64_t numel, int64_t period) {
  ParamLayout layout = per_channel((numel + period - 1) / period, period, 1);
  layout.cut = layout.outer * period - numel;
  return layout;
}

int64_t ParamLayout::params() const {
  if (one_param()) return 1;
  return inner_step == 0 ? axis : outer * blocks() * inner;
}

int64_t ParamLayout::runs() const {
  if (numel() == 0) return 0;
  if (runs_cover_blocks()) return outer * blocks();
  return inner == 1 ? outer : outer * axis;
}

ParamLayout::Run ParamLayout::run(int64_t index) const { return RunCursor(*this, index).run(); }

}  // namespace qcdq
