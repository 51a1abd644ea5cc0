// Case files (tests/symbolic/cases/*.txt): torch IR text in, ONNX text out. cases_test.cpp runs
// them; this part reads them and makes Programs of them.
//
//   ### name of the case
//   opset 21                             target opset; default 21
//   input x f32[1,3,N=8:5,8] -2..2       graph input: element type, dims (N=8:5 is dynamic: 8, then
//   5), optional value range const conv.weight f32[4,3,3,3]       a parameter: a graph input in the
//   text, a constant in the program %y : Tensor = aten::conv2d(%x, %conv.weight, None, [1, 1], [0,
//   0], [1, 1], 1) return (%y)
//   ---
//   the ONNX text, or one line "refused: MESSAGE"
//
// Literals in argument lists (numbers, True, None, "text", [lists]) become prim::Constant nodes.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "symbolic/program/program.h"

namespace qcdq::testing {

struct Case {
  std::string name;
  int64_t opset = 21;
  std::vector<std::string> declarations;  // "input ..." and "const ...", in order
  std::vector<std::string> body;
  std::string expected;
  std::string text;  // the case's own lines up to ---
};

struct CaseFile {
  std::filesystem::path path;
  std::string preamble;
  std::vector<Case> cases;
};

CaseFile read_cases(const std::filesystem::path& path);
void write_cases(const CaseFile& file);

/// The lowered program of a case: parsed, constants in place, types not recorded yet. Values are
/// random with a fixed seed.
Program program_of(const Case& one);

}  // namespace qcdq::testing
