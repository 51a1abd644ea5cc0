// The elementwise kernels of the GPU as plain functions of (block, thread): which elements a thread
// takes, and what it computes of each by the formula of affine.h. The .cu files launch them; they
// compile for the host too, where tests/torch_plugin/cuda_plan_test.cpp runs every thread of a grid
// and compares with affine.h. Torch-free.
#pragma once

#include <type_traits>

#include "torch_plugin/kernels/cuda/element_types.h"
#include "torch_plugin/kernels/cuda/param_index.h"

namespace qcdq::cuda {

inline constexpr int kThreads = 256;
inline constexpr int kVectorsPerThread = 2;  // both are loaded before either is computed

// --- what is computed of one element: out = op(params, first, second, scale, zero_point) ---------

template <typename X, typename AccType>
struct FakeQuantize {
  using First = X;
  using Second = void;
  using Out = X;
  using T = ComputeType<X>;
  using Acc = AccType;
  static QCDQ_HOST_DEVICE Out apply(const Params<T, Acc>& p, First x, T scale, Acc zero_point) {
    const Acc code = p.clamp(unclamped_code<T, Acc>(widen(x), scale, zero_point));
    return narrow<X>(value_of_code<T, Acc>(code, scale, zero_point));
  }
};

/// First is the gradient, Second x: the mask is computed again, which costs less than to store it.
template <typename X, typename AccType>
struct FakeQuantizeBackward {
  using First = X;
  using Second = X;
  using Out = X;
  using T = ComputeType<X>;
  using Acc = AccType;
  static QCDQ_HOST_DEVICE Out apply(const Params<T, Acc>& p, First grad, Second x, T scale,
                                    Acc zero_point) {
    return p.inside(unclamped_code<T, Acc>(widen(x), scale, zero_point)) ? grad : X{};
  }
};

template <typename X, typename Code, typename AccType>
struct Quantize {
  using First = X;
  using Second = void;
  using Out = Code;
  using T = ComputeType<X>;
  using Acc = AccType;
  static QCDQ_HOST_DEVICE Out apply(const Params<T, Acc>& p, First x, T scale, Acc zero_point) {
    const Acc code = p.clamp(unclamped_code<T, Acc>(widen(x), scale, zero_point));
    return static_cast<Code>(static_cast<int32_t>(code));  // every storage type is in int32
  }
};

template <typename X, typename Code, typename AccType>
struct Dequantize {
  using First = Code;
  using Second = void;
  using Out = X;
  using T = ComputeType<X>;
  using Acc = AccType;
  static QCDQ_HOST_DEVICE Out apply(const Params<T, Acc>&, First code, T scale, Acc zero_point) {
    return narrow<X>(value_of_code<T, Acc>(static_cast<Acc>(code), scale, zero_point));
  }
};

// --- which elements a thread takes
// ---------------------------------------------------------------

/// An op over a dense array. kOneParam: the layout has one parameter for all elements.
template <typename Op, bool kOneParam>
struct Elementwise {
  using First = typename Op::First;
  using Second = std::conditional_t<std::is_void_v<typename Op::Second>, char, typename Op::Second>;
  using Out = typename Op::Out;
  using T = typename Op::T;
  using Acc = typename Op::Acc;
  static constexpr bool kTwoInputs = !std::is_void_v<typename Op::Second>;
  static constexpr int kWidest = sizeof(First) > sizeof(Out) ? sizeof(First) : sizeof(Out);
  static constexpr int kVector = kVectorBytes / kWidest;
  static constexpr int64_t kTile = int64_t{kThreads} * kVectorsPerThread * kVector;

  /// Blocks of kThreads that the array takes.
  int64_t blocks() const { return (count + kTile - 1) / kTile; }

  /// The work of one thread. Consecutive threads take consecutive vectors.
  QCDQ_HOST_DEVICE void run(int64_t block, int thread) const {
    Vector<First, kVector> firsts[kVectorsPerThread];
    Vector<Second, kVector> seconds[kVectorsPerThread];
    QCDQ_UNROLL
    for (int i = 0; i < kVectorsPerThread; ++i) {
      const int64_t at = offset(block, thread, i);
      if (at >= count) continue;
      firsts[i] = load_vector<First, kVector>(first + at, count - at, aligned);
      if constexpr (kTwoInputs) {
        seconds[i] = load_vector<Second, kVector>(second + at, count - at, aligned);
      }
    }
    QCDQ_UNROLL
    for (int i = 0; i < kVectorsPerThread; ++i) {
      const int64_t at = offset(block, thread, i);
      if (at >= count) continue;
      const Vector<Out, kVector> results = compute(at, firsts[i], seconds[i]);
      store_vector<Out, kVector>(results, out + at, count - at, aligned);
    }
  }

  const First* first;
  const Second* second;  // null where the op has one input
  Out* out;
  int64_t count;
  bool aligned;  // every array starts at a multiple of kVectorBytes
  ParamIndex index;
  Params<T, Acc> params;

 private:
  static QCDQ_HOST_DEVICE int64_t offset(int64_t block, int thread, int vector) {
    return block * kTile + (int64_t{vector} * kThreads + thread) * kVector;
  }

  QCDQ_HOST_DEVICE Out apply(const Vector<First, kVector>& firsts,
                             const Vector<Second, kVector>& seconds, int k, T scale,
                             Acc zero_point) const {
    if constexpr (kTwoInputs) {
      return Op::apply(params, firsts.v[k], seconds.v[k], scale, zero_point);
    } else {
      return Op::apply(params, firsts.v[k], scale, zero_point);
    }
  }

  // Elements past the end are computed too (of zeros), with the last parameter that was read.
  QCDQ_HOST_DEVICE Vector<Out, kVector> compute(int64_t at, const Vector<First, kVector>& firsts,
                                                const Vector<Second, kVector>& seconds) const {
    Vector<Out, kVector> results;
    if constexpr (kOneParam) {
      const T scale = params.scale(0);
      const Acc zero_point = params.zero_point(0);
      QCDQ_UNROLL
      for (int k = 0; k < kVector; ++k) {
        results.v[k] = apply(firsts, seconds, k, scale, zero_point);
      }
    } else {
      ParamCursor cursor(index, at);
      int64_t read = cursor.param();
      T scale = params.scale(read);
      Acc zero_point = params.zero_point(read);
      QCDQ_UNROLL
      for (int k = 0; k < kVector; ++k) {
        if (cursor.param() != read && at + k < count) {
          read = cursor.param();
          scale = params.scale(read);
          zero_point = params.zero_point(read);
        }
        results.v[k] = apply(firsts, seconds, k, scale, zero_point);
        cursor.next();
      }
    }
    return results;
  }
};

}  // namespace qcdq::cuda
