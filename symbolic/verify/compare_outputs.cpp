// Outputs of the torch model against ONNX Runtime's; see compare_outputs.h.
#include "symbolic/verify/compare_outputs.h"

#include <cmath>
#include <limits>
#include <sstream>

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

OutputComparison compare_outputs(const std::string& name, const std::string& run,
                                 const at::Tensor& torch, const at::Tensor& ort) {
  OutputComparison result;
  result.difference.output = name;
  result.difference.run = run;
  const double infinity = std::numeric_limits<double>::infinity();
  if (torch.scalar_type() != ort.scalar_type() || torch.sizes() != ort.sizes()) {
    result.difference.max_abs = result.difference.max_relative = infinity;
    result.rms_relative = infinity;
    result.difference.cosine = 0;
    result.mismatch = "torch gives " + tensor_text(torch) + ", ONNX Runtime " + tensor_text(ort);
    return result;
  }
  const at::Tensor a = torch.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor b = ort.to(at::kDouble).contiguous();
  const double* pa = a.const_data_ptr<double>();
  const double* pb = b.const_data_ptr<double>();
  double largest = 0;
  double dot = 0;
  double norm_a = 0;
  double norm_b = 0;
  double norm_difference = 0;
  int64_t differing = 0;
  double& max_abs = result.difference.max_abs;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double x = pa[i];
    const double y = pb[i];
    if (std::isnan(x) && std::isnan(y)) continue;
    if (x != y) ++differing;
    if (!std::isfinite(x) || !std::isfinite(y)) {
      if (x != y) max_abs = infinity;  // NaN differs from anything
      continue;
    }
    max_abs = std::max(max_abs, std::abs(x - y));
    largest = std::max(largest, std::abs(x));
    dot += x * y;
    norm_difference += (x - y) * (x - y);
    norm_a += x * x;
    norm_b += y * y;
  }
  // All zeros in torch: any difference is infinitely large beside it.
  result.difference.max_relative = max_abs == 0 ? 0 : max_abs / largest;
  result.rms_relative = std::isinf(max_abs)    ? infinity
                        : norm_difference == 0 ? 0
                                               : std::sqrt(norm_difference / norm_a);
  const double norms = std::sqrt(norm_a) * std::sqrt(norm_b);
  result.difference.cosine =
      norms > 0 ? std::min(1.0, std::max(-1.0, dot / norms)) : (norm_a == norm_b ? 1.0 : 0.0);
  if (!at::isFloatingType(torch.scalar_type()) && differing > 0) {
    // int64 values beyond 2^53 are compared again as they are.
    result.mismatch = std::to_string(differing) + " of " + std::to_string(a.numel()) +
                      " values differ, and " + std::string(c10::toString(torch.scalar_type())) +
                      " must be equal";
  } else if (!at::isFloatingType(torch.scalar_type()) &&
             !at::equal(torch.detach().to(at::kCPU), ort)) {
    result.mismatch = "values beyond 2^53 differ";
  }
  return result;
}

}  // namespace qcdq
