// Members of the value types that every phase shares (include/qcdq/symbolic.h): element types,
// constant tensors and the one type of refusal.
#include <numeric>

#include "qcdq/symbolic.h"

namespace qcdq {

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kUInt8:
      return "uint8";
    case DType::kInt8:
      return "int8";
    case DType::kUInt16:
      return "uint16";
    case DType::kInt16:
      return "int16";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
    case DType::kString:
      return "string";
    case DType::kBool:
      return "bool";
    case DType::kFloat16:
      return "float16";
    case DType::kFloat64:
      return "float64";
    case DType::kUInt32:
      return "uint32";
    case DType::kUInt64:
      return "uint64";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kUndefined:
      break;
  }
  return "undefined";
}

size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kBool:
      return 1;
    case DType::kUInt16:
    case DType::kInt16:
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kFloat32:
    case DType::kInt32:
    case DType::kUInt32:
      return 4;
    case DType::kInt64:
    case DType::kFloat64:
    case DType::kUInt64:
      return 8;
    case DType::kString:
    case DType::kUndefined:
      break;
  }
  return 0;
}

bool is_floating(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat16 || dtype == DType::kFloat64 ||
         dtype == DType::kBFloat16;
}

bool TensorType::is_static() const {
  if (!ranked) return false;
  for (int64_t d : dims) {
    if (d < 0) return false;
  }
  return true;
}

int64_t TensorData::numel() const {
  return std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
}

namespace {

std::string message(const UnsupportedOp::Details& d) {
  std::string text = d.op;
  if (!d.argument.empty()) {
    text += ": argument '" + d.argument + "'";
    if (!d.value.empty()) text += " = " + d.value;
  } else if (!d.value.empty()) {
    text += ": " + d.value;
  }
  text += ": " + d.reason;
  if (d.opset > 0) text += " (opset " + std::to_string(d.opset) + ")";
  if (!d.hint.empty()) text += "; " + d.hint;
  if (!d.where.empty()) text += " [at " + d.where + "]";
  return text;
}

std::string message(const std::vector<UnsupportedOp::Details>& refusals) {
  if (refusals.size() == 1) return message(refusals.front());
  std::string text = std::to_string(refusals.size()) + " things can't be exported:";
  for (const UnsupportedOp::Details& details : refusals) text += "\n  " + message(details);
  return text;
}

}  // namespace

UnsupportedOp::UnsupportedOp(Details details)
    : UnsupportedOp(std::vector<Details>{std::move(details)}) {}

UnsupportedOp::UnsupportedOp(std::vector<Details> refusals)
    : std::runtime_error(message(refusals)), refusals_(std::move(refusals)) {}

}  // namespace qcdq
