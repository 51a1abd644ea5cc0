// See random_writes.h. No torch header: the program write_programs links it alone.
#include "tests/symbolic/lower/random_writes.h"

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

namespace qcdq {
namespace {

using Dims = std::vector<int64_t>;

struct Variable {
  std::string name;
  Dims dims;
  bool writable = true;  // no element stands for several
};

std::string text(const Dims& dims) {
  std::string list;
  for (int64_t dim : dims) list += (list.empty() ? "" : ", ") + std::to_string(dim);
  return "[" + list + "]";
}

int64_t count(const Dims& dims) {
  int64_t product = 1;
  for (int64_t dim : dims) product *= dim;
  return product;
}

class Writer {
 public:
  explicit Writer(uint64_t seed) : random_(seed) {}

  std::string program() {
    variables_ = {{"x", {4, 6}}, {"y", {6}}};
    if (below(4) != 0) define("a", "x + 0.0", {4, 6});
    const int statements = 4 + below(8);
    for (int i = 0; i < statements; ++i) statement();
    const Variable& first = variables_[below(2) == 0 && variables_.size() > 2 ? 2 : 0];
    std::string results = first.name + " + 0.0";
    for (int i = below(3); i >= 0; --i) results += ", " + any().name + (below(2) ? "" : " * 2.0");
    line("return " + results);
    return "def forward(self, x, y):\n" + body_;
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }
  std::string number() {
    return std::to_string(below(9) - 4) + "." + std::to_string(below(4) * 25);
  }
  void line(const std::string& code) { body_ += std::string(indent_, ' ') + code + "\n"; }
  std::string new_name() { return "v" + std::to_string(made_++); }

  void define(const std::string& name, const std::string& code, Dims dims, bool writable = true) {
    line(name + " = " + code);
    variables_.push_back({name, std::move(dims), writable});
  }

  const Variable& any() {
    // The newest ones more often: views of views.
    const auto size = static_cast<int>(variables_.size());
    return variables_[static_cast<size_t>(below(2) == 0 ? std::max(size - 1 - below(3), 0)
                                                        : below(size))];
  }

  const Variable* writable() {
    for (int i = 0; i < 8; ++i) {
      const Variable& one = any();
      if (one.writable && count(one.dims) > 0) return &one;
    }
    return nullptr;
  }

  /// A variable that broadcasts to `dims`; null where none was met.
  const Variable* operand(const Dims& dims) {
    for (int i = 0; i < 12; ++i) {
      const Variable& one = any();
      if (one.dims.size() > dims.size()) continue;
      bool fits = true;
      for (size_t d = 1; d <= one.dims.size(); ++d) {
        const int64_t size = one.dims[one.dims.size() - d];
        fits &= size == 1 || size == dims[dims.size() - d];
      }
      if (fits) return &one;
    }
    return nullptr;
  }

  void statement() {
    const int kind = below(12);
    if (kind < 5) {
      take_view();
    } else if (kind < 10) {
      write();
    } else if (kind == 10) {
      const Variable from = any();
      define(new_name(), from.name + " * " + number(), from.dims);
    } else {
      control();
    }
  }

  void take_view() {
    const Variable v = any();
    const auto rank = static_cast<int>(v.dims.size());
    if (rank == 0) return define(new_name(), v.name + ".unsqueeze(0)", {1}, v.writable);
    const int d = below(rank);
    const int64_t size = v.dims[static_cast<size_t>(d)];
    const std::string dim = std::to_string(below(3) == 0 ? d - rank : d);
    switch (below(16)) {
      case 0:
      case 1:
        return slice(v, d, size);
      case 2:
        return select(v, d, size, dim);
      case 3:
        return narrow(v, d, size, dim);
      case 4:
        return transpose(v, d, below(rank));
      case 5:
        return permute(v);
      case 6: {
        Dims dims = v.dims;
        dims.insert(dims.begin() + d, 1);
        return define(new_name(), v.name + ".unsqueeze(" + std::to_string(d) + ")", dims,
                      v.writable);
      }
      case 7: {
        Dims dims = v.dims;
        if (size == 1) dims.erase(dims.begin() + d);
        return define(new_name(), v.name + ".squeeze(" + dim + ")", dims, v.writable);
      }
      case 8:
        return define(new_name(), v.name + ".reshape(-1)", {count(v.dims)}, v.writable);
      case 9:
        return define(new_name(), v.name + ".flatten()", {count(v.dims)}, v.writable);
      case 10:
        return define(new_name(), v.name + ".detach()", v.dims, v.writable);
      case 11:
        return define(new_name(), v.name + ".contiguous()", v.dims, v.writable);
      case 12:
        return parts(v, d, size, dim);
      case 13:
        return split_dim(v, d, size);
      case 14:
        return diagonal(v);
      default:
        return expand(v, d, size);
    }
  }

