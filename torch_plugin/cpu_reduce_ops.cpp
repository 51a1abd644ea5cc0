// CPU kernels of the ops that reduce over x: the gradients of fake_quantize_learned, choose_qparams
// and fake_quantize_dynamic. The elementwise ops are in cpu_ops.cpp.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "torch_plugin/checks.h"
#include "torch_plugin/cpu_tensors.h"
#include "torch_plugin/kernels/cpu_kernels.h"

namespace qcdq {
namespace {

// Blocks of `block` elements (the last of a run may be shorter) of a layout whose runs each have
// one parameter.
struct RunBlocks {
  RunBlocks(const ParamLayout& run_layout, int64_t block_elements)
      : layout(run_layout),
        block(block_elements),
        runs(run_layout.runs()),
        per_run(runs == 0 ? 0 : (run_layout.run(0).count + block - 1) / block) {}
  int64_t count() const { return runs * per_run; }

  // Calls body(index, run, offset, count) for blocks [begin, end); `offset` counts from the array.
  template <typename Body>
  void for_each(int64_t begin, int64_t end, Body&& body) const {
    if (begin == end) return;
    RunCursor cursor(layout, begin / per_run);
    int64_t in_run = begin % per_run;
    for (int64_t i = begin; i < end; ++i) {
      const ParamLayout::Run run = cursor.run();
      const int64_t at = in_run * block;
      // The last run of a row may be shorter than the first and have no such block.
      if (at < run.count) body(i, run, run.offset + at, std::min(block, run.count - at));
      if (++in_run == per_run) {
        in_run = 0;
        cursor.next();
      }
    }
  }

  const ParamLayout& layout;
  int64_t block;
  int64_t runs;
  int64_t per_run;
};

// Groups of rows whose columns each have one parameter: the layouts whose runs have a parameter per
// element. Cut into blocks of at most kSumBlock rows by kColumns columns.
struct ColumnBlocks {
  static constexpr int64_t kColumns = 1024;

  explicit ColumnBlocks(const ParamLayout& layout)
      : rows(layout.inner_step == 0 ? layout.outer : layout.axis),
        columns(layout.inner_step == 0 ? layout.axis : layout.inner),
        rows_per_param(layout.inner_step == 0 ? layout.outer : layout.block),
        groups(layout.inner_step == 0 ? 1 : layout.outer * layout.blocks()),
        groups_per_row_set(layout.inner_step == 0 ? 1 : layout.blocks()),
        row_blocks((rows_per_param + kSumBlock - 1) / kSumBlock),
        column_blocks((columns + kColumns - 1) / kColumns) {}
  int64_t count() const { return groups * row_blocks * column_blocks; }

  struct Block {
    int64_t row_block;
    int64_t offset;  // of the first element
    int64_t rows;    // may be <= 0: the last group of a row set can be shorter
    int64_t columns;
    int64_t param;  // of the first column
  };
  Block at(int64_t index) const {
    const int64_t column = index % column_blocks * kColumns;
    const int64_t row_block = index / column_blocks % row_blocks;
    const int64_t group = index / column_blocks / row_blocks;
    const int64_t first = group % groups_per_row_set * rows_per_param;
    const int64_t in_group = std::min(rows_per_param, rows - first);
    const int64_t row = row_block * kSumBlock;
    return {row_block, (group / groups_per_row_set * rows + first + row) * columns + column,
            std::min(kSumBlock, in_group - row), std::min(kColumns, columns - column),
            group * columns + column};
  }

  int64_t rows;
  int64_t columns;
  int64_t rows_per_param;
  int64_t groups;
  int64_t groups_per_row_set;
  int64_t row_blocks;
  int64_t column_blocks;
};

bool has_param_per_column(const ParamLayout& layout) {
  return layout.runs() > 0 && layout.run(0).param_step == 1;
}

// grad_x and the sums of every parameter (zeros at first), one pass over grad and x.
template <typename X, typename Q>
void learned_backward(const X* grad, const X* x, X* grad_x, const ParamLayout& layout, const Q& q,
                      LearnedSums* totals) {
  const auto add = [&](int64_t param, const LearnedSums& sums) {
    totals[param].scale += sums.scale;
    totals[param].outside += sums.outside;
  };
  const auto params_from = [&](int64_t param) {
    Q moved = q;
    moved.scale += param;
    moved.zero_point += param;
    return moved;
  };
  if (has_param_per_column(layout)) {
    const ColumnBlocks blocks(layout);
    const int64_t params = layout.params();
    std::vector<LearnedSums> sums(blocks.row_blocks * params);
    parallel_parts(blocks.count(), layout.numel(), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const ColumnBlocks::Block b = blocks.at(i);
        if (b.rows <= 0) continue;
        learned_backward_columns(grad + b.offset, x + b.offset, grad_x + b.offset, b.rows,
                                 blocks.columns, b.columns, params_from(b.param),
                                 &sums[b.row_block * params + b.param]);
      }
    });
    for (int64_t i = 0; i < blocks.row_blocks * params; ++i) add(i % params, sums[i]);
    return;
  }
  const RunBlocks blocks(layout, kSumBlock);
  c10::SmallVector<LearnedSums, 8> sums;
  sums.resize(blocks.count());
  parallel_parts(blocks.count(), layout.numel(), [&](int64_t begin, int64_t end) {
    blocks.for_each(begin, end, [&](int64_t i, const ParamLayout::Run& run, int64_t at, int64_t n) {
      learned_backward_span(grad + at, x + at, grad_x + at, n, params_from(run.param), &sums[i]);
    });
  });
  blocks.for_each(0, blocks.count(), [&](int64_t i, const ParamLayout::Run& run, int64_t, int64_t) {
    add(run.param, sums[i]);
  });
}

