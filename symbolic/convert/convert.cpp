// convert: walks the lowered and recorded torch::jit::Graph in order, runs the symbolic function of
// each node, and collects refusals. Before it: record.cpp. After it: qdq/passes.cpp. Graph outputs
// get their names here.
#include "symbolic/convert/convert.h"

#include <algorithm>
#include <functional>
#include <map>
#include <new>
#include <set>

#include "symbolic/convert/node_args.h"
#include "symbolic/graph/graph_builder.h"
#include "symbolic/graph/message_text.h"
#include "symbolic/program/node_place.h"
#include "symbolic/program/run_node.h"
#include "symbolic/program/tensors.h"
#include "symbolic/symbolics/registry.h"

namespace qcdq {

using torch::jit::Node;
namespace prim = c10::prim;

namespace {

// "layer1.0.conv1" of "layer1.0.conv1.weight".
std::string module_of(const std::string& parameter_path) {
  const size_t dot = parameter_path.rfind('.');
  return dot == std::string::npos ? "" : parameter_path.substr(0, dot);
}

// The module path of a node: of the first parameter that it uses; else of the calls that were
// inlined; else of the trace's scope.
std::string scope_of(const Program& program, Node* node) {
  for (const torch::jit::Value* input : node->inputs()) {
    // A weight that is fake-quantised at every forward.
    while (has_traits(traits_of(*input->node()), OpTraits::kFakeQuantizes))
      input = input->node()->input(0);
    if (input->node()->kind() != prim::Constant ||
        !input->type()->isSubtypeOf(*c10::TensorType::get()))
      continue;
    const std::optional<c10::IValue> constant = torch::jit::toIValue(input);
    if (!constant || !constant->isTensor() || !constant->toTensor().has_storage()) continue;
    auto path = program.parameter_paths.find(constant->toTensor().const_data_ptr());
    if (path != program.parameter_paths.end() && !module_of(path->second).empty())
      return module_of(path->second);
  }
  return module_path(*node);
}

class Converter {
 public:
  Converter(Program& program, int64_t opset, const EmissionOptions& emission)
      : program_(program),
        state_{.graph = graph_,
               .emission = emission,
               .scope = "",
               .torch_op = "",
               .source = "",
               .notes = &program.notes},
        builder_(state_),
        table_(program, builder_) {
    graph_.opset = opset;
  }

  OnnxGraph run() {
    add_inputs();
    for (const std::string& name : program_.output_names)
      output_names_.push_back(graph_.unique_name(name));
    for (Node* node : program_.graph->nodes()) convert_node(node);
    throw_refusals();
    add_outputs();
    remove_dead(graph_);
    note_unused_inputs();
    return std::move(graph_);
  }

 private:
  void add_inputs() {
    const auto inputs = program_.graph->inputs();
    TORCH_CHECK(inputs.size() == program_.inputs.size(), "convert: the graph has ", inputs.size(),
                " inputs, the program names ", program_.inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const ProgramInput& input = program_.inputs[i];
      const std::string name = graph_.unique_name(input.name);
      graph_.inputs.push_back(name);
      graph_.types[name] = input_type(inputs[i], input);
      table_.set(inputs[i], {name});
    }
  }

  TensorType input_type(const torch::jit::Value* value, const ProgramInput& input) const {
    TensorType type;
    if (auto found = program_.types.find(value); found != program_.types.end()) {
      type = found->second;
    } else if (!input.examples.empty() && input.examples[0].isTensor()) {
      const at::Tensor& example = input.examples[0].toTensor();
      type = {dtype_of(example.scalar_type()), true, example.sizes().vec(), {}};
    }
    if (type.dtype == DType::kUndefined) {
      throw UnsupportedOp({.op = "input '" + input.name + "'",
                           .value = value->type()->str(),
                           .opset = graph_.opset,
                           .reason = "ONNX inputs are tensors of a type that ONNX has",
                           .hint = "pass a tensor, or make it a constant of the module"});
    }
    type.symbols.resize(type.dims.size());
    for (size_t d = 0; d < type.dims.size() && d < input.symbols.size(); ++d) {
      if (input.symbols[d].empty()) continue;
      type.dims[d] = -1;
      type.symbols[d] = input.symbols[d];
    }
    return type;
  }