  void slice(const Variable& v, int d, int64_t size) {
    if (size == 0) return;
    const int64_t start = below(static_cast<int>(size));
    const int64_t step = 1 + below(3);
    const int64_t end = start + 1 + below(static_cast<int>(size - start));
    Dims dims = v.dims;
    dims[static_cast<size_t>(d)] = (end - start + step - 1) / step;
    std::string index;
    for (int i = 0; i < d; ++i) index += ":, ";
    const bool from_end = below(3) == 0;
    index += std::to_string(from_end ? start - size : start) + ":" +
             (end == size ? "" : std::to_string(end)) +
             (step == 1 ? "" : ":" + std::to_string(step));
    define(new_name(), v.name + "[" + index + "]", dims, v.writable);
  }

  void select(const Variable& v, int d, int64_t size, const std::string& dim) {
    if (size == 0) return;
    Dims dims = v.dims;
    dims.erase(dims.begin() + d);
    const int64_t at = below(static_cast<int>(size)) - (below(2) == 0 ? size : 0);
    define(new_name(), v.name + ".select(" + dim + ", " + std::to_string(at) + ")", dims,
           v.writable);
  }

  void narrow(const Variable& v, int d, int64_t size, const std::string& dim) {
    if (size == 0) return;
    const int64_t start = below(static_cast<int>(size));
    const int64_t length = 1 + below(static_cast<int>(size - start));
    Dims dims = v.dims;
    dims[static_cast<size_t>(d)] = length;
    define(new_name(),
           v.name + ".narrow(" + dim + ", " + std::to_string(start) + ", " +
               std::to_string(length) + ")",
           dims, v.writable);
  }

  void transpose(const Variable& v, int first, int second) {
    Dims dims = v.dims;
    std::swap(dims[static_cast<size_t>(first)], dims[static_cast<size_t>(second)]);
    if (dims.size() == 2 && first != second && below(2) == 0) {
      return define(new_name(), v.name + ".t()", dims, v.writable);
    }
    define(new_name(),
           v.name + ".transpose(" + std::to_string(first) + ", " + std::to_string(second) + ")",
           dims, v.writable);
  }

  void permute(const Variable& v) {
    Dims order;
    for (size_t i = 0; i < v.dims.size(); ++i) order.push_back(static_cast<int64_t>(i));
    std::shuffle(order.begin(), order.end(), random_);
    Dims dims;
    for (int64_t from : order) dims.push_back(v.dims[static_cast<size_t>(from)]);
    define(new_name(), v.name + ".permute(" + text(order) + ")", dims, v.writable);
  }

  /// chunk, split and unbind, all of their parts.
  void parts(const Variable& v, int d, int64_t size, const std::string& dim) {
    if (size < 2 || size > 6) return;
    const int kind = below(3);
    const int64_t length = kind == 2 ? 1 : (size + 1) / 2;
    std::vector<Variable> made;
    std::string names;
    for (int64_t at = 0; at < size; at += length) {
      Dims dims = v.dims;
      dims[static_cast<size_t>(d)] = std::min(length, size - at);
      if (kind == 2) dims.erase(dims.begin() + d);
      made.push_back({new_name(), dims, v.writable});
      names += (names.empty() ? "" : ", ") + made.back().name;
    }
    const std::string op = kind == 0   ? ".chunk(2, " + dim + ")"
                           : kind == 1 ? ".split(" + std::to_string(length) + ", " + dim + ")"
                                       : ".unbind(" + dim + ")";
    line(names + " = " + v.name + op);
    variables_.insert(variables_.end(), made.begin(), made.end());
  }

  void split_dim(const Variable& v, int d, int64_t size) {
    if (size < 2 || size % 2 != 0) return;
    Dims dims = v.dims;
    dims[static_cast<size_t>(d)] = 2;
    dims.insert(dims.begin() + d + 1, size / 2);
    define(new_name(),
           v.name + ".unflatten(" + std::to_string(d) + ", " + text({2, size / 2}) + ")", dims,
           v.writable);
  }

