// Sizes in a .pt2 file: integer expressions over symbols, written as sympy's srepr writes them.
// Free of torch; load_pt2.cpp solves the symbols of given inputs with them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace qcdq {

/// An integer expression such as "Add(Mul(Integer(2), Symbol('s17', integer=True)), Integer(1))".
class SizeExpression {
 public:
  SizeExpression(int64_t value);  // NOLINT(google-explicit-constructor): a size is an expression
  /// Throws std::runtime_error, with the text, for what is no such expression.
  static SizeExpression parse(const std::string& srepr);

  /// The size, where no symbol is in it.
  std::optional<int64_t> constant() const;
  /// The symbol's name, where the expression is one symbol.
  std::optional<std::string> symbol() const;
  bool contains(const std::string& symbol) const;
  /// With the symbols' values. Throws std::runtime_error for a symbol without a value, a division
  /// by zero.
  int64_t evaluate(const std::map<std::string, int64_t>& values) const;
  /// "2*s17 + 1": what names the dimension in the ONNX file; `names` renames symbols.
  std::string text(const std::map<std::string, std::string>& names = {}) const;

 private:
  struct Term;
  explicit SizeExpression(std::shared_ptr<const Term> term) : term_(std::move(term)) {}
  std::shared_ptr<const Term> term_;
};

}  // namespace qcdq
