// Nodes of a program in order, its signature, and its subgraphs; see source/pt2/graph.h.
#include "symbolic/source/pt2/graph.h"

#include <torch/csrc/jit/frontend/source_range.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/scope.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>
#include <utility>

#include "symbolic/program/run_node.h"
#include "symbolic/source/pt2/operators.h"

namespace qcdq {

using nlohmann::json;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Symbol;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

namespace {

[[noreturn]] void refuse(const std::string& op, const std::string& argument,
                         const std::string& value, const std::string& reason,
                         const std::string& hint) {
  throw UnsupportedOp(
      {.op = op, .argument = argument, .value = value, .reason = reason, .hint = hint});
}

/// The user's line in a Python trace: the innermost frame that is not torch's own.
torch::jit::SourceRange range_of(const std::string& trace) {
  std::string file;
  size_t line = 0;
  std::string code;
  const std::string start = "File \"";
  for (size_t at = trace.find(start); at != std::string::npos; at = trace.find(start, at + 1)) {
    const size_t name = at + start.size();
    const size_t quote = trace.find('"', name);
    const size_t number = trace.find("line ", quote);
    if (quote == std::string::npos || number == std::string::npos) break;
    const std::string here = trace.substr(name, quote - name);
    if (here.find("/torch/") != std::string::npos && !file.empty()) continue;
    if (here.starts_with("<")) continue;
    file = here;
    line = static_cast<size_t>(std::strtoul(trace.c_str() + number + 5, nullptr, 10));
    const size_t code_at = trace.find('\n', number);
    if (code_at == std::string::npos) continue;
    code = trace.substr(code_at + 1, trace.find('\n', code_at + 1) - code_at - 1);
  }
  if (file.empty() || line == 0) return {};
  auto source = std::make_shared<torch::jit::Source>(code, file, line);
  return torch::jit::SourceRange(source, 0, code.size());
}

/// "L__self__,,M;L__self__fc,fc,torch.nn.modules.linear.Linear" -> "fc".
std::string module_of(const std::string& stack) {
  const size_t entry = stack.rfind(';') == std::string::npos ? 0 : stack.rfind(';') + 1;
  const size_t first = stack.find(',', entry);
  const size_t last = stack.rfind(',');
  if (first == std::string::npos || last <= first) return "";
  std::string path = stack.substr(first + 1, last - first - 1);
  if (path.starts_with("L['self']")) path.erase(0, 9);
  if (path.starts_with(".")) path.erase(0, 1);
  if (const size_t again = path.find('@'); again != std::string::npos) path.erase(again);
  const bool plain = std::all_of(path.begin(), path.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '.';
  });
  return plain ? path : "";
}

class GraphReader {
 public:
  explicit GraphReader(const Pt2Archive& archive)
      : archive_(archive), graph_(std::make_shared<Graph>()) {}

  Pt2Graph read() {
    const json& module = pt2_member(archive_.program, "graph_module");
    const json& graph = pt2_member(module, "graph");
    const json& signature = pt2_member(module, "signature");
    result_.graph = graph_;
    for (const json& spec : pt2_member(signature, "input_specs")) add_input(spec, graph);
    add_nodes(graph);
    add_outputs(pt2_member(signature, "output_specs"));
    graph_->lint();
    return std::move(result_);
  }

 private:
  void add_input(const json& spec, const json& graph) {
    const auto [kind, content] = pt2_union(spec);
    if (kind == "parameter" || kind == "buffer" || kind == "tensor_constant") {
      const std::string key = kind + "_name";
      add_weight(pt2_member(pt2_member(content, "arg"), "name").get<std::string>(),
                 pt2_member(content, key.c_str()).get<std::string>());
    } else if (kind == "user_input") {
      add_user_input(pt2_member(content, "arg"), graph);
    } else if (kind == "constant_input") {
      const json& value = pt2_member(content, "value");
      const std::string name = pt2_member(content, "name").get<std::string>();
      if (!value.contains("as_none")) {
        result_.notes.push_back("input '" + name + "' is no tensor: fixed to " +
                                pt2_union(value).second.dump());
      }
    } else {
      refuse("the program's input", "kind", kind, "a kind of input that ONNX has not",
             "export the model without custom objects and effects");
    }
  }

  void add_weight(const std::string& name, const std::string& path) {
    const auto found = archive_.tensors.find(path);
    if (found == archive_.tensors.end()) {
      throw std::runtime_error("the file holds no tensor '" + path + "', which the program uses");
    }
    const at::Tensor& tensor = found->second;
    JitValue* value = graph_->insertConstant(tensor);
    values_[name] = value;
    if (tensor.numel() > 0) result_.parameter_paths.emplace(tensor.const_data_ptr(), path);
  }

