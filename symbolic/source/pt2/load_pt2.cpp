// torch.export programs (.pt2) as a source: the public class ExportedProgram, and a Program made of
// one. source/pt2/archive.cpp reads the file, source/pt2/graph.cpp its graph.
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "symbolic/graph/message_text.h"
#include "symbolic/lower/passes.h"
#include "symbolic/program/interpreter.h"
#include "symbolic/program/run_node.h"
#include "symbolic/program/values.h"
#include "symbolic/source/module_graph.h"
#include "symbolic/source/pt2/graph.h"
#include "symbolic/source/source.h"

namespace qcdq {

using Sizes = std::vector<std::vector<int64_t>>;

struct ExportedProgram::Impl {
  Pt2Archive archive;
  Pt2Graph graph;
  std::vector<Input> inputs;
  bool writes = false;  // some op writes to its input in place
};

namespace {

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

struct Range {
  int64_t least = 0;
  int64_t most = INT64_MAX;
};

/// Values of the symbols in the inputs' sizes.
class Symbols {
 public:
  Symbols(const Pt2Graph& graph, const nlohmann::json& program) : inputs_(graph.inputs) {
    const auto constraints = program.find("range_constraints");
    if (constraints == program.end()) return;
    for (const auto& [name, range] : constraints->items()) {
      Range& known = ranges_[name];
      const auto bound = [&](const char* key, int64_t& value) {
        const auto found = range.find(key);
        if (found != range.end() && found->is_number_integer()) value = found->get<int64_t>();
      };
      bound("min_val", known.least);
      bound("max_val", known.most);
    }
  }

  /// Reads the symbols off `sizes`; throws where a size is not what the program allows.
  std::map<std::string, int64_t> solve(const Sizes& sizes) const {
    std::map<std::string, int64_t> values;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const Pt2Input& input = inputs_[i];
      if (sizes.at(i).size() != input.sizes.size()) {
        fail("input '" + input.name + "' has " + std::to_string(sizes[i].size()) +
             " dimensions, the program takes " + std::to_string(input.sizes.size()));
      }
      for (size_t axis = 0; axis < input.sizes.size(); ++axis) {
        if (const auto symbol = input.sizes[axis].symbol()) values.emplace(*symbol, sizes[i][axis]);
      }
    }
    for (size_t i = 0; i < inputs_.size(); ++i) add_derived(i, sizes[i], values);
    for (size_t i = 0; i < inputs_.size(); ++i) check(i, sizes[i], values);
    for (const auto& [name, value] : values) check_range(name, value);
    return values;
  }

  /// A second value for each symbol, a difference of its own for each, inside its range.
  std::map<std::string, int64_t> others(const std::map<std::string, int64_t>& values) const {
    std::map<std::string, int64_t> result;
    int64_t step = 1;
    for (const auto& [name, value] : values) {
      const Range range = range_of(name);
      const int64_t up = std::min(range.most - value, step);
      const int64_t down = std::min(value - std::max<int64_t>(range.least, 1), step);
      result[name] = up > 0 ? value + up : down > 0 ? value - down : value;
      ++step;
    }
    return result;
  }

  Sizes sizes(const std::map<std::string, int64_t>& values) const {
    Sizes result;
    for (const Pt2Input& input : inputs_) {
      std::vector<int64_t> dims;
      for (const SizeExpression& size : input.sizes) dims.push_back(size.evaluate(values));
      result.push_back(std::move(dims));
    }
    return result;
  }

 private:
  Range range_of(const std::string& name) const {
    const auto found = ranges_.find(name);
    return found == ranges_.end() ? Range() : found->second;
  }

  void check_range(const std::string& name, int64_t value) const {
    const Range range = range_of(name);
    if (value >= range.least && value <= range.most) return;
    fail("size " + name + " is " + std::to_string(value) + ", the program takes " +
         std::to_string(range.least) + " to " +
         (range.most == INT64_MAX ? std::string("any size") : std::to_string(range.most)));
  }

  /// A symbol that stands only in a derived size (2*s17): the value that gives the size.
  void add_derived(size_t i, const std::vector<int64_t>& dims,
                   std::map<std::string, int64_t>& values) const {
    for (size_t axis = 0; axis < dims.size(); ++axis) {
      const SizeExpression& size = inputs_[i].sizes[axis];
      for (const auto& [name, range] : ranges_) {
        if (values.count(name) != 0 || !size.contains(name)) continue;
        std::map<std::string, int64_t> tried = values;
        for (int64_t value = range.least; value <= std::min(range.most, 2 * dims[axis] + 2);
             ++value) {
          tried[name] = value;
          if (!evaluates_to(size, tried, dims[axis])) continue;
          values[name] = value;
          break;
        }
      }
    }
  }

  static bool evaluates_to(const SizeExpression& size, const std::map<std::string, int64_t>& values,
                           int64_t wanted) {
    try {
      return size.evaluate(values) == wanted;
    } catch (const std::runtime_error&) {
      return false;  // a second unknown symbol
    }
  }

