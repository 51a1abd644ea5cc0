// Outputs of the torch model against ONNX Runtime's; see compare_outputs.h.
#include "symbolic/verify/compare_outputs.h"

#include <limits>
#include <sstream>

#include "symbolic/program/compare_tensors.h"
#include "symbolic/program/values.h"

namespace qcdq {
namespace {

std::string tensor_text(const at::Tensor& tensor) {
  std::ostringstream text;
  text << c10::toString(tensor.scalar_type()) << tensor.sizes();
  return text.str();
}

}  // namespace

std::vector<at::Tensor> flatten_tensors(const c10::IValue& value, const std::string& what) {
  std::vector<at::Tensor> tensors;
  for_each_leaf(value, [&](const c10::IValue& leaf) {
    if (leaf.isTensor()) {
      if (leaf.toTensor().defined()) tensors.push_back(leaf.toTensor());
    } else if (leaf.isBool()) {
      tensors.push_back(at::scalar_tensor(leaf.toBool(), at::kBool));
    } else if (leaf.isInt()) {
      tensors.push_back(at::scalar_tensor(leaf.toInt(), at::kLong));
    } else if (leaf.isDouble()) {
      tensors.push_back(at::scalar_tensor(leaf.toDouble(), at::kDouble));
    } else if (!leaf.isNone()) {
      throw std::runtime_error(what + " is a " + leaf.tagKind() +
                               ": expected tensors, or tuples, lists or dicts of them");
    }
  });
  return tensors;
}

OutputComparison compare_outputs(const std::string& name, const at::Tensor& torch,
                                 const at::Tensor& ort) {
  OutputComparison result;
  result.difference.output = name;
  if (torch.scalar_type() != ort.scalar_type() || torch.sizes() != ort.sizes()) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    result.difference.max_abs = result.difference.max_relative = result.rms_relative = kInfinity;
    result.difference.cosine = 0;
    result.mismatch = "torch gives " + tensor_text(torch) + ", ONNX Runtime " + tensor_text(ort);
    return result;
  }
  const TensorDifference found = compare_tensors(torch, ort);
  result.difference.max_abs = found.max_abs;
  result.difference.max_relative = found.max_relative;
  result.difference.cosine = found.cosine;
  result.rms_relative = found.rms_relative;
  if (at::isFloatingType(torch.scalar_type())) return result;
  if (found.differing > 0) {
    result.mismatch = std::to_string(found.differing) + " of " + std::to_string(torch.numel()) +
                      " values differ, and " + std::string(c10::toString(torch.scalar_type())) +
                      " must be equal";
  } else if (!at::equal(torch.detach().to(at::kCPU), ort)) {
    // f64 holds integers up to 2^53 exactly; larger ones are compared as they are.
    result.mismatch = "values beyond 2^53 differ";
  }
  return result;
}

}  // namespace qcdq
