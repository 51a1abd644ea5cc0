// TorchScript as a source: loading a .pt file with one-line errors, and a method of a loaded module
// as a Program. module_graph.cpp does what a traced C++ module needs too.
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <utility>

#include "symbolic/program/method.h"
#include "symbolic/program/run_node.h"
#include "symbolic/program/values.h"
#include "symbolic/source/module_graph.h"
#include "symbolic/source/quantized_decomposed.h"
#include "symbolic/source/source.h"

namespace qcdq {
namespace {

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

constexpr const char* kNotTorchScript = "not TorchScript; save it with torch.jit.save";

/// Says what a file is that is no TorchScript archive; returns where it looks like one.
void check_archive(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) fail(path + ": No such file or directory");
  if (std::filesystem::is_directory(status)) fail(path + ": is a directory, expected a .pt file");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path + ": can't be read");
  char magic[4] = {};
  file.read(magic, sizeof magic);
  if (file.gcount() == 0) fail(path + ": the file is empty");
  // torch.save wrote bare pickles before 1.6: protocol 2 starts with 0x80 0x02.
  if (magic[0] == '\x80') fail(path + ": a pickled module or state dict, " + kNotTorchScript);
  if (file.gcount() < 4 || magic[0] != 'P' || magic[1] != 'K') {
    fail(path + ": not a zip archive, " + kNotTorchScript);
  }
  std::vector<std::string> records;
  try {
    caffe2::serialize::PyTorchStreamReader reader(path);
    records = reader.getAllRecords();
  } catch (const std::exception&) {
    fail(path + ": the zip archive is truncated or damaged");
  }
  const auto holds = [&](auto&& matches) {
    return std::any_of(records.begin(), records.end(), matches);
  };
  const bool code = holds([](const std::string& name) { return name.starts_with("code/"); });
  const bool old = holds([](const std::string& name) { return name == "model.json"; });
  if (code || old) return;
  if (holds([](const std::string& name) {
        return name == "archive_format" || name.ends_with("models/model.json") ||
               name.ends_with("serialized_exported_program.json");
      })) {
    fail(path +
         ": a torch.export archive; name it .pt2 for the program qcdq, or use qcdq::load_pt2 in "
         "C++");
  }
  if (holds([](const std::string& name) { return name == "data.pkl"; })) {
    fail(path + ": a pickled module or state dict, " + kNotTorchScript);
  }
  fail(path + ": a zip archive without TorchScript code, " + kNotTorchScript);
}

/// The name after `phrase` in a message: letters, digits, '_', ':' and '.'.
std::string name_after(const std::string& message, const std::string& phrase) {
  const size_t found = message.find(phrase);
  if (found == std::string::npos) return "";
  size_t begin = found + phrase.size();
  while (begin < message.size() && (message[begin] == ' ' || message[begin] == '\'')) ++begin;
  size_t end = begin;
  while (end < message.size() &&
         (std::isalnum(static_cast<unsigned char>(message[end])) != 0 || message[end] == '_' ||
          message[end] == ':' || message[end] == '.')) {
    ++end;
  }
  while (end > begin && (message[end - 1] == '.' || message[end - 1] == ':')) --end;
  return message.substr(begin, end - begin);
}

std::string describe_load_error(const std::exception& error) {
  const auto* c10_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = c10_error ? c10_error->what_without_backtrace() : error.what();
  std::string name = name_after(text, "Unknown builtin op:");
  if (name.empty()) name = name_after(text, "Unknown type name");
  if (name.empty()) return first_line(error);
  if (name.starts_with("qcdq::")) return name + " is not registered: load libqcdq_ops.so first";
  return name +
         " is not registered: load the library that defines it first (qcdq export --plugin LIB.so)";
}

torch::jit::Function& find_method(const torch::jit::Module& module, const std::string& name) {
  if (const auto method = module.find_method(name)) return method->function();
  std::string names;
  for (const auto& one : module.get_methods()) names += (names.empty() ? "" : ", ") + one.name();
  fail("the module has no method '" + name + "' (it has " + names + ")");
}

/// `name`, or with the first number that makes it differ from all in `taken`: "x_1".
std::string free_name(const std::string& name, const std::vector<std::string>& taken) {
  std::string candidate = name;
  for (int copy = 1; std::find(taken.begin(), taken.end(), candidate) != taken.end(); ++copy) {
    candidate = name + "_" + std::to_string(copy);
  }
  return candidate;
}

/// Without self.
std::vector<std::string> names_of(const c10::FunctionSchema& schema) {
  std::vector<std::string> names;
  for (size_t i = 1; i < schema.arguments().size(); ++i) {
    names.push_back(free_name(plain_name(schema.arguments()[i].name()), names));
  }
  return names;
}

std::string signature(const c10::FunctionSchema& schema) {
  const std::vector<std::string> names = names_of(schema);
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    const c10::Argument& argument = schema.arguments()[i + 1];
    text += (text.empty() ? "" : ", ") + names[i];
    if (argument.default_value()) text += "=" + value_text(*argument.default_value());
  }
  return schema.name() + "(" + text + ")";
}

