// The loops of param_values.h, compiled to be vectorised: no branch for an element, and flags as
// wide as the values.
#include "torch_plugin/kernels/param_values.h"

#include <limits>
#include <type_traits>

namespace qcdq {
namespace {

template <typename T>
using Flag = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

}  // namespace

template <typename From, typename T>
void convert_values(const From* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (std::is_arithmetic_v<From>) {
      to[i] = static_cast<T>(from[i]);
    } else {
      to[i] = to_compute(from[i]);
    }
  }
}

template <typename T>
bool all_finite_and_positive(const T* values, int64_t count) {
  constexpr T kLargest = std::numeric_limits<T>::max();
  Flag<T> bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    bad |= (values[i] > T(0) ? 0 : 1) | (values[i] <= kLargest ? 0 : 1);
  }
  return bad == 0;
}

template <typename T>
bool all_within(const T* values, int64_t count, T lowest, T highest) {
  Flag<T> bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    bad |= (values[i] >= lowest ? 0 : 1) | (values[i] <= highest ? 0 : 1);
  }
  return bad == 0;
}

#define QCDQ_INSTANTIATE_FROM(From)                           \
  template void convert_values(const From*, int64_t, float*); \
  template void convert_values(const From*, int64_t, double*);
QCDQ_INSTANTIATE_FROM(float)
QCDQ_INSTANTIATE_FROM(double)
QCDQ_INSTANTIATE_FROM(F16)
QCDQ_INSTANTIATE_FROM(BF16)
QCDQ_INSTANTIATE_FROM(int8_t)
QCDQ_INSTANTIATE_FROM(uint8_t)
QCDQ_INSTANTIATE_FROM(int16_t)
QCDQ_INSTANTIATE_FROM(uint16_t)
QCDQ_INSTANTIATE_FROM(int32_t)
QCDQ_INSTANTIATE_FROM(uint32_t)
QCDQ_INSTANTIATE_FROM(int64_t)

#define QCDQ_INSTANTIATE(T)                                 \
  template bool all_finite_and_positive(const T*, int64_t); \
  template bool all_within(const T*, int64_t, T, T);
QCDQ_INSTANTIATE(float)
QCDQ_INSTANTIATE(double)

}  // namespace qcdq
