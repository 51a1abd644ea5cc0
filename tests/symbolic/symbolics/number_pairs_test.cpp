// A tensor beside a number, over all pairs of an element type and a kind of number: the file gives
// the type and the values that torch gives.
#include <gtest/gtest.h>
#include <torch/script.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "symbolic/convert/convert.h"
#include "symbolic/file/file.h"
#include "symbolic/program/run_node.h"
#include "symbolic/settle.h"
#include "tests/symbolic/case_file.h"
#include "tests/symbolic/ort_numbers.h"

namespace qcdq::testing {
namespace {

const std::vector<std::string> kTypes = {"f64", "f32", "f16", "bf16", "i64",
                                         "i32", "i16", "i8",  "u8",   "bool"};
const std::vector<std::string> kNumbers = {"3", "-2", "300", "1.5", "-0.5", "1e6", "True", "False"};
const std::map<std::string, std::string> kBodies = {
    {"add", "%y : Tensor = aten::add(%x, N, 1)"},
    {"add alpha", "%y : Tensor = aten::add(%x, N, 2)"},
    {"sub", "%y : Tensor = aten::sub(%x, N, 1)"},
    {"rsub", "%y : Tensor = aten::rsub(%x, N, 1)"},
    {"mul", "%y : Tensor = aten::mul(%x, N)"},
    {"div", "%y : Tensor = aten::div(%x, N)"},
    {"div floor", "%y : Tensor = aten::div(%x, N, \"floor\")"},
    {"floor_divide", "%y : Tensor = aten::floor_divide(%x, N)"},
    {"remainder", "%y : Tensor = aten::remainder(%x, N)"},
    {"lt", "%y : Tensor = aten::lt(%x, N)"},
    {"eq", "%y : Tensor = aten::eq(%x, N)"},
    {"ge", "%y : Tensor = aten::ge(%x, N)"},
    {"pow", "%y : Tensor = aten::pow(%x, N)"},
    {"power of a number", "%y : Tensor = aten::pow(N, %x)"},
    {"where self", "%y : Tensor = aten::where(%c, N, %x)"},
    {"where other", "%y : Tensor = aten::where(%c, %x, N)"},
    {"masked_fill", "%y : Tensor = aten::masked_fill(%x, %c, N)"},
    {"clamp min", "%y : Tensor = aten::clamp(%x, N, None)"},
    {"clamp max", "%y : Tensor = aten::clamp(%x, None, N)"},
    {"full_like", "%y : Tensor = aten::full_like(%x, N, None, None, None, None, None)"},
};

struct Counts {
  int torch_refuses = 0;
  int no_kernel = 0;
  int compared = 0;
  std::set<std::string> refused;  // what ONNX can't say
};

Case case_of(const std::string& type, const std::string& number, std::string body,
             const std::string& dims) {
  Case one;
  one.declarations = {"input x " + type + dims + " 0..4", "input c bool" + dims};
  body.replace(body.find("(N,") != std::string::npos ? body.find("(N,") + 1 : body.find(" N") + 1,
               1, number);
  one.body = {body, "return (%y)"};
  return one;
}

void compare(const Case& one, const std::string& op, const std::string& type, Counts& counts) {
  Program program = program_of(one);
  try {
    settle_lowered(program);
  } catch (const std::exception&) {
    ++counts.torch_refuses;  // a value that the type does not hold, and the like
    return;
  }
  std::optional<OnnxGraph> graph;
  try {
    graph = convert(program, 21, {});
  } catch (const UnsupportedOp& refusal) {
    EXPECT_NE(std::string(refusal.what()).find(" takes no "), std::string::npos) << refusal.what();
    counts.refused.insert(op + " of " + type);
    return;
  }
  check_model(*graph);
  ++(expect_ort_agrees(*graph, program) ? counts.compared : counts.no_kernel);
}

Counts compare_all(const std::string& dims) {
  Counts counts;
  for (const auto& [op, body] : kBodies) {
    for (const std::string& type : kTypes) {
      for (const std::string& number : kNumbers) {
        SCOPED_TRACE(op + " of " + type + dims + " and " + number);
        compare(case_of(type, number, body, dims), op, type, counts);
      }
    }
  }
  return counts;
}

TEST(NumberPairs, GiveTorchsTypesAndValues) {
  if (!have_ort()) GTEST_SKIP() << "ONNX Runtime is not there";
  for (const char* dims : {"[2,3]", "[]"}) {
    const Counts counts = compare_all(dims);
    std::cerr << dims << ": " << counts.compared << " compared, " << counts.no_kernel
              << " without a kernel in ONNX Runtime, " << counts.torch_refuses
              << " that torch refuses\n";
    for (const std::string& refused : counts.refused) std::cerr << "  refused: " << refused << "\n";
  }
}

}  // namespace
}  // namespace qcdq::testing
