// Input specifications meet the model's schema: names, types, shapes and values; see
// model_inputs.h.
#include "cli/model_inputs.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/jit/api/module.h>

#include <algorithm>
#include <set>

#include "cli/commands.h"
#include "qcdq/torch_types.h"

namespace qcdq::cli {
namespace {

/// Throws std::runtime_error, naming the input, where torch has no such element type.
at::ScalarType scalar_type(DType dtype, const std::string& input) {
  if (const auto found = scalar_type_of(dtype)) return *found;
  throw std::runtime_error("input '" + input + "' is " + std::string(dtype_name(dtype)) +
                           ", which torch has no type for");
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "none" : text;
}

const c10::FunctionSchema& method_schema(const torch::jit::Module& module,
                                         const std::string& method) {
  const auto found = module.find_method(method);
  if (!found) {
    std::vector<std::string> names;
    for (const auto& other : module.get_methods()) names.push_back(other.name());
    throw UsageError("--method " + method +
                     ": the model has no such method, it has: " + joined(names));
  }
  return found->function().getSchema();
}

/// The element type that the argument's own type tells, where it does.
std::optional<at::ScalarType> told_dtype(const c10::Argument& argument) {
  const auto tensor = argument.type()->cast<c10::TensorType>();
  return tensor ? tensor->scalarType() : std::nullopt;
}

bool takes_tensor(const c10::Argument& argument) {
  return c10::TensorType::get()->isSubtypeOf(*argument.type()) ||
         argument.type()->isSubtypeOf(*c10::TensorType::get());
}

ModelInput from_spec(const InputSpec& spec, const c10::Argument& argument,
                     const NamedType* in_file) {
  ModelInput input;
  if (!spec.npy.empty()) {
    const NpyArray array = read_npy(spec.npy);
    input.dtype = scalar_type(array.dtype, spec.name);
    input.dims = array.dims;
    input.value = at::from_blob(
        array.bytes->data(), array.dims, [keep = array.bytes](void*) {}, input.dtype);
  } else {
    input.dims = spec.dims;
    input.range = spec.range;
    const auto told = told_dtype(argument);
    if (spec.dtype) {
      input.dtype = scalar_type(*spec.dtype, spec.name);
    } else if (told) {
      input.dtype = *told;
    } else if (in_file) {
      input.dtype = scalar_type(in_file->type.dtype, in_file->name);
    }
  }
  input.symbols.resize(input.dims.size());
  if (!in_file || !in_file->type.ranked) return input;
  if (in_file->type.dims.size() != input.dims.size()) {
    throw UsageError("--input " + spec.name + ": " + std::to_string(input.dims.size()) +
                     " dimensions, the file's input is " + type_text(in_file->type));
  }
  for (size_t i = 0; i < input.dims.size(); ++i) {
    if (in_file->type.dims[i] >= 0) continue;
    input.symbols[i] = i < in_file->type.symbols.size() && !in_file->type.symbols[i].empty()
                           ? in_file->type.symbols[i]
                           : "?";
  }
  return input;
}

/// Shape and type from the .onnx file; dynamic dimensions get size 2.
ModelInput from_file(const NamedType& in_file) {
  if (!in_file.type.ranked) {
    throw UsageError("--input " + in_file.name +
                     " is missing: the file does not tell the input's shape");
  }
  ModelInput input;
  input.dtype = scalar_type(in_file.type.dtype, in_file.name);
  for (size_t i = 0; i < in_file.type.dims.size(); ++i) {
    const bool dynamic = in_file.type.dims[i] < 0;
    const bool named = i < in_file.type.symbols.size() && !in_file.type.symbols[i].empty();
    input.dims.push_back(dynamic ? 2 : in_file.type.dims[i]);
    input.symbols.push_back(!dynamic ? "" : named ? in_file.type.symbols[i] : "?");
  }
  return input;
}

const NamedType* find_file_input(const std::vector<NamedType>* file_inputs,
                                 const std::vector<std::string>& names, size_t index) {
  if (!file_inputs) return nullptr;
  bool any_name_matches = false;
  for (const NamedType& input : *file_inputs) {
    if (input.name == names[index]) return &input;
    any_name_matches |= std::find(names.begin(), names.end(), input.name) != names.end();
  }
  // A file whose inputs were renamed as a whole is matched by position.
  if (!any_name_matches && index < file_inputs->size()) return &(*file_inputs)[index];
  return nullptr;
}

at::Tensor random_tensor(const ModelInput& input, const std::vector<int64_t>& dims, Values values,
                         const at::Generator& generator) {
  if (c10::isFloatingType(input.dtype)) {
    return at::randn(dims, generator, at::kFloat).to(input.dtype);
  }
  if (input.range) {
    // The upper end is left out by randint; hi is included here, so the largest i64 can't be drawn.
    const int64_t above = input.range->hi == INT64_MAX ? INT64_MAX : input.range->hi + 1;
    return at::randint(input.range->lo, above, dims, generator, at::kLong).to(input.dtype);
  }
  if (values == Values::kExample) return at::zeros(dims, input.dtype);
  return at::randint(0, 2, dims, generator, at::kLong).to(input.dtype);
}

/// Whether `word` is `name` as TorchScript prints it, with a number that makes it unique: "x.1".
bool is_printed_name(const std::string& word, const std::string& name) {
  if (!word.starts_with(name + ".") || word.size() == name.size() + 1) return false;
  return word.find_first_not_of("0123456789", name.size() + 1) == std::string::npos;
}

/// The spec of each name, nullptr where there is none.
std::vector<const InputSpec*> match_specs(const std::vector<InputSpec>& specs,
                                          const std::vector<std::string>& names) {
  std::vector<const InputSpec*> found(names.size());
  for (const InputSpec& spec : specs) {
    auto named = std::find(names.begin(), names.end(), spec.name);
    if (named == names.end()) {
      named = std::find_if(names.begin(), names.end(), [&](const std::string& name) {
        return is_printed_name(spec.name, name);
      });
    }
    const auto index = static_cast<size_t>(named - names.begin());
    if (index == names.size()) {
      throw UsageError("--input " + spec.name +
                       ": the model has no such input, it has: " + joined(names));
    }
    if (found[index] != nullptr) throw UsageError("--input " + spec.name + " is given twice");
    found[index] = &spec;
  }
  return found;
}

}  // namespace

bool ModelInput::is_dynamic() const {
  return std::any_of(symbols.begin(), symbols.end(), [](const auto& s) { return !s.empty(); });
}

std::vector<ModelInput> match_inputs(const torch::jit::Module& module, const std::string& method,
                                     const std::vector<InputSpec>& specs,
                                     const std::vector<NamedType>* file_inputs) {
  const auto& arguments = method_schema(module, method).arguments();
  const std::vector<std::string> names = argument_names(module, method);
  const std::vector<const InputSpec*> spec_of = match_specs(specs, names);
  std::vector<ModelInput> inputs;
  std::vector<std::string> missing;
  size_t given = 0;  // inputs up to the last one that is not a default
  for (size_t i = 0; i < names.size(); ++i) {
    const c10::Argument& argument = arguments[i + 1];
    const InputSpec* spec = spec_of[i];
    const NamedType* in_file = find_file_input(file_inputs, names, i);
    if ((spec != nullptr || !argument.default_value()) && !takes_tensor(argument)) {
      throw std::runtime_error("input '" + names[i] + "' is of type " + argument.type()->str() +
                               ": only tensors can be inputs of an ONNX model" +
                               (argument.default_value() ? "; leave it out for its default" : ""));
    }
    ModelInput input;
    if (spec != nullptr) {
      input = from_spec(*spec, argument, in_file);
    } else if (in_file && takes_tensor(argument)) {
      input = from_file(*in_file);
    } else if (argument.default_value()) {
      input.given_default = *argument.default_value();
    } else {
      missing.push_back(names[i]);
      continue;
    }
    input.name = names[i];
    inputs.push_back(std::move(input));
    if (inputs.back().is_tensor()) given = inputs.size();
  }
  if (!missing.empty()) {
    throw UsageError("--input is missing for: " + joined(missing) + "; expected --input " +
                     missing[0] + "=DTYPE[D0,D1,...] for each, such as " + missing[0] +
                     "=f32[1,3,224,224]");
  }
  inputs.resize(given);
  return inputs;
}

std::vector<ModelInput> match_inputs(const ExportedProgram& program,
                                     const std::vector<InputSpec>& specs) {
  std::vector<ModelInput> inputs;
  std::vector<std::string> names;
  for (const ExportedProgram::Input& known : program.inputs()) {
    ModelInput input;
    input.name = known.name;
    input.dtype = known.example.scalar_type();
    input.dims = known.example.sizes().vec();
    input.symbols = known.symbols;
    inputs.push_back(std::move(input));
    names.push_back(known.name);
  }
  std::set<std::string> given;
  for (const InputSpec& spec : specs) {
    const auto found = std::find(names.begin(), names.end(), spec.name);
    if (found == names.end()) {
      throw UsageError("--input " + spec.name +
                       ": the model has no such input, it has: " + joined(names));
    }
    if (!given.insert(spec.name).second) {
      throw UsageError("--input " + spec.name + " is given twice");
    }
    ModelInput& input = inputs[static_cast<size_t>(found - names.begin())];
    at::ScalarType dtype = input.dtype;
    if (!spec.npy.empty()) {
      const NpyArray array = read_npy(spec.npy);
      dtype = scalar_type(array.dtype, spec.name);
      input.dims = array.dims;
      input.value = at::from_blob(
          array.bytes->data(), array.dims, [keep = array.bytes](void*) {}, dtype);
    } else {
      input.dims = spec.dims;
      input.range = spec.range;
      if (spec.dtype) dtype = scalar_type(*spec.dtype, spec.name);
    }
    if (dtype != input.dtype) {
      throw UsageError("--input " + spec.name + " is " + c10::toString(dtype) +
                       ", the model takes " + c10::toString(input.dtype));
    }
  }
  std::vector<std::vector<int64_t>> sizes;
  for (const ModelInput& input : inputs) sizes.push_back(input.dims);
  const auto others = program.other_sizes(sizes);
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs[i].second_dims = others[i];
    for (size_t axis = 0; axis < others[i].size(); ++axis) {
      if (others[i][axis] == inputs[i].dims[axis]) inputs[i].symbols[axis].clear();
    }
  }
  return inputs;
}

