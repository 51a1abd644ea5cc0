// What Python reaches of the exporter, as registered torch ops (so that the library needs no Python
// ABI): the fragments of quantisers, for the torch.onnx hooks of python/qcdq, and export_file.
// Requests and answers are JSON objects, so that both sides go by names.
#include <torch/library.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "qcdq/export.h"
#include "symbolic/program/tensors.h"
#include "symbolic/quantizer/nodes.h"

namespace qcdq {
namespace {

using nlohmann::json;

/// The members of a request, each taken once by its name; what nobody took is refused. Throws
/// ValueError, which names the caller's function and the member.
class Request {
 public:
  Request(const char* function, const std::string& text)
      : function_(function), members_(json::parse(text)) {}

  json take(const char* name) {
    const auto found = members_.find(name);
    TORCH_CHECK_VALUE(found != members_.end(), function_, ": ", name, " is missing");
    json value = std::move(*found);
    members_.erase(found);
    return value;
  }
  int64_t integer(const char* name) {
    const json value = take(name);
    check(value.is_number_integer(), name, value, "an int");
    return value.get<int64_t>();
  }
  std::optional<int64_t> optional_integer(const char* name) {
    const json value = take(name);
    check(value.is_null() || value.is_number_integer(), name, value, "an int or None");
    return value.is_null() ? std::nullopt : std::optional(value.get<int64_t>());
  }
  bool boolean(const char* name) {
    const json value = take(name);
    check(value.is_boolean(), name, value, "a bool");
    return value.get<bool>();
  }
  std::string string(const char* name) {
    const json value = take(name);
    check(value.is_string(), name, value, "a str");
    return value.get<std::string>();
  }
  std::vector<std::string> strings(const char* name) {
    const json value = take(name);
    const bool fits = value.is_array() && std::all_of(value.begin(), value.end(),
                                                      [](const json& v) { return v.is_string(); });
    check(fits, name, value, "a list of str");
    return value.get<std::vector<std::string>>();
  }
  template <typename Option>
  Option option(const char* name) {
    const json value = take(name);
    const std::optional<Option> known =
        value.is_string() ? parse_option<Option>(value.get_ref<const std::string&>())
                          : std::nullopt;
    check(known.has_value(), name, value, "one of " + list_option_words<Option>());
    return *known;
  }
  /// {"dtype": ONNX's number, 0 where not known, "shape": sizes (-1: dynamic) or null}
  TensorType tensor_type(const char* name) {
    Request members(function_, take(name).dump());
    TensorType type;
    type.dtype = static_cast<DType>(members.integer("dtype"));
    const json shape = members.take("shape");
    members.done();
    type.ranked = !shape.is_null();
    if (!type.ranked) return type;
    check(shape.is_array(), name, shape, "a shape");
    for (const json& size : shape) {
      check(size.is_number_integer(), name, shape, "a shape of ints");
      type.dims.push_back(size.get<int64_t>());
    }
    return type;
  }
  void done() const {
    TORCH_CHECK_VALUE(members_.empty(), function_, ": unknown argument ",
                      members_.empty() ? "" : members_.begin().key());
  }

 private:
  void check(bool fits, const char* name, const json& value, const std::string& expected) const {
    const bool text = value.is_string();
    TORCH_CHECK_VALUE(fits, function_, ": ", name, " = ", text ? "'" : "",
                      text ? value.get<std::string>() : value.dump(), text ? "'" : "",
                      ", expected ", expected);
  }

