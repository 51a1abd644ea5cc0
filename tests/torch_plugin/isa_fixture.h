// What the tests of the SIMD kernels share: buffers that end at a guard page, settings with the
// values that show their edges, the parameters of a call. Used by isa_test.cpp and
// isa_reduce_test.cpp.
#pragma once

#include <qcdq/affine.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "torch_plugin/kernels/cpu_kernels.h"

namespace qcdq {

// `count` elements that end where an unreadable page begins: one read or write too far is a fault.
template <typename T>
class GuardedArray {
 public:
  explicit GuardedArray(int64_t count) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    size_ = (bytes + page - 1) / page * page + page;
    base_ = static_cast<char*>(
        mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + size_ - page, page, PROT_NONE) != 0) {
      throw std::runtime_error("no memory for a guarded array");
    }
    data_ = reinterpret_cast<T*>(base_ + size_ - page - bytes);
  }
  explicit GuardedArray(const std::vector<T>& values) : GuardedArray(values.size()) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~GuardedArray() { munmap(base_, size_); }
  GuardedArray(const GuardedArray&) = delete;
  GuardedArray& operator=(const GuardedArray&) = delete;

  T* data() { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  int64_t size() const { return count_; }

 private:
  int64_t count_;
  size_t size_;
  char* base_;
  T* data_;
};

struct Setting {
  float scale;
  int64_t zero_point;
  int64_t quant_min;
  int64_t quant_max;
};

inline const std::vector<Setting> kSettings = {
    {0.1f, 0, -128, 127},  {0.0123f, 3, -128, 127},        {0.0021485f, 128, 0, 255},
    {0.5f, -3, -8, 7},     {1e-38f, 0, -127, 127},         {1e30f, 1, 0, 3},
    {3.7f, 0, -3, 3},      {0.25f, -1, -32768, 32767},     {0.013f, 32768, 0, 65535},
    {1.0f, 150, 100, 200}, {0.7f, 5, -(1 << 23), 1 << 23}, {1e-45f, 0, -8, 7},
};

inline bool narrow_enough(const Setting& s) {
  return !needs_wide_accumulator(s.quant_min, s.quant_max);
}

// Every point where the formula changes its mind and its neighbours, specials, then random values.
inline std::vector<float> interesting_values(const Setting& s) {
  using Limits = std::numeric_limits<float>;
  std::vector<float> values = {0.0f,
                               -0.0f,
                               Limits::denorm_min(),
                               -Limits::denorm_min(),
                               Limits::min(),
                               -Limits::min(),
                               Limits::max(),
                               Limits::lowest(),
                               Limits::infinity(),
                               -Limits::infinity(),
                               Limits::quiet_NaN(),
                               -Limits::quiet_NaN(),
                               65504.0f,
                               65520.0f,
                               6e-8f,
                               -6e-8f};
  const auto around = [&](double code) {
    for (const double at : {code, code + 0.5}) {
      const float v = static_cast<float>(at * static_cast<double>(s.scale));
      values.push_back(v);
      values.push_back(std::nextafter(v, Limits::infinity()));
      values.push_back(std::nextafter(v, -Limits::infinity()));
    }
  };
  for (int code = -12; code <= 12; ++code) around(code);
  for (const int64_t bound : {s.quant_min, s.quant_max}) {
    for (int64_t d = -2; d <= 2; ++d) around(static_cast<double>(bound - s.zero_point + d));
  }
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> codes(
      1.2 * static_cast<double>(s.quant_min - s.zero_point) - 1.0,
      1.2 * static_cast<double>(s.quant_max - s.zero_point) + 1.0);
  for (int i = 0; i < 200; ++i) {
    values.push_back(static_cast<float>(codes(random) * static_cast<double>(s.scale)));
  }
  return values;
}

template <typename X>
std::vector<X> stored(const std::vector<float>& values) {
  std::vector<X> out;
  for (const float v : values) out.push_back(from_compute<X>(v));
  return out;
}

template <typename X>
X expected_fake_quantize(X x, const Setting& s) {
  return from_compute<X>(
      fake_quantize_one(to_compute(x), s.scale, s.zero_point, s.quant_min, s.quant_max));
}

template <typename X>
bool expected_inside(X x, const Setting& s) {
  const float code = unclamped_code(to_compute(x), s.scale, static_cast<float>(s.zero_point));
  return code >= static_cast<float>(s.quant_min) && code <= static_cast<float>(s.quant_max);
}

template <typename T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// A call's parameters, kept alive.
struct Call {
  Call(const ParamLayout& l, const Setting& s)
      : layout(l),
        scale(l.params(), s.scale),
        zero_point(l.params(), static_cast<float>(s.zero_point)),
        lowest(static_cast<float>(s.quant_min)),
        highest(static_cast<float>(s.quant_max)) {}
  SimdRuns runs() const { return runs(0, layout.runs()); }
  SimdRuns runs(int64_t begin, int64_t end) const {
    return {&layout, begin, end, scale.data(), zero_point.data(), lowest, highest, streamed};
  }
  SimdParams params() const { return {scale.data(), zero_point.data(), lowest, highest}; }
  ParamLayout layout;
  std::vector<float> scale;
  std::vector<float> zero_point;
  float lowest;
  float highest;
  bool streamed = false;
};

}  // namespace qcdq
