// The ops on a GPU: ours, torch's and a composite of torch ops beside a copy, timed by CUDA events.
// bench/gpu.sh runs it. Writes the rows that report.py reads (as Google Benchmark writes them; that
// library is not needed here, because the GPU's clock measures).
//
//   bench_gpu OUT.json [FILTER]     only cases whose name contains FILTER, such as
//   fwd/channel_1/f16
#include <ATen/ATen.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <qcdq/ops.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

namespace {

constexpr int64_t kKiB = 1024;
constexpr int64_t kMiB = 1024 * kKiB;
constexpr int64_t kQuantMin = -128;
constexpr int64_t kQuantMax = 127;
constexpr int kRounds = 15;
constexpr double kSampleMilliseconds = 2.0;  // events are exact to about 0.5 us

void check(cudaError_t status, const char* call) {
  TORCH_CHECK(status == cudaSuccess, "bench_gpu: ", call, ": ", cudaGetErrorString(status));
}

struct OpCase {
  std::string op;
  std::string pass;
  std::string granularity;
  at::ScalarType type;
  int64_t bytes;  // of x
};

// One set of inputs; a case has so many that they don't fit the second-level cache.
struct Tensors {
  at::Tensor x;
  at::Tensor grad;
  at::Tensor codes;
};

struct Prepared {
  OpCase op_case;
  std::vector<Tensors> ring;
  at::Tensor scale;
  at::Tensor zero_point;
  at::Tensor float_zero_point;
  std::optional<int64_t> axis;
  std::optional<int64_t> block_size;
};

const char* type_name(at::ScalarType type) {
  return type == at::kHalf ? "f16" : type == at::kBFloat16 ? "bf16" : "f32";
}

std::string size_name(int64_t bytes) {
  return bytes >= kMiB ? std::to_string(bytes / kMiB) + "MiB"
                       : std::to_string(bytes / kKiB) + "KiB";
}

std::string name_of(const OpCase& c) {
  return c.op + "/" + c.pass + "/" + c.granularity + "/" + type_name(c.type) + "/" +
         size_name(c.bytes);
}

// 64 channels, as in bench_ops.
std::vector<int64_t> shape_of(const OpCase& c) {
  const int64_t n = c.bytes / static_cast<int64_t>(c10::elementSize(c.type));
  if (c.granularity == "channel_1") return {n / 64 / 256, 64, 256};
  if (c.granularity == "channel_last") return {n / 64, 64};
  if (c.granularity == "per_tensor") return {n};
  return {64, n / 64};
}

Prepared prepare(const OpCase& c) {
  Prepared p;
  p.op_case = c;
  const auto device = at::device(at::kCUDA);
  const auto shape = shape_of(c);
  int l2 = 0;
  check(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, 0), "cudaDeviceGetAttribute");
  // Four times the cache: a hit by chance saves nothing that shows.
  const int64_t sets = std::clamp<int64_t>(4 * int64_t{l2} / c.bytes + 1, 2, 256);
  for (int64_t i = 0; i < sets; ++i) {
    const at::Tensor x = at::randn(shape, device).to(c.type);
    p.ring.push_back({x, at::Tensor(), at::Tensor()});
    if (c.pass == "fwd_bwd") {
      p.ring.back().x.requires_grad_();
      p.ring.back().grad = at::randn(shape, device).to(c.type);
    }
    if (c.op == "dequantize") {
      p.ring.back().codes = at::randint(kQuantMin, kQuantMax + 1, shape, device.dtype(at::kChar));
    }
  }
  std::vector<int64_t> params;
  if (c.granularity == "blocked") {
    p.axis = 1;
    p.block_size = 32;
    params = {shape[0], (shape[1] + 31) / 32};
  } else if (c.granularity != "per_tensor") {
    p.axis = c.granularity == "channel_0" ? 0 : 1;
    params = {64};
  }
  p.scale = at::rand(params, device) * 0.02 + 0.01;
  p.zero_point = at::zeros(params, device.dtype(at::kInt));
  p.float_zero_point = at::zeros(params, device);
  if (c.op == "fake_quantize_learned") {
    p.scale.requires_grad_();
    p.float_zero_point.requires_grad_();
  }
  return p;
}