  void convert_node(Node* node) {
    if (node->kind() == prim::Constant || node->kind() == prim::ListConstruct)
      return;  // read where they are used
    state_.source = source_line(*node);
    state_.scope = scope_of(program_, node);
    if (state_.scope.empty() && state_.source.empty()) state_.scope = scope_of_inputs(node);
    for (const torch::jit::Value* output : node->outputs()) scopes_[output] = state_.scope;
    state_.torch_op = node->kind().toQualString();
    try {
      if (!convert_structure(node)) convert_op(node);
    } catch (const UnsupportedOp& refusal) {
      refuse(node, refusal.details());
    } catch (const std::invalid_argument& refusal) {
      refuse(node, {.op = state_.torch_op, .opset = graph_.opset, .reason = refusal.what()});
    } catch (const std::logic_error& fault) {
      const std::string place = place_text(state_.scope, state_.source);
      throw std::runtime_error(state_.torch_op + (place.empty() ? "" : " [at " + place + "]") +
                               ": " + fault.what());
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      refuse(node, {.op = state_.torch_op, .opset = graph_.opset, .reason = first_line(error)});
    }
  }

  // A C++ trace records neither calls nor lines: an op without parameters stands with the one that
  // made its input.
  std::string scope_of_inputs(Node* node) const {
    for (const torch::jit::Value* input : node->inputs()) {
      auto found = scopes_.find(input);
      if (found != scopes_.end() && !found->second.empty()) return found->second;
    }
    return "";
  }

  // Lists and tuples have no form in ONNX: their elements pass through.
  bool convert_structure(Node* node) {
    if (node->kind() == prim::TupleConstruct) {
      std::vector<Value> elements;
      for (const torch::jit::Value* input : node->inputs()) elements.push_back(table_.get(input));
      table_.set_list(node->output(), std::move(elements));
      return true;
    }
    if (node->kind() == prim::TupleUnpack || node->kind() == prim::ListUnpack) {
      if (std::optional<std::vector<Value>> elements = table_.list(node->input())) {
        TORCH_CHECK(elements->size() >= node->outputs().size(), node->kind().toQualString(),
                    ": a list of ", elements->size(), " elements is unpacked into ",
                    node->outputs().size());
        for (size_t i = 0; i < node->outputs().size(); ++i) bind(node->output(i), (*elements)[i]);
        return true;
      }
      // The int[] that aten::size gives is a 1-d tensor.
      const Value list = table_.get(node->input());
      for (size_t i = 0; i < node->outputs().size(); ++i) {
        const Value index = builder_.scalar(DType::kInt64, static_cast<int64_t>(i));
        table_.set(node->output(i), builder_.op("Gather", {list, index}, {{"axis", int64_t{0}}}));
      }
      return true;
    }
    if (node->kind() == prim::If || node->kind() == prim::Loop) {
      throw UnsupportedOp({.op = state_.torch_op,
                           .opset = graph_.opset,
                           .reason = "control flow that depends on data",
                           .hint = "rewrite it with torch.where, or trace the module"});
    }
    return false;
  }