void mark_dynamic(std::vector<ModelInput>& inputs, std::vector<DynamicAxis>& axes) {
  std::map<std::string, int64_t> sizes;
  for (DynamicAxis& axis : axes) {
    const std::string text =
        "--dynamic " + axis.input + ":" + std::to_string(axis.axis) + "=" + axis.symbol + ": ";
    std::vector<std::string> names;
    ModelInput* input = nullptr;
    for (ModelInput& candidate : inputs) {
      if (!candidate.is_tensor()) continue;
      names.push_back(candidate.name);
      const bool printed = input == nullptr && is_printed_name(axis.input, candidate.name);
      if (candidate.name == axis.input || printed) input = &candidate;
    }
    if (!input) throw UsageError(text + "there is no such input, there are: " + joined(names));
    const auto rank = static_cast<int64_t>(input->dims.size());
    if (axis.axis < -rank || axis.axis >= rank) {
      throw UsageError(text + "input '" + input->name + "' has " + std::to_string(rank) +
                       " dimensions");
    }
    axis.input = input->name;
    if (axis.axis < 0) axis.axis += rank;
    const auto at = static_cast<size_t>(axis.axis);
    if (!input->symbols[at].empty()) throw UsageError(text + "the axis is given twice");
    input->symbols[at] = axis.symbol;
    const auto [known, is_new] = sizes.emplace(axis.symbol, input->dims[at]);
    if (!is_new && known->second != input->dims[at]) {
      throw UsageError(text + "symbol '" + axis.symbol + "' has size " +
                       std::to_string(known->second) + " elsewhere and " +
                       std::to_string(input->dims[at]) + " here");
    }
  }
}

