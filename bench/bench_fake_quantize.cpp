// What a per-tensor fake quantisation of f32 data costs: qcdq's op and aten's, both through torch's
// dispatcher, and memcpy as the bound that memory sets. Bytes per second count one read and one
// write of each element. One thread unless QCDQ_BENCH_THREADS says more.
#include <benchmark/benchmark.h>
#include <torch/torch.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "qcdq/ops.h"

namespace {

constexpr double kScale = 0.0123;
constexpr int64_t kZeroPoint = 3;
constexpr int64_t kQuantMin = -128;
constexpr int64_t kQuantMax = 127;

// Some values saturate and most don't, as in a calibrated network.
at::Tensor input(int64_t elements) {
  torch::manual_seed(0);
  return torch::randn({elements}) * 0.8;
}

void count(benchmark::State& state) {
  const int64_t elements = state.iterations() * state.range(0);
  state.SetItemsProcessed(elements);
  state.SetBytesProcessed(elements * 2 * static_cast<int64_t>(sizeof(float)));
}

void qcdq_fake_quantize(benchmark::State& state) {
  const torch::InferenceMode inference;
  const at::Tensor x = input(state.range(0));
  const at::Tensor scale = torch::tensor(static_cast<float>(kScale));
  const at::Tensor zero_point = torch::tensor(kZeroPoint, torch::kInt32);
  for (auto _ : state) {
    at::Tensor y = qcdq::fake_quantize(x, scale, zero_point, kQuantMin, kQuantMax);
    benchmark::DoNotOptimize(y.data_ptr());
    benchmark::ClobberMemory();
  }
  count(state);
}

void aten_fake_quantize(benchmark::State& state) {
  const torch::InferenceMode inference;
  const at::Tensor x = input(state.range(0));
  for (auto _ : state) {
    at::Tensor y = at::fake_quantize_per_tensor_affine(x, kScale, kZeroPoint, kQuantMin, kQuantMax);
    benchmark::DoNotOptimize(y.data_ptr());
    benchmark::ClobberMemory();
  }
  count(state);
}

// Into a tensor that is allocated each time, as the ops' results are.
void memcpy_floats(benchmark::State& state) {
  const torch::InferenceMode inference;
  const at::Tensor x = input(state.range(0));
  for (auto _ : state) {
    at::Tensor y = at::empty_like(x);
    std::memcpy(y.data_ptr(), x.const_data_ptr(), x.nbytes());
    benchmark::DoNotOptimize(y.data_ptr());
    benchmark::ClobberMemory();
  }
  count(state);
}

// 64 elements show the dispatcher's cost, 64 Ki the cache's speed, 64 Mi the memory's.
void sizes(benchmark::internal::Benchmark* bench) {
  for (int64_t elements = 64; elements <= (int64_t{64} << 20); elements *= 32) bench->Arg(elements);
  bench->ArgName("elements")->Unit(benchmark::kMicrosecond)->UseRealTime();
}

BENCHMARK(qcdq_fake_quantize)->Apply(sizes);
BENCHMARK(aten_fake_quantize)->Apply(sizes);
BENCHMARK(memcpy_floats)->Apply(sizes);

}  // namespace

int main(int argc, char** argv) {
  const char* threads = std::getenv("QCDQ_BENCH_THREADS");
  at::set_num_threads(threads != nullptr ? std::atoi(threads) : 1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("threads", std::to_string(at::get_num_threads()));
  benchmark::AddCustomContext("torch", TORCH_VERSION);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
