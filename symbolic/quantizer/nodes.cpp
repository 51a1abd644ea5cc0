// The nodes of quantisers (quantizer/nodes.h): Clip, and the forms for scales that are known at run
// time only. quantizer/params.cpp checks the parameters and chooses storage types.
#include "symbolic/quantizer/nodes.h"

#include <algorithm>
#include <set>
#include <utility>

#include "symbolic/graph/element_types.h"
#include "symbolic/quantizer/opset_rules.h"

namespace qcdq {
namespace {

TensorData scalar_of(DType dtype, double value) {
  if (dtype == DType::kFloat64) return TensorData::scalar<double>(dtype, value);
  if (dtype == DType::kFloat32) return TensorData::scalar<float>(dtype, static_cast<float>(value));
  return pack_integers(dtype, {}, {static_cast<int64_t>(value)});
}

// Appends the nodes of one quantiser.
class FragmentBuilder {
 public:
  explicit FragmentBuilder(const FragmentRequest& request)
      : request_(request), params_(request.params), range_(request.range) {
    fit_params(params_, request.x, request.opset);
  }

  Fragment build() {
    switch (request_.op) {
      case QuantOp::kFakeQuantize:
        fake_quantize();
        break;
      case QuantOp::kQuantize:
        quantize();
        break;
      case QuantOp::kDequantize:
        dequantize();
        break;
    }
    return std::move(fragment_);
  }

 private:
  FragmentValue add(const char* op_type, std::vector<FragmentValue> inputs, const char* label,
                    Attributes attributes = {}) {
    std::string name = label;
    for (int copy = 1; !used_.insert(name).second; ++copy) name = label + std::to_string(copy);
    fragment_.nodes.push_back({op_type, std::move(inputs), std::move(attributes), {name}});
    return {name, std::nullopt};
  }

  FragmentValue cast(FragmentValue value, DType from, DType to, const char* label) {
    if (from == to) return value;
    return add("Cast", {std::move(value)}, label, {{"to", static_cast<int64_t>(to)}});
  }

  static FragmentValue constant(TensorData data, const char* label) { return {label, data}; }

  void fake_quantize() {
    const CodeRange source = range_;
    if (request_.is_weight) {
      params_.storage = constant_storage(range_, request_.opset);
    } else {
      const CodeStorage stored = activation_storage(range_, request_.signed_activations);
      params_.storage = stored.storage;
      require_codes(source);
      shift(stored.shift);
    }
    FragmentValue y =
        params_.storage == DType::kInt32 ? wide() : dequantized(quantize_and_clip(float_x()));
    finish(cast_back(std::move(y)));
  }

  void quantize() {
    const int64_t least = least_opset_for_codes(request_.dtype);
    params_.storage = request_.dtype;
    if (least == 0 || request_.opset < least) {  // stored narrower, then cast to what is asked for
      const CodeStorage stored = activation_storage(range_, true);
      params_.storage = stored.storage;
      require_codes(range_);
      if (stored.shift != 0) {
        throw QuantRefusal{"dtype", std::string(dtype_name(request_.dtype)),
                           "codes " + range_text(range_) + " fit no type of QuantizeLinear",
                           "use a range that int8, uint8, int16 or uint16 holds"};
      }
    }
    if (!integer_range(params_.storage).holds(range_)) {
      throw QuantRefusal{"quant_max", range_text(range_),
                         "outside the codes' type " + std::string(dtype_name(params_.storage)), ""};
    }
    finish(cast(quantize_and_clip(float_x()), params_.storage, request_.dtype, "codes"));
  }

