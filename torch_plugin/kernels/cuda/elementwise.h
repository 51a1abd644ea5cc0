// The elementwise kernels of the GPU as plain functions of (block, thread): which elements a thread
// takes, and what it computes of each by the formula of affine.h. The .cu files launch them; they
// compile for the host too, where tests/torch_plugin/cuda_plan_test.cpp runs every thread of a grid
// and compares with affine.h. Torch-free.
#pragma once

#include <type_traits>

#include "torch_plugin/kernels/cuda/element_types.h"
#include "torch_plugin/kernels/cuda/param_index.h"

namespace qcdq::cuda {

inline constexpr int kThreads = 128;

// --- what is computed of one element: out = apply(params, first, second, ratio, scale,
// zero_point), where ratio = dividend(first, second) / scale
// ------------------------------------------------------

struct None {};  // the second input of an op that has one

template <typename T, typename Acc>
QCDQ_HOST_DEVICE Acc unclamped_code_of(T ratio, Acc zero_point) {
  return static_cast<Acc>(round_half_even(ratio)) + zero_point;
}

template <typename X, typename AccType>
struct FakeQuantize {
  using First = X;
  using Second = None;
  using Out = X;
  using T = ComputeType<X>;
  using Acc = AccType;
  static QCDQ_HOST_DEVICE T dividend(First x, Second) { return widen(x); }
  static QCDQ_HOST_DEVICE Out apply(const Params<T, Acc>& p, First, Second, T ratio, T scale,
                                    Acc zero_point) {
    const Acc code = p.clamp(unclamped_code_of(ratio, zero_point));
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
  static QCDQ_HOST_DEVICE T dividend(First, Second x) { return widen(x); }
  static QCDQ_HOST_DEVICE Out apply(const Params<T, Acc>& p, First grad, Second, T ratio, T,
                                    Acc zero_point) {
    return p.inside(unclamped_code_of(ratio, zero_point)) ? grad : X{};
  }
};

template <typename X, typename Code, typename AccType>
struct Quantize {
  using First = X;
  using Second = None;
  using Out = Code;
  using T = ComputeType<X>;
  using Acc = AccType;
  static QCDQ_HOST_DEVICE T dividend(First x, Second) { return widen(x); }
  static QCDQ_HOST_DEVICE Out apply(const Params<T, Acc>& p, First, Second, T ratio, T,
                                    Acc zero_point) {
    const Acc code = p.clamp(unclamped_code_of(ratio, zero_point));
    return static_cast<Code>(static_cast<int32_t>(code));  // every storage type is in int32
  }
};

/// Its ratio is not used (and so not computed).
template <typename X, typename Code, typename AccType>
struct Dequantize {
  using First = Code;
  using Second = None;
  using Out = X;
  using T = ComputeType<X>;
  using Acc = AccType;
  static QCDQ_HOST_DEVICE T dividend(First, Second) { return T(0); }
  static QCDQ_HOST_DEVICE Out apply(const Params<T, Acc>&, First code, Second, T, T scale,
                                    Acc zero_point) {
    return narrow<X>(value_of_code<T, Acc>(static_cast<Acc>(code), scale, zero_point));
  }
};

/// ratio[k] = x[k] / scale. The GPU has no division: nvcc compiles one to a reciprocal that is
/// corrected, a product that is corrected, and checks of the exponents. Here the reciprocal and the
/// checks are shared. The quotient of an x below 2^-100 may be a bit off: it is below 2^-40, and
/// its rounding to an integer does not see that.
template <typename T, int N>
QCDQ_HOST_DEVICE void divide_all(const T (&x)[N], T scale, T (&ratio)[N]) {
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<T, float>) {
    constexpr float kSmall = 0x1p-60f;  // between these no step over- or underflows
    constexpr float kLarge = 0x1p60f;
    float largest = 0.0f;
    QCDQ_UNROLL
    for (int k = 0; k < N; ++k) largest = fmaxf(largest, fabsf(x[k]));
    if (scale >= kSmall && scale <= kLarge && largest <= kLarge) {
      float rough;
      asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(rough) : "f"(scale));
      const float reciprocal = __fmaf_rn(rough, __fmaf_rn(-scale, rough, 1.0f), rough);
      QCDQ_UNROLL
      for (int k = 0; k < N; ++k) {
        const float q = __fmul_rn(x[k], reciprocal);
        ratio[k] = __fmaf_rn(reciprocal, __fmaf_rn(-scale, q, x[k]), q);
      }
      return;
    }
  }
#endif
  QCDQ_UNROLL
  for (int k = 0; k < N; ++k) ratio[k] = x[k] / scale;
}

