// Interleaved measurement of a group of rows; see interleave.h.
#include "bench/interleave.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <utility>

namespace qcdq::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Quartiles {
  double low = 0.0;
  double median = 0.0;
  double high = 0.0;
};

Quartiles quartiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
  };
  return {at(0.25), at(0.5), at(0.75)};
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

double seconds_of(const std::function<void()>& call, int64_t repeats) {
  const auto start = Clock::now();
  for (int64_t i = 0; i < repeats; ++i) call();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Measured {
  std::vector<double> nanoseconds;
  std::vector<double> ratios;
  std::string error;
};

// A sample of less than this is repeated within the sample: the clock costs about 25 ns.
constexpr double kLeastSampleSeconds = 20e-6;
constexpr double kRewarmSeconds = 5e-3;       // rows that take less are called before the sample,
constexpr double kLeastRewarmSeconds = 1e-3;  // for so long

struct Turn {
  const Row* row;
  Measured* measured;
  int64_t repeats = 1;
  double spent = 0.0;
  double last = 0.0;  // seconds of the last sample

  void warm() {
    try {
      const double first = seconds_of(row->call, 1);
      // A second call finds pages and caches warm; a slow row gains nothing from more.
      const double once = first > 0.5 ? first : seconds_of(row->call, 1);
      if (once < kLeastSampleSeconds) {
        repeats = static_cast<int64_t>(std::ceil(kLeastSampleSeconds / std::max(once, 20e-9)));
        const double again = seconds_of(row->call, repeats) / static_cast<double>(repeats);
        repeats = static_cast<int64_t>(std::ceil(kLeastSampleSeconds / std::max(again, 1e-9)));
      }
    } catch (const std::exception& error) {
      measured->error = first_line(error.what());
    }
  }

  bool done() const {
    if (!measured->error.empty()) return true;
    return spent >= effort().seconds_per_row &&
           static_cast<int>(measured->nanoseconds.size()) >= effort().least_samples;
  }

  // Each row is timed in its own steady state: the row before has left other data in the caches and
  // other blocks in the allocator, which a short call would pay for. One call is not enough: a copy
  // of 4 MiB after a row of some ms takes twice as long even the second time.
  double sample() {
    double warmed = 0.0;
    if (repeats == 1 && last < kRewarmSeconds) {
      do {
        warmed += seconds_of(row->call, 1);
      } while (warmed < kLeastRewarmSeconds);
    }
    const double seconds = seconds_of(row->call, repeats);
    spent += warmed + seconds;
    last = seconds;
    return seconds * 1e9 / static_cast<double>(repeats);
  }
};

std::vector<Measured> measure(const Group& group) {
  std::vector<Measured> results(group.impls.size());
  std::vector<Row> rows;
  try {
    rows = group.make();
  } catch (const std::exception& error) {
    for (Measured& result : results) result.error = first_line(error.what());
    return results;
  }
  std::vector<Turn> turns;
  for (size_t i = 0; i < rows.size(); ++i) turns.push_back({&rows[i], &results[i]});
  for (Turn& turn : turns) turn.warm();
  if (!results[0].error.empty()) {
    for (Measured& result : results) result.error = "ruler: " + results[0].error;
    return results;
  }
  // The ruler goes on as long as any other row has not had enough.
  for (;;) {
    const double ruler = turns[0].sample();
    results[0].nanoseconds.push_back(ruler);
    results[0].ratios.push_back(1.0);
    bool all_done = turns[0].done();
    for (size_t i = 1; i < turns.size(); ++i) {
      if (turns[i].done()) continue;
      all_done = false;
      const double nanoseconds = turns[i].sample();
      results[i].nanoseconds.push_back(nanoseconds);
      results[i].ratios.push_back(nanoseconds / ruler);
    }
    if (all_done) return results;
  }
}

struct Registered {
  Group group;
  std::vector<Measured> results;  // empty until the first of its rows runs
};

std::map<std::string, std::map<std::string, double>>& extra_counters() {
  static std::map<std::string, std::map<std::string, double>> counters;
  return counters;
}

void report(benchmark::State& state, Registered& registered, size_t index) {
  if (registered.results.empty()) registered.results = measure(registered.group);
  const Measured& measured = registered.results[index];
  const Group& group = registered.group;
  const Quartiles time = quartiles(measured.nanoseconds);
  if (!measured.error.empty()) state.SkipWithError(measured.error.c_str());
  for (auto _ : state) state.SetIterationTime(time.median * 1e-9);
  if (!measured.error.empty()) return;
  const Quartiles ratio = quartiles(measured.ratios);
  state.counters["low_ns"] = time.low;
  state.counters["high_ns"] = time.high;
  state.counters["ratio"] = ratio.median;
  state.counters["ratio_low"] = ratio.low;
  state.counters["ratio_high"] = ratio.high;
  state.counters["samples"] = static_cast<double>(measured.nanoseconds.size());
  state.counters["elements"] = group.elements;
  if (group.operations > 0) state.counters["operations"] = group.operations;
  if (group.traffic_bytes > 0) state.counters["traffic_bytes"] = group.traffic_bytes;
  if (group.elements > 0) state.SetItemsProcessed(static_cast<int64_t>(group.elements));
  if (group.bytes > 0) state.SetBytesProcessed(static_cast<int64_t>(group.bytes));
  for (const auto& [name, value] : extra_counters()[group.impls[index]]) {
    state.counters[name] = value;
  }
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

}  // namespace

const Effort& effort() {
  static const Effort chosen = [] {
    Effort result;
    if (const char* quick = std::getenv("QCDQ_BENCH_QUICK"); quick != nullptr && *quick == '1') {
      result = {.seconds_per_row = 0.06, .quick = true};
    }
    if (const char* seconds = std::getenv("QCDQ_BENCH_SECONDS")) {
      result.seconds_per_row = std::max(0.001, std::atof(seconds));
    }
    return result;
  }();
  return chosen;
}

void add_group(Group group) {
  auto registered = std::make_shared<Registered>(Registered{std::move(group), {}});
  const Group& g = registered->group;
  const std::string prefix = g.op + "/" + g.pass + "/" + g.granularity + "/" + g.type + "/" +
                             g.size + "/t" + std::to_string(g.threads) + "/";
  for (size_t i = 0; i < g.impls.size(); ++i) {
    benchmark::RegisterBenchmark(
        (prefix + g.impls[i]).c_str(),
        [registered, i](benchmark::State& state) { report(state, *registered, i); })
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

void set_counter(const std::string& impl, const std::string& counter, double value) {
  extra_counters()[impl][counter] = value;
}

int run(int argc, char** argv, const std::vector<std::pair<std::string, std::string>>& context) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("cpu", cpu_name());
  for (const auto& [key, value] : context) benchmark::AddCustomContext(key, value);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

std::string size_name(int64_t bytes) {
  if (bytes >= (int64_t{1} << 20)) return std::to_string(bytes >> 20) + "MiB";
  if (bytes >= 1024) return std::to_string(bytes >> 10) + "KiB";
  return std::to_string(bytes) + "B";
}

}  // namespace qcdq::bench
