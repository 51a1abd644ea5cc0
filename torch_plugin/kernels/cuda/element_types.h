// Element and parameter types as GPU kernels read them: conversion of f16 and bf16 by the GPU's own
// instructions (on the host by float_types.h: the same values), vectors of 16 bytes, and scale and
// zero point of several types. Torch-free.
#pragma once

#include <qcdq/affine.h>

#include <cstdint>
#include <type_traits>

#include "torch_plugin/kernels/float_types.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif
#ifdef __CUDA_ARCH__
#define QCDQ_UNROLL _Pragma("unroll")
#else
#define QCDQ_UNROLL
#endif

namespace qcdq::cuda {

inline constexpr int kVectorBytes = 16;  // the widest load and store of a GPU thread

enum class FloatType { kF32, kF16, kBF16, kF64 };
enum class CodeType { kInt8, kUint8, kInt16, kUint16, kInt32 };

/// An element in the type that it is computed in.
QCDQ_HOST_DEVICE inline float widen(float v) { return v; }
QCDQ_HOST_DEVICE inline double widen(double v) { return v; }
QCDQ_HOST_DEVICE inline float widen(F16 v) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(v.bits));
#else
  return to_compute(v);
#endif
}
QCDQ_HOST_DEVICE inline float widen(BF16 v) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(static_cast<uint32_t>(v.bits) << 16);
#else
  return to_compute(v);
#endif
}

/// A computed value as an element, rounded to nearest, ties to even.
template <typename X>
QCDQ_HOST_DEVICE inline X narrow(ComputeType<X> v) {
  return v;
}
template <>
QCDQ_HOST_DEVICE inline F16 narrow<F16>(float v) {
#ifdef __CUDA_ARCH__
  return {__half_as_ushort(__float2half_rn(v))};
#else
  return from_compute<F16>(v);
#endif
}
template <>
QCDQ_HOST_DEVICE inline BF16 narrow<BF16>(float v) {
#ifdef __CUDA_ARCH__
  return {__bfloat16_as_ushort(__float2bfloat16_rn(v))};
#else
  return from_compute<BF16>(v);
#endif
}

/// N elements that are loaded and stored as one.
template <typename X, int N>
struct alignas(sizeof(X) * N) Vector {
  X v[N];
};

/// N elements from a multiple of the vector's size.
template <typename X, int N>
QCDQ_HOST_DEVICE Vector<X, N> load_vector(const X* from) {
  return *reinterpret_cast<const Vector<X, N>*>(from);
}

/// Loads `count` <= N elements, at once where they are all there and `aligned` says that `from` is
/// a multiple of the vector's size; the others are zeros.
template <typename X, int N>
QCDQ_HOST_DEVICE Vector<X, N> load_vector(const X* from, int64_t count, bool aligned) {
  if (aligned && count >= N) return load_vector<X, N>(from);
  Vector<X, N> result{};
  QCDQ_UNROLL
  for (int k = 0; k < N; ++k) {
    if (k < count) result.v[k] = from[k];
  }
  return result;
}

template <typename X, int N>
QCDQ_HOST_DEVICE void store_vector(const Vector<X, N>& from, X* to, int64_t count, bool aligned) {
  if (aligned && count >= N) {
    *reinterpret_cast<Vector<X, N>*>(to) = from;
    return;
  }
  QCDQ_UNROLL
  for (int k = 0; k < N; ++k) {
    if (k < count) to[k] = from.v[k];
  }
}

inline bool is_aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

/// Whether all addresses are multiples of kVectorBytes.
template <typename... Pointers>
bool all_aligned(const Pointers*... pointers) {
  return (is_aligned(pointers, kVectorBytes) && ...);
}

/// Scales or zero points in GPU memory, contiguous, in the order of a ParamLayout. kFloat64 only
/// for f64 elements.
enum class ParamType { kInt32, kFloat32, kFloat64 };
struct ParamArray {
  const void* data = nullptr;
  ParamType type = ParamType::kFloat32;
};

/// The parameters of a call. zero_point: kInt32, or floating (a learned one, rounded and clamped
/// where it is read). Values are not checked: that would need the host to wait for the GPU.
struct ParamArrays {
  ParamArray scale;
  ParamArray zero_point;
  int64_t quant_min = 0;
  int64_t quant_max = 0;
};

/// The formula's constants of one call, and its parameters as they are read. T computes, Acc holds
/// codes (cpu_kernels.h: KernelParams).
template <typename T, typename Acc>
struct Params {
  explicit Params(const ParamArrays& arrays)
      : scale_array(arrays.scale),
        zero_point_array(arrays.zero_point),
        quant_min(static_cast<Acc>(arrays.quant_min)),
        quant_max(static_cast<Acc>(arrays.quant_max)) {}

  QCDQ_HOST_DEVICE T scale(int64_t param) const {
    if constexpr (std::is_same_v<T, double>) {
      if (scale_array.type == ParamType::kFloat64) {
        return static_cast<const double*>(scale_array.data)[param];
      }
    }
    return static_cast<T>(static_cast<const float*>(scale_array.data)[param]);
  }
  QCDQ_HOST_DEVICE Acc zero_point(int64_t param) const {
    if (zero_point_array.type == ParamType::kInt32) {
      return static_cast<Acc>(static_cast<const int32_t*>(zero_point_array.data)[param]);
    }
    if constexpr (std::is_same_v<T, double>) {
      if (zero_point_array.type == ParamType::kFloat64) {
        return learned(static_cast<const double*>(zero_point_array.data)[param]);
      }
    }
    return learned(static_cast<const float*>(zero_point_array.data)[param]);
  }
  /// Whether `read` can take N of each.
  template <int N>
  bool can_read() const {
    return is_aligned(scale_array.data, sizeof(float) * N) &&
           is_aligned(zero_point_array.data, sizeof(float) * N);
  }
  /// N parameters from `first` on, a multiple of N. Only for T float, whose scales are f32 and zero
  /// points f32 or int32.
  template <int N>
  QCDQ_HOST_DEVICE void read(int64_t first, T (&scales)[N], Acc (&zero_points)[N]) const {
    const auto s = load_vector<float, N>(static_cast<const float*>(scale_array.data) + first);
    if (zero_point_array.type == ParamType::kInt32) {
      const auto z =
          load_vector<int32_t, N>(static_cast<const int32_t*>(zero_point_array.data) + first);
      QCDQ_UNROLL
      for (int k = 0; k < N; ++k) zero_points[k] = static_cast<Acc>(z.v[k]);
    } else {
      const auto z =
          load_vector<float, N>(static_cast<const float*>(zero_point_array.data) + first);
      QCDQ_UNROLL
      for (int k = 0; k < N; ++k) zero_points[k] = learned(z.v[k]);
    }
    QCDQ_UNROLL
    for (int k = 0; k < N; ++k) scales[k] = s.v[k];
  }
  QCDQ_HOST_DEVICE Acc clamp(Acc code) const { return clamp_code(code, quant_min, quant_max); }
  QCDQ_HOST_DEVICE bool inside(Acc unclamped) const {
    return unclamped >= quant_min && unclamped <= quant_max;
  }

  ParamArray scale_array;
  ParamArray zero_point_array;
  Acc quant_min;
  Acc quant_max;

 private:
  template <typename V>
  QCDQ_HOST_DEVICE Acc learned(V value) const {
    return clamp(static_cast<Acc>(round_half_even(value)));
  }
};

}  // namespace qcdq::cuda