  void add_user_input(const json& argument, const json& graph) {
    const auto [kind, content] = pt2_union(argument);
    if (kind == "as_none") return;
    if (kind == "as_tensor") {
      const std::string name = pt2_member(content, "name").get<std::string>();
      const json& meta = pt2_member(pt2_member(graph, "tensor_values"), name.c_str());
      Pt2Input input{name, pt2_scalar_type(pt2_member(meta, "dtype")), {}, {}};
      for (const json& size : pt2_member(meta, "sizes")) add_size(size, input);
      result_.inputs.push_back(std::move(input));
      values_[name] = graph_->addInput(name);
      return;
    }
    if (kind == "as_sym_int" || kind == "as_sym_float" || kind == "as_sym_bool") {
      refuse("the program's input", "", content.value("as_name", content.dump()),
             "a number that differs from run to run; ONNX inputs are tensors",
             "pass a tensor, or export the model with the number fixed");
    }
    result_.notes.push_back("an input is no tensor: fixed to " + content.dump());
  }

  static void add_size(const json& size, Pt2Input& input) {
    const auto [kind, content] = pt2_union(size);
    if (kind == "as_int") {
      input.sizes.emplace_back(content.get<int64_t>());
      input.example_sizes.push_back(content.get<int64_t>());
      return;
    }
    input.sizes.push_back(
        SizeExpression::parse(pt2_member(content, "expr_str").get<std::string>()));
    const json& hint = pt2_member(content, "hint");
    input.example_sizes.push_back(hint.is_object() ? hint.value("as_int", int64_t{2}) : 2);
  }

  void add_nodes(const json& graph) {
    for (const json& node : pt2_member(graph, "nodes")) {
      place_ = torch::jit::SourceRange();
      scope_.clear();
      if (const auto metadata = node.find("metadata"); metadata != node.end()) {
        place_ = range_of(metadata->value("stack_trace", ""));
        scope_ = module_of(metadata->value("nn_module_stack", ""));
      }
      const std::string target = pt2_member(node, "target").get<std::string>();
      if (target.starts_with("torch.ops.higher_order.")) {
        add_subgraph(node, target.substr(23));
      } else if (target.starts_with("torch.ops.")) {
        add_op(node, Pt2Op::of_target(target));
      } else {
        add_size_op(node, target);
      }
    }
  }

  /// Regions without gradients, or without autocast, compute what their nodes do.
  void add_subgraph(const json& node, const std::string& name) {
    const json& arguments = pt2_member(node, "inputs");
    const auto argument = [&](size_t i) -> const json& {
      return pt2_member(arguments.at(i), "arg");
    };
    size_t body = 0;
    if (name == "wrap_with_set_grad_enabled") {
      body = 1;
    } else if (name == "wrap_with_autocast" && !argument(2).value("as_bool", true)) {
      body = 4;
    } else {
      Node* place = graph_->create(prim::Constant);  // for its location only
      locate(place);
      UnsupportedOp::Details details{.op = "higher_order::" + name,
                                     .argument = "",
                                     .value = "",
                                     .opset = 0,
                                     .reason = "control flow and regions with graphs of their own",
                                     .hint =
                                         "rewrite it with torch.where, or export the model "
                                         "without it",
                                     .where = node_location(*place)};
      place->destroy();
      throw UnsupportedOp(details);
    }
    const json& graph = pt2_member(pt2_member(argument(body), "as_graph"), "graph");
    Pt2Values inner;
    const json& inputs = pt2_member(graph, "inputs");
    for (size_t i = 0; i < inputs.size(); ++i) {
      const auto [kind, content] = pt2_union(inputs[i]);
      const std::string key = name_of(kind, content);
      if (key.empty()) continue;  // a constant
      const auto [given_kind, given] = pt2_union(argument(body + 1 + i));
      inner[key] = pt2_value(values_, name_of(given_kind, given));
    }
    values_.swap(inner);
    add_nodes(graph);
    std::vector<JitValue*> results;
    for (const json& output : pt2_member(graph, "outputs")) {
      const auto [kind, content] = pt2_union(output);
      const std::string key = name_of(kind, content);
      results.push_back(key.empty() ? nullptr : pt2_value(values_, key));
    }
    values_.swap(inner);
    size_t next = 0;
    const auto bind_next = [&](const std::string& key) {
      JitValue* value = next < results.size() ? results[next++] : nullptr;
      if (!key.empty() && value != nullptr) values_[key] = value;
    };
    for (const json& output : pt2_member(node, "outputs")) {
      const auto [kind, content] = pt2_union(output);
      if (content.is_array()) {
        for (const json& one : content) bind_next(one.value("name", one.value("as_name", "")));
      } else {
        bind_next(name_of(kind, content));
      }
    }
  }

  /// The name in {"as_tensor": {"name": ...}} and {"as_sym_int": {"as_name": ...}}; "" for others.
  static std::string name_of(const std::string& kind, const json& content) {
    if (kind == "as_tensor") return pt2_member(content, "name").get<std::string>();
    if (kind.starts_with("as_sym_") && content.is_object()) return content.value("as_name", "");
    return "";
  }

  void locate(Node* node) {
    node->setSourceRange(place_);
    if (!scope_.empty()) {
      node->setScope(graph_->current_scope()->push(Symbol::fromQualString("scope::" + scope_)));
    }
  }

