// What Python reaches of the exporter, as registered torch ops (so that the library needs no Python
// ABI): the fragments of quantisers, for the torch.onnx hooks of python/qcdq, and export_file.
#include <torch/library.h>

#include <limits>
#include <sstream>
#include <stdexcept>

#include "qcdq/export.h"
#include "symbolic/program/tensors.h"
#include "symbolic/quantizer/nodes.h"

namespace qcdq {
namespace {

using Dims = std::optional<std::vector<int64_t>>;

TensorType tensor_type(int64_t dtype, const Dims& dims) {
  TensorType type;
  type.dtype = static_cast<DType>(dtype);
  type.ranked = dims.has_value();
  if (dims) type.dims = *dims;
  return type;
}

// The fragment's text: JSON without any string from outside, so that nothing needs an escape.
class FragmentText {
 public:
  explicit FragmentText(const Fragment& fragment) {
    out_.precision(std::numeric_limits<float>::max_digits10);
    out_ << "{\"nodes\": [";
    for (const FragmentNode& node : fragment.nodes) {
      if (&node != fragment.nodes.data()) out_ << ", ";
      write(node);
    }
    out_ << "], \"results\": ";
    write_names(fragment.results);
    out_ << "}";
  }
  std::string text() const { return out_.str(); }
  const std::vector<at::Tensor>& constants() const { return constants_; }

 private:
  void write_names(const std::vector<std::string>& names) {
    out_ << "[";
    for (size_t i = 0; i < names.size(); ++i) out_ << (i ? ", " : "") << '"' << names[i] << '"';
    out_ << "]";
  }

  void write(const FragmentNode& node) {
    out_ << "{\"op\": \"" << node.op_type << "\", \"inputs\": [";
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const FragmentValue& input = node.inputs[i];
      out_ << (i ? ", " : "");
      if (!input.constant) {
        out_ << '"' << input.name << '"';
        continue;
      }
      out_ << "{\"constant\": " << constants_.size() << ", \"name\": \"" << input.name << "\"}";
      constants_.push_back(to_tensor(*input.constant, input.name).clone());
    }
    out_ << "], \"attributes\": {";
    for (size_t i = 0; i < node.attributes.size(); ++i) {
      const auto& [name, value] = node.attributes[i];
      out_ << (i ? ", " : "") << '"' << name << "\": ";
      if (const auto* integer = std::get_if<int64_t>(&value)) {
        out_ << *integer;
      } else if (const auto* number = std::get_if<float>(&value)) {
        out_ << *number;
      } else {
        throw std::logic_error("attribute '" + name + "' of a fragment is neither int nor float");
      }
    }
    out_ << "}, \"results\": ";
    write_names(node.results);
    out_ << "}";
  }

