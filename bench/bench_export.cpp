// Benchmark of the export of ResNet-18 (a C++ module) to ONNX, float and quantised; the ruler is
// one forward on the same input, which an export contains. `--save DIR` writes fp32.onnx and
// qcdq.onnx, of the same weights, for ort_latency.py instead of measuring.
#include <torch/torch.h>
#include <torch/version.h>

#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "bench/interleave.h"
#include "bench/resnet18.h"
#include "qcdq/export.h"

namespace {

using qcdq::bench::Quantization;
using qcdq::bench::ResNet18;

// One training forward gives BatchNorm statistics, and quantisers of layers their scales.
ResNet18 prepared(Quantization quantization) {
  torch::manual_seed(0);
  ResNet18 net(quantization, qcdq::bench::Sites::kEverywhere);
  {
    const torch::NoGradGuard no_grad;
    torch::manual_seed(1);
    for (int i = 0; i < 3; ++i) net->forward(torch::rand({8, 3, 112, 112}));
  }
  net->eval();
  return net;
}

void add(const char* pass, Quantization quantization) {
  qcdq::bench::add_group({
      .op = "resnet18",
      .pass = pass,
      .granularity = quantization == Quantization::kNone ? "-" : "channel_0",
      .type = "f32",
      .size = "1x3x224x224",
      .threads = 1,
      .impls = {"forward", "ours"},
      .make =
          [quantization] {
            at::set_num_threads(1);
            ResNet18 net = prepared(quantization);
            const torch::Tensor x = torch::rand({1, 3, 224, 224});
            const std::string path =
                (std::filesystem::temp_directory_path() / "qcdq_bench_export.onnx").string();
            std::vector<qcdq::bench::Row> rows;
            rows.push_back({"forward", [net, x]() mutable {
                              const torch::NoGradGuard no_grad;
                              const torch::Tensor y = net->forward(x);
                            }});
            rows.push_back({"ours", [net, x, path] {
                              qcdq::export_onnx(net, {x}, path);
                              std::filesystem::remove(path);
                            }});
            return rows;
          },
  });
}

int save(const std::string& folder) try {
  std::filesystem::create_directories(folder);
  const torch::Tensor x = torch::rand({1, 3, 224, 224});
  qcdq::export_onnx(prepared(Quantization::kNone), {x}, folder + "/fp32.onnx");
  qcdq::export_onnx(prepared(Quantization::kOursLayers), {x}, folder + "/qcdq.onnx");
  std::cout << folder << "/fp32.onnx " << folder << "/qcdq.onnx\n";
  return 0;
} catch (const std::exception& error) {
  std::cerr << "bench_export --save " << folder << ": " << error.what() << "\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--save") == 0) return save(argv[2]);
  add("export_fp32", Quantization::kNone);
  add("export_qcdq", Quantization::kOursLayers);
  return qcdq::bench::run(argc, argv, {{"torch", TORCH_VERSION}});
}
