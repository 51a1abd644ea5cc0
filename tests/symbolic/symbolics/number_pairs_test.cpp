// A tensor beside a number, over all pairs of an element type and a kind of number: the file gives
// the type and the values that torch gives.
#include <gtest/gtest.h>
#include <torch/script.h>

#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "symbolic/convert/convert.h"
#include "symbolic/file/file.h"
#include "symbolic/settle.h"
#include "tests/symbolic/case_file.h"
#include "tests/symbolic/ort_numbers.h"

namespace qcdq::testing {
namespace {

const std::vector<std::string> kTypes = {"f64", "f32", "f16", "bf16", "i64",
                                         "i32", "i16", "i8",  "u8",   "bool"};
const std::vector<std::string> kNumbers = {"3", "-2", "300", "1.5", "-0.5", "1e6"};
const std::map<std::string, std::string> kBodies = {
    {"add", "%y : Tensor = aten::add(%x, @, 1)"},
    {"add alpha", "%y : Tensor = aten::add(%x, @, 2)"},
    {"sub", "%y : Tensor = aten::sub(%x, @, 1)"},
    {"rsub", "%y : Tensor = aten::rsub(%x, @, 1)"},
    {"mul", "%y : Tensor = aten::mul(%x, @)"},
    {"div", "%y : Tensor = aten::div(%x, @)"},
    {"div floor", "%y : Tensor = aten::div(%x, @, \"floor\")"},
    {"floor_divide", "%y : Tensor = aten::floor_divide(%x, @)"},
    {"remainder", "%y : Tensor = aten::remainder(%x, @)"},
    {"lt", "%y : Tensor = aten::lt(%x, @)"},
    {"eq", "%y : Tensor = aten::eq(%x, @)"},
    {"ge", "%y : Tensor = aten::ge(%x, @)"},
    {"pow", "%y : Tensor = aten::pow(%x, @)"},
    {"power of a number", "%y : Tensor = aten::pow(@, %x)"},
    {"where self", "%y : Tensor = aten::where(%c, @, %x)"},
    {"where other", "%y : Tensor = aten::where(%c, %x, @)"},
    {"masked_fill", "%y : Tensor = aten::masked_fill(%x, %c, @)"},
    {"clamp min", "%y : Tensor = aten::clamp(%x, @, None)"},
    {"clamp max", "%y : Tensor = aten::clamp(%x, None, @)"},
    {"full_like", "%y : Tensor = aten::full_like(%x, @, None, None, None, None, None)"},
};

// ONNX's Pow has no integers of 8 and 16 bits.
constexpr const char* kRefused =
    "pow of i16\npow of i8\npow of u8\n"
    "power of a number of i16\npower of a number of i8\npower of a number of u8\n";

struct Counts {
  int torch_refuses = 0;
  int no_kernel = 0;
  int compared = 0;
  std::set<std::string> refused;  // what ONNX can't say
};

// The body's line with `number` in place of @, and %yK for %y.
std::string line_of(std::string body, const std::string& number, size_t k) {
  body.replace(body.find('@'), 1, number);
  return body.replace(0, 2, "%y" + std::to_string(k));
}

Case case_of(const std::string& type, const std::string& dims,
             const std::vector<std::string>& lines) {
  Case one;
  one.declarations = {"input x " + type + dims + " 0..4", "input c bool" + dims};
  one.body = lines;
  std::string results;
  for (const std::string& line : lines)
    results += (results.empty() ? "" : ", ") + line.substr(0, line.find(' '));
  one.body.push_back("return (" + results + ")");
  return one;
}

// Whether torch computes the case and ONNX can say it.
bool converts(const Case& one, const std::string& what, Counts& counts) {
  Program program = program_of(one);
  try {
    settle_lowered(program);
  } catch (const std::exception&) {
    ++counts.torch_refuses;  // a number that the type does not hold, and the like
    return false;
  }
  try {
    convert(program, 21, {});
  } catch (const UnsupportedOp& refusal) {
    EXPECT_NE(std::string(refusal.what()).find(" takes no "), std::string::npos) << refusal.what();
    counts.refused.insert(what);
    return false;
  }
  return true;
}

// One file for all numbers of an op and a type: opening it takes most of the time.
void compare(const std::string& op, const std::string& type, const std::string& dims,
             Counts& counts) {
  std::vector<std::string> lines;
  for (size_t k = 0; k < kNumbers.size(); ++k) {
    // ORT computes powers of integers as doubles: those that overflow differ.
    if (op.starts_with("pow") && kNumbers[k] == "300") continue;
    const std::string line = line_of(kBodies.at(op), kNumbers[k], k);
    if (converts(case_of(type, dims, {line}), op + " of " + type, counts)) lines.push_back(line);
  }
  if (lines.empty()) return;
  Program program = program_of(case_of(type, dims, lines));
  settle_lowered(program);
  const OnnxGraph graph = convert(program, 21, {});
  check_model(graph);
  const auto count = static_cast<int>(lines.size());
  (expect_ort_agrees(graph, program) ? counts.compared : counts.no_kernel) += count;
}

TEST(NumberPairs, GiveTorchsTypesAndValues) {
  if (!have_ort()) GTEST_SKIP() << "ONNX Runtime is not there";
  Counts counts;
  for (const auto& [op, body] : kBodies) {
    for (const std::string& type : kTypes) {
      for (const char* dims : {"[2,3]", "[]"}) {
        SCOPED_TRACE(op + " of " + type + dims);
        compare(op, type, dims, counts);
      }
    }
  }
  std::string refused;
  for (const std::string& one : counts.refused) refused += one + "\n";
  EXPECT_EQ(refused, kRefused);
  EXPECT_GT(counts.compared, 1000);
  std::cerr << counts.compared << " compared, " << counts.no_kernel << " without a kernel in ONNX "
            << "Runtime, " << counts.torch_refuses << " refused by torch\n";
}

}  // namespace
}  // namespace qcdq::testing
