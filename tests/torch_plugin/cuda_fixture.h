// What cuda_plan_test.cpp and cuda_reduce_test.cpp share: layouts of all granularities, values
// where the formula changes its mind, parameters of all types, arrays with guards.
#pragma once

#include <qcdq/affine.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "torch_plugin/kernels/cuda/element_types.h"
#include "torch_plugin/kernels/cuda/reduce_plan.h"

namespace qcdq::cuda {

// The parameter of an element by the definition in param_layout.h.
inline int64_t param_of(const ParamLayout& l, int64_t element) {
  const int64_t i = element % l.inner;
  const int64_t a = element / l.inner % l.axis;
  const int64_t o = element / l.inner / l.axis;
  return o * l.outer_step + a / l.block * l.axis_step + i * l.inner_step;
}

// All granularities, with sizes around the widths of vectors, teams and pieces.
inline std::vector<ParamLayout> small_layouts() {
  std::vector<ParamLayout> layouts;
  for (const int64_t n : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 1023, 1024, 1025, 4099}) {
    layouts.push_back(ParamLayout::per_tensor(n));
  }
  for (const int64_t outer : {1, 2, 5}) {
    for (const int64_t axis : {1, 3, 8}) {
      for (const int64_t inner : {1, 2, 4, 7, 16, 49}) {
        layouts.push_back(ParamLayout::per_channel(outer, axis, inner));
        for (const int64_t block : {1, 2, 3, 4, 8, 100}) {
          layouts.push_back(ParamLayout::blocked(outer, axis, inner, block));
        }
      }
    }
  }
  for (const int64_t axis : {32, 70, 128, 131}) {
    layouts.push_back(ParamLayout::blocked(3, axis, 1, 32));
    layouts.push_back(ParamLayout::per_channel(130, axis, 1));
    layouts.push_back(ParamLayout::blocked(2, axis, 5, 100));
  }
  layouts.push_back(ParamLayout::per_channel(3, 0, 4));
  layouts.push_back(ParamLayout::per_channel(0, 4, 4));
  layouts.push_back(ParamLayout::blocked(2, 8, 0, 4));
  return layouts;
}

// Runs longer than a piece, and many short runs.
inline std::vector<ParamLayout> large_layouts() {
  constexpr int64_t kPiece = RunPlan::kPiece;
  return {ParamLayout::per_tensor(kPiece),
          ParamLayout::per_tensor(kPiece + 1),
          ParamLayout::per_tensor(3 * kPiece - 1),
          ParamLayout::per_channel(2, 3, kPiece + 5),
          ParamLayout::per_channel(2, 3, 2 * kPiece),
          ParamLayout::per_channel(700, 3, 49),
          ParamLayout::per_channel(9000, 2, 2),
          ParamLayout::blocked(2, 2 * kPiece + 100, 1, kPiece + 8),
          ParamLayout::blocked(3, 5000, 1, 32),
          ParamLayout::blocked(2, 300, 33, 128),
          ParamLayout::per_channel(1000, 17, 1)};
}

inline std::string name_of(const ParamLayout& l) {
  return "outer " + std::to_string(l.outer) + " axis " + std::to_string(l.axis) + " inner " +
         std::to_string(l.inner) + " block " + std::to_string(l.block) + " params " +
         std::to_string(l.params());
}

template <typename X>
X from_float(float v) {
  return from_compute<X>(static_cast<ComputeType<X>>(v));
}

// Ties of the scales below, +-0, denormals, infinities, NaN, the ends of ranges, random values.
template <typename X>
std::vector<X> values(int64_t count, uint64_t seed) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> edges = {0.0f,    -0.0f, 0.25f,  -0.25f, 0.75f,  -0.75f,       1e-40f,
                                    -1e-40f, inf,   -inf,   3.875f, -4.25f, 63.75f,       64.0f,
                                    -65.0f,  1e30f, -1e30f, 1e-30f, 0.1f,   std::nanf("")};
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, 5.0f);
  std::vector<X> result;
  for (int64_t i = 0; i < count; ++i) {
    const bool edge = random() % 3 == 0;
    result.push_back(from_float<X>(edge ? edges[random() % edges.size()] : normal(random)));
  }
  return result;
}

template <typename T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// An array with a guard on each side, that starts `shift` elements behind a vector's place.
template <typename X>
class Guarded {
 public:
  Guarded(int64_t count, int shift)
      : shift_(kVectorBytes + shift),
        bytes_(sizeof(X) * (count + shift_ + kVectorBytes) + 64, 0x5A) {
    count_ = count;
  }
  X* data() {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    return reinterpret_cast<X*>(address + (64 - address % 64) % 64) + shift_;
  }
  bool guards_intact() {
    const auto* begin = bytes_.data();
    const auto* from = reinterpret_cast<const unsigned char*>(data());
    const auto* to = reinterpret_cast<const unsigned char*>(data() + count_);
    for (const auto* p = begin; p < begin + bytes_.size(); ++p) {
      if ((p < from || p >= to) && *p != 0x5A) return false;
    }
    return true;
  }

 private:
  int64_t shift_;
  std::vector<unsigned char> bytes_;
  int64_t count_ = 0;
};

// Parameters in the types that the ops may come with.
struct ParamValues {
  ParamValues(int64_t count, int64_t lowest, int64_t highest, ParamType scale_type,
              ParamType zero_point_type)
      : arrays{{nullptr, scale_type}, {nullptr, zero_point_type}, lowest, highest},
        scale_f32(count, 0),
        zero_point_i32(count, 0),
        zero_point_f32(count, 0) {
    std::mt19937_64 random(3);
    const std::vector<float> scales = {0.5f, 0.1f, 0.0123f, 2.0f};
    for (int64_t i = 0; i < count; ++i) {
      scale.push_back(scales[random() % scales.size()]);
      const int64_t width = std::min<int64_t>(highest - lowest + 1, 100);
      zero_point.push_back(lowest + static_cast<int64_t>(random() % width));
      // 0.375 more is rounded away again.
      const double learned = static_cast<double>(zero_point.back()) + 0.375;
      scale_f32.data()[i] = scale.back();
      scale_f64.push_back(scale.back());
      zero_point_i32.data()[i] = static_cast<int32_t>(zero_point.back());
      zero_point_f32.data()[i] = static_cast<float>(learned);
      zero_point_f64.push_back(learned);
    }
    arrays.scale.data = scale_type == ParamType::kFloat64
                            ? static_cast<const void*>(scale_f64.data())
                            : scale_f32.data();
    arrays.zero_point.data =
        zero_point_type == ParamType::kInt32     ? static_cast<const void*>(zero_point_i32.data())
        : zero_point_type == ParamType::kFloat64 ? static_cast<const void*>(zero_point_f64.data())
                                                 : zero_point_f32.data();
  }
  ParamValues(const ParamValues&) = delete;
  ParamValues& operator=(const ParamValues&) = delete;

  ParamArrays arrays;
  std::vector<float> scale;
  std::vector<int64_t> zero_point;
  Guarded<float> scale_f32;  // aligned: kernels may read vectors of them
  Guarded<int32_t> zero_point_i32;
  Guarded<float> zero_point_f32;
  std::vector<double> scale_f64;
  std::vector<double> zero_point_f64;
};

}  // namespace qcdq::cuda
