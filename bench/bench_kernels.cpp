// Benchmark of the torch-free kernels on raw pointers into warm buffers, on one thread: every
// instruction set that was compiled and that this CPU runs, in turn with memcpy. Also what the
// roofline needs: operations and traffic of each kernel, and the CPU's peak of multiply + add and
// of true divisions, measured in registers.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/interleave.h"
#include "torch_plugin/kernels/cpu_kernels.h"

namespace {

using qcdq::KernelTable;
using qcdq::bench::Row;

constexpr int64_t kKiB = 1024;
constexpr int64_t kMiB = 1024 * kKiB;
constexpr int64_t kBlock = qcdq::kSumBlock;

struct Kernel {
  const char* op;
  const char* pass;
  double operations;     // per element: one each for division, rounding, comparison, + and *
  double traffic_reads;  // times the bytes of x
  double traffic_writes;
};
constexpr Kernel kKernels[] = {
    {"fake_quantize", "fwd", 7, 1, 1},
    {"fake_quantize", "bwd", 6, 2, 1},
    {"fake_quantize_learned", "bwd", 13, 2, 1},
    {"quantize", "fwd", 5, 1, 0},    // codes: one byte each, counted below
    {"dequantize", "fwd", 2, 0, 1},  // the same
    {"extremes", "fwd", 2, 1, 0},
};

const char* const kTypeNames[] = {"f32", "f16", "bf16"};
constexpr int64_t kTypeBytes[] = {4, 2, 2};

// f16 and bf16 bits of a float that both hold exactly enough for a benchmark: truncated.
uint16_t truncated_bits(float value, int type) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (type == 2) return static_cast<uint16_t>(bits >> 16);
  if (value == 0.0f) return 0;
  const auto exponent = static_cast<int>((bits >> 23) & 0xff) - 127 + 15;
  if (exponent <= 0) return 0;
  return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | static_cast<uint32_t>(exponent << 10) |
                               ((bits >> 13) & 0x3ffu));
}

// Starts at a multiple of 64, as torch's tensors do.
class Bytes {
 public:
  explicit Bytes(int64_t count) : lines_(count / 64 + 1) {}
  char* data() { return lines_.front().bytes; }

 private:
  struct alignas(64) Line {
    char bytes[64] = {};
  };
  std::vector<Line> lines_;
};

// The buffers of one group; every page written, so that no row pays for a page fault.
struct Buffers {
  int64_t elements;
  int64_t bytes;
  Bytes x, grad, y, codes;
  std::vector<qcdq::LearnedSums> sums;
  qcdq::ParamLayout layout;
  std::vector<float> scale, zero_point;

  Buffers(int64_t x_bytes, int type, const std::string& granularity)
      : elements(x_bytes / kTypeBytes[type]),
        bytes(x_bytes),
        x(x_bytes),
        grad(x_bytes),
        y(x_bytes),
        codes(elements),
        sums(elements / kBlock + 1) {
    std::mt19937 random(0);
    std::normal_distribution<float> normal(0.0f, 0.8f);
    // A megabyte of random values, repeated: the generator is slow.
    std::vector<float> values(std::min<int64_t>(elements, 256 * kKiB));
    for (float& value : values) value = normal(random);
    for (int64_t i = 0; i < elements; ++i) {
      put(x.data(), i, type, values[i % values.size()]);
      put(grad.data(), i, type, values[(i + 7) % values.size()]);
    }
    const int64_t channels = 64;
    if (granularity == "channel_0") {
      layout = qcdq::ParamLayout::per_channel(1, channels, elements / channels);
    } else if (granularity == "channel_last") {
      layout = qcdq::ParamLayout::per_channel(elements / channels, channels, 1);
    } else if (granularity == "blocked") {
      layout = qcdq::ParamLayout::blocked(elements / 1024, 1024, 1, 32);
    } else {
      layout = qcdq::ParamLayout::per_tensor(elements);
    }
    scale.assign(layout.params(), 0.0123f);
    zero_point.assign(layout.params(), 3.0f);
  }

  static void put(char* data, int64_t index, int type, float value) {
    if (type == 0) {
      std::memcpy(data + 4 * index, &value, 4);
    } else {
      const uint16_t bits = truncated_bits(value, type);
      std::memcpy(data + 2 * index, &bits, 2);
    }
  }
  qcdq::SimdRuns runs() const {
    const bool streamed = bytes >= qcdq::kLeastStreamedBytes;
    return {&layout, 0, layout.runs(), scale.data(), zero_point.data(), -128.0f, 127.0f, streamed};
  }
};

std::function<void()> call_of(const KernelTable& table, const Kernel& kernel, int type,
                              const std::shared_ptr<Buffers>& b) {
  const std::string op = kernel.op;
  const std::string pass = kernel.pass;
  if (op == "fake_quantize" && pass == "fwd") {
    return [=, f = table.fake_quantize[type]] { f(b->x.data(), b->y.data(), b->runs()); };
  }
  if (op == "fake_quantize") {
    return [=, f = table.fake_quantize_backward[type]] {
      f(b->grad.data(), b->x.data(), b->y.data(), b->runs());
    };
  }
  if (op == "fake_quantize_learned") {
    return [=, f = table.learned_span[type]] {
      f(b->grad.data(), b->x.data(), b->y.data(), b->elements,
        {b->scale.data(), b->zero_point.data(), -128.0f, 127.0f}, b->sums.data());
    };
  }
  if (op == "quantize") {
    return [=, f = table.quantize[type][0]] { f(b->x.data(), b->codes.data(), b->runs()); };
  }
  if (op == "dequantize") {
    return [=, f = table.dequantize[type][0]] { f(b->codes.data(), b->y.data(), b->runs()); };
  }
  return [=, f = table.extremes[type]] {
    qcdq::Extremes<float> found;
    f(b->x.data(), b->elements, &found);
  };
}

