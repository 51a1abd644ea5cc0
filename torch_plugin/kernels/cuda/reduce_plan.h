// How a reduction over the elements of each parameter is cut into pieces for the GPU. A piece is
// summed by the threads of a team, in an order that follows from the layout and the element type
// alone; its sum goes to a slot, and a second kernel adds the slots of a parameter (where each has
// but one piece, the sum is the total). So the bits
// of a sum depend neither on the GPU nor on what runs beside it. Compiles for the host too, where
// tests/torch_plugin/cuda_plan_test.cpp visits every thread. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

#include "torch_plugin/kernels/cuda/param_index.h"

namespace qcdq::cuda {

inline constexpr int kReduceThreads = 256;

/// The threads that sum a piece: a power of two of neighbours in a block.
struct Team {
  /// As many as there is work, and not more than a block has.
  QCDQ_HOST_DEVICE explicit Team(int64_t work) {
    while (size() < kReduceThreads && int64_t{2} * size() <= work) ++bits;
  }
  QCDQ_HOST_DEVICE int size() const { return 1 << bits; }
  QCDQ_HOST_DEVICE int lane(int thread) const { return thread & (size() - 1); }
  /// The number of a thread's team.
  QCDQ_HOST_DEVICE int64_t number(int64_t block, int thread) const {
    return ((block * kReduceThreads) >> bits) + (thread >> bits);
  }
  /// Blocks of `teams` teams.
  int64_t blocks(int64_t teams) const {
    return (teams * size() + kReduceThreads - 1) / kReduceThreads;
  }
  int bits = 0;
};

/// How many pieces a plan makes. The slot of piece k of parameter p is k * params + p.
struct PieceCount {
  int64_t params;
  int64_t pieces_per_param;
  QCDQ_HOST_DEVICE int64_t pieces() const { return params * pieces_per_param; }
  /// A parameter's only piece is its total: no second kernel and no slots.
  QCDQ_HOST_DEVICE bool one_piece_each() const { return pieces_per_param == 1; }
  int64_t slots() const { return one_piece_each() ? 0 : pieces(); }
};

/// Pieces for layouts whose parameters each own runs of neighbours: per tensor, per channel with
/// inner > 1, blocked with inner == 1. A piece is a part of one long run, or several short runs.
/// The runs of parameter p are, for o < outer: `run` elements from
/// o * outer_stride + p / runs_per_row * row + p % runs_per_row * run, fewer at the end of a row.
struct RunPlan : PieceCount {
  /// Of a long run; also about what a piece of short runs holds. At 8,192 f32 elements each of 256
  /// threads takes 8 vectors, and 1 MiB of data still makes 32 pieces.
  static constexpr int64_t kPiece = 8192;

  /// `vector`: elements of a full load.
  RunPlan(const ParamLayout& layout, int vector);

  Team team{1};
  int width;  // elements that a thread takes at once: `vector`, or 1

  int64_t outer;
  int64_t outer_stride;
  int64_t row;
  int64_t run;
  int64_t merged;  // runs of a piece; 1 where a run is cut
  Divisor per_params;
  Divisor per_runs_per_row;
  Divisor per_chunks;       // parts of a run
  Divisor per_run_vectors;  // loads of a run, or of a part of it

  int64_t blocks() const { return team.blocks(pieces()); }

  /// A piece: `loads` ranges of up to `width` neighbours, taken by the lanes of a team in turn.
  struct Part {
    int64_t param;
    int64_t first;    // element that it begins with; its other runs follow by outer_stride
    uint32_t loads;   // of all its runs
    uint32_t length;  // elements of each of its runs
  };
  QCDQ_HOST_DEVICE Part part(int64_t piece) const {
    if (piece <= Divisor::kLargest) return part_of(static_cast<uint32_t>(piece));
    return part_of(piece);
  }

  /// `count` <= width neighbours; none where `load` is beyond the part's.
  struct Range {
    int64_t at;
    int count;
  };
  QCDQ_HOST_DEVICE Range range(const Part& part, uint32_t load) const {
    if (load >= part.loads) return {0, 0};
    const uint32_t r = per_run_vectors.quotient(load);
    const auto at = (load - r * static_cast<uint32_t>(per_run_vectors.divisor())) *
                    static_cast<uint32_t>(width);
    if (at >= part.length) return {0, 0};
    const uint32_t left = part.length - at;
    return {part.first + r * outer_stride + at,
            left < static_cast<uint32_t>(width) ? static_cast<int>(left) : width};
  }

 private:
  // As ParamCursor::locate: numbers of 32 bits where `piece` is one.
  template <typename Int>
  QCDQ_HOST_DEVICE Part part_of(Int piece) const {
    const auto cut = [](int64_t value) { return static_cast<Int>(value); };
    const Int k = per_params.quotient(piece);
    const Int param = piece - k * cut(params);
    const Int group = per_chunks.quotient(k);
    const Int chunk = k - group * cut(per_chunks.divisor());
    const Int row_index = per_runs_per_row.quotient(param);
    const Int run_in_row = param - row_index * cut(per_runs_per_row.divisor());
    const int64_t begin = chunk * kPiece;  // within each run
    const int64_t in_row = run_in_row * run;
    const int64_t whole = row - in_row < run ? row - in_row : run;
    const int64_t first_run = group * merged;
    const int64_t runs = outer - first_run < merged ? outer - first_run : merged;
    const int64_t length = whole - begin < kPiece ? whole - begin : kPiece;
    return {static_cast<int64_t>(param),
            first_run * outer_stride + static_cast<int64_t>(row_index) * row + in_row + begin,
            static_cast<uint32_t>(runs * per_run_vectors.divisor()),
            static_cast<uint32_t>(length > 0 ? length : 0)};
  }
};

/// Pieces for layouts where neighbours have parameters of their own: per channel with inner == 1
/// (channels last), blocked with inner > 1. The array is groups of rows x columns; each column of a
/// group has a parameter, and a piece is kRows rows of it, taken by one thread.
struct ColumnPlan : PieceCount {
  static constexpr int64_t kRows = 64;

  explicit ColumnPlan(const ParamLayout& layout);

  int64_t columns;
  int64_t rows;      // of a group; fewer in the last group of a set
  int64_t set_rows;  // of a set of groups, which lie one after the other
  Divisor per_params;
  Divisor per_columns;
  Divisor per_groups;  // groups of a set

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
  explicit SlotPlan(const PieceCount& count)
      : params(count.params),
        slots_per_param(count.pieces_per_param),
        team(count.pieces_per_param) {}
  int64_t params;
  int64_t slots_per_param;
  Team team;
  int64_t blocks() const { return team.blocks(params); }
};

}  // namespace qcdq::cuda