  std::ostringstream out_;
  std::vector<at::Tensor> constants_;
};

[[noreturn]] void refuse(const std::string& op, int64_t opset, const QuantRefusal& refusal) {
  const UnsupportedOp error({.op = op,
                             .argument = refusal.argument,
                             .value = refusal.value,
                             .opset = opset,
                             .reason = refusal.reason,
                             .hint = refusal.hint});
  TORCH_CHECK_VALUE(false, error.what());
}

std::vector<double> as_numbers(const at::Tensor& tensor) {
  const at::Tensor values = tensor.detach().to(at::kCPU, at::kDouble).contiguous();
  const double* data = values.const_data_ptr<double>();
  return {data, data + values.numel()};
}

QuantOp quant_op(const std::string& op) {
  if (op == "qcdq::quantize") return QuantOp::kQuantize;
  if (op == "qcdq::dequantize") return QuantOp::kDequantize;
  TORCH_CHECK_VALUE(
      op == "qcdq::fake_quantize" || op == "qcdq::fake_quantize_learned",
      "quant_fragment: op = ", op,
      ", expected qcdq::quantize, dequantize, fake_quantize or fake_quantize_learned");
  return QuantOp::kFakeQuantize;
}

// Constant parameters of the source's op; fake_quantize_learned's zero point is rounded first.
QuantParams params_of(const at::Tensor& scale, const at::Tensor& zero_point, bool rounds,
                      CodeRange range, std::optional<int64_t> axis, int64_t block_size) {
  const at::Tensor zero =
      rounds ? zero_point.to(at::kDouble)
                   .round()
                   .clamp(static_cast<double>(range.min), static_cast<double>(range.max))
             : zero_point;
  return constant_params(as_numbers(scale), scale.sizes().vec(), as_numbers(zero), range, axis,
                         block_size);
}

std::tuple<std::string, std::vector<at::Tensor>> quant_fragment(
    const std::string& op, int64_t x_dtype, Dims x_dims, const std::optional<at::Tensor>& scale,
    const std::optional<at::Tensor>& zero_point, int64_t quant_min, int64_t quant_max,
    std::optional<int64_t> axis, std::optional<int64_t> block_size, int64_t dtype, bool is_weight,
    int64_t scale_dtype, Dims scale_dims, int64_t zero_point_dtype, Dims zero_point_dims,
    int64_t opset, bool signed_activations) {
  FragmentRequest request;
  request.op = quant_op(op);
  try {
    request.range = request.op == QuantOp::kDequantize ? integer_range(DType::kInt32)
                                                       : checked_range(quant_min, quant_max);
    request.x = tensor_type(x_dtype, x_dims);
    if (scale && zero_point) {
      request.params = params_of(*scale, *zero_point, op == "qcdq::fake_quantize_learned",
                                 request.range, axis, block_size.value_or(0));
    } else {
      request.runtime = RuntimeParams{tensor_type(scale_dtype, scale_dims),
                                      tensor_type(zero_point_dtype, zero_point_dims)};
      if (axis) {
        request.params.dims = {-1};
        request.params.axis = *axis;
        request.params.block_size = block_size.value_or(0);
      }
    }
    request.is_weight = is_weight;
    request.dtype = static_cast<DType>(dtype);
    request.opset = opset;
    request.signed_activations = signed_activations;
    const FragmentText text(quantizer_fragment(request));
    return {text.text(), text.constants()};
  } catch (const QuantRefusal& refusal) {
    refuse(op, opset, refusal);
  }
}

std::tuple<std::string, std::vector<at::Tensor>> dynamic_quant_fragment(
    const std::string& op, int64_t x_dtype, int64_t quant_min, int64_t quant_max, bool symmetric,
    std::optional<int64_t> axis, std::optional<int64_t> block_size, int64_t opset) {
  TORCH_CHECK_VALUE(op == "qcdq::choose_qparams" || op == "qcdq::fake_quantize_dynamic",
                    "dynamic_quant_fragment: op = ", op,
                    ", expected qcdq::choose_qparams or qcdq::fake_quantize_dynamic");
  try {
    DynamicRequest request;
    request.x.dtype = static_cast<DType>(x_dtype);
    request.range = checked_range(quant_min, quant_max);
    request.is_symmetric = symmetric;
    request.axis = axis;
    request.block_size = block_size;
    request.opset = opset;
    request.dequantize = op == "qcdq::fake_quantize_dynamic";
    const FragmentText text(dynamic_fragment(request));
    return {text.text(), text.constants()};
  } catch (const QuantRefusal& refusal) {
    refuse(op, opset, refusal);
  }
}

template <typename T>
T named(const char* argument, const std::string& value,
        std::initializer_list<std::pair<const char*, T>> known) {
  std::string names;
  for (const auto& [name, result] : known) {
    if (value == name) return result;
    names += std::string(names.empty() ? "" : ", ") + name;
  }
  TORCH_CHECK_VALUE(false, "export_onnx: ", argument, " = '", value, "', expected one of ", names);
}

std::vector<DynamicAxis> dynamic_axes(const std::vector<std::string>& inputs,
                                      const std::vector<int64_t>& axes,
                                      const std::vector<std::string>& symbols) {
  TORCH_CHECK_VALUE(inputs.size() == axes.size() && axes.size() == symbols.size(),
                    "export_file: dynamic_inputs, dynamic_axes and dynamic_symbols differ in size");
  std::vector<DynamicAxis> result;
  for (size_t i = 0; i < inputs.size(); ++i) result.push_back({inputs[i], axes[i], symbols[i]});
  return result;
}

std::tuple<std::vector<int64_t>, c10::Dict<std::string, int64_t>, std::vector<std::string>,
           c10::Dict<std::string, double>>
export_file(const std::string& model, const c10::IValue& inputs, const std::string& path,
            int64_t opset, const std::string& activation_storage, const std::string& weights,
            const std::string& weight_storage, const std::string& external_data,
            std::vector<std::string> input_names, std::vector<std::string> output_names,
            const std::vector<std::string>& dynamic_inputs,
            const std::vector<int64_t>& dynamic_dims,
            const std::vector<std::string>& dynamic_symbols, bool cast_f64) {
  using enum ExternalData;
  ExportOptions options;
  options.opset = opset;
  options.activation_storage =
      named<ActivationStorage>("activation_storage", activation_storage,
                               {{"auto", ActivationStorage::kAuto},
                                {"signed", ActivationStorage::kSigned},
                                {"unsigned", ActivationStorage::kUnsigned}});
  options.weights =
      named<Weights>("weights", weights, {{"int", Weights::kInt}, {"qdq", Weights::kQdq}});
  options.weight_storage =
      named<WeightStorage>("weight_storage", weight_storage,
                           {{"int8", WeightStorage::kInt8}, {"uint8", WeightStorage::kUInt8}});
  options.external_data = named<ExternalData>(
      "external_data", external_data, {{"auto", kAuto}, {"always", kAlways}, {"never", kNever}});
  options.input_names = std::move(input_names);
  options.output_names = std::move(output_names);
  options.dynamic_axes = dynamic_axes(dynamic_inputs, dynamic_dims, dynamic_symbols);
  options.cast_f64 = cast_f64;
  std::vector<c10::IValue> values;
  if (inputs.isTuple()) {
    values = inputs.toTupleRef().elements().vec();
  } else {
    TORCH_CHECK_VALUE(inputs.isTensor(), "export_file: inputs is a ", inputs.tagKind(),
                      ", expected a tuple of example inputs");
    values = {inputs};
  }
  ExportReport report;
  if (!model.ends_with(".pt2")) {
    report = export_onnx(load_torchscript(model), values, path, options);
  } else if (values.empty()) {
    report = export_onnx(load_pt2(model), path, options);
  } else {
    report = export_onnx(load_pt2(model), values, path, options);
  }
  c10::Dict<std::string, int64_t> nodes;
  for (const auto& [name, count] : report.nodes_by_op) nodes.insert(name, count);
  c10::Dict<std::string, double> phases;
  for (const PhaseTime& phase : report.phases) phases.insert(phase.phase, phase.seconds);
  return {{report.opset, report.ir_version, static_cast<int64_t>(report.file_bytes),
           static_cast<int64_t>(report.external_bytes)},
          nodes,
          report.notes,
          phases};
}

}  // namespace
}  // namespace qcdq