at::Tensor fake_quantize_learned_cpu(const at::Tensor& x, const at::Tensor& scale,
                                     const at::Tensor& zero_point, int64_t quant_min,
                                     int64_t quant_max, OptionalInt axis, OptionalInt block_size,
                                     double grad_factor) {
  constexpr const char* kOp = "fake_quantize_learned";
  const ParamShape granularity =
      check_learned(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
  const at::Tensor dense = make_dense(x);
  return fake_quantize_dense(
      dense, prepare_qparams(kOp, dense, granularity, scale, zero_point, quant_min, quant_max));
}

// A gradient of a parameter, whose elements are in the memory order of x.
at::Tensor param_gradient(const at::Tensor& dense, const ParamShape& granularity,
                          const at::Tensor& param, at::ScalarType type,
                          const Values<double>& values) {
  at::Tensor gradient = at::detail::empty_cpu(param.sizes(), type);
  const auto fill = [&](const at::Tensor& to) {
    with_float_type(type, [&](auto element) {
      using X = decltype(element);
      X* out = mutable_elements_of<X>(to);
      for (size_t i = 0; i < values.size(); ++i) {
        out[i] = from_compute<X>(static_cast<ComputeType<X>>(values[i]));
      }
    });
  };
  if (!granularity.block_size || dense.is_contiguous()) {
    fill(gradient);
    return gradient;
  }
  at::Tensor in_order = gradient.permute(memory_order(dense));
  at::Tensor arranged = at::empty(in_order.sizes(), in_order.options());
  fill(arranged);
  in_order.copy_(arranged);
  return gradient;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_learned_backward_cpu(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, OptionalInt axis,
    OptionalInt block_size, double grad_factor) {
  constexpr const char* kOp = "fake_quantize_learned_backward";
  const ParamShape granularity =
      check_learned(kOp, x, scale, zero_point, quant_min, quant_max, axis, block_size, grad_factor);
  check_grad(kOp, grad, x);
  const at::Tensor dense = make_dense(x);
  const at::Tensor dense_grad = with_strides_of(dense, grad);
  const QParams qparams =
      prepare_qparams(kOp, dense, granularity, scale, zero_point, quant_min, quant_max);
  const int64_t params = qparams.layout.params();
  at::Tensor grad_x = empty_as(dense, x.scalar_type());
  c10::SmallVector<LearnedSums, 4> totals;
  totals.resize(params);
  Values<double> scale_gradient;
  scale_gradient.resize(params);
  Values<double> zero_point_gradient;
  zero_point_gradient.resize(params);
  with_float_type(x.scalar_type(), [&](auto element) {
    using X = decltype(element);
    visit_params<X>(qparams, [&](const auto& q) {
      learned_backward(elements_of<X>(dense_grad), elements_of<X>(dense),
                       mutable_elements_of<X>(grad_x), qparams.layout, q, totals.data());
      for (int64_t i = 0; i < params; ++i) {
        scale_gradient[i] = grad_factor * totals[i].scale;
        zero_point_gradient[i] =
            -grad_factor * (static_cast<double>(q.scale[i]) * totals[i].outside);
      }
    });
  });
  const at::ScalarType zero_point_type =
      zero_point.is_floating_point() ? zero_point.scalar_type() : scale.scalar_type();
  return {grad_x, param_gradient(dense, granularity, scale, scale.scalar_type(), scale_gradient),
          param_gradient(dense, granularity, zero_point, zero_point_type, zero_point_gradient)};
}

// The extremes of every parameter (zeros at first), one pass over x.
template <typename X>
void extremes_of_params(const X* x, const ParamLayout& layout, Extremes<ComputeType<X>>* totals) {
  using T = ComputeType<X>;
  const auto widen = [&](int64_t param, const Extremes<T>& found) {
    totals[param].lowest = std::min(totals[param].lowest, found.lowest);
    totals[param].highest = std::max(totals[param].highest, found.highest);
  };
  if (has_param_per_column(layout)) {
    const ColumnBlocks blocks(layout);
    const int64_t params = layout.params();
    std::vector<Extremes<T>> found(blocks.row_blocks * params);
    parallel_parts(blocks.count(), layout.numel(), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const ColumnBlocks::Block b = blocks.at(i);
        if (b.rows <= 0) continue;
        find_extremes_columns(x + b.offset, b.rows, blocks.columns, b.columns,
                              &found[b.row_block * params + b.param]);
      }
    });
    for (int64_t i = 0; i < blocks.row_blocks * params; ++i) widen(i % params, found[i]);
    return;
  }
  const RunBlocks blocks(layout, kElementsPerTask);
  c10::SmallVector<Extremes<T>, 8> found;
  found.resize(blocks.count());
  parallel_parts(blocks.count(), layout.numel(), [&](int64_t begin, int64_t end) {
    blocks.for_each(begin, end, [&](int64_t i, const ParamLayout::Run&, int64_t at, int64_t n) {
      find_extremes(x + at, n, &found[i]);
    });
  });
  blocks.for_each(0, blocks.count(), [&](int64_t i, const ParamLayout::Run& run, int64_t, int64_t) {
    widen(run.param, found[i]);
  });
}