  void check(size_t i, const std::vector<int64_t>& dims,
             const std::map<std::string, int64_t>& values) const {
    const Pt2Input& input = inputs_[i];
    for (size_t axis = 0; axis < dims.size(); ++axis) {
      if (evaluates_to(input.sizes[axis], values, dims[axis])) continue;
      const bool fixed = input.sizes[axis].constant().has_value();
      std::string expected = input.sizes[axis].text();
      if (!fixed && values.size() > 0) {
        expected += " = " + std::to_string(input.sizes[axis].evaluate(values));
      }
      fail("input '" + input.name + "' has the shape " + list_text(dims) + ": axis " +
           std::to_string(axis) + " is " + std::to_string(dims[axis]) +
           ", the program takes only " + expected +
           (fixed ? " (export it with dynamic_shapes for others)" : ""));
    }
  }

  const std::vector<Pt2Input>& inputs_;
  std::map<std::string, Range> ranges_;
};

/// The tensors that the program was exported with; nothing where the file's do not fit.
std::vector<at::Tensor> sample_tensors(const Pt2Archive& archive, const Pt2Graph& graph) {
  std::vector<at::Tensor> tensors;
  if (archive.sample_inputs.empty()) return tensors;
  try {
    for_each_leaf(torch::jit::pickle_load(archive.sample_inputs), [&](const c10::IValue& value) {
      if (value.isTensor()) tensors.push_back(value.toTensor());
    });
  } catch (const std::exception&) {
    return {};  // a class of the user's: the shapes are known without it
  }
  if (tensors.size() != graph.inputs.size()) return {};
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Pt2Input& input = graph.inputs[i];
    if (tensors[i].scalar_type() != input.dtype || tensors[i].sizes() != input.example_sizes) {
      return {};
    }
    tensors[i] = tensors[i].detach().to(at::kCPU);
  }
  return tensors;
}

std::vector<ExportedProgram::Input> public_inputs(const Pt2Archive& archive,
                                                  const Pt2Graph& graph) {
  const std::vector<at::Tensor> samples = sample_tensors(archive, graph);
  const at::Generator generator = at::detail::createCPUGenerator(0);
  std::vector<ExportedProgram::Input> inputs;
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const Pt2Input& input = graph.inputs[i];
    ExportedProgram::Input one;
    one.name = input.name;
    for (const SizeExpression& size : input.sizes) {
      one.symbols.push_back(size.constant() ? "" : size.text());
    }
    if (!samples.empty()) {
      one.example = samples[i];
    } else if (c10::isFloatingType(input.dtype)) {
      one.example = at::randn(input.example_sizes, generator, at::kFloat).to(input.dtype);
    } else {
      one.example = at::zeros(input.example_sizes, input.dtype);
    }
    inputs.push_back(std::move(one));
  }
  return inputs;
}

Sizes sizes_of(const std::vector<c10::IValue>& inputs) {
  Sizes sizes;
  for (const c10::IValue& input : inputs) sizes.push_back(input.toTensor().sizes().vec());
  return sizes;
}

void check_inputs(const Pt2Graph& graph, const std::vector<c10::IValue>& inputs) {
  if (inputs.size() != graph.inputs.size()) {
    fail("the program takes " + std::to_string(graph.inputs.size()) + " inputs, got " +
         std::to_string(inputs.size()));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string name = "input '" + graph.inputs[i].name + "'";
    if (!inputs[i].isTensor() || !inputs[i].toTensor().defined()) {
      fail(name + " is no tensor, expected " + c10::toString(graph.inputs[i].dtype));
    }
    const at::ScalarType type = inputs[i].toTensor().scalar_type();
    if (type != graph.inputs[i].dtype) {
      fail(name + " is " + c10::toString(type) + ", the program takes " +
           c10::toString(graph.inputs[i].dtype));
    }
  }
}

/// Symbols that options.dynamic_axes give names: {"s17", "N"}.
std::map<std::string, std::string> renamed_symbols(const Pt2Graph& graph,
                                                   const std::vector<std::string>& names,
                                                   const std::vector<DynamicAxis>& axes) {
  std::map<std::string, std::string> renamed;
  for (const DynamicAxis& dynamic : axes) {
    const std::string what = "dynamic axis " + dynamic.input + ":" + std::to_string(dynamic.axis);
    const auto found = std::find(names.begin(), names.end(), dynamic.input);
    if (found == names.end()) {
      fail(what + ": the model has no input '" + dynamic.input + "' (it has " + join_names(names) +
           ")");
    }
    const auto& sizes = graph.inputs[static_cast<size_t>(found - names.begin())].sizes;
    const auto rank = static_cast<int64_t>(sizes.size());
    const int64_t axis = dynamic.axis < 0 ? dynamic.axis + rank : dynamic.axis;
    if (axis < 0 || axis >= rank) {
      fail(what + ": axis out of range, the input has " + std::to_string(rank) + " dimensions");
    }
    if (dynamic.symbol.empty()) fail(what + ": its symbol is empty");
    const auto symbol = sizes[static_cast<size_t>(axis)].symbol();
    if (!symbol) {
      fail(what + ": the program fixes the size to " + sizes[static_cast<size_t>(axis)].text() +
           "; export it with dynamic_shapes");
    }
    const auto [entry, added] = renamed.emplace(*symbol, dynamic.symbol);
    if (!added && entry->second != dynamic.symbol) {
      fail(what + ": the program has one size here and where the symbol is '" + entry->second +
           "'");
    }
  }
  return renamed;
}

