// Every case of tests/symbolic/cases/*.txt: the ONNX text is as written there, onnx's checker
// accepts the graph, and ONNX Runtime computes what torch computes, at the second size of dynamic
// axes too. QCDQ_UPDATE_CASES=1 writes the files anew: read the difference before you keep it.
#include <gtest/gtest.h>
#include <torch/script.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "symbolic/convert/convert.h"
#include "symbolic/file/file.h"
#include "symbolic/graph/onnx_graph.h"
#include "symbolic/settle.h"
#include "tests/symbolic/case_file.h"
#include "tests/symbolic/op_versions.h"
#include "tests/symbolic/ort_numbers.h"

namespace qcdq::testing {
namespace {

bool updating() { return std::getenv("QCDQ_UPDATE_CASES") != nullptr; }

std::vector<std::filesystem::path> case_paths() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(QCDQ_TEST_DIR) / "cases")) {
    if (entry.path().extension() == ".txt") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string indented_once(const std::string& message) {
  std::string text;
  for (char c : message) text += c == '\n' ? std::string("\n  ") : std::string(1, c);
  return text;
}

class Cases : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(Cases, ConvertCheckAndRun) {
  CaseFile file = read_cases(GetParam());
  ASSERT_FALSE(file.cases.empty());
  for (Case& one : file.cases) {
    SCOPED_TRACE(file.path.filename().string() + ": " + one.name);
    std::string got;
    try {
      Program program = program_of(one);
      settle_lowered(program);
      const OnnxGraph graph = convert(program, one.opset, {});
      got = to_text(graph);
      check_model(graph);
      if (have_ort()) expect_ort_agrees(graph, program);
    } catch (const UnsupportedOp& refusal) {
      got = "refused: " + indented_once(refusal.what()) + "\n";
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what() << "\n" << got;
      continue;
    }
    if (!updating()) {
      EXPECT_EQ(one.expected, got);
    }
    one.expected = got;
  }
  if (updating()) write_cases(file);
}

// The same cases at every opset: what is not refused has to compute torch's numbers there too.
TEST_P(Cases, EveryOpset) {
  if (!have_ort()) GTEST_SKIP() << "ONNX Runtime is not there";
  const CaseFile file = read_cases(GetParam());
  for (const Case& one : file.cases) {
    if (one.expected.starts_with("refused")) continue;
    Program program = program_of(one);
    settle_lowered(program);
    std::set<std::string> seen;
    for (int64_t opset = 10; opset <= 26; ++opset) {
      SCOPED_TRACE(one.name + " at opset " + std::to_string(opset));
      std::optional<OnnxGraph> graph;
      try {
        graph = convert(program, opset, {});
      } catch (const UnsupportedOp&) {
        continue;  // named and explained: the other test reads such messages
      }
      if (!seen.insert(versions_of(*graph)).second) continue;
      check_model(*graph);
      expect_ort_agrees(*graph, program);
    }
    EXPECT_FALSE(seen.empty()) << one.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Cases, ::testing::ValuesIn(case_paths()),
                         [](const auto& info) { return info.param.stem().string(); });

}  // namespace
}  // namespace qcdq::testing