void add(const Kernel& kernel, const std::string& granularity, int type, int64_t bytes) {
  const int64_t elements = bytes / kTypeBytes[type];
  const bool has_codes =
      kernel.traffic_reads + kernel.traffic_writes < 2 && std::string(kernel.op) != "extremes";
  qcdq::bench::Group group{
      .op = kernel.op,
      .pass = kernel.pass,
      .granularity = granularity,
      .type = kTypeNames[type],
      .size = qcdq::bench::size_name(bytes),
      .threads = 1,
      .elements = static_cast<double>(elements),
      .bytes = 2.0 * static_cast<double>(bytes),
      .operations = kernel.operations * static_cast<double>(elements),
      .traffic_bytes = (kernel.traffic_reads + kernel.traffic_writes) * static_cast<double>(bytes) +
                       (has_codes ? static_cast<double>(elements) : 0.0),
      .impls = {"memcpy"},
      .make = {},
  };
  for (const KernelTable* table : qcdq::supported_kernel_tables()) {
    group.impls.emplace_back(table->isa);
  }
  group.make = [kernel, granularity, type, bytes] {
    const auto buffers = std::make_shared<Buffers>(bytes, type, granularity);
    std::vector<Row> rows;
    rows.push_back({"memcpy", [buffers] {
                      std::memcpy(buffers->y.data(), buffers->x.data(), buffers->bytes);
                    }});
    for (const KernelTable* table : qcdq::supported_kernel_tables()) {
      rows.push_back({table->isa, call_of(*table, kernel, type, buffers)});
    }
    return rows;
  };
  qcdq::bench::add_group(std::move(group));
}

// Twelve AVX2 registers of independent work, so that throughput and not latency shows; 1,000 rounds
// keep the loop itself out of sight. GCC compiles one copy for each instruction set and picks at
// load.
constexpr int kLanes = 96;
constexpr int kRounds = 1000;
#if defined(__x86_64__)
#define QCDQ_BENCH_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define QCDQ_BENCH_CLONES
#endif

QCDQ_BENCH_CLONES __attribute__((optimize("O3"))) void multiply_add(float* values) {
  float lanes[kLanes];
  std::memcpy(lanes, values, sizeof lanes);
  for (int round = 0; round < kRounds; ++round) {
    for (float& lane : lanes) lane = lane * 0.999f + 0.001f;
  }
  std::memcpy(values, lanes, sizeof lanes);
}

QCDQ_BENCH_CLONES __attribute__((optimize("O3"))) void divide(float* values) {
  float lanes[kLanes];
  std::memcpy(lanes, values, sizeof lanes);
  for (int round = 0; round < kRounds; ++round) {
    for (float& lane : lanes) lane = 1.5f / lane;
  }
  std::memcpy(values, lanes, sizeof lanes);
}

void add_peaks() {
  const auto add_peak = [](const char* name, void (*loop)(float*), double operations) {
    qcdq::bench::add_group(
        {.op = "peak",
         .pass = name,
         .granularity = "-",
         .type = "f32",
         .size = "registers",
         .threads = 1,
         .operations = operations * kLanes * kRounds,
         .impls = {"loop"},
         .make = [loop] {
           const auto values = std::make_shared<std::vector<float>>(kLanes, 1.25f);
           return std::vector<Row>{{"loop", [values, loop] { loop(values->data()); }}};
         }});
  };
  add_peak("multiply_add", multiply_add, 2);
  add_peak("divide", divide, 1);
}

}  // namespace

int main(int argc, char** argv) {
  std::string isa;
  try {
    isa = qcdq::kernel_table().isa;
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  const bool quick = qcdq::bench::effort().quick;
  const std::vector<int64_t> sizes =
      quick ? std::vector<int64_t>{16 * kKiB, 256 * kKiB, 4 * kMiB, 64 * kMiB}
            : std::vector<int64_t>{kKiB,     16 * kKiB, 64 * kKiB, 256 * kKiB, kMiB,
                                   4 * kMiB, 16 * kMiB, 64 * kMiB, 256 * kMiB};
  for (const int64_t bytes : sizes) add(kKernels[0], "per_tensor", 0, bytes);
  const std::vector<int64_t> few =
      quick ? std::vector<int64_t>{4 * kMiB} : std::vector<int64_t>{16 * kKiB, 4 * kMiB, 64 * kMiB};
  for (const Kernel& kernel : kKernels) {
    for (const int64_t bytes : few) {
      for (int type = 0; type < 3; ++type) {
        const bool is_measured = &kernel == &kKernels[0] && type == 0;
        if (!is_measured) add(kernel, "per_tensor", type, bytes);
      }
    }
  }
  for (const char* granularity : {"channel_0", "channel_last", "blocked"}) {
    for (const int64_t bytes : few) add(kKernels[0], granularity, 0, bytes);
  }
  add_peaks();
  return qcdq::bench::run(argc, argv, {{"isa", isa}});
}