// Of a parameter, in a shape that broadcasts over x.
at::Tensor broadcast(const Prepared& p, const at::Tensor& param) {
  if (p.block_size) return param.repeat_interleave(*p.block_size, 1);
  if (!p.axis) return param;
  std::vector<int64_t> view(p.ring[0].x.dim(), 1);
  view[*p.axis] = -1;
  return param.view(view);
}

using Forward = std::function<at::Tensor(const Prepared&, const Tensors&)>;
struct Row {
  std::string impl;
  Forward forward;
};

at::Tensor composite_codes(const Prepared& p, const Tensors& t, const at::Tensor& zero_point) {
  return ((t.x / broadcast(p, p.scale)).round() + broadcast(p, zero_point))
      .clamp(kQuantMin, kQuantMax);
}

std::vector<Row> fake_quantize_rows(const std::string& granularity) {
  std::vector<Row> rows = {{"ours", [](const Prepared& p, const Tensors& t) {
                              return qcdq::fake_quantize(t.x, p.scale, p.zero_point, kQuantMin,
                                                         kQuantMax, p.axis, p.block_size);
                            }}};
  if (granularity == "per_tensor") {
    rows.push_back({"aten", [](const Prepared&, const Tensors& t) {
                      return at::fake_quantize_per_tensor_affine(t.x, 0.02, 0, kQuantMin,
                                                                 kQuantMax);
                    }});
  } else if (granularity != "blocked") {
    rows.push_back({"aten", [](const Prepared& p, const Tensors& t) {
                      return at::fake_quantize_per_channel_affine(t.x, p.scale, p.zero_point,
                                                                  *p.axis, kQuantMin, kQuantMax);
                    }});
  }
  return rows;
}

std::vector<Row> learned_rows(const std::string& granularity) {
  std::vector<Row> rows = {{"ours", [](const Prepared& p, const Tensors& t) {
                              return qcdq::fake_quantize_learned(t.x, p.scale, p.float_zero_point,
                                                                 kQuantMin, kQuantMax, p.axis,
                                                                 p.block_size);
                            }}};
  if (granularity == "per_tensor") {
    rows.push_back({"aten_learnable", [](const Prepared& p, const Tensors& t) {
                      return at::_fake_quantize_learnable_per_tensor_affine(
                          t.x, p.scale.view(1), p.float_zero_point.view(1), kQuantMin, kQuantMax);
                    }});
  } else if (granularity != "blocked") {
    rows.push_back({"aten_learnable", [](const Prepared& p, const Tensors& t) {
                      return at::_fake_quantize_learnable_per_channel_affine(
                          t.x, p.scale, p.float_zero_point, *p.axis, kQuantMin, kQuantMax);
                    }});
  }
  return rows;
}

std::vector<Row> make_rows(const OpCase& c) {
  std::vector<Row> rows = {
      {"copy", [](const Prepared&, const Tensors& t) { return t.x.detach().clone(); }}};
  const auto add = [&](std::vector<Row> more) {
    rows.insert(rows.end(), more.begin(), more.end());
  };
  if (c.op == "fake_quantize" || c.op == "fake_quantize_learned") {
    const bool learned = c.op == "fake_quantize_learned";
    add(learned ? learned_rows(c.granularity) : fake_quantize_rows(c.granularity));
    if (c.pass == "fwd") {
      rows.push_back({"composite", [](const Prepared& p, const Tensors& t) {
                        return (composite_codes(p, t, p.zero_point) - broadcast(p, p.zero_point)) *
                               broadcast(p, p.scale);
                      }});
    }
  } else if (c.op == "quantize") {
    add({{"ours",
          [](const Prepared& p, const Tensors& t) {
            return qcdq::quantize(t.x, p.scale, p.zero_point, kQuantMin, kQuantMax, at::kChar,
                                  p.axis, p.block_size);
          }},
         {"composite", [](const Prepared& p, const Tensors& t) {
            return composite_codes(p, t, p.zero_point).to(at::kChar);
          }}});
  } else if (c.op == "dequantize") {
    add({{"ours",
          [](const Prepared& p, const Tensors& t) {
            return qcdq::dequantize(t.codes, p.scale, p.zero_point, p.axis, p.block_size,
                                    t.x.scalar_type());
          }},
         {"composite", [](const Prepared& p, const Tensors& t) {
            return (t.codes.to(at::kInt) - broadcast(p, p.zero_point)) * broadcast(p, p.scale);
          }}});
  } else if (c.op == "choose_qparams") {
    add({{"ours",
          [](const Prepared& p, const Tensors& t) {
            return std::get<0>(
                qcdq::choose_qparams(t.x, kQuantMin, kQuantMax, false, p.axis, p.block_size));
          }},
         {"aten_aminmax",
          [](const Prepared&, const Tensors& t) { return std::get<0>(at::aminmax(t.x)); }}});
  } else {
    add({{"ours", [](const Prepared& p, const Tensors& t) {
            return qcdq::fake_quantize_dynamic(t.x, kQuantMin, kQuantMax, false, p.axis,
                                               p.block_size);
          }}});
  }
  return rows;
}