  void dequantize() {
    FragmentValue codes{"x", std::nullopt};
    params_.storage = request_.x.dtype;
    const int64_t least = least_opset_for_codes(params_.storage);
    if (params_.storage != DType::kInt32 && (least == 0 || request_.opset < least)) {
      codes = cast(codes, params_.storage, DType::kInt32, "codes");
      params_.storage = DType::kInt32;
    }
    const CodeRange full = integer_range(params_.storage);
    for (int64_t zero_point : params_.zero_point) {
      if (full.holds(zero_point)) continue;
      throw QuantRefusal{"zero_point", std::to_string(zero_point),
                         "outside the codes' type " + std::string(dtype_name(params_.storage)), ""};
    }
    FragmentValue y = dequantized(std::move(codes));
    const DType dtype = request_.dtype == DType::kUndefined ? DType::kFloat32 : request_.dtype;
    finish(cast(std::move(y), DType::kFloat32, dtype, "y"));
  }

  void finish(FragmentValue value) { fragment_.results = {std::move(value.name)}; }

  FragmentValue float_x() {
    const DType dtype = request_.x.dtype;
    if (dtype == DType::kFloat64 && !request_.cast_f64) {
      throw QuantRefusal{"x", "float64", "ONNX has no 64-bit QuantizeLinear",
                         "export with --cast-f64 to quantise through float32"};
    }
    FragmentValue x{"x", std::nullopt};
    if (dtype == DType::kUndefined) return x;
    if (!is_floating(dtype)) {
      throw QuantRefusal{"x", std::string(dtype_name(dtype)), "only floating tensors are quantised",
                         ""};
    }
    return cast(std::move(x), dtype, DType::kFloat32, "x_f32");
  }

  FragmentValue cast_back(FragmentValue y) {
    if (request_.x.dtype == DType::kUndefined) return y;
    return cast(std::move(y), DType::kFloat32, request_.x.dtype, "y");
  }

  void shift(int64_t by) {
    shift_ = by;
    range_.min += by;
    range_.max += by;
    for (int64_t& zero_point : params_.zero_point) zero_point += by;
  }

  void require_codes(CodeRange source) const {
    const int64_t least = least_opset_for_codes(params_.storage);
    if (least == 0) {
      throw QuantRefusal{"quant_max", range_text(source),
                         "an activation of more than 16 bits has no QuantizeLinear type",
                         "leave it in float, or use 16 bits"};
    }
    if (request_.opset < least) {
      throw QuantRefusal{"quant_max", range_text(source),
                         "codes of more than 8 bits need opset " + std::to_string(least),
                         "export with --opset " + std::to_string(least) + ", or use 8 bits"};
    }
  }

  // A scale or zero point as ONNX wants it: 0-d where it is per tensor, whatever torch gave.
  FragmentValue with_rank(FragmentValue value, const TensorType& type, const char* label) {
    if (!params_.per_tensor() || (type.ranked && type.rank() == 0)) return value;
    return add("Reshape",
               {std::move(value), constant(pack_integers(DType::kInt64, {0}, {}), "shape")}, label);
  }

  FragmentValue scale() {
    if (!request_.runtime) {
      return constant(TensorData::from<float>(DType::kFloat32, params_.dims, params_.scale),
                      "scale");
    }
    if (scale_.name.empty()) {
      const TensorType& type = request_.runtime->scale;
      const DType dtype = type.dtype == DType::kUndefined ? DType::kFloat32 : type.dtype;
      scale_ =
          with_rank(cast({"scale", {}}, dtype, DType::kFloat32, "scale_f32"), type, "scale_scalar");
    }
    return scale_;
  }