std::tuple<at::Tensor, at::Tensor> choose_checked(const at::Tensor& x, int64_t quant_min,
                                                  int64_t quant_max, bool symmetric,
                                                  const ParamShape& granularity) {
  const at::Tensor dense = make_dense(x);
  const ParamLayout layout = layout_of(dense, granularity);
  const int64_t params = layout.params();
  Values<double> scales;
  scales.resize(params);
  Values<int64_t> zero_points;
  zero_points.resize(params);
  with_float_type(x.scalar_type(), [&](auto element) {
    using X = decltype(element);
    c10::SmallVector<Extremes<ComputeType<X>>, 4> found;
    found.resize(params);
    extremes_of_params(elements_of<X>(dense), layout, found.data());
    for (int64_t i = 0; i < params; ++i) {
      const ScaleAndZeroPoint chosen =
          choose_one(static_cast<float>(found[i].lowest), static_cast<float>(found[i].highest),
                     quant_min, quant_max, symmetric);
      scales[i] = chosen.scale;
      zero_points[i] = chosen.zero_point;
    }
  });
  const auto shape = C10_AS_INTARRAYREF_SLOW_ALLOC(qparams_shape(x, granularity));
  at::Tensor scale = at::detail::empty_cpu(shape, at::kFloat);
  at::Tensor zero_point = at::detail::empty_cpu(shape, at::kInt);
  const bool reorder = granularity.block_size && !dense.is_contiguous();
  const auto order = memory_order(dense);
  const auto fill = [&](at::Tensor& to, const auto& values, auto element) {
    at::Tensor arranged = to;
    if (reorder) {
      at::Tensor in_order = to.permute(order);
      arranged = at::empty(in_order.sizes(), in_order.options());
    }
    auto* out = static_cast<decltype(element)*>(arranged.mutable_data_ptr());
    for (int64_t i = 0; i < params; ++i) out[i] = static_cast<decltype(element)>(values[i]);
    if (reorder) to.permute(order).copy_(arranged);
  };
  fill(scale, scales, float{});
  fill(zero_point, zero_points, int32_t{});
  return {scale, zero_point};
}

std::tuple<at::Tensor, at::Tensor> choose_qparams_cpu(const at::Tensor& x, int64_t quant_min,
                                                      int64_t quant_max, bool symmetric,
                                                      OptionalInt axis, OptionalInt block_size) {
  const ParamShape granularity =
      check_choose("choose_qparams", x, quant_min, quant_max, symmetric, axis, block_size);
  return choose_checked(x, quant_min, quant_max, symmetric, granularity);
}

at::Tensor fake_quantize_dynamic_cpu(const at::Tensor& x, int64_t quant_min, int64_t quant_max,
                                     bool symmetric, OptionalInt axis, OptionalInt block_size) {
  const ParamShape granularity =
      check_choose("fake_quantize_dynamic", x, quant_min, quant_max, symmetric, axis, block_size);
  const auto [scale, zero_point] = choose_checked(x, quant_min, quant_max, symmetric, granularity);
  const at::Tensor dense = make_dense(x);
  return fake_quantize_dense(dense, prepare_qparams("fake_quantize_dynamic", dense, granularity,
                                                    scale, zero_point, quant_min, quant_max));
}

TORCH_LIBRARY_IMPL(qcdq, CPU, m) {
  m.impl("fake_quantize_learned", TORCH_FN(fake_quantize_learned_cpu));
  m.impl("fake_quantize_learned_backward", TORCH_FN(fake_quantize_learned_backward_cpu));
  m.impl("choose_qparams", TORCH_FN(choose_qparams_cpu));
  m.impl("fake_quantize_dynamic", TORCH_FN(fake_quantize_dynamic_cpu));
}

}  // namespace
}  // namespace qcdq
