// What the tests of writes share: a script is lowered, and its graph computes what the module
// itself computes, on the example and on other values.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <optional>
#include <string>
#include <vector>

#include "symbolic/lower/passes.h"
#include "symbolic/settle.h"
#include "symbolic/source/source.h"
#include "tests/symbolic/program_fixture.h"

namespace qcdq {

inline std::vector<c10::IValue> copies_of(const std::vector<at::Tensor>& inputs) {
  std::vector<c10::IValue> values;
  for (const at::Tensor& input : inputs) values.push_back(input.clone());
  return values;
}

/// Runs the program's graph and the module on `inputs`; fails where they differ.
inline void expect_same(const Program& program, const std::vector<at::Tensor>& inputs,
                        const std::string& script) {
  const std::vector<at::Tensor> expected = program.reference(copies_of(inputs));
  std::optional<RunFailure> failure;
  const Run run = interpret(*program.graph, copies_of(inputs), failure);
  ASSERT_FALSE(failure) << failure->message << script;
  ASSERT_EQ(run.outputs.size(), expected.size()) << script;
  for (size_t i = 0; i < expected.size(); ++i) {
    const at::Tensor output = run.outputs[i].toTensor();
    EXPECT_EQ(output.scalar_type(), expected[i].scalar_type()) << script;
    EXPECT_TRUE(at::equal(output, expected[i])) << script << "output " << i << ":\n"
                                                << output << "\n"
                                                << expected[i];
  }
}

/// Other values of the same shapes and types.
inline std::vector<at::Tensor> other_values(const std::vector<at::Tensor>& inputs) {
  const at::Generator generator = at::detail::createCPUGenerator(7);
  std::vector<at::Tensor> others;
  for (const at::Tensor& input : inputs) {
    others.push_back(
        at::randn(input.sizes(), generator, at::kFloat).mul(3).to(input.scalar_type()));
  }
  return others;
}

/// The module's script settled: no op of the graph writes, and it computes what the module
/// computes, on `inputs` and on other values.
inline Program checked(const std::string& script, const std::vector<at::Tensor>& inputs) {
  Program program = program_from_torchscript(module_of(script), copies_of(inputs), {});
  settle(program);
  EXPECT_FALSE(has_mutation(program.graph->block())) << script << program.graph->toString();
  expect_same(program, inputs, script);
  expect_same(program, other_values(inputs), script);
  return program;
}

/// The whole text of what settling the module's script throws; "" where it throws nothing.
inline std::string refusal_of(const std::string& script, const std::vector<at::Tensor>& inputs) {
  Program program = program_from_torchscript(module_of(script), copies_of(inputs), {});
  try {
    settle(program);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace qcdq
