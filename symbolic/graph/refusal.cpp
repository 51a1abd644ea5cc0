// UnsupportedOp of include/qcdq/symbolic.h: the one type of refusal, and its words.
#include <utility>

#include "qcdq/symbolic.h"

namespace qcdq {

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