  // The zero point of the stored codes in their type.
  FragmentValue zero_point() {
    if (!request_.runtime) {
      return constant(pack_integers(params_.storage, params_.dims, params_.zero_point),
                      "zero_point");
    }
    if (!zero_point_.name.empty()) return zero_point_;
    const TensorType& type = request_.runtime->zero_point;
    DType dtype = type.dtype == DType::kUndefined ? DType::kInt32 : type.dtype;
    FragmentValue value{"zero_point", std::nullopt};
    if (is_floating(dtype)) {  // clamp(round_half_even(zero_point), quant_min, quant_max)
      value = add("Round", {cast(value, dtype, DType::kFloat32, "zero_point_f32")}, "rounded");
      value = between(value, DType::kFloat32, static_cast<double>(range_.min - shift_),
                      static_cast<double>(range_.max - shift_), "zero_point_clipped");
      dtype = DType::kFloat32;
    }
    if (shift_ != 0) {
      value = cast(value, dtype, DType::kInt32, "zero_point_i32");
      value = add("Add",
                  {value, constant(scalar_of(DType::kInt32, static_cast<double>(shift_)), "shift")},
                  "zero_point_shifted");
      dtype = DType::kInt32;
    }
    value = cast(value, dtype, params_.storage, "zero_point_cast");
    return zero_point_ = with_rank(value, type, "zero_point_scalar");
  }

  FragmentValue between(FragmentValue value, DType dtype, double low, double high,
                        const char* label) {
    return clip(std::move(value), constant(scalar_of(dtype, low), "min"),
                constant(scalar_of(dtype, high), "max"), label);
  }

  // Clip's bounds are inputs from opset 11 on, but ORT has no Clip-11 for f64.
  FragmentValue clip(FragmentValue value, FragmentValue low, FragmentValue high,
                     const char* label) {
    if (request_.opset >= 12) return add("Clip", {std::move(value), low, high}, label);
    value = add("Max", {std::move(value), low}, label);
    return add("Min", {std::move(value), high}, label);
  }

  FragmentValue linear(const char* op_type, FragmentValue x, const char* label) {
    Attributes attributes;
    if (!params_.per_tensor()) attributes.emplace_back("axis", params_.axis);
    if (params_.block_size > 0) attributes.emplace_back("block_size", params_.block_size);
    return add(op_type, {std::move(x), scale(), zero_point()}, label, std::move(attributes));
  }

  FragmentValue dequantized(FragmentValue codes) {
    return linear("DequantizeLinear", std::move(codes), "y");
  }

  // Q and, where the range is narrower than its storage, a Clip.
  FragmentValue quantize_and_clip(FragmentValue x) {
    const bool narrow = range_ != integer_range(params_.storage);
    const bool on_codes =
        is_8bit(params_.storage) && request_.opset >= least_opset(QuantFeature::kIntegerClip);
    if (narrow && !on_codes) x = float_clip(std::move(x));
    FragmentValue codes = linear("QuantizeLinear", std::move(x), "codes");
    if (!narrow || !on_codes) return codes;
    return add(
        "Clip",
        {std::move(codes), constant(pack_integers(params_.storage, {}, {range_.min}), "clip_min"),
         constant(pack_integers(params_.storage, {}, {range_.max}), "clip_max")},
        "clipped");
  }

  // Dimensions that broadcast one number per channel over x.
  std::vector<int64_t> channel_dims() const {
    if (params_.block_size > 0 || !request_.x.ranked) {
      throw QuantRefusal{"block_size", std::to_string(params_.block_size),
                         "a range of 9 to 15 bits needs a Clip per block, which ONNX lacks",
                         "use the full 16-bit range, or 8 bits"};
    }
    std::vector<int64_t> dims(static_cast<size_t>(request_.x.rank() - params_.axis), 1);
    dims[0] = request_.runtime ? -1 : static_cast<int64_t>(params_.scale.size());
    return dims;
  }