/// Elements that a thread loads at once.
template <typename Op>
constexpr int vector_of() {
  constexpr int first = sizeof(typename Op::First);
  constexpr int out = sizeof(typename Op::Out);
  return kVectorBytes / (first > out ? first : out);
}

// --- which elements a thread takes, and which parameters they have
// ---------------------------------------------------------------

/// What the parameters of a vector's elements have to do with each other.
enum class Sharing {
  kAll,          // the layout has one parameter
  kVector,       // a vector's elements share one
  kConsecutive,  // they take as many consecutive ones, the first a multiple of their number
  kAny
};

/// `vector`: elements of a full load; vectors start at multiples of it.
inline Sharing sharing_of(const ParamLayout& l, int vector) {
  if (l.one_param()) return Sharing::kAll;
  const bool steps_fit = l.outer_step % vector == 0 && l.axis_step % vector == 0;
  if (l.inner % vector == 0 && l.inner_step == 0) return Sharing::kVector;
  if (l.inner % vector == 0 && l.inner_step == 1 && steps_fit) return Sharing::kConsecutive;
  if (l.inner != 1 || l.axis % vector != 0) return Sharing::kAny;
  if (l.block % vector == 0) return Sharing::kVector;
  if (l.block == 1 && l.axis_step == 1 && l.outer_step % vector == 0) return Sharing::kConsecutive;
  return Sharing::kAny;
}

/// An op over a dense array.
template <typename Op, Sharing kSharing>
struct Elementwise {
  using First = typename Op::First;
  using Second = typename Op::Second;
  using Out = typename Op::Out;
  using T = typename Op::T;
  using Acc = typename Op::Acc;
  static constexpr bool kTwoInputs = !std::is_same_v<Second, None>;
  static constexpr int kVector = vector_of<Op>();

  /// Blocks of kThreads that the array takes.
  int64_t blocks() const {
    constexpr int64_t kPerBlock = int64_t{kThreads} * kVector;
    return (count + kPerBlock - 1) / kPerBlock;
  }

  /// The work of one thread: a vector. Consecutive threads take consecutive ones. (Two for each
  /// thread were slower on an H100: fewer threads fit a multiprocessor.)
  QCDQ_HOST_DEVICE void run(int64_t block, int thread) const {
    const int64_t at = (block * kThreads + thread) * kVector;
    if (at >= count) return;
    const auto firsts = load_vector<First, kVector>(first + at, count - at, aligned);
    Vector<Second, kVector> seconds;
    if constexpr (kTwoInputs) {
      seconds = load_vector<Second, kVector>(second + at, count - at, aligned);
    }
    store_vector<Out, kVector>(compute(at, firsts, seconds), out + at, count - at, aligned);
  }

  const First* first;
  const Second* second;  // null where the op has one input
  Out* out;
  int64_t count;
  bool aligned;  // every array starts at a multiple of kVectorBytes
  ParamIndex index;
  Params<T, Acc> params;

 private:
  // Elements past the end are computed too (of zeros), with the last parameter that was read.
  QCDQ_HOST_DEVICE Vector<Out, kVector> compute(int64_t at, const Vector<First, kVector>& firsts,
                                                const Vector<Second, kVector>& seconds) const {
    Vector<Out, kVector> results;
    if constexpr (kSharing == Sharing::kAll || kSharing == Sharing::kVector) {
      const int64_t param = kSharing == Sharing::kAll ? 0 : index.param(at);
      const T scale = params.scale(param);
      const Acc zero_point = params.zero_point(param);
      T dividends[kVector];
      T ratios[kVector];
      QCDQ_UNROLL
      for (int k = 0; k < kVector; ++k) {
        dividends[k] = Op::dividend(firsts.v[k], seconds.v[k]);
      }
      divide_all(dividends, scale, ratios);
      QCDQ_UNROLL
      for (int k = 0; k < kVector; ++k) {
        results.v[k] = Op::apply(params, firsts.v[k], seconds.v[k], ratios[k], scale, zero_point);
      }
    } else if constexpr (kSharing == Sharing::kConsecutive) {
      T scales[kVector];
      Acc zero_points[kVector];
      params.template read<kVector>(index.param(at), scales, zero_points);
      QCDQ_UNROLL
      for (int k = 0; k < kVector; ++k) {
        const T ratio = Op::dividend(firsts.v[k], seconds.v[k]) / scales[k];
        results.v[k] =
            Op::apply(params, firsts.v[k], seconds.v[k], ratio, scales[k], zero_points[k]);
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
        const T ratio = Op::dividend(firsts.v[k], seconds.v[k]) / scale;
        results.v[k] = Op::apply(params, firsts.v[k], seconds.v[k], ratio, scale, zero_point);
        cursor.next();
      }
    }
    return results;
  }
};

}  // namespace qcdq::cuda
