// See ort_numbers.h.
#include "tests/symbolic/ort_numbers.h"

#include <gtest/gtest.h>
#include <torch/script.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <optional>

#include "qcdq/verify.h"
#include "symbolic/file/file.h"

namespace qcdq::testing {
namespace {

void expect_same_numbers(const at::Tensor& torch_value, const at::Tensor& ort_value,
                         const std::string& where) {
  ASSERT_EQ(torch_value.sizes(), ort_value.sizes()) << where;
  ASSERT_EQ(torch_value.scalar_type(), ort_value.scalar_type()) << where;
  if (!torch_value.is_floating_point()) {
    EXPECT_TRUE(at::equal(torch_value, ort_value)) << where;
    return;
  }
  const auto type = torch_value.scalar_type();
  const double tolerance = type == at::kBFloat16 ? 1e-2 : type == at::kHalf ? 2e-3 : 2e-5;
  EXPECT_TRUE(at::allclose(torch_value.to(at::kDouble), ort_value.to(at::kDouble), tolerance,
                           tolerance, true))
      << where << "\ntorch " << torch_value << "\nORT " << ort_value;
}

}  // namespace

bool have_ort() {
  static const bool found = [] {
    try {
      return !find_onnxruntime().empty();
    } catch (const std::exception& error) {
      std::cerr << "numbers are not compared: " << error.what() << "\n";
      return false;
    }
  }();
  return found;
}

bool expect_ort_agrees(const OnnxGraph& graph, const Program& program) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("qcdq_case_" + std::to_string(getpid()) + ".onnx");
  write_model(graph, path.string(), ExternalData::kNever);
  std::optional<OrtModel> model;
  try {
    model.emplace(path.string(), OrtOptions{.library = "",
                                            .optimize = false,
                                            .threads = 1,
                                            .optimized_model_path = "",
                                            .config = {}});
  } catch (const std::exception& error) {
    std::filesystem::remove(path);
    if (std::string(error.what()).find("Could not find an implementation") == std::string::npos)
      ADD_FAILURE() << error.what();
    return false;
  }
  std::filesystem::remove(path);
  for (size_t run = 0; run < 2; ++run) {
    std::vector<c10::IValue> values;
    std::vector<at::Tensor> tensors;
    for (const ProgramInput& input : program.inputs) values.push_back(input.examples.at(run));
    for (const c10::IValue& value : values) tensors.push_back(value.toTensor());
    const std::vector<at::Tensor> expected = program.reference(values);
    const std::vector<at::Tensor> got = model->run(tensors);
    EXPECT_EQ(expected.size(), got.size());
    for (size_t i = 0; i < std::min(expected.size(), got.size()); ++i) {
      expect_same_numbers(expected[i], got[i], graph.outputs[i] + " of run " + std::to_string(run));
    }
  }
  return true;
}

}  // namespace qcdq::testing
