// The loops of cpu_kernels.h. Kept plain, so that the compiler vectorises them: parameters are
// loaded once per run and the accumulator type is chosen outside of the loop.
#include "torch_plugin/kernels/cpu_kernels.h"

#include <qcdq/affine.h>

#include <algorithm>
#include <type_traits>

namespace qcdq {
namespace {

// Calls loop(Acc{}) with the accumulator that the range needs.
template <typename T, typename Loop>
void with_accumulator(const RunParams<T>& params, Loop&& loop) {
  if constexpr (std::is_same_v<T, float>) {
    if (!needs_wide_accumulator(params.quant_min, params.quant_max)) {
      loop(float{});
      return;
    }
  }
  loop(double{});
}

// Calls body(i, scale, zero_point) for every element of a run.
template <typename Acc, typename T, typename Body>
void for_each_element(int64_t count, const RunParams<T>& params, Body&& body) {
  if (params.step == 0) {
    const T scale = params.scale[0];
    const Acc zero_point = static_cast<Acc>(params.zero_point[0]);
    for (int64_t i = 0; i < count; ++i) body(i, scale, zero_point);
  } else {
    for (int64_t i = 0; i < count; ++i) {
      body(i, params.scale[i], static_cast<Acc>(params.zero_point[i]));
    }
  }
}

}  // namespace

ParamLayout ParamLayout::per_tensor(int64_t numel) {
  ParamLayout layout;
  layout.inner = numel;
  return layout;
}

ParamLayout ParamLayout::per_channel(int64_t outer, int64_t axis, int64_t inner) {
  ParamLayout layout;
  layout.outer = outer;
  layout.axis = axis;
  layout.inner = inner;
  layout.axis_step = 1;
  return layout;
}

ParamLayout ParamLayout::blocked(int64_t outer, int64_t axis, int64_t inner, int64_t block) {
  ParamLayout layout = per_channel(outer, axis, inner);
  layout.block = std::max<int64_t>(1, std::min(block, axis));
  layout.outer_step = layout.blocks() * inner;
  layout.axis_step = inner;
  layout.inner_step = 1;
  return layout;
}

int64_t ParamLayout::params() const {
  if (one_param()) return 1;
  return inner_step == 0 ? axis : outer * blocks() * inner;
}

// With inner == 1 a run along the axis is longer than a run of one element.
bool ParamLayout::runs_cover_blocks() const { return inner == 1 && block > 1; }

int64_t ParamLayout::runs() const {
  if (numel() == 0) return 0;
  if (runs_cover_blocks()) return outer * blocks();
  return inner == 1 ? outer : outer * axis;
}

ParamLayout::Run ParamLayout::run(int64_t index) const {
  if (runs_cover_blocks()) {
    const int64_t o = index / blocks();
    const int64_t b = index % blocks();
    return {o * axis + b * block, std::min(block, axis - b * block), o * outer_step + b * axis_step,
            0};
  }
  if (inner == 1) return {index * axis, axis, index * outer_step, axis_step};
  const int64_t o = index / axis;
  const int64_t a = index % axis;
  return {index * inner, inner, o * outer_step + (a / block) * axis_step, inner_step};
}

ParamLayout::Elements ParamLayout::elements(int64_t param) const {
  if (one_param()) return {0, 1, 0, numel(), 1};
  if (inner_step == 0) return {param * inner, outer, axis * inner, inner, 1};
  const int64_t i = param % inner;
  const int64_t b = param / inner % blocks();
  const int64_t o = param / inner / blocks();
  return {(o * axis + b * block) * inner + i, 1, 0, std::min(block, axis - b * block), inner};
}

template <typename T, typename Code>
void quantize_run(const T* x, Code* codes, int64_t count, const RunParams<T>& params) {
  with_accumulator(params, [&](auto acc) {
    using Acc = decltype(acc);
    const Acc lowest = static_cast<Acc>(params.quant_min);
    const Acc highest = static_cast<Acc>(params.quant_max);
    for_each_element<Acc>(count, params, [&](int64_t i, T scale, Acc zero_point) {
      const Acc code = clamp_code(unclamped_code<T, Acc>(x[i], scale, zero_point), lowest, highest);
      codes[i] = static_cast<Code>(static_cast<int32_t>(code));  // every storage type is in int32
    });
  });
}

template <typename T, typename Code>
void dequantize_run(const Code* codes, T* y, int64_t count, const RunParams<T>& params) {
  // Differences of 8- and 16-bit codes are exact in f32; those of int32 codes need f64.
  using Acc = std::conditional_t<sizeof(Code) == 4, double, T>;
  for_each_element<Acc>(count, params, [&](int64_t i, T scale, Acc zero_point) {
    y[i] = value_of_code<T, Acc>(static_cast<Acc>(codes[i]), scale, zero_point);
  });
}

template <typename T>
void fake_quantize_run(const T* x, T* y, int64_t count, const RunParams<T>& params) {
  with_accumulator(params, [&](auto acc) {
    using Acc = decltype(acc);
    const Acc lowest = static_cast<Acc>(params.quant_min);
    const Acc highest = static_cast<Acc>(params.quant_max);
    for_each_element<Acc>(count, params, [&](int64_t i, T scale, Acc zero_point) {
      const Acc code = clamp_code(unclamped_code<T, Acc>(x[i], scale, zero_point), lowest, highest);
      y[i] = value_of_code<T, Acc>(code, scale, zero_point);
    });
  });
}

template <typename T>
void fake_quantize_backward_run(const T* grad, const T* x, T* grad_x, int64_t count,
                                const RunParams<T>& params) {
  with_accumulator(params, [&](auto acc) {
    using Acc = decltype(acc);
    const Acc lowest = static_cast<Acc>(params.quant_min);
    const Acc highest = static_cast<Acc>(params.quant_max);
    for_each_element<Acc>(count, params, [&](int64_t i, T scale, Acc zero_point) {
      const Acc code = unclamped_code<T, Acc>(x[i], scale, zero_point);
      grad_x[i] = code >= lowest && code <= highest ? grad[i] : T(0);
    });
  });
}

template <typename T>
LearnedSums learned_sums(const T* grad, const T* x, const ParamLayout::Elements& elements,
                         const RunParams<T>& params) {
  LearnedSums total;
  with_accumulator(params, [&](auto acc) {
    using Acc = decltype(acc);
    const T scale = params.scale[0];
    const Acc zero_point = static_cast<Acc>(params.zero_point[0]);
    const Acc lowest = static_cast<Acc>(params.quant_min);
    const Acc highest = static_cast<Acc>(params.quant_max);
    LearnedSums block;
    int64_t in_block = 0;
    for (int64_t o = 0; o < elements.outer_count; ++o) {
      const int64_t row = elements.offset + o * elements.outer_stride;
      for (int64_t i = 0; i < elements.inner_count; ++i) {
        const int64_t at = row + i * elements.inner_stride;
        const double g = static_cast<double>(grad[at]);
        const T ratio = x[at] / scale;
        const Acc unclamped = static_cast<Acc>(round_half_even(ratio)) + zero_point;
        const Acc code = clamp_code(unclamped, lowest, highest);
        const double distance = static_cast<double>(code) - static_cast<double>(zero_point);
        if (unclamped >= lowest && unclamped <= highest) {
          block.scale += g * (distance - static_cast<double>(ratio));
        } else {
          block.scale += g * distance;
          block.zero_point -= g * static_cast<double>(scale);
        }
        if (++in_block == kSumBlock) {
          total.scale += block.scale;
          total.zero_point += block.zero_point;
          block = {};
          in_block = 0;
        }
      }
    }
    total.scale += block.scale;
    total.zero_point += block.zero_point;
  });
  return total;
}

template <typename T>
Extremes<T> find_extremes(const T* x, const ParamLayout::Elements& elements) {
  Extremes<T> found{T(0), T(0)};
  for (int64_t o = 0; o < elements.outer_count; ++o) {
    const T* row = x + elements.offset + o * elements.outer_stride;
    for (int64_t i = 0; i < elements.inner_count; ++i) {
      const T v = row[i * elements.inner_stride];
      // NaN fails both comparisons.
      found.lowest = v < found.lowest ? v : found.lowest;
      found.highest = v > found.highest ? v : found.highest;
    }
  }
  return found;
}

#define QCDQ_INSTANTIATE_CODE(T, Code)                                                \
  template void quantize_run<T, Code>(const T*, Code*, int64_t, const RunParams<T>&); \
  template void dequantize_run<T, Code>(const Code*, T*, int64_t, const RunParams<T>&);

#define QCDQ_INSTANTIATE(T)                                                              \
  QCDQ_INSTANTIATE_CODE(T, int8_t)                                                       \
  QCDQ_INSTANTIATE_CODE(T, uint8_t)                                                      \
  QCDQ_INSTANTIATE_CODE(T, int16_t)                                                      \
  QCDQ_INSTANTIATE_CODE(T, uint16_t)                                                     \
  QCDQ_INSTANTIATE_CODE(T, int32_t)                                                      \
  template void fake_quantize_run<T>(const T*, T*, int64_t, const RunParams<T>&);        \
  template void fake_quantize_backward_run<T>(const T*, const T*, T*, int64_t,           \
                                              const RunParams<T>&);                      \
  template LearnedSums learned_sums<T>(const T*, const T*, const ParamLayout::Elements&, \
                                       const RunParams<T>&);                             \
  template Extremes<T> find_extremes<T>(const T*, const ParamLayout::Elements&);

QCDQ_INSTANTIATE(float)
QCDQ_INSTANTIATE(double)

}  // namespace qcdq
