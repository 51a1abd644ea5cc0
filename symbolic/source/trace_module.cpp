// C++ modules as a source: traces a torch::nn::Module's forward. The tracer knows weights as
// attributes of a torch::jit::Module, so one is built that shares the C++ module's tensors.
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "symbolic/program/run_node.h"
#include "symbolic/program/values.h"
#include "symbolic/source/module_graph.h"
#include "symbolic/source/source.h"

namespace qcdq {
namespace {

/// A TorchScript module without code that holds the same tensors under the same names.
torch::jit::Module mirror(const torch::nn::Module& module,
                          const std::shared_ptr<torch::jit::CompilationUnit>& unit,
                          const std::string& name) {
  torch::jit::Module mirrored(c10::QualifiedName("__torch__." + name), unit, /*shouldMangle=*/true);
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    if (!parameter.value().defined()) continue;
    mirrored.register_parameter(parameter.key(), parameter.value(), /*is_buffer=*/false);
  }
  for (const auto& buffer : module.named_buffers(/*recurse=*/false)) {
    if (buffer.value().defined()) mirrored.register_buffer(buffer.key(), buffer.value());
  }
  for (const auto& child : module.named_children()) {
    mirrored.register_module(child.key(), mirror(*child.value(), unit, name + "_"));
  }
  return mirrored;
}

std::vector<std::string> input_names(const std::vector<c10::IValue>& inputs,
                                     const std::vector<std::string>& given) {
  const auto tensors = static_cast<size_t>(
      std::count_if(inputs.begin(), inputs.end(), [](const auto& one) { return one.isTensor(); }));
  if (!given.empty()) {
    if (given.size() != tensors) {
      throw std::runtime_error("input names: " + std::to_string(given.size()) +
                               " given, the model has " + std::to_string(tensors) +
                               " tensor inputs");
    }
    return given;
  }
  if (tensors == 1) return {"input"};
  std::vector<std::string> names;
  for (size_t i = 0; i < tensors; ++i) names.push_back("input_" + std::to_string(i));
  return names;
}

}  // namespace

Program program_from_module(const std::shared_ptr<torch::nn::Module>& module,
                            const BoxedForward& forward, const std::vector<c10::IValue>& inputs,
                            const ExportOptions& options) {
  if (module == nullptr) throw std::runtime_error("the module is null");
  if (!forward) throw std::runtime_error("forward is empty, expected a function");

  Program program;
  program.owner = module;
  program.output_names = options.output_names;
  const std::vector<std::string> names = input_names(inputs, options.input_names);
  torch::jit::Stack tensors;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].isTensor()) {
      if (!inputs[i].toTensor().defined()) {
        throw std::runtime_error("input " + std::to_string(i) + " is an undefined tensor");
      }
      program.inputs.push_back({names[tensors.size()], {inputs[i]}, {}});
      tensors.push_back(inputs[i]);
    } else if (inputs[i].isTensorList() || inputs[i].isTuple()) {
      throw std::runtime_error("input " + std::to_string(i) + " is a " +
                               inputs[i].type()->repr_str() +
                               ": pass each tensor as an argument of its own");
    } else {
      program.notes.push_back("input " + std::to_string(i) + " is no tensor: fixed to " +
                              value_text(inputs[i]));
    }
  }
  apply_dynamic_axes(program.inputs, options.dynamic_axes);

  const auto call = [module, forward, inputs](const std::vector<c10::IValue>& given) {
    std::vector<c10::IValue> arguments = inputs;
    size_t next = 0;
    for (c10::IValue& argument : arguments) {
      if (argument.isTensor()) argument = given.at(next++);
    }
    return forward(arguments);
  };
  program.reference = [module, call](const std::vector<c10::IValue>& given) {
    const EvalMode eval(*module);
    return flatten_result(call(given));
  };

  auto unit = std::make_shared<torch::jit::CompilationUnit>();
  torch::jit::Module self = mirror(*module, unit, "Traced");
  program.parameter_paths = parameter_paths(self);
  {
    const EvalMode eval(*module);
    const auto traced = torch::jit::tracer::trace(
        tensors,
        [&](torch::jit::Stack given) {
          const std::vector<at::Tensor> outputs = flatten_result(call(given));
          return torch::jit::Stack(outputs.begin(), outputs.end());
        },
        [](const at::Tensor&) { return std::string(); },
        /*strict=*/false, /*force_outplace=*/false, &self, names);
    program.graph = traced.first->graph;
  }
  bind_module(program.graph, self);
  return program;
}

}  // namespace qcdq