// Times calls of a row over the ring, whose results are kept for a round, so that the memory they
// lie in changes as that of the inputs does.
class Timer {
 public:
  Timer() {
    check(cudaEventCreate(&start_), "cudaEventCreate");
    check(cudaEventCreate(&stop_), "cudaEventCreate");
  }
  ~Timer() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Nanoseconds of a call.
  double sample(const Prepared& p, const Row& row, int64_t calls) {
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
    results_.resize(p.ring.size());
    check(cudaEventRecord(start_, stream), "cudaEventRecord");
    for (int64_t i = 0; i < calls; ++i) call(p, row, i % p.ring.size());
    check(cudaEventRecord(stop_, stream), "cudaEventRecord");
    check(cudaEventSynchronize(stop_), "cudaEventSynchronize");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start_, stop_), "cudaEventElapsedTime");
    return static_cast<double>(milliseconds) * 1e6 / static_cast<double>(calls);
  }

  void clear() { results_.clear(); }

 private:
  void call(const Prepared& p, const Row& row, size_t place) {
    const Tensors& t = p.ring[place];
    const bool backward = p.op_case.pass == "fwd_bwd" && row.impl != "copy";
    const at::AutoGradMode mode(backward);
    at::Tensor y = row.forward(p, t);
    if (backward) {
      std::vector<at::Tensor> inputs = {t.x};
      if (p.op_case.op == "fake_quantize_learned") {
        inputs.insert(inputs.end(), {p.scale, p.float_zero_point});
      }
      // The gradient is kept beside the result.
      gradients_.resize(p.ring.size());
      gradients_[place] = torch::autograd::grad({y}, inputs, {t.grad})[0];
      y = y.detach();
    }
    results_[place] = y;
  }

  cudaEvent_t start_;
  cudaEvent_t stop_;
  std::vector<at::Tensor> results_;
  std::vector<at::Tensor> gradients_;
};

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

struct Output {
  explicit Output(const char* path) : file(std::fopen(path, "w")) {
    TORCH_CHECK(file != nullptr, "bench_gpu: cannot write ", path);
  }
  ~Output() { std::fclose(file); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  FILE* file;
  bool first = true;
};

std::string escaped(const std::string& text) {
  std::string line;
  for (const char c : text.substr(0, text.find('\n'))) {
    if (c == '"' || c == '\\') line += '\\';
    line += c;
  }
  return line;
}

void measure(const OpCase& c, Output* out) {
  const Prepared p = prepare(c);
  const std::vector<Row> rows = make_rows(c);
  std::vector<std::vector<double>> times(rows.size());
  std::vector<std::vector<double>> ratios(rows.size());
  std::vector<std::string> errors(rows.size());
  std::vector<int64_t> calls(rows.size(), 1);
  Timer timer;
  for (size_t r = 0; r < rows.size(); ++r) {
    try {
      timer.sample(p, rows[r], static_cast<int64_t>(p.ring.size()));
      const double once = timer.sample(p, rows[r], static_cast<int64_t>(p.ring.size()));
      calls[r] =
          std::clamp<int64_t>(static_cast<int64_t>(kSampleMilliseconds * 1e6 / once), 1, 10000);
    } catch (const std::exception& error) {
      errors[r] = error.what();
    }
    timer.clear();
  }
  for (int round = 0; round < kRounds; ++round) {
    for (size_t r = 0; r < rows.size(); ++r) {
      if (!errors[r].empty()) continue;
      timer.sample(p, rows[r], 1);  // another row's results lie in the cache
      times[r].push_back(timer.sample(p, rows[r], calls[r]));
      ratios[r].push_back(times[r].back() / times[0].back());
      timer.clear();
    }
  }
  const double elements = static_cast<double>(p.ring[0].x.numel());
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::string name = name_of(c) + "/t1/" + rows[r].impl;
    std::fprintf(out->file, "%s\n    {\"name\": \"%s\", ", out->first ? "" : ",", name.c_str());
    out->first = false;
    if (!errors[r].empty()) {
      std::fprintf(out->file, "\"error_occurred\": true, \"error_message\": \"%s\"}",
                   escaped(errors[r]).c_str());
      continue;
    }
    const double median = quantile(times[r], 0.5);
    std::fprintf(out->file,
                 "\"real_time\": %.6g, \"time_unit\": \"ns\", \"low_ns\": %.6g, \"high_ns\": %.6g, "
                 "\"ratio\": %.6g, \"ratio_low\": %.6g, \"ratio_high\": %.6g, \"samples\": %d, "
                 "\"elements\": %.0f, \"bytes_per_second\": %.6g, \"items_per_second\": %.6g}",
                 median, quantile(times[r], 0.25), quantile(times[r], 0.75),
                 quantile(ratios[r], 0.5), quantile(ratios[r], 0.25), quantile(ratios[r], 0.75),
                 kRounds, elements, 2e9 * static_cast<double>(c.bytes) / median,
                 1e9 * elements / median);
    std::printf("%-60s %10.2f us  %5.2fx the copy  %7.1f GB/s\n", name.c_str(), median / 1e3,
                quantile(ratios[r], 0.5), 2.0 * static_cast<double>(c.bytes) / median);
  }
  std::fflush(out->file);
}

