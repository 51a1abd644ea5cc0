// Benchmark of one training step (forward, cross entropy, backward, SGD) of ResNet-18 on a batch of
// 8 images of 3x112x112: float, and with the quantisers of resnet18.h by qcdq's and by torch's ops.
// All steps are interleaved; peak_bytes is the most that tensors held at once during a step.
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/torch.h>
#include <torch/version.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <unordered_map>
#include <utility>

#include "bench/interleave.h"
#include "bench/resnet18.h"

namespace {

using qcdq::bench::Quantization;

constexpr int64_t kBatch = 8;
constexpr int64_t kImage = 112;

/// Counts the bytes that torch's CPU allocator hands out while it is alive, on this thread (a
/// backward pass on the CPU runs on the thread that calls it).
class MemoryCount : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* ptr, int64_t bytes, size_t, size_t, c10::Device) override {
    if (bytes > 0) {
      sizes_[ptr] = bytes;
      held_ += bytes;
      peak_ = std::max(peak_, held_);
    } else if (const auto found = sizes_.find(ptr); found != sizes_.end()) {
      // What was there before is not ours to subtract.
      held_ -= found->second;
      sizes_.erase(found);
    }
  }
  bool memoryProfilingEnabled() const override { return true; }
  void restart() { peak_ = held_; }
  int64_t peak() const { return peak_; }

 private:
  std::unordered_map<void*, int64_t> sizes_;
  int64_t held_ = 0;
  int64_t peak_ = 0;
};

struct Training {
  explicit Training(Quantization quantization) : net(seeded(quantization)) {
    optimizer = std::make_unique<torch::optim::SGD>(net->parameters(), 1e-5);
    images = torch::rand({kBatch, 3, kImage, kImage});
    labels = torch::randint(1000, {kBatch}, torch::kLong);
  }
  static qcdq::bench::ResNet18 seeded(Quantization quantization) {
    torch::manual_seed(0);
    return qcdq::bench::ResNet18(quantization);
  }
  void step() {
    optimizer->zero_grad();
    const torch::Tensor loss = torch::cross_entropy_loss(net->forward(images), labels);
    loss.backward();
    optimizer->step();
  }

  qcdq::bench::ResNet18 net;
  std::unique_ptr<torch::optim::SGD> optimizer;
  torch::Tensor images, labels;
};

// The second step is the usual one: gradients and statistics exist by then.
int64_t peak_bytes(Quantization quantization) {
  const auto count = std::make_shared<MemoryCount>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, count);
  Training training(quantization);
  training.step();
  count->restart();
  training.step();
  return count->peak();
}

struct Mode {
  const char* impl;
  Quantization quantization;
  bool in_quick;
};
constexpr Mode kModes[] = {
    {"fp32", Quantization::kNone, true},
    {"ours", Quantization::kOurs, true},
    {"ours_learned", Quantization::kOursLearned, true},
    {"ours_layers", Quantization::kOursLayers, true},
    {"aten", Quantization::kAten, true},
    {"aten_learnable", Quantization::kAtenLearned, false},
    {"torch_ao", Quantization::kAtenObserved, true},
};

void add(int threads) {
  std::vector<Mode> modes;
  for (const Mode& mode : kModes) {
    if (mode.in_quick || !qcdq::bench::effort().quick) modes.push_back(mode);
  }
  std::vector<std::string> impls;
  for (const Mode& mode : modes) impls.emplace_back(mode.impl);
  qcdq::bench::add_group({
      .op = "resnet18",
      .pass = "train_step",
      .granularity = "channel_0",
      .type = "f32",
      .size = "8x3x112x112",
      .threads = threads,
      .impls = impls,
      .make =
          [modes, threads] {
            at::set_num_threads(threads);
            std::vector<qcdq::bench::Row> rows;
            for (const Mode& mode : modes) {
              qcdq::bench::set_counter(mode.impl, "peak_bytes",
                                       static_cast<double>(peak_bytes(mode.quantization)));
              auto training = std::make_shared<Training>(mode.quantization);
              rows.push_back({mode.impl, [training] { training->step(); }});
            }
            return rows;
          },
  });
}

}  // namespace

int main(int argc, char** argv) {
  add(1);
  const int all_threads = static_cast<int>(std::thread::hardware_concurrency());
  if (all_threads > 1 && !qcdq::bench::effort().quick) add(all_threads);
  return qcdq::bench::run(argc, argv, {{"torch", TORCH_VERSION}});
}