at::Tensor with_sizes(at::Tensor tensor, const std::vector<int64_t>& dims) {
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    const auto dim = static_cast<int64_t>(axis);
    if (tensor.size(dim) == dims[axis]) continue;
    if (tensor.size(dim) == 0) fail("an example's dynamic axis has size 0, expected at least 1");
    tensor = resize_by_repeating(tensor, dim, dims[axis]);
  }
  return tensor;
}

}  // namespace

ExportedProgram load_pt2(const std::string& path, const std::string& model) {
  auto impl = std::make_shared<ExportedProgram::Impl>();
  try {
    impl->archive = read_pt2_archive(path, model);
    impl->graph = build_pt2_graph(impl->archive);
    impl->inputs = public_inputs(impl->archive, impl->graph);
    impl->writes = has_mutation(impl->graph.graph->block());
  } catch (const UnsupportedOp&) {
    throw;
  } catch (const nlohmann::json::exception& error) {
    fail(path + ": the exported program is damaged: " + error.what());
  } catch (const std::exception& error) {
    const std::string text = first_line(error);
    fail(text.starts_with(path) ? text : path + ": " + text);
  }
  return ExportedProgram(std::move(impl));
}

ExportedProgram::ExportedProgram(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

const std::vector<ExportedProgram::Input>& ExportedProgram::inputs() const { return impl_->inputs; }

std::vector<std::vector<int64_t>> ExportedProgram::other_sizes(const Sizes& sizes) const {
  if (sizes.size() != impl_->graph.inputs.size()) {
    fail("the program takes " + std::to_string(impl_->graph.inputs.size()) + " inputs, got " +
         std::to_string(sizes.size()));
  }
  const Symbols symbols(impl_->graph, impl_->archive.program);
  return symbols.sizes(symbols.others(symbols.solve(sizes)));
}

std::vector<at::Tensor> ExportedProgram::run(const std::vector<c10::IValue>& inputs) const {
  check_inputs(impl_->graph, inputs);
  std::vector<c10::IValue> given = inputs;
  if (impl_->writes) {
    for (c10::IValue& input : given) input = input.toTensor().clone();
  }
  std::optional<RunFailure> failure;
  const Run run = interpret(*impl_->graph.graph, given, failure);
  if (failure) {
    const std::string op = failure->node ? op_name(*failure->node) : "the program";
    const std::string where = failure->node ? node_location(*failure->node) : "";
    fail(op + (where.empty() ? "" : " at " + where) + " fails: " + failure->message);
  }
  std::vector<at::Tensor> outputs;
  for (const c10::IValue& output : run.outputs) outputs.push_back(output.toTensor());
  return outputs;
}

Program program_from_pt2(const ExportedProgram& exported, const std::vector<c10::IValue>& inputs,
                         const ExportOptions& options) {
  const Pt2Graph& source = exported.impl().graph;
  std::vector<c10::IValue> examples = inputs;
  if (examples.empty()) {
    for (const ExportedProgram::Input& input : exported.inputs()) {
      examples.emplace_back(input.example);
    }
  }
  check_inputs(source, examples);
  const Sizes others = exported.other_sizes(sizes_of(examples));

  std::vector<std::string> names;
  for (const Pt2Input& input : source.inputs) names.push_back(input.name);
  if (!options.input_names.empty()) {
    if (options.input_names.size() != names.size()) {
      fail("input names: " + std::to_string(options.input_names.size()) + " given, the model has " +
           std::to_string(names.size()) + " tensor inputs");
    }
    names = options.input_names;
  }
  const auto renamed = renamed_symbols(source, names, options.dynamic_axes);

  Program program;
  program.graph = source.graph->copy();
  compose_pt2_ops(*program.graph);
  program.parameter_paths = source.parameter_paths;
  program.output_names = options.output_names;
  program.notes = source.notes;
  program.owner = exported.shared_impl();
  program.reference = [exported](const std::vector<c10::IValue>& given) {
    return exported.run(given);
  };
  bool dynamic = false;
  for (size_t i = 0; i < examples.size(); ++i) {
    const at::Tensor first = examples[i].toTensor();
    ProgramInput input{names[i], {first}, std::vector<std::string>(others[i].size())};
    for (size_t axis = 0; axis < others[i].size(); ++axis) {
      // A symbol whose range is one size is that size.
      if (others[i][axis] == first.size(static_cast<int64_t>(axis))) continue;
      input.symbols[axis] = source.inputs[i].sizes[axis].text(renamed);
      dynamic = true;
    }
    program.inputs.push_back(std::move(input));
  }
  for (size_t i = 0; dynamic && i < examples.size(); ++i) {
    program.inputs[i].examples.push_back(with_sizes(examples[i].toTensor(), others[i]));
  }
  return program;
}

}  // namespace qcdq
