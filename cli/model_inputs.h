// Matches input specifications with a model's arguments and makes their values.
// input_spec.h parses the text; export and verify use the result.
#pragma once

#include <torch/script.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/input_spec.h"
#include "qcdq/export.h"
#include "qcdq/inspect.h"

namespace qcdq::cli {

/// One argument of the method, in the schema's order.
struct ModelInput {
  std::string name;  // as qcdq::argument_names has it
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> dims;
  std::vector<std::string> symbols;  // per dimension: "" or the dynamic dimension's name
  std::vector<int64_t> second_dims;  // where the model tells which other sizes it takes
  std::optional<IntegerRange> range;
  at::Tensor value;                          // from a .npy file; undefined otherwise
  std::optional<c10::IValue> given_default;  // left out before a later argument that is given

  bool is_tensor() const { return !given_default; }
  bool is_dynamic() const;
};

/// The inputs that `specs` describe. Arguments with defaults may be left out. `file_inputs` (by
/// verify: the .onnx file's own inputs) stand in for specs that are missing, a dynamic dimension
/// with size 2. Throws UsageError for an unknown name, a spec given twice, a missing spec.
std::vector<ModelInput> match_inputs(const torch::jit::Module& module, const std::string& method,
                                     const std::vector<InputSpec>& specs,
                                     const std::vector<NamedType>* file_inputs = nullptr);

/// The inputs of a .pt2 program: sizes and types are its own where `specs` leave them out. Throws
/// UsageError as above, and for a type that is not the program's.
std::vector<ModelInput> match_inputs(const ExportedProgram& program,
                                     const std::vector<InputSpec>& specs);

/// Marks the dynamic dimensions. Throws UsageError for an unknown input, an axis out of range, or
/// one symbol for different sizes.
void mark_dynamic(std::vector<ModelInput>& inputs, std::vector<DynamicAxis>& axes);

enum class Values {
  kExample,  // floats normal, integers 0: only types and shapes matter
  kRandom    // floats normal, integers in [0, 2) or in their {lo..hi}
};
/// One value per input, seeded. `grow` is added to each dynamic dimension, or second_dims taken;
/// values of .npy files are as they are.
std::vector<c10::IValue> make_values(const std::vector<ModelInput>& inputs, Values values,
                                     uint64_t seed, int64_t grow = 0);

/// The sets of inputs to verify on: `runs` seeded ones, and as many at a second size where a
/// dimension is dynamic. `notes` gets a line where the second size can't be made (.npy files).
std::vector<std::vector<c10::IValue>> verification_values(const std::vector<ModelInput>& inputs,
                                                          int64_t runs, uint64_t seed,
                                                          std::vector<std::string>& notes);

}  // namespace qcdq::cli
