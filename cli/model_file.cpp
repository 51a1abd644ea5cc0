// Plugins by dlopen, models by load_torchscript; see model_file.h.
#include "cli/model_file.h"

#include <dlfcn.h>

#include <filesystem>
#include <stdexcept>

#include "qcdq/export.h"

namespace qcdq::cli {

void load_plugins(const std::vector<std::string>& libraries) {
  for (const std::string& library : libraries) {
    // A bare file name would be looked up in the system's folders instead of this one.
    std::error_code ignored;
    const bool is_file = std::filesystem::exists(library, ignored);
    const std::string path = is_file ? std::filesystem::absolute(library).string() : library;
    if (!dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
      throw std::runtime_error("--plugin " + library + ": " + dlerror());
    }
  }
}

torch::jit::Module open_model(const std::string& path) {
  if (path.ends_with(".pt2") && std::filesystem::exists(path)) {
    throw std::runtime_error(path +
                             ": .pt2 files are not built yet; save the model as TorchScript with "
                             "torch.jit.save");
  }
  return load_torchscript(path);
}

}  // namespace qcdq::cli