  // Clips x to the values of the range's ends, in place of a Clip on codes: the ends divide back to
  // their own codes, so the codes are the same.
  FragmentValue float_clip(FragmentValue x) {
    if (request_.runtime) {
      FragmentValue zero = cast(zero_point(), params_.storage, DType::kFloat32, "zero_point_f32");
      const FragmentValue low = clip_end(range_.min, zero), high = clip_end(range_.max, zero);
      if (params_.per_tensor()) return clip(std::move(x), low, high, "limited");
      x = add("Max", {std::move(x), low}, "raised");
      return add("Min", {std::move(x), high}, "limited");
    }
    std::vector<float> low, high;
    for (size_t c = 0; c < params_.scale.size(); ++c) {
      low.push_back(static_cast<float>(range_.min - params_.zero_point[c]) * params_.scale[c]);
      high.push_back(static_cast<float>(range_.max - params_.zero_point[c]) * params_.scale[c]);
    }
    if (params_.per_tensor()) {
      if (request_.opset < 11)
        return add("Clip", {std::move(x)}, "limited", {{"min", low[0]}, {"max", high[0]}});
      return add(
          "Clip",
          {std::move(x), constant(TensorData::scalar<float>(DType::kFloat32, low[0]), "clip_min"),
           constant(TensorData::scalar<float>(DType::kFloat32, high[0]), "clip_max")},
          "limited");
    }
    const std::vector<int64_t> dims = channel_dims();
    x = add("Max",
            {std::move(x),
             constant(TensorData::from<float>(DType::kFloat32, dims, std::move(low)), "clip_min")},
            "raised");
    return add(
        "Min",
        {std::move(x),
         constant(TensorData::from<float>(DType::kFloat32, dims, std::move(high)), "clip_max")},
        "limited");
  }

  FragmentValue over_channels(FragmentValue value) {
    if (params_.per_tensor()) return value;
    const std::vector<int64_t> dims = channel_dims();
    return add("Reshape",
               {std::move(value),
                constant(pack_integers(DType::kInt64, {static_cast<int64_t>(dims.size())}, dims),
                         "shape")},
               "per_channel");
  }

  FragmentValue clip_end(int64_t end, const FragmentValue& zero_point) {
    FragmentValue steps = add(
        "Sub", {constant(scalar_of(DType::kFloat32, static_cast<double>(end)), "end"), zero_point},
        "steps");
    return over_channels(add("Mul", {steps, scale()}, "value"));
  }

  // Ranges beyond 16 bits (a bias whose codes aren't computed at export): no QuantizeLinear makes
  // such codes, so they are computed as affine.h does (f32 division, then f64), less the zero
  // point, which an int32 DequantizeLinear may not have.
  FragmentValue wide() {
    params_.storage = DType::kInt32;
    FragmentValue divided = add("Div", {float_x(), over_channels(scale())}, "divided");
    FragmentValue rounded = add("Round", {divided}, "rounded");
    if (request_.opset < 11) {
      throw QuantRefusal{"quant_max", range_text(range_),
                         "codes of more than 16 bits need opset 11",
                         "export with opset 11 or newer"};
    }
    FragmentValue steps = cast(rounded, DType::kFloat32, DType::kFloat64, "rounded_f64");
    const bool zero =
        !request_.runtime && std::all_of(params_.zero_point.begin(), params_.zero_point.end(),
                                         [](int64_t value) { return value == 0; });
    FragmentValue offset;
    if (!zero) {
      offset = over_channels(cast(zero_point(), DType::kInt32, DType::kFloat64, "offset"));
      steps = add("Add", {steps, offset}, "shifted");
    }
    steps = between(steps, DType::kFloat64, static_cast<double>(range_.min),
                    static_cast<double>(range_.max), "limited");
    if (!zero) steps = add("Sub", {steps, offset}, "steps");
    FragmentValue codes = cast(steps, DType::kFloat64, DType::kInt32, "codes");
    Attributes attributes;
    if (!params_.per_tensor()) attributes.emplace_back("axis", params_.axis);
    return add("DequantizeLinear", {codes, scale()}, "y", std::move(attributes));
  }

  const FragmentRequest& request_;
  QuantParams params_;
  CodeRange range_;
  int64_t shift_ = 0;
  FragmentValue scale_, zero_point_;  // run-time ones, once they have their form
  Fragment fragment_;
  std::set<std::string> used_;  // names of results
};

}  // namespace

Fragment quantizer_fragment(const FragmentRequest& request) {
  return FragmentBuilder(request).build();
}

}  // namespace qcdq
