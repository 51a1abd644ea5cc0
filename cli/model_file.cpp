// Plugins by dlopen, models by load_torchscript and load_pt2; see model_file.h.
#include "cli/model_file.h"

#include <dlfcn.h>

#include <filesystem>
#include <stdexcept>

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

Model open_model(const std::string& path, const std::string& method) {
  Model model;
  if (path.ends_with(".pt2")) {
    model.program = load_pt2(path, method == "forward" ? "" : method);
  } else {
    model.module = load_torchscript(path);
  }
  return model;
}

}  // namespace qcdq::cli
