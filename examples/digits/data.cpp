// Reads digits.bin: 65 bytes an image, 64 pixels of 0 to 16 and a label. digits.cpp trains on it.
#include "data.h"

#include <ATen/ATen.h>

#include <fstream>
#include <iterator>
#include <numeric>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {
constexpr int64_t kPixels = 64, kRecord = kPixels + 1;
}

Digits load_digits(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  if (bytes.empty() || bytes.size() % kRecord != 0) {
    throw std::runtime_error(path + " has " + std::to_string(bytes.size()) +
                             " bytes; expected 65 for each image");
  }
  const auto count = static_cast<int64_t>(bytes.size()) / kRecord;
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 random(2026);  // written out: std::shuffle differs between standard libraries
  for (int64_t i = count - 1; i > 0; --i) std::swap(order[i], order[random() % (i + 1)]);

  const at::Tensor table = at::empty({count, kRecord}, at::kFloat);
  float* values = table.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < kRecord; ++j) {
      values[i * kRecord + j] = static_cast<float>(bytes[order[i] * kRecord + j]);
    }
  }
  const at::Tensor images = table.narrow(1, 0, kPixels).reshape({count, 1, 8, 8}) / 16;
  const at::Tensor labels = table.select(1, kPixels).to(at::kLong);
  const int64_t held_out = count / 5;
  return {images.narrow(0, held_out, count - held_out),
          labels.narrow(0, held_out, count - held_out), images.narrow(0, 0, held_out),
          labels.narrow(0, 0, held_out)};
}
