// How every benchmark program measures: the rows of a group (a ruler such as a copy, then ours and
// the others) are called in turn, round after round, so that a ratio within a group is free of the
// machine's drift. Google Benchmark carries the results: one row each, one "iteration" = the
// median.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace qcdq::bench {

/// One thing to time. `call` does it once.
struct Row {
  std::string impl;
  std::function<void()> call;
};

/// What a group is, and how its rows are made when its turn comes (memory is held only meanwhile).
/// The name of a row in the report: op/pass/granularity/type/size/threads/impl.
struct Group {
  std::string op;           // fake_quantize
  std::string pass;         // fwd, fwd_grad, fwd_bwd
  std::string granularity;  // per_tensor, channel_0, ...; "-" where there is none
  std::string type;         // f32
  std::string size;         // 64, 4MiB, 8x3x112x112
  int threads = 1;
  double elements = 0;       // for items/s
  double bytes = 0;          // for bytes/s: those a copy reads and writes
  double operations = 0;     // for the roofline: what the op computes,
  double traffic_bytes = 0;  // and the bytes that it must read and write
  std::vector<std::string> impls;
  std::function<std::vector<Row>()>
      make;  // the same impls in the same order; the first is the ruler
};

/// How long and how often: from QCDQ_BENCH_QUICK (0.06 s a row) and QCDQ_BENCH_SECONDS.
struct Effort {
  double seconds_per_row = 0.4;
  int least_samples = 7;
  bool quick = false;
};
const Effort& effort();

/// Adds a Google Benchmark row for each impl of the group. The first one to run measures all of
/// them. Counters: low_ns and high_ns (quartiles), ratio, ratio_low, ratio_high (to the ruler's
/// sample of the same round), samples, bytes_per_second, items_per_second. A row that throws is an
/// error row with the exception's first line.
void add_group(Group group);

/// A counter that the group's program measures itself (peak memory), by impl; put into the rows.
void set_counter(const std::string& impl, const std::string& counter, double value);

/// Parses Google Benchmark's flags, adds `context` and this CPU's name to the output, runs. Returns
/// the exit status.
int run(int argc, char** argv, const std::vector<std::pair<std::string, std::string>>& context);

/// "64", "4KiB", "256MiB"
std::string size_name(int64_t bytes);

}  // namespace qcdq::bench
