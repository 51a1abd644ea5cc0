// Opens what a command works on: plugins first (they register torch ops and symbolic functions),
// then the model.
#pragma once

#include <torch/script.h>

#include <string>
#include <vector>

namespace qcdq::cli {

/// Loads each library with its symbols visible to later ones. Throws std::runtime_error with the
/// loader's words.
void load_plugins(const std::vector<std::string>& libraries);

/// A .pt model on the CPU in eval mode. Throws with one line; .pt2 is refused by name.
torch::jit::Module open_model(const std::string& path);

}  // namespace qcdq::cli
