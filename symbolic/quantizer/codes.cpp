// See codes.h. One loop, for_each_row, knows how elements, channels and blocks lie.
#include "symbolic/quantizer/codes.h"

#include <cmath>
#include <limits>

#include "symbolic/graph/element_types.h"

namespace qcdq {
namespace {

/// Calls visit(first element, elements, index of the first scale, step between scales) for each run
/// of elements along which the scale's index is regular: the tensor, a channel's row, or a block's
/// row.
template <typename F>
void for_each_row(const std::vector<int64_t>& dims, const QuantParams& params, F visit) {
  int64_t numel = 1;
  for (int64_t d : dims) numel *= d;
  if (params.per_tensor() || numel == 0) {
    if (numel > 0) visit(int64_t{0}, numel, int64_t{0}, int64_t{0});
    return;
  }
  const int64_t length = dims[params.axis];
  int64_t inner = 1;
  for (size_t i = params.axis + 1; i < dims.size(); ++i) inner *= dims[i];
  const int64_t outer = numel / (length * inner);
  const int64_t blocks = params.block_size > 0 ? params.dims[params.axis] : 0;
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t k = 0; k < length; ++k) {
      const int64_t first = (o * length + k) * inner;
      if (blocks > 0) {
        visit(first, inner, (o * blocks + k / params.block_size) * inner, int64_t{1});
      } else {
        visit(first, inner, k, int64_t{0});
      }
    }
  }
}

}  // namespace

TensorData quantize_constant(const TensorData& x, const QuantParams& params, CodeRange range) {
  TensorData result;
  const std::shared_ptr<const void> loaded = x.load();
  visit_floats(x.dtype, [&](auto from_tag) {
    visit_integers(params.storage, [&](auto to_tag) {
      const auto* from = static_cast<const decltype(from_tag)*>(loaded.get());
      decltype(to_tag)* out = nullptr;
      result = allocate(params.storage, x.dims, x.numel(), &out);
      for_each_row(x.dims, params, [&](int64_t first, int64_t n, int64_t scale, int64_t step) {
        for (int64_t i = 0; i < n; ++i, scale += step) {
          out[first + i] = static_cast<decltype(to_tag)>(
              quantize_one(static_cast<float>(from[first + i]), params.scale[scale],
                           params.zero_point[scale], range.min, range.max));
        }
      });
    });
  });
  return result;
}

std::optional<TensorData> recover_codes(const TensorData& y, const QuantParams& params,
                                        CodeRange range) {
  TensorData result;
  bool exact = true;
  const std::shared_ptr<const void> loaded = y.load();
  visit_floats(y.dtype, [&](auto from_tag) {
    visit_integers(params.storage, [&](auto to_tag) {
      const auto* from = static_cast<const decltype(from_tag)*>(loaded.get());
      decltype(to_tag)* out = nullptr;
      result = allocate(params.storage, y.dims, y.numel(), &out);
      // f16 and bf16 results were rounded once more than the codes' f32 values.
      const double tolerance = y.dtype == DType::kFloat32   ? 0
                               : y.dtype == DType::kFloat64 ? 1e-6
                               : y.dtype == DType::kFloat16 ? 1e-3
                                                            : 8e-3;
      for_each_row(y.dims, params, [&](int64_t first, int64_t n, int64_t scale, int64_t step) {
        for (int64_t i = 0; i < n; ++i, scale += step) {
          const double value = static_cast<double>(from[first + i]);
          const double code = round_half_even(value / static_cast<double>(params.scale[scale])) +
                              static_cast<double>(params.zero_point[scale]);
          if (!(code >= static_cast<double>(range.min) && code <= static_cast<double>(range.max))) {
            exact = false;
            continue;
          }
          const double back = dequantize_one(static_cast<int64_t>(code), params.scale[scale],
                                             params.zero_point[scale]);
          exact = exact && std::abs(back - value) <= tolerance * std::abs(value);
          out[first + i] = static_cast<decltype(to_tag)>(code);
        }
      });
    });
  });
  if (!exact) return std::nullopt;
  return result;
}

TensorData dequantize_constant(const TensorData& codes, const QuantParams& params) {
  TensorData result{DType::kFloat32, codes.dims, nullptr, nullptr};
  result.produce = [codes, params] {
    float* out = nullptr;
    TensorData values = allocate(DType::kFloat32, codes.dims, codes.numel(), &out);
    const std::shared_ptr<const void> loaded = codes.load();
    visit_integers(codes.dtype, [&](auto tag) {
      const auto* from = static_cast<const decltype(tag)*>(loaded.get());
      for_each_row(codes.dims, params, [&](int64_t first, int64_t n, int64_t scale, int64_t step) {
        for (int64_t i = 0; i < n; ++i, scale += step) {
          out[first + i] = dequantize_one(static_cast<int64_t>(from[first + i]),
                                          params.scale[scale], params.zero_point[scale]);
        }
      });
    });
    return values.data;
  };
  return result;
}

TensorData transform_codes(const TensorData& codes, int64_t axis, const std::vector<int64_t>& sign,
                           const std::vector<int64_t>& offset, DType storage) {
  QuantParams layout;  // only its channels matter here
  layout.axis = axis;
  if (sign.size() > 1) layout.dims = {static_cast<int64_t>(sign.size())};
  TensorData result;
  const std::shared_ptr<const void> loaded = codes.load();
  visit_integers(codes.dtype, [&](auto from_tag) {
    visit_integers(storage, [&](auto to_tag) {
      const auto* from = static_cast<const decltype(from_tag)*>(loaded.get());
      decltype(to_tag)* out = nullptr;
      result = allocate(storage, codes.dims, codes.numel(), &out);
      for_each_row(codes.dims, layout, [&](int64_t first, int64_t n, int64_t channel, int64_t) {
        for (int64_t i = first; i < first + n; ++i) {
          out[i] = static_cast<decltype(to_tag)>(sign[channel] * static_cast<int64_t>(from[i]) +
                                                 offset[channel]);
        }
      });
    });
  });
  return result;
}

std::vector<CodeRange> code_ranges(const TensorData& codes, int64_t axis, int64_t channels) {
  QuantParams layout;
  layout.axis = axis;
  if (channels > 1) layout.dims = {channels};
  std::vector<CodeRange> ranges(
      static_cast<size_t>(channels),
      {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()});
  const std::shared_ptr<const void> loaded = codes.load();
  visit_integers(codes.dtype, [&](auto tag) {
    const auto* from = static_cast<const decltype(tag)*>(loaded.get());
    for_each_row(codes.dims, layout, [&](int64_t first, int64_t n, int64_t channel, int64_t) {
      CodeRange& range = ranges[static_cast<size_t>(channel)];
      for (int64_t i = first; i < first + n; ++i) {
        const int64_t code = static_cast<int64_t>(from[i]);
        if (code < range.min) range.min = code;
        if (code > range.max) range.max = code;
      }
    });
  });
  return ranges;
}

}  // namespace qcdq
