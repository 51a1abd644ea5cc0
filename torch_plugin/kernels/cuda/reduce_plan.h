// How a reduction over the elements of each parameter is cut into pieces for the GPU. A piece is
// summed by the threads of a team, in an order that follows from the layout and the element type
// alone; its sum goes to a slot, and a second kernel adds the slots of a parameter. So the bits
// of a sum depend neither on the GPU nor on what runs beside it. Compiles for the host too, where
// tests/torch_plugin/cuda_plan_test.cpp visits every thread. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

#include "torch_plugin/kernels/cuda/param_index.h"

namespace qcdq::cuda {

inline constexpr int kReduceThreads = 256;

/// The largest power of two that is <= work and <= kReduceThreads, at least 1.
inline int team_of(int64_t work) {
  int team = 1;
  while (team < kReduceThreads && int64_t{2} * team <= work) team *= 2;
  return team;
}

/// Pieces for layouts whose parameters each own runs of neighbours: per tensor, per channel with
/// inner > 1, blocked with inner == 1. A piece is a part of one long run, or several short runs.
/// The runs of parameter p are, for o < outer: `run` elements from
/// o * outer_stride + p / runs_per_row * row + p % runs_per_row * run, fewer at the end of a row.
struct RunPlan {
  /// Of a long run; also about what a piece of short runs holds. At 8,192 f32 elements each of 256
  /// threads takes 8 vectors, and 1 MiB of data still makes 32 pieces.
  static constexpr int64_t kPiece = 8192;

  /// `vector`: elements of a full load.
  RunPlan(const ParamLayout& layout, int vector);

  int64_t params;
  int64_t slots_per_param;  // slot of piece k of parameter p: k * params + p
  int team;                 // threads of a piece
  int width;                // elements that a thread takes at once: `vector`, or 1

  int64_t outer;
  int64_t outer_stride;
  int64_t row;
  int64_t run;
  int64_t merged;  // runs of a piece; 1 where a run is cut
  Divisor per_params;
  Divisor per_runs_per_row;
  Divisor per_chunks;       // parts of a run
  Divisor per_run_vectors;  // loads of a run, or of a part of it

  QCDQ_HOST_DEVICE int64_t pieces() const { return params * slots_per_param; }
  int64_t blocks() const { return (pieces() * team + kReduceThreads - 1) / kReduceThreads; }

  /// Calls body(element, count) for all that one thread takes: `count` <= width neighbours.
  template <typename Body>
  QCDQ_HOST_DEVICE void for_each(int64_t piece, int lane, Body&& body) const {
    const int64_t k = per_params.quotient(piece);
    const int64_t param = piece - k * params;
    const int64_t group = per_chunks.quotient(k);
    const int64_t begin = (k - group * per_chunks.divisor()) * kPiece;  // within each run
    const int64_t row_index = per_runs_per_row.quotient(param);
    const int64_t in_row = (param - row_index * per_runs_per_row.divisor()) * run;
    const int64_t whole = row - in_row < run ? row - in_row : run;
    const int64_t end = whole - begin < kPiece ? whole : begin + kPiece;
    const int64_t first_run = group * merged;
    const int64_t runs = outer - first_run < merged ? outer - first_run : merged;
    const int64_t base = row_index * row + in_row;
    for (int64_t j = lane; j < runs * per_run_vectors.divisor(); j += team) {
      const int64_t r = per_run_vectors.quotient(j);
      const int64_t at = begin + (j - r * per_run_vectors.divisor()) * width;
      if (at >= end) continue;
      body((first_run + r) * outer_stride + base + at, end - at < width ? end - at : width);
    }
  }
};

/// Pieces for layouts where neighbours have parameters of their own: per channel with inner == 1
/// (channels last), blocked with inner > 1. The array is groups of rows x columns; each column of a
/// group has a parameter, and a piece is kRows rows of it, taken by one thread.
struct ColumnPlan {
  static constexpr int64_t kRows = 64;

  explicit ColumnPlan(const ParamLayout& layout);

  int64_t params;
  int64_t slots_per_param;

  int64_t columns;
  int64_t rows;      // of a group; fewer in the last group of a set
  int64_t set_rows;  // of a set of groups, which lie one after the other
  Divisor per_params;
  Divisor per_columns;
  Divisor per_groups;  // groups of a set

  QCDQ_HOST_DEVICE int64_t pieces() const { return params * slots_per_param; }
  int64_t blocks() const { return (pieces() + kReduceThreads - 1) / kReduceThreads; }

  struct Column {
    int64_t param;
    int64_t first;  // element of the first row
    int64_t rows;   // may be <= 0
  };
  QCDQ_HOST_DEVICE Column column(int64_t piece) const {
    const int64_t k = per_params.quotient(piece);
    const int64_t param = piece - k * params;
    const int64_t group = per_columns.quotient(param);
    const int64_t set = per_groups.quotient(group);
    const int64_t group_row = (group - set * per_groups.divisor()) * rows;
    const int64_t in_group = set_rows - group_row < rows ? set_rows - group_row : rows;
    const int64_t row = k * kRows;
    return {param, (set * set_rows + group_row + row) * columns + param - group * columns,
            in_group - row < kRows ? in_group - row : kRows};
  }
};

/// Whether a layout is one of RunPlan's.
inline bool has_runs(const ParamLayout& layout) {
  if (layout.one_param()) return true;
  return layout.inner_step == 0 ? layout.inner > 1 : layout.inner == 1;
}

/// The second kernel: a team adds the slots of a parameter, lane by lane.
struct SlotPlan {
  SlotPlan(int64_t param_count, int64_t slot_count)
      : params(param_count), slots_per_param(slot_count), team(team_of(slot_count)) {}
  int64_t params;
  int64_t slots_per_param;
  int team;
  int64_t blocks() const { return (params * team + kReduceThreads - 1) / kReduceThreads; }
};

}  // namespace qcdq::cuda
