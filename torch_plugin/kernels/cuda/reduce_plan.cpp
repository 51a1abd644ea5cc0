// The plans of reduce_plan.h.
#include "torch_plugin/kernels/cuda/reduce_plan.h"

namespace qcdq::cuda {
namespace {

int64_t round_up_quotient(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

}  // namespace

RunPlan::RunPlan(const ParamLayout& layout, int vector) : PieceCount{layout.params(), 0} {
  const bool blocked = layout.inner_step != 0;
  if (blocked) {
    outer = 1;
    outer_stride = 0;
    row = layout.axis;
    run = layout.block;
    per_runs_per_row = Divisor(layout.blocks());
  } else if (layout.one_param()) {
    outer = 1;
    outer_stride = 0;
    row = run = layout.numel();
    per_runs_per_row = Divisor(1);
  } else {
    outer = layout.outer;
    outer_stride = layout.axis * layout.inner;
    row = outer_stride;
    run = layout.inner;
    per_runs_per_row = Divisor(layout.axis);
  }
  const int64_t chunks = std::max<int64_t>(1, round_up_quotient(run, kPiece));
  merged = chunks > 1 || run == 0
               ? 1
               : std::clamp<int64_t>(kPiece / run, 1, std::max<int64_t>(1, outer));
  pieces_per_param = layout.numel() == 0 ? 0 : round_up_quotient(outer, merged) * chunks;
  // Where all runs start at a full load's place, which is a matter of the layout. (Where the array
  // does not, for_each's order stays: such loads are made element by element.)
  const bool at_vectors = run % vector == 0 && row % vector == 0;
  width = params * outer == 1 || at_vectors ? vector : 1;
  per_params = Divisor(params);
  per_chunks = Divisor(chunks);
  per_run_vectors = Divisor(round_up_quotient(std::min(run, kPiece), width));
  team = Team(merged * per_run_vectors.divisor());
}

ColumnPlan::ColumnPlan(const ParamLayout& layout) : PieceCount{layout.params(), 0} {
  const bool blocked = layout.inner_step != 0;
  columns = blocked ? layout.inner : layout.axis;
  set_rows = blocked ? layout.axis : layout.outer;
  rows = blocked ? layout.block : layout.outer;
  pieces_per_param = layout.numel() == 0 ? 0 : round_up_quotient(rows, kRows);
  per_params = Divisor(params);
  per_columns = Divisor(columns);
  per_groups = Divisor(blocked ? layout.blocks() : 1);
}

}  // namespace qcdq::cuda