  void add_size_op(const json& node, const std::string& target) {
    std::vector<JitValue*> operands;
    for (const json& input : pt2_member(node, "inputs")) {
      operands.push_back(pt2_number(*graph_, values_, pt2_member(input, "arg"), target));
    }
    JitValue* value = nullptr;
    try {
      value = pt2_size_op(*graph_, target, operands);
    } catch (const std::exception& error) {
      refuse(target, "", "", first_line(error), "");
    }
    if (value == nullptr) {
      refuse(target, "", "", "no op on sizes of that name is known", "");
    }
    bind_output(pt2_member(node, "outputs").at(0), value);
  }

  void add_op(const json& node, const Pt2Op& op) {
    if (op.computes_nothing()) return;
    const json& inputs = pt2_member(node, "inputs");
    const std::shared_ptr<torch::jit::Operator> chosen = pt2_operator(op, inputs);
    const c10::FunctionSchema& schema = chosen->schema();
    std::vector<JitValue*> arguments;
    for (const c10::Argument& formal : schema.arguments()) {
      if (const json* argument = pt2_given(inputs, formal.name())) {
        arguments.push_back(pt2_argument(*graph_, values_, *argument, formal, op.name));
      } else if (formal.default_value()) {
        arguments.push_back(graph_->insertConstant(*formal.default_value()));
      } else {
        throw std::runtime_error("the exported program is damaged: " + op.name + " has no '" +
                                 formal.name() + "'");
      }
    }
    Node* made =
        graph_->create(Symbol::fromQualString(op.name), arguments, schema.returns().size());
    for (size_t i = 0; i < made->outputs().size(); ++i) {
      made->output(i)->setType(schema.returns()[i].type());
    }
    graph_->insertNode(made);
    locate(made);
    if (made->maybeOperator() == nullptr) {
      throw std::runtime_error(op.name + ": the program's arguments match none of its overloads");
    }
    const json& outputs = pt2_member(node, "outputs");
    for (size_t i = 0; i < outputs.size() && i < made->outputs().size(); ++i) {
      bind_output(outputs[i], made->output(i));
    }
  }

  void bind_output(const json& output, JitValue* value) {
    const auto [kind, content] = pt2_union(output);
    if (kind == "as_none") return;
    if (kind == "as_optional_tensor") return bind_output(content, value);
    if (const std::string name = name_of(kind, content); !name.empty()) {
      values_[name] = value;
      return;
    }
    if (kind != "as_tensors" && kind != "as_sym_ints") return;  // a known number
    Node* unpack = graph_->insertNode(graph_->createListUnpack(value, content.size()));
    locate(unpack);
    for (size_t i = 0; i < content.size(); ++i) {
      const std::string name = content[i].value("name", content[i].value("as_name", ""));
      if (!name.empty()) values_[name] = unpack->output(i);
    }
  }

  void add_outputs(const json& specs) {
    size_t index = 0;
    for (const json& spec : specs) {
      const auto [kind, content] = pt2_union(spec);
      if (kind == "user_output") {
        add_output(pt2_member(content, "arg"), index++);
      } else if (kind == "user_input_mutation") {
        result_.notes.push_back("the model writes to its input '" +
                                pt2_member(content, "user_input_name").get<std::string>() +
                                "': the file does not");
      } else if (kind == "buffer_mutation" || kind == "parameter_mutation") {
        const bool buffer = kind == "buffer_mutation";
        const std::string name =
            pt2_member(content, buffer ? "buffer_name" : "parameter_name").get<std::string>();
        refuse("the program", "", "",
               std::string("it changes its ") + (buffer ? "buffer" : "parameter") + " '" + name +
                   "' as it runs",
               "export it in eval mode (model.eval()), or make the state an input and an output");
      } else {
        refuse("the program's output", "kind", kind, "a kind of output that ONNX has not",
               "export the model's forward for inference");
      }
    }
  }

  void add_output(const json& argument, size_t index) {
    const auto [kind, content] = pt2_union(argument);
    const std::string name = name_of(kind, content);
    const std::string what = "output " + std::to_string(index) + " of the model ";
    if (kind == "as_none") {
      result_.notes.push_back(what + "is None and left out");
    } else if (name.empty()) {
      result_.notes.push_back(what + "is the constant " + content.dump() + " and left out");
    } else if (kind == "as_tensor") {
      graph_->registerOutput(pt2_value(values_, name));
    } else {
      Node* number = graph_->create(prim::NumToTensor, {pt2_value(values_, name)}, 1);
      graph_->registerOutput(graph_->insertNode(number)->output());
      result_.notes.push_back(what + "is a number: a tensor without dimensions in the file");
    }
  }

  const Pt2Archive& archive_;
  std::shared_ptr<Graph> graph_;
  Pt2Values values_;
  Pt2Graph result_;
  torch::jit::SourceRange place_;
  std::string scope_;
};

}  // namespace

Pt2Graph build_pt2_graph(const Pt2Archive& archive) { return GraphReader(archive).read(); }

}  // namespace qcdq
