// A recursive-descent parser and evaluator of size expressions; see source/pt2/size_expression.h.
#include "symbolic/source/pt2/size_expression.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

namespace qcdq {

struct SizeExpression::Term {
  enum class Kind { kInteger, kSymbol, kAdd, kMul, kPow, kFloorDiv, kMod, kMax, kMin };
  Kind kind = Kind::kInteger;
  int64_t value = 0;
  std::string name;
  std::vector<std::shared_ptr<const Term>> operands;

  int64_t evaluate(const std::map<std::string, int64_t>& values) const;
  std::string text(const std::map<std::string, std::string>& names, bool nested) const;
  template <typename Predicate>
  bool any(Predicate predicate) const {
    return predicate(*this) || std::any_of(operands.begin(), operands.end(),
                                           [&](const auto& one) { return one->any(predicate); });
  }

  class Parser;
};

namespace {

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) throw std::runtime_error("a size expression divides by zero");
  return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

}  // namespace

class SizeExpression::Term::Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::shared_ptr<const Term> whole() {
    auto term = parse();
    if (at_ != text_.size()) fail();
    return term;
  }

 private:
  struct Function {
    std::string_view name;
    Kind kind;
    size_t least;
    size_t most;
  };
  static constexpr std::array<Function, 10> kFunctions = {{{"Add", Kind::kAdd, 1, SIZE_MAX},
                                                           {"Mul", Kind::kMul, 1, SIZE_MAX},
                                                           {"Pow", Kind::kPow, 2, 2},
                                                           {"PowByNatural", Kind::kPow, 2, 2},
                                                           {"FloorDiv", Kind::kFloorDiv, 2, 2},
                                                           {"CleanDiv", Kind::kFloorDiv, 2, 2},
                                                           {"Mod", Kind::kMod, 2, 2},
                                                           {"PythonMod", Kind::kMod, 2, 2},
                                                           {"Max", Kind::kMax, 1, SIZE_MAX},
                                                           {"Min", Kind::kMin, 1, SIZE_MAX}}};

  [[noreturn]] void fail() const {
    throw std::runtime_error("'" + std::string(text_) + "' is no size expression that is known");
  }

  void skip_space() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail();
  }

  std::string_view word() {
    skip_space();
    const size_t begin = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 || text_[at_] == '_')) {
      ++at_;
    }
    return text_.substr(begin, at_ - begin);
  }

  int64_t integer() {
    const bool negative = take('-');
    const std::string digits(word());
    const bool number = !digits.empty() && digits.size() < 19 &&
                        std::all_of(digits.begin(), digits.end(),
                                    [](unsigned char c) { return std::isdigit(c) != 0; });
    if (!number) fail();
    return (negative ? -1 : 1) * std::stoll(digits);
  }

  // Symbol('s17', positive=True, integer=True)
  std::string symbol_name() {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : ' ';
    if (quote != '\'' && quote != '"') fail();
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail();
    std::string name(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    const size_t close = text_.find(')', at_);
    if (close == std::string_view::npos || name.empty()) fail();
    at_ = close;
    return name;
  }

  std::shared_ptr<const Term> parse() {
    auto term = std::make_shared<Term>();
    skip_space();
    if (at_ < text_.size() &&
        (text_[at_] == '-' || std::isdigit(static_cast<unsigned char>(text_[at_])))) {
      term->value = integer();
      return term;
    }
    const std::string_view name = word();
    expect('(');
    if (name == "Integer") {
      term->value = integer();
    } else if (name == "Symbol" || name == "Dummy") {
      term->kind = Kind::kSymbol;
      term->name = symbol_name();
    } else {
      const auto function = std::find_if(kFunctions.begin(), kFunctions.end(),
                                         [&](const Function& one) { return one.name == name; });
      if (function == kFunctions.end()) fail();
      term->kind = function->kind;
      do {
        // Keywords such as evaluate=False say nothing about the value.
        const size_t before = at_;
        word();
        if (take('=')) {
          word();
          continue;
        }
        at_ = before;
        term->operands.push_back(parse());
      } while (take(','));
      const size_t count = term->operands.size();
      if (count < function->least || count > function->most) fail();
    }
    expect(')');
    return term;
  }

  std::string_view text_;
  size_t at_ = 0;
};

int64_t SizeExpression::Term::evaluate(const std::map<std::string, int64_t>& values) const {
  if (kind == Kind::kInteger) return value;
  if (kind == Kind::kSymbol) {
    const auto found = values.find(name);
    if (found == values.end()) throw std::runtime_error("size symbol '" + name + "' has no value");
    return found->second;
  }
  int64_t result = operands[0]->evaluate(values);
  for (size_t i = 1; i < operands.size(); ++i) {
    const int64_t operand = operands[i]->evaluate(values);
    switch (kind) {
      case Kind::kAdd:
        result += operand;
        break;
      case Kind::kMul:
        result *= operand;
        break;
      case Kind::kPow: {
        if (operand < 0 || operand > 62)
          throw std::runtime_error("a size has a power out of range");
        const int64_t base = std::exchange(result, 1);
        for (int64_t n = 0; n < operand; ++n) result *= base;
        break;
      }
      case Kind::kFloorDiv:
        result = floor_divide(result, operand);
        break;
      case Kind::kMod:
        result -= floor_divide(result, operand) * operand;
        break;
      case Kind::kMax:
        result = std::max(result, operand);
        break;
      default:
        result = std::min(result, operand);
    }
  }
  return result;
}

std::string SizeExpression::Term::text(const std::map<std::string, std::string>& names,
                                       bool nested) const {
  const auto joined = [&](const char* separator, bool inner) {
    std::string result;
    for (const auto& operand : operands) {
      result += (result.empty() ? "" : separator) + operand->text(names, inner);
    }
    return result;
  };
  const auto grouped = [&](const std::string& inner) { return nested ? "(" + inner + ")" : inner; };
  switch (kind) {
    case Kind::kInteger:
      return std::to_string(value);
    case Kind::kSymbol: {
      const auto renamed = names.find(name);
      return renamed == names.end() ? name : renamed->second;
    }
    case Kind::kAdd:
      return grouped(joined(" + ", true));
    case Kind::kMul:
      return joined("*", true);
    case Kind::kPow:
      return joined("**", true);
    case Kind::kFloorDiv:
      return grouped(joined("//", true));
    case Kind::kMod:
      return grouped(joined(" % ", true));
    case Kind::kMax:
      return "max(" + joined(", ", false) + ")";
    default:
      return "min(" + joined(", ", false) + ")";
  }
}

SizeExpression::SizeExpression(int64_t value) {
  auto term = std::make_shared<Term>();
  term->value = value;
  term_ = std::move(term);
}

SizeExpression SizeExpression::parse(const std::string& srepr) {
  return SizeExpression(Term::Parser(srepr).whole());
}

std::optional<int64_t> SizeExpression::constant() const {
  if (term_->any([](const Term& one) { return one.kind == Term::Kind::kSymbol; })) return {};
  return term_->evaluate({});
}

std::optional<std::string> SizeExpression::symbol() const {
  if (term_->kind != Term::Kind::kSymbol) return {};
  return term_->name;
}

bool SizeExpression::contains(const std::string& symbol) const {
  return term_->any(
      [&](const Term& one) { return one.kind == Term::Kind::kSymbol && one.name == symbol; });
}

int64_t SizeExpression::evaluate(const std::map<std::string, int64_t>& values) const {
  return term_->evaluate(values);
}

std::string SizeExpression::text(const std::map<std::string, std::string>& names) const {
  return term_->text(names, false);
}

}  // namespace qcdq