  void convert_op(Node* node) {
    if (node->maybeSchema() == nullptr) {
      throw UnsupportedOp(
          {.op = state_.torch_op, .opset = graph_.opset, .reason = "no symbolic function for it"});
    }
    NodeArgs::State args_state(node, table_);
    NodeArgs args(args_state);
    int64_t least = 0;
    const Symbolic* row =
        find_symbolic(state_.torch_op, node->schema().overload_name(), graph_.opset, &least);
    state_.torch_op = args_state.op;
    if (row == nullptr) {
      const bool later = least > 0;
      throw UnsupportedOp(
          {.op = args_state.op,
           .opset = graph_.opset,
           .reason = later ? "needs opset " + std::to_string(least) : "no symbolic function for it",
           .hint = later ? "export with --opset " + std::to_string(least) + " or newer"
                         : "register one through qcdq/symbolic.h and load it with --plugin"});
    }
    const std::vector<Value> results =
        row->function != nullptr ? row->function(builder_, args) : one_to_one(*row, args);
    if (const std::optional<size_t> unread = args_state.unread()) {
      args.unsupported(args_state.schema->arguments()[*unread].name(),
                       args_state.value_text(*unread),
                       "its symbolic function neither reads this argument nor says that it has no "
                       "meaning in ONNX");
    }
    bind_results(node, args, results);
  }

  std::vector<Value> one_to_one(const Symbolic& row, NodeArgs& args) {
    std::vector<Value> inputs;
    for (const c10::Argument& argument : current_schema(args).arguments()) {
      if (argument.type()->isSubtypeOf(*c10::TensorType::get()))
        inputs.push_back(args.tensor(argument.name()));
    }
    return {builder_.op(row.onnx_op, inputs)};
  }

  static const c10::FunctionSchema& current_schema(const NodeArgs& args) {
    return *args.state().schema;
  }

  void bind_results(Node* node, const NodeArgs& args, const std::vector<Value>& results) {
    const bool list =
        node->outputs().size() == 1 && node->output()->type()->kind() == c10::TypeKind::ListType &&
        node->output()->type()->expectRef<c10::ListType>().getElementType()->isSubtypeOf(
            *c10::TensorType::get());
    const size_t wanted = list ? args.outputs() : node->outputs().size();
    if (results.size() < wanted) {
      throw std::logic_error("its symbolic function gave " + std::to_string(results.size()) +
                             " values for " + std::to_string(wanted) + " outputs");
    }
    if (list) {
      table_.set_list(node->output(), results);
      return;
    }
    for (size_t i = 0; i < wanted; ++i) bind(node->output(i), results[i]);
  }

  // Makes `result` stand for `value` and gives it the recorded type. An element type that differs
  // from torch's is a silent wrong result in the making: it is refused.
  void bind(const torch::jit::Value* value, const Value& result) {
    table_.set(value, result);
    if (!result.present()) {
      if (value->uses().empty()) return;
      throw UnsupportedOp(
          {.op = state_.torch_op,
           .opset = graph_.opset,
           .reason = "its output %" + value->debugName() + " is used, and has no form in ONNX",
           .hint = "use the op's first output only"});
    }
    auto recorded = program_.types.find(value);
    if (recorded == program_.types.end() || graph_.initializer(result.name) != nullptr) return;
    const DType made = graph_.type(result.name).dtype;
    if (made != DType::kUndefined && recorded->second.dtype != DType::kUndefined &&
        made != recorded->second.dtype) {
      throw UnsupportedOp({.op = state_.torch_op,
                           .opset = graph_.opset,
                           .reason = "gives " + std::string(dtype_name(recorded->second.dtype)) +
                                     " in torch and " + std::string(dtype_name(made)) +
                                     " in ONNX"});
    }
    const bool input =
        std::find(graph_.inputs.begin(), graph_.inputs.end(), result.name) != graph_.inputs.end();
    if (!input) graph_.types[result.name] = recorded->second;
  }

  // Notes the refusal and goes on with a stand-in of the recorded type, so that one export names
  // everything that is missing.
  void refuse(Node* node, UnsupportedOp::Details details) {
    details.where = place_text(state_.scope, state_.source);
    refusals_.push_back(std::move(details));
    for (const torch::jit::Value* output : node->outputs()) {
      const Value stand_in{graph_.unique_name("unsupported")};
      auto recorded = program_.types.find(output);
      graph_.types[stand_in.name] =
          recorded == program_.types.end() ? TensorType{} : recorded->second;
      table_.set(output, stand_in);
      if (output->type()->kind() == c10::TypeKind::ListType) {
        table_.set_list(output, std::vector<Value>(list_length(output), stand_in));
      }
    }
  }

