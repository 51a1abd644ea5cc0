// Loads libqcdq_cuda.so (cuda_ops.cpp), which lies beside libqcdq_ops.so: with the ops where
// libtorch_cuda is in the process already, else at the first op on a CUDA tensor. So a program that
// uses no CUDA never pulls it in, and one that does need not know of the second library.
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>
#include <torch/library.h>

#include <memory>
#include <mutex>
#include <string>

namespace qcdq {
namespace {

constexpr const char* kOps[] = {"quantize",
                                "dequantize",
                                "fake_quantize",
                                "fake_quantize_backward",
                                "fake_quantize_learned",
                                "fake_quantize_learned_backward",
                                "choose_qparams",
                                "fake_quantize_dynamic"};

std::string cuda_library_path() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&cuda_library_path), &info) == 0) return {};
  const std::string ops = info.dli_fname;
  return ops.substr(0, ops.rfind('/') + 1) + "libqcdq_cuda.so";
}

// Empty, or why it failed.
std::string load_cuda_library() {
  if (dlopen(cuda_library_path().c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return {};
  const char* error = dlerror();
  return error != nullptr ? error : "unknown error";
}

void load_and_call(const c10::OperatorHandle& op, c10::Stack* stack);

// While the library is not loaded, load_and_call stands in for its kernels.
class StandIn {
 public:
  StandIn() {
    void* torch_cuda = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    if (torch_cuda != nullptr) {
      dlclose(torch_cuda);
      if (load_cuda_library().empty()) return;
    }
    register_kernels();
  }

  // Throws where the library cannot be loaded.
  void replace(const std::string& op) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!kernels_) return;  // another thread was here
    kernels_.reset();       // first, or the dispatcher warns that a kernel is overridden
    const std::string error = load_cuda_library();
    if (error.empty()) return;
    register_kernels();
    TORCH_CHECK_NOT_IMPLEMENTED(false, op,
                                ": an argument is on a CUDA device, but the CUDA kernels "
                                "cannot be loaded (",
                                error, "); build them with ./dev build --cuda");
  }

 private:
  void register_kernels() {
    kernels_ = std::make_unique<torch::Library>(torch::Library::IMPL, "qcdq",
                                                c10::DispatchKey::CUDA, __FILE__, __LINE__);
    for (const char* op : kOps) {
      kernels_->impl(op, torch::CppFunction::makeFromBoxedFunction<&load_and_call>());
    }
  }

  std::mutex mutex_;
  std::unique_ptr<torch::Library> kernels_;
};

StandIn& stand_in() {
  static StandIn instance;
  return instance;
}

void load_and_call(const c10::OperatorHandle& op, c10::Stack* stack) {
  stand_in().replace(op.schema().name());
  op.callBoxed(stack);
}

[[maybe_unused]] const StandIn& at_load = stand_in();

}  // namespace
}  // namespace qcdq