/// One value per argument: those given, then defaults.
std::vector<c10::IValue> complete_arguments(const c10::FunctionSchema& schema,
                                            const std::vector<c10::IValue>& given) {
  const auto& arguments = schema.arguments();
  const std::vector<std::string> names = names_of(schema);
  const size_t count = names.size();
  if (given.size() > count) {
    fail(signature(schema) + " takes " + std::to_string(count) + " inputs, got " +
         std::to_string(given.size()));
  }
  std::vector<c10::IValue> values;
  for (size_t i = 0; i < count; ++i) {
    const c10::Argument& argument = arguments[i + 1];
    const std::string& name = names[i];
    if (i >= given.size()) {
      if (!argument.default_value()) {
        fail(signature(schema) + ": input '" + name + "' has no default and was not given");
      }
      values.push_back(*argument.default_value());
      continue;
    }
    if (!given[i].type()->isSubtypeOf(*argument.type())) {
      fail(signature(schema) + ": input '" + name + "' is a " + given[i].type()->annotation_str() +
           ", expected " + argument.type()->annotation_str());
    }
    if (given[i].isTensor() && !given[i].toTensor().defined()) {
      fail(signature(schema) + ": input '" + name + "' is an undefined tensor");
    }
    values.push_back(given[i]);
  }
  return values;
}

/// A tensor, or a tuple or list that holds one.
bool holds_tensors(const c10::IValue& value) {
  if (value.isTensor()) return true;
  if (value.isTensorList()) return !value.toTensorList().empty();
  if (!value.isTuple()) return false;
  const auto& elements = value.toTupleRef().elements();
  return std::any_of(elements.begin(), elements.end(), holds_tensors);
}

void check_names(const std::vector<std::string>& names, const char* what) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty())
      fail(std::string(what) + " names: name " + std::to_string(i) + " is empty");
    if (std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]) !=
        names.begin() + static_cast<std::ptrdiff_t>(i)) {
      fail(std::string(what) + " names: '" + names[i] + "' is given twice");
    }
  }
}

/// Gives the inputs the names in `given`, where there are any; else each keeps its own, and gets a
/// number where that is taken (the tensors of a tuple x are x_0 and x_1, as an argument may be).
void name_inputs(std::vector<ProgramInput>& inputs, const std::vector<std::string>& given) {
  if (!given.empty() && given.size() != inputs.size()) {
    fail("input names: " + std::to_string(given.size()) + " given, the model has " +
         std::to_string(inputs.size()) + " tensor inputs");
  }
  check_names(given, "input");
  std::vector<std::string> names;
  for (size_t i = 0; i < inputs.size(); ++i) {
    names.push_back(given.empty() ? free_name(inputs[i].name, names) : given[i]);
    inputs[i].name = names.back();
  }
}

}  // namespace

std::vector<std::string> argument_names(const torch::jit::Module& module,
                                        const std::string& method) {
  return names_of(find_method(module, method).getSchema());
}

torch::jit::Module load_torchscript(const std::string& path) {
  check_archive(path);
  const auto load = [&] {
    torch::jit::Module module = torch::jit::load(path, at::kCPU);
    module.eval();
    return module;
  };
  try {
    return load();
  } catch (const std::exception& error) {
    const std::string message = describe_load_error(error);
    const bool decomposed = message.starts_with("quantized_decomposed::");
    if (!decomposed || !register_quantized_decomposed()) fail(path + ": " + message);
  }
  try {
    return load();
  } catch (const std::exception& error) {
    fail(path + ": " + describe_load_error(error));
  }
}

Program program_from_torchscript(const torch::jit::Module& module,
                                 const std::vector<c10::IValue>& inputs,
                                 const ExportOptions& options) {
  torch::jit::Function& method = find_method(module, options.method);
  const c10::FunctionSchema& schema = method.getSchema();
  const std::vector<std::string> schema_names = names_of(schema);
  const std::vector<c10::IValue> values = complete_arguments(schema, inputs);

  Program program;
  program.parameter_paths = parameter_paths(module);
  program.output_names = options.output_names;
  program.owner = std::make_shared<torch::jit::Module>(module);
  program.graph = method_graph(module, options.method);
  bind_module(program.graph, module);

  // Tensors that were given stay inputs, those in tuples and lists too; all else is a constant of
  // the exported model.
  std::vector<bool> is_input(values.size());
  size_t place = 0;  // in graph.inputs()
  for (size_t i = 0; i < values.size(); ++i) {
    is_input[i] = i < inputs.size() && holds_tensors(values[i]);
    const std::string& name = schema_names[i];
    if (!is_input[i]) {
      bind_input(*program.graph, place, values[i]);
      if (i < inputs.size()) {
        program.notes.push_back("input '" + name + "' is no tensor: fixed to " +
                                value_text(values[i]));
      } else if (!values[i].isNone()) {
        program.notes.push_back("input '" + name + "' is left out: fixed to its default, " +
                                value_text(values[i]));
      }
    } else if (values[i].isTensor()) {
      // An Optional that was given: what the model asks of None is decided.
      program.graph->inputs()[place++]->setType(c10::TensorType::get());
      program.inputs.push_back({name, {values[i]}, {}});
    } else {
      place += expand_input(program, place, values[i], name);
    }
  }
  check_names(options.output_names, "output");
  name_inputs(program.inputs, options.input_names);
  apply_dynamic_axes(program.inputs, options.dynamic_axes);

  program.reference = [module, run = MethodRunner(module, options.method), values,
                       is_input](const std::vector<c10::IValue>& tensors) mutable {
    std::vector<c10::IValue> arguments = values;
    size_t given = 0;
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (is_input[i]) arguments[i] = with_tensors(values[i], tensors, given);
    }
    const EvalMode eval(module);
    return flatten_result(run(arguments));
  };
  program.graph_is_reference = true;
  return program;
}

}  // namespace qcdq
