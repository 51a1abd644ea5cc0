// Benchmark of the ops through torch's dispatcher, forward and backward: ours, aten's, a composite
// of torch ops, and x.clone() as the ruler, since it allocates as the ops do. Rows: op_rows.cpp.
#include <torch/torch.h>
#include <torch/version.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <initializer_list>
#include <thread>

#include "bench/interleave.h"
#include "bench/op_rows.h"

namespace {

using qcdq::bench::OpCase;

constexpr int64_t kKiB = 1024;
constexpr int64_t kMiB = 1024 * kKiB;

void add(const OpCase& c) {
  const auto element = static_cast<int64_t>(c10::elementSize(c.type));
  const int64_t elements = c.bytes / element;
  qcdq::bench::add_group({
      .op = c.op,
      .pass = c.pass,
      .granularity = c.granularity,
      .type = qcdq::bench::type_name(c.type),
      // The smallest case is named by its elements: it shows the cost of a call.
      .size = elements == 64 ? "64" : qcdq::bench::size_name(c.bytes),
      .threads = c.threads,
      .elements = static_cast<double>(elements),
      .bytes = 2.0 * static_cast<double>(c.bytes),
      .impls = qcdq::bench::impls_of(c),
      .make = [c] { return qcdq::bench::make_rows(c); },
  });
}

using Names = std::initializer_list<const char*>;
using Sizes = std::vector<int64_t>;

void add_all(const char* op, Names passes, Names granularities, const Sizes& sizes,
             std::initializer_list<at::ScalarType> types = {at::kFloat}, int threads = 1) {
  for (const char* pass : passes) {
    for (const char* granularity : granularities) {
      for (const at::ScalarType type : types) {
        for (const int64_t bytes : sizes) add({op, pass, granularity, type, bytes, threads});
      }
    }
  }
}

// The rows of the headline table only; under a minute and a half.
void add_quick(int all_threads) {
  add_all("fake_quantize", {"fwd"}, {"per_tensor"},
          {256, 64 * kKiB, 256 * kKiB, 4 * kMiB, 64 * kMiB});
  add_all("fake_quantize", {"fwd_grad"}, {"per_tensor"}, {256});
  add_all("fake_quantize", {"fwd"}, {"channel_0", "channel_1", "channel_last", "blocked"},
          {4 * kMiB});
  add_all("fake_quantize", {"fwd"}, {"per_tensor"}, {4 * kMiB}, {at::kHalf, at::kBFloat16});
  add_all("fake_quantize", {"fwd_bwd"}, {"per_tensor"}, {256, 4 * kMiB});
  add_all("fake_quantize_learned", {"fwd_bwd"}, {"per_tensor"}, {256 * kKiB, 4 * kMiB});
  add_all("fake_quantize_learned", {"fwd_bwd"}, {"channel_0"}, {4 * kMiB});
  add_all("choose_qparams", {"fwd"}, {"per_tensor"}, {4 * kMiB});
  add_all("quantize", {"fwd"}, {"per_tensor"}, {4 * kMiB});
  add_all("dequantize", {"fwd"}, {"per_tensor"}, {4 * kMiB});
  if (all_threads > 1) {
    add_all("fake_quantize", {"fwd"}, {"per_tensor"}, {64 * kMiB}, {at::kFloat}, all_threads);
  }
}

void add_full(int all_threads) {
  const Sizes sizes = {256,      4 * kKiB,  64 * kKiB, 256 * kKiB, 1 * kMiB,
                       4 * kMiB, 16 * kMiB, 64 * kMiB, 256 * kMiB};
  const Sizes few = {64 * kKiB, 4 * kMiB, 64 * kMiB};
  const Names all = {"per_tensor", "channel_0", "channel_1", "channel_last", "blocked"};
  const Names others = {"channel_0", "channel_1", "channel_last", "blocked"};
  add_all("fake_quantize", {"fwd"}, {"per_tensor"}, sizes);
  add_all("fake_quantize", {"fwd_grad"}, {"per_tensor"}, {256});
  add_all("fake_quantize", {"fwd"}, others, few);
  add_all("fake_quantize", {"fwd"}, {"per_tensor"}, few, {at::kHalf, at::kBFloat16});
  add_all("fake_quantize", {"fwd"}, others, {4 * kMiB}, {at::kHalf, at::kBFloat16});
  add_all("fake_quantize", {"fwd_bwd"}, {"per_tensor"}, {256, 64 * kKiB, 4 * kMiB, 64 * kMiB});
  add_all("fake_quantize", {"fwd_bwd"}, others, {4 * kMiB});
  add_all("fake_quantize_learned", {"fwd_bwd"}, {"per_tensor"},
          {256, 256 * kKiB, 4 * kMiB, 64 * kMiB});
  add_all("fake_quantize_learned", {"fwd_bwd"}, others, {4 * kMiB});
  add_all("choose_qparams", {"fwd"}, {"per_tensor"}, few);
  add_all("choose_qparams", {"fwd"}, others, {4 * kMiB});
  add_all("fake_quantize_dynamic", {"fwd"}, {"per_tensor"}, few);
  add_all("quantize", {"fwd"}, all, {4 * kMiB});
  add_all("dequantize", {"fwd"}, all, {4 * kMiB});
  if (all_threads > 1) {
    add_all("fake_quantize", {"fwd"}, {"per_tensor"},
            {256, 64 * kKiB, 1 * kMiB, 4 * kMiB, 64 * kMiB, 256 * kMiB}, {at::kFloat}, all_threads);
    add_all("fake_quantize_learned", {"fwd_bwd"}, {"per_tensor"}, {64 * kMiB}, {at::kFloat},
            all_threads);
  }
}

// Results come from memory that earlier ones left, for every row alike. As it is, glibc gives back
// what is larger than some MiB and takes it again, page by page, or does not, depending on what the
// row before allocated: a copy of 4 MiB then takes 0.15 or 1.1 ms.
void keep_pages() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  keep_pages();
  const int all_threads = static_cast<int>(std::thread::hardware_concurrency());
  if (qcdq::bench::effort().quick) {
    add_quick(all_threads);
  } else {
    add_full(all_threads);
  }
  return qcdq::bench::run(argc, argv, {{"torch", TORCH_VERSION}});
}