  void diagonal(const Variable& v) {
    if (v.dims.size() != 2 || below(2) == 0) return;
    define(new_name(), v.name + ".diagonal()", {std::min(v.dims[0], v.dims[1])}, v.writable);
  }

  void expand(const Variable& v, int d, int64_t size) {
    if (size != 1 || below(2) == 0) return;
    Dims dims = v.dims;
    dims[static_cast<size_t>(d)] = 3;
    define(new_name(), v.name + ".expand(" + text(dims) + ")", dims, false);
  }

  void write() {
    const Variable* found = writable();
    if (found == nullptr) return;
    const Variable v = *found;
    const Variable* other = operand(v.dims);
    switch (below(16)) {
      case 0:
        return line(v.name + ".zero_()");
      case 1:
        return line(v.name + ".fill_(" + number() + ")");
      case 2:
        return line(v.name + ".add_(" + number() + ")");
      case 3:
        return line(v.name + ".mul_(" + number() + ")");
      case 4:
        return line(v.name + ".clamp_(-0.8, 0.9)");
      case 5:
        return line("torch.relu_(" + v.name + ")");
      case 6:
        if (other != nullptr) line(v.name + ".copy_(" + other->name + ")");
        return;
      case 7:
        if (other != nullptr) line(v.name + ".sub_(" + other->name + ", alpha=2)");
        return;
      case 8:
        if (other != nullptr) line(v.name + ".add_(" + other->name + " * 0.5)");
        return;
      case 9:
        return line(v.name + "[" + v.name + " < " + number() + "] = " + number());
      case 10:
        return line(v.name + ".masked_fill_(" + v.name + " > " + number() + ", " + number() + ")");
      case 11:
        return write_by_index(v);
      case 12:
        return write_element(v);
      case 13:
        return line(v.name + ".masked_scatter_(" + v.name + " > 0.5, " + v.name +
                    ".clone() * 3.0)");
      case 14:
        return line("torch.add(" + v.name + ", " + number() + ", out=" + v.name + ")");
      default:
        if (other == nullptr) return;
        return line("torch.mul(" + v.name + ", " + other->name + ".clone(), out=" + v.name + ")");
    }
  }

  void write_by_index(const Variable& v) {
    if (v.dims.empty()) return;
    const int64_t size = v.dims[0];
    const int64_t first = below(static_cast<int>(size));
    const int64_t second = (first + 1) % size;
    const std::string rows = "torch.tensor(" + text({first, second}) + ")";
    if (size > 1 && below(2) == 0) return line(v.name + "[" + rows + "] = " + number());
    line(v.name + ".index_put_((torch.tensor(" + text({first}) + "),), torch.tensor(" + number() +
         "), accumulate=" + (below(2) == 0 ? "True" : "False") + ")");
  }

  void write_element(const Variable& v) {
    if (v.dims.empty()) return;
    const int64_t size = v.dims[0];
    const int64_t at = below(static_cast<int>(size));
    const Variable* other = operand(Dims(v.dims.begin() + 1, v.dims.end()));
    const std::string target = v.name + "[" + std::to_string(below(2) == 0 ? at - size : at) + "]";
    line(target + " = " + (other != nullptr && below(2) == 0 ? other->name : number()));
  }

  /// Branches on sizes and loops of known length, which go; nothing they make is seen outside.
  void control() {
    if (indent_ > 4) return;
    const Variable v = any();
    if (v.dims.empty()) return;
    const size_t known = variables_.size();
    if (below(2) == 0) {
      line("if " + v.name + ".size(0) > " + std::to_string(below(5)) + ":");
    } else {
      line("for i" + std::to_string(made_++) + " in range(" + std::to_string(1 + below(2)) + "):");
    }
    indent_ += 4;
    line("pass");
    for (int i = 1 + below(3); i > 0; --i) statement();
    indent_ -= 4;
    variables_.resize(known);
  }

  std::mt19937_64 random_;
  std::vector<Variable> variables_;
  std::string body_;
  size_t indent_ = 4;
  int made_ = 0;
};

}  // namespace

std::string random_write_program(uint64_t seed) { return Writer(seed).program(); }

}  // namespace qcdq