  static size_t list_length(const torch::jit::Value* list) {
    for (const torch::jit::Use& use : list->uses()) {
      if (use.user->kind() == prim::ListUnpack) return use.user->outputs().size();
    }
    return 1;
  }

  void throw_refusals() const {
    if (refusals_.empty()) return;
    // The same refusal at many places is one line.
    std::map<std::string, size_t> count;
    std::vector<UnsupportedOp::Details> distinct;
    for (UnsupportedOp::Details details : refusals_) {
      const std::string key =
          details.op + "\n" + details.argument + "\n" + details.value + "\n" + details.reason;
      if (++count[key] == 1) distinct.push_back(std::move(details));
    }
    for (UnsupportedOp::Details& details : distinct) {
      const size_t more = count[details.op + "\n" + details.argument + "\n" + details.value + "\n" +
                                details.reason] -
                          1;
      if (more == 0) continue;
      details.where = details.where.empty()
                          ? std::to_string(more + 1) + " places"
                          : details.where + ", and " + std::to_string(more) + " more";
    }
    throw UnsupportedOp(std::move(distinct));
  }

  // What a trace read as a Python number is fixed in it, and torch warned of that at the time only.
  void note_unused_inputs() {
    std::set<std::string> used(graph_.outputs.begin(), graph_.outputs.end());
    for (const OnnxNode& node : graph_.nodes) {
      node.for_each_use([&](const std::string& value) { used.insert(value); });
    }
    for (const std::string& input : graph_.inputs) {
      if (used.contains(input)) continue;
      program_.notes.push_back(
          "input '" + input +
          "' is not used in the file; where the model makes a number of it (int(x), x.item()), a "
          "trace has fixed that number");
    }
  }

  void add_outputs() {
    const auto outputs = program_.graph->outputs();
    TORCH_CHECK(outputs.size() == output_names_.size(), "convert: the graph has ", outputs.size(),
                " outputs, the program names ", output_names_.size());
    state_.scope.clear();
    state_.source.clear();
    state_.torch_op = "output";
    std::unordered_map<std::string, std::string> renamed;  // a node's value -> the output's name
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Value value = table_.get(outputs[i]);
      const std::string& name = output_names_[i];
      const bool input =
          std::find(graph_.inputs.begin(), graph_.inputs.end(), value.name) != graph_.inputs.end();
      graph_.outputs.push_back(name);
      graph_.types[name] = graph_.type(value.name);
      if (input || graph_.initializer(value.name) != nullptr ||
          !renamed.emplace(value.name, name).second) {
        OnnxNode& identity = graph_.nodes.emplace_back();
        identity.op_type = "Identity";
        identity.name = graph_.unique_name(name + "/Identity");
        identity.inputs = {value.name};
        identity.outputs = {name};
      }
    }
    for (OnnxNode& node : graph_.nodes) {
      node.rename_uses(renamed);
      for (std::string& value : node.outputs) {
        if (auto found = renamed.find(value); found != renamed.end()) value = found->second;
      }
    }
    for (const auto& [value, name] : renamed) graph_.types.erase(value);
  }

  Program& program_;
  OnnxGraph graph_;
  GraphBuilder::State state_;
  GraphBuilder builder_;
  ValueTable table_;
  std::unordered_map<const torch::jit::Value*, std::string> scopes_;
  std::vector<std::string> output_names_;
  std::vector<UnsupportedOp::Details> refusals_;
};

}  // namespace

OnnxGraph convert(Program& program, int64_t opset, const EmissionOptions& emission) {
  return Converter(program, opset, emission).run();
}

}  // namespace qcdq