TORCH_LIBRARY(qcdq_onnx, m) {
  // Element types are ONNX's numbers, 0 where not known. A scale (and zero point) that is not
  // constant is left out, and described by its type; the nodes then take "scale" and "zero_point".
  m.def(
      "quant_fragment(str op, int x_dtype, int[]? x_dims, Tensor? scale, Tensor? zero_point, "
      "int quant_min, int quant_max, int? axis, int? block_size, int dtype, bool is_weight, "
      "int scale_dtype, int[]? scale_dims, int zero_point_dtype, int[]? zero_point_dims, "
      "int opset, bool signed_activations) -> (str nodes, Tensor[] constants)",
      &qcdq::quant_fragment);
  m.def(
      "dynamic_quant_fragment(str op, int x_dtype, int quant_min, int quant_max, bool symmetric, "
      "int? axis, int? block_size, int opset) -> (str nodes, Tensor[] constants)",
      &qcdq::dynamic_quant_fragment);
  // model: a TorchScript file, or a .pt2 file (which needs no inputs). numbers: opset, IR version,
  // bytes of the file, external bytes.
  m.def(
      "export_file(str model, Any inputs, str path, int opset, str activation_storage, "
      "str weights, str weight_storage, str external_data, str[] input_names, "
      "str[] output_names, str[] dynamic_inputs, int[] dynamic_axes, str[] dynamic_symbols, "
      "bool cast_f64) -> (int[] numbers, Dict(str, int) nodes, str[] notes, "
      "Dict(str, float) phases)",
      &qcdq::export_file);
}
