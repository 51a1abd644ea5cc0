// Export of libtorch models to ONNX: the public interface of libqcdq_onnx. One call takes a
// TorchScript module or a C++ torch::nn::Module and writes a checked .onnx file, or throws and
// leaves no file behind.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/pimpl.h>
#include <torch/script.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "qcdq/api.h"
#include "qcdq/export_options.h"

namespace qcdq {

struct PhaseTime {
  std::string phase;
  double seconds;
};

/// What was written. `notes` are the lines a user should read: a converted bias, saturation at
/// risk, a dropped argument.
struct ExportReport {
  std::string path;
  int64_t opset = 0;
  int64_t ir_version = 0;
  uint64_t file_bytes = 0;
  uint64_t external_bytes = 0;
  std::map<std::string, int64_t> nodes_by_op;
  std::vector<std::string> notes;
  std::vector<PhaseTime> phases;
  double seconds = 0;  // all phases
};

/// Exports a TorchScript module. `inputs`: one example value per argument (trailing ones that have
/// defaults may be left out); their values don't matter for the graph, their element types and
/// shapes do. The module is put into eval mode and gets its own mode back. Throws
/// qcdq::UnsupportedOp for what ONNX (at options.opset) can't represent, all of it at once
/// (refusals()); c10::Error or std::runtime_error for the rest. `path` is untouched then.
///
///   torch::jit::Module m = torch::jit::load("model.pt");
///   qcdq::ExportReport r = qcdq::export_onnx(m, {torch::randn({1, 3, 224, 224})}, "model.onnx",
///   {.opset = 21});
QCDQ_API ExportReport export_onnx(const torch::jit::Module& module,
                                  const std::vector<c10::IValue>& inputs, const std::string& path,
                                  const ExportOptions& options = {});

/// A C++ module's forward on boxed values; outputs are tensors, or tuples of them.
using BoxedForward = std::function<c10::IValue(const std::vector<c10::IValue>&)>;

/// Exports a C++ module by tracing `forward`. Default input names: "input", or "input_0",
/// "input_1", ...
QCDQ_API ExportReport export_onnx(const std::shared_ptr<torch::nn::Module>& module,
                                  const BoxedForward& forward,
                                  const std::vector<c10::IValue>& inputs, const std::string& path,
                                  const ExportOptions& options = {});

namespace detail {
template <typename M, typename R, typename... Args, size_t... I>
BoxedForward box_forward(M* m, R (M::*forward)(Args...), std::index_sequence<I...>) {
  return [m, forward](const std::vector<c10::IValue>& in) -> c10::IValue {
    TORCH_CHECK_VALUE(in.size() == sizeof...(Args), "export_onnx: forward takes ", sizeof...(Args),
                      " inputs, got ", in.size());
    return c10::IValue((m->*forward)(in[I].to<std::decay_t<Args>>()...));
  };
}
template <typename M, typename R, typename... Args>
BoxedForward box_forward(M* m, R (M::*forward)(Args...)) {
  return box_forward(m, forward, std::index_sequence_for<Args...>{});
}
}  // namespace detail

/// The same for a module whose forward is a plain member function: export_onnx(net, {x},
/// "net.onnx").
template <typename M>
requires std::is_base_of_v<torch::nn::Module, M> ExportReport
export_onnx(const std::shared_ptr<M>& module, const std::vector<c10::IValue>& inputs,
            const std::string& path, const ExportOptions& options = {}) {
  if constexpr (std::is_same_v<M, torch::nn::SequentialImpl>) {
    BoxedForward forward = [m = module.get()](const std::vector<c10::IValue>& in) -> c10::IValue {
      TORCH_CHECK_VALUE(in.size() == 1, "export_onnx: Sequential takes 1 input, got ", in.size());
      return m->template forward<at::Tensor>(in[0].toTensor());
    };
    return export_onnx(std::static_pointer_cast<torch::nn::Module>(module), forward, inputs, path,
                       options);
  } else {
    return export_onnx(std::static_pointer_cast<torch::nn::Module>(module),
                       detail::box_forward(module.get(), &M::forward), inputs, path, options);
  }
}
/// ... and for a holder (TORCH_MODULE).
template <typename M>
ExportReport export_onnx(const torch::nn::ModuleHolder<M>& module,
                         const std::vector<c10::IValue>& inputs, const std::string& path,
                         const ExportOptions& options = {}) {
  return export_onnx(module.ptr(), inputs, path, options);
}

/// What options.dynamic_axes calls the arguments of `method`, in the order of its schema and
/// without self: TorchScript's "x.1" is "x", and a name that is taken already gets a number
/// ("x_1"). They are the names of the ONNX inputs too, where options.input_names is empty. Throws
/// std::runtime_error where the module has no such method.
QCDQ_API std::vector<std::string> argument_names(const torch::jit::Module& module,
                                                 const std::string& method = "forward");

/// Loads a .pt file onto the CPU, in eval mode. Throws with one line that says what is wrong: a
/// missing file, a pickled module or state dict ("not TorchScript; save it with torch.jit.save"),
/// an op whose library is not loaded.
QCDQ_API torch::jit::Module load_torchscript(const std::string& path);

/// A program of torch.export, read from a .pt2 file. A copy shares the weights, which stay in the
/// mapped file.
class QCDQ_API ExportedProgram {
 public:
  struct Input {
    std::string name;
    at::Tensor example;  // what the program was exported with, or one of the same type and sizes
    std::vector<std::string> symbols;  // per dimension: "" = fixed, else "s17", "2*s17 + 1"
  };
  /// Tensors that the program takes, in order: nested containers are flattened, None and numbers
  /// are fixed and left out.
  const std::vector<Input>& inputs() const;
  /// Outputs for one tensor per input, flattened, None and constants left out. Each op runs as it
  /// is in the file. Throws std::runtime_error where an input has another type, or an op fails.
  std::vector<at::Tensor> run(const std::vector<c10::IValue>& inputs) const;
  /// Other sizes that the program takes: each symbol differs from its value in `sizes` where its
  /// range has a second value. Throws std::runtime_error, naming input and axis, where `sizes`
  /// (one list per input) are not what the program takes.
  std::vector<std::vector<int64_t>> other_sizes(
      const std::vector<std::vector<int64_t>>& sizes) const;

  struct Impl;
  explicit ExportedProgram(std::shared_ptr<const Impl> impl);
  const Impl& impl() const { return *impl_; }
  std::shared_ptr<const Impl> shared_impl() const { return impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

/// Loads a .pt2 file of torch.export.save (torch 2.11 to 2.15, schema 8) onto the CPU. `model`:
/// which of its programs, "" = the only one. Throws with one line: no such archive, another schema
/// version, an op whose library is not loaded; qcdq::UnsupportedOp, naming it, for a program with
/// cond, while or scan, or one that changes its own buffers.
///
///   qcdq::ExportedProgram program = qcdq::load_pt2("model.pt2");
///   qcdq::export_onnx(program, "model.onnx");
QCDQ_API ExportedProgram load_pt2(const std::string& path, const std::string& model = "");

/// Exports a program with the sizes that it was exported with; its dynamic dimensions are named as
/// in the file ("s17"), or by options.dynamic_axes. options.method is not used.
QCDQ_API ExportReport export_onnx(const ExportedProgram& program, const std::string& path,
                                  const ExportOptions& options = {});
/// The same with example inputs, one tensor per input.
QCDQ_API ExportReport export_onnx(const ExportedProgram& program,
                                  const std::vector<c10::IValue>& inputs, const std::string& path,
                                  const ExportOptions& options = {});

}  // namespace qcdq
