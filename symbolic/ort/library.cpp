// find_onnxruntime of qcdq/onnxruntime.h: where ONNX Runtime's shared library is: an argument,
// $QCDQ_ORT, or the onnxruntime wheel of a virtual environment. ort/session.cpp opens what is found
// here.
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "qcdq/onnxruntime.h"
#include "symbolic/graph/message_text.h"

namespace qcdq {
namespace {

namespace fs = std::filesystem;

/// libonnxruntime.so or libonnxruntime.so.1.31.1 in `folder`; the last by name of several.
std::optional<std::string> library_in(const fs::path& folder) {
  std::error_code error;
  std::optional<std::string> best;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name == "libonnxruntime.so" || name.rfind("libonnxruntime.so.", 0) == 0) {
      if (!best || it->path().string() > *best) best = it->path().string();
    }
  }
  return best;
}

/// The same in an environment's lib/python3.*/site-packages/onnxruntime/capi.
std::optional<std::string> library_of_environment(const fs::path& environment) {
  std::error_code error;
  const fs::path lib = environment / "lib";
  for (fs::directory_iterator it(lib, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string().rfind("python3", 0) != 0) continue;
    if (auto found = library_in(it->path() / "site-packages" / "onnxruntime" / "capi")) {
      return found;
    }
  }
  return std::nullopt;
}

/// A file, or a folder with the library in it.
std::string library_at(const std::string& given, const std::string& source) {
  std::error_code error;
  if (fs::is_regular_file(given, error)) return given;
  if (auto found = library_in(given)) return *found;
  if (auto found = library_in(fs::path(given) / "capi")) return *found;
  throw std::runtime_error("no ONNX Runtime at " + given + " (" + source +
                           "): expected libonnxruntime.so, or a folder that holds it");
}

}  // namespace

std::string find_onnxruntime(const std::string& ort) {
  if (!ort.empty()) return library_at(ort, "given");
  if (const char* set = std::getenv("QCDQ_ORT"); set != nullptr && *set != '\0') {
    return library_at(set, "QCDQ_ORT");
  }
  std::vector<std::string> tried;
  auto look_in = [&](const fs::path& environment) {
    auto found = library_of_environment(environment);
    if (!found) tried.push_back(environment.string());
    return found;
  };
  if (const char* set = std::getenv("VIRTUAL_ENV"); set != nullptr && *set != '\0') {
    if (auto found = look_in(set)) return *found;
  }
  // The program's own folder and those above it, then the current one and those above: the first
  // .venv with the wheel.
  std::error_code error;
  std::vector<fs::path> starts;
  Dl_info self{};  // this library's file: in Python the program is the interpreter
  if (::dladdr(reinterpret_cast<const void*>(&library_of_environment), &self) != 0 &&
      self.dli_fname != nullptr) {
    starts.push_back(fs::absolute(self.dli_fname, error).parent_path());
  }
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) starts.push_back(program.parent_path());
  const fs::path current = fs::current_path(error);
  if (!error) starts.push_back(current);
  for (const fs::path& start : starts) {
    for (fs::path folder = start;; folder = folder.parent_path()) {
      // A program inside an environment (python in .venv/bin): the environment itself.
      for (const fs::path& environment : {folder / ".venv", folder}) {
        const bool is_environment = fs::exists(environment / "pyvenv.cfg", error);
        if (!is_environment) continue;
        if (auto found = look_in(environment)) return *found;
      }
      if (folder == folder.parent_path()) break;
    }
  }
  const std::string places = join_names(tried);
  throw std::runtime_error(
      "ONNX Runtime is not there: no --ort, no QCDQ_ORT, and no onnxruntime wheel in " +
      (places.empty() ? std::string("a virtual environment (VIRTUAL_ENV, or .venv beside or above "
                                    "the program and the current folder)")
                      : places) +
      ". Install it (pip install onnxruntime) or name libonnxruntime.so");
}

}  // namespace qcdq