std::vector<c10::IValue> make_values(const std::vector<ModelInput>& inputs, Values values,
                                     uint64_t seed, int64_t grow) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  std::vector<c10::IValue> result;
  for (const ModelInput& input : inputs) {
    if (!input.is_tensor()) {
      result.push_back(*input.given_default);
      continue;
    }
    if (input.value.defined()) {
      result.emplace_back(input.value);
      continue;
    }
    std::vector<int64_t> dims = input.dims;
    if (grow != 0 && !input.second_dims.empty()) {
      dims = input.second_dims;
    } else {
      for (size_t i = 0; i < dims.size(); ++i) dims[i] += input.symbols[i].empty() ? 0 : grow;
    }
    result.emplace_back(random_tensor(input, dims, values, generator));
  }
  return result;
}

std::vector<std::vector<c10::IValue>> verification_values(const std::vector<ModelInput>& inputs,
                                                          int64_t runs, uint64_t seed,
                                                          std::vector<std::string>& notes) {
  bool dynamic = false;
  bool fixed_by_file = false;
  bool all_from_files = !inputs.empty();
  for (const ModelInput& input : inputs) {
    dynamic |= input.is_dynamic();
    fixed_by_file |= input.is_dynamic() && input.value.defined();
    all_from_files &= input.value.defined() || !input.is_tensor();
  }
  if (all_from_files || inputs.empty()) runs = 1;  // the values are the same in each
  std::vector<std::vector<c10::IValue>> sets;
  for (int64_t run = 0; run < runs; ++run) {
    sets.push_back(make_values(inputs, Values::kRandom, seed + static_cast<uint64_t>(run)));
    if (dynamic && !fixed_by_file) {
      sets.push_back(make_values(inputs, Values::kRandom, seed + static_cast<uint64_t>(run), 1));
    }
  }
  if (fixed_by_file) {
    notes.emplace_back("a .npy file fixes a dynamic axis: no second size was tried");
  }
  return sets;
}

}  // namespace qcdq::cli