  const char* function_;
  json members_;
};

/// A fragment as text, and its constants, which the text names by their index.
std::tuple<std::string, std::vector<at::Tensor>> answer(const Fragment& fragment) {
  json nodes = json::array();
  std::vector<at::Tensor> constants;
  for (const FragmentNode& node : fragment.nodes) {
    json inputs = json::array();
    for (const FragmentValue& input : node.inputs) {
      if (!input.constant) {
        inputs.push_back(input.name);
        continue;
      }
      inputs.push_back({{"constant", constants.size()}, {"name", input.name}});
      constants.push_back(to_tensor(*input.constant, input.name).clone());
    }
    json attributes = json::object();
    for (const auto& [name, value] : node.attributes) {
      if (const auto* integer = std::get_if<int64_t>(&value)) {
        attributes[name] = *integer;
      } else if (const auto* number = std::get_if<float>(&value)) {
        attributes[name] = *number;
      } else {
        throw std::logic_error("attribute '" + name + "' of a fragment is neither int nor float");
      }
    }
    nodes.push_back({{"op", node.op_type},
                     {"inputs", std::move(inputs)},
                     {"attributes", std::move(attributes)},
                     {"results", node.results}});
  }
  return {json({{"nodes", std::move(nodes)}, {"results", fragment.results}}).dump(), constants};
}

[[noreturn]] void refuse_fragment(const std::string& op, int64_t opset,
                                  const QuantRefusal& refusal) {
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
    const std::string& text, const std::optional<at::Tensor>& scale,
    const std::optional<at::Tensor>& zero_point) {
  Request members("quant_fragment", text);
  const std::string op = members.string("op");
  const int64_t quant_min = members.integer("quant_min");
  const int64_t quant_max = members.integer("quant_max");
  const std::optional<int64_t> axis = members.optional_integer("axis");
  const int64_t block_size = members.optional_integer("block_size").value_or(0);
  const RuntimeParams types{members.tensor_type("scale"), members.tensor_type("zero_point")};
  FragmentRequest request;
  request.op = quant_op(op);
  request.x = members.tensor_type("x");
  request.is_weight = members.boolean("is_weight");
  request.dtype = static_cast<DType>(members.integer("dtype"));
  request.opset = members.integer("opset");
  request.signed_activations = members.boolean("signed_activations");
  members.done();
  try {
    request.range = request.op == QuantOp::kDequantize ? integer_range(DType::kInt32)
                                                       : checked_range(quant_min, quant_max);
    if (scale && zero_point) {
      request.params = params_of(*scale, *zero_point, op == "qcdq::fake_quantize_learned",
                                 request.range, axis, block_size);
    } else {
      request.runtime = types;
      if (axis) {
        request.params.dims = {-1};
        request.params.axis = *axis;
        request.params.block_size = block_size;
      }
    }
    return answer(quantizer_fragment(request));
  } catch (const QuantRefusal& refusal) {
    refuse_fragment(op, request.opset, refusal);
  }
}

std::tuple<std::string, std::vector<at::Tensor>> dynamic_quant_fragment(const std::string& text) {
  Request members("dynamic_quant_fragment", text);
  const std::string op = members.string("op");
  TORCH_CHECK_VALUE(op == "qcdq::choose_qparams" || op == "qcdq::fake_quantize_dynamic",
                    "dynamic_quant_fragment: op = ", op,
                    ", expected qcdq::choose_qparams or qcdq::fake_quantize_dynamic");
  const int64_t quant_min = members.integer("quant_min");
  const int64_t quant_max = members.integer("quant_max");
  DynamicRequest request;
  request.x = members.tensor_type("x");
  request.is_symmetric = members.boolean("symmetric");
  request.axis = members.optional_integer("axis");
  request.block_size = members.optional_integer("block_size");
  request.opset = members.integer("opset");
  request.dequantize = op == "qcdq::fake_quantize_dynamic";
  members.done();
  try {
    request.range = checked_range(quant_min, quant_max);
    return answer(dynamic_fragment(request));
  } catch (const QuantRefusal& refusal) {
    refuse_fragment(op, request.opset, refusal);
  }
}

ExportOptions export_options(Request& members) {
  ExportOptions options;
  options.opset = members.integer("opset");
  options.activation_storage = members.option<ActivationStorage>("activation_storage");
  options.weights = members.option<Weights>("weights");
  options.weight_storage = members.option<WeightStorage>("weight_storage");
  options.external_data = members.option<ExternalData>("external_data");
  options.input_names = members.strings("input_names");
  options.output_names = members.strings("output_names");
  options.cast_f64 = members.boolean("cast_f64");
  options.dump = members.string("dump");
  for (const json& axis : members.take("dynamic_axes")) {
    Request one("export_onnx", axis.dump());
    options.dynamic_axes.push_back(
        {one.string("input"), one.integer("axis"), one.string("symbol")});
    one.done();
  }
  members.done();
  return options;
}

std::string export_file(const std::string& model, const c10::IValue& inputs,
                        const std::string& path, const std::string& text) {
  Request members("export_onnx", text);
  const ExportOptions options = export_options(members);
  std::vector<c10::IValue> values;
  if (inputs.isTuple()) {
    values = inputs.toTupleRef().elements().vec();
  } else {
    TORCH_CHECK_VALUE(inputs.isTensor(), "export_onnx: args is a ", inputs.tagKind(),
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
  nlohmann::ordered_json written = {{"opset", report.opset},
                                    {"ir_version", report.ir_version},
                                    {"file_bytes", report.file_bytes},
                                    {"external_bytes", report.external_bytes},
                                    {"nodes_by_op", report.nodes_by_op},
                                    {"notes", report.notes},
                                    {"phases", nlohmann::ordered_json::object()}};
  for (const PhaseTime& phase : report.phases) written["phases"][phase.phase] = phase.seconds;
  return written.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

int64_t onnx_dtype(at::ScalarType dtype) { return static_cast<int64_t>(dtype_of(dtype)); }

}  // namespace
}  // namespace qcdq

TORCH_LIBRARY(qcdq_onnx, m) {
  // The request has op, x, scale, zero_point, quant_min, quant_max, axis, block_size, dtype,
  // is_weight, opset and signed_activations; element types are ONNX's numbers, 0 where not known. A
  // scale (and zero point) that is not constant is left out of the tensors; the nodes then take
  // "scale" and "zero_point".
  m.def(
      "quant_fragment(str request, Tensor? scale, Tensor? zero_point) -> "
      "(str fragment, Tensor[] constants)",
      &qcdq::quant_fragment);
  // op, x, quant_min, quant_max, symmetric, axis, block_size and opset.
  m.def("dynamic_quant_fragment(str request) -> (str fragment, Tensor[] constants)",
        &qcdq::dynamic_quant_fragment);
  // model: a TorchScript file, or a .pt2 file (which needs no inputs). The answer is the report.
  m.def("export_file(str model, Any inputs, str path, str options) -> str report",
        &qcdq::export_file);
  // ONNX's number for a torch.dtype, or for torch's own number of it; 0 where ONNX has none.
  m.def("onnx_dtype(ScalarType dtype) -> int", &qcdq::onnx_dtype);
}
