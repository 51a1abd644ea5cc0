// Opens what a command works on: plugins first (they register torch ops and symbolic functions),
// then the model.
#pragma once

#include <torch/script.h>

#include <optional>
#include <string>
#include <vector>

#include "qcdq/export.h"

namespace qcdq::cli {

/// Loads each library with its symbols visible to later ones. Throws std::runtime_error with the
/// loader's words.
void load_plugins(const std::vector<std::string>& libraries);

/// One of the two.
struct Model {
  std::optional<torch::jit::Module> module;
  std::optional<ExportedProgram> program;
};

/// A model on the CPU: a .pt2 file of torch.export, or TorchScript in eval mode. `method` other
/// than "forward" names one of several programs in a .pt2 file. Throws with one line.
Model open_model(const std::string& path, const std::string& method = "forward");

}  // namespace qcdq::cli