std::vector<OpCase> all_cases() {
  std::vector<OpCase> cases;
  for (const int64_t bytes : {64 * kKiB, kMiB, 16 * kMiB, 64 * kMiB, 256 * kMiB}) {
    cases.push_back({"fake_quantize", "fwd", "per_tensor", at::kFloat, bytes});
  }
  for (const char* granularity : {"channel_0", "channel_1", "channel_last", "blocked"}) {
    cases.push_back({"fake_quantize", "fwd", granularity, at::kFloat, 64 * kMiB});
    cases.push_back({"fake_quantize_learned", "fwd_bwd", granularity, at::kFloat, 64 * kMiB});
    cases.push_back({"choose_qparams", "fwd", granularity, at::kFloat, 64 * kMiB});
  }
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
    for (const char* granularity :
         {"per_tensor", "channel_0", "channel_1", "channel_last", "blocked"}) {
      cases.push_back({"fake_quantize", "fwd", granularity, type, 64 * kMiB});
    }
  }
  for (const int64_t bytes : {kMiB, 64 * kMiB}) {
    cases.push_back({"fake_quantize", "fwd_bwd", "per_tensor", at::kFloat, bytes});
    cases.push_back({"fake_quantize_learned", "fwd_bwd", "per_tensor", at::kFloat, bytes});
    cases.push_back({"choose_qparams", "fwd", "per_tensor", at::kFloat, bytes});
    cases.push_back({"fake_quantize_dynamic", "fwd", "per_tensor", at::kFloat, bytes});
    cases.push_back({"quantize", "fwd", "per_tensor", at::kFloat, bytes});
    cases.push_back({"dequantize", "fwd", "per_tensor", at::kFloat, bytes});
  }
  return cases;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: bench_gpu OUT.json [FILTER]\n");
    return 2;
  }
  const std::string filter = argc == 3 ? argv[2] : "";
  try {
    TORCH_CHECK(torch::cuda::is_available(), "bench_gpu: no GPU: nothing was measured");
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    Output out(argv[1]);
    std::fprintf(out.file,
                 "{\n  \"context\": {\"torch\": \"%s\", \"gpu\": \"%s\"},\n  \"benchmarks\": [",
                 TORCH_VERSION, escaped(properties.name).c_str());
    bool found = false;
    for (const OpCase& c : all_cases()) {
      if (name_of(c).find(filter) == std::string::npos) continue;
      found = true;
      measure(c, &out);
    }
    TORCH_CHECK(found, "bench_gpu: no case has '", filter, "' in its name");
    std::fprintf(out.file, "\n  ]\n}\n");
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "%s\n", error.what_without_backtrace());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
