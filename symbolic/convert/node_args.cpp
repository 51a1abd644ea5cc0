// NodeArgs: typed access to the arguments of one torch::jit::Node by the names in its schema;
// records what was read.
#include "symbolic/convert/node_args.h"

#include <utility>

#include "symbolic/program/run_node.h"
#include "symbolic/program/tensors.h"

namespace qcdq {

using torch::jit::Node;
namespace prim = c10::prim;

NodeArgs::State::State(Node* n, ValueTable& t) : node(n), table(t), schema(n->maybeSchema()) {
  op = n->kind().toQualString();
  if (schema == nullptr) throw std::logic_error(op + " has no schema");
  if (!schema->overload_name().empty()) op += "." + schema->overload_name();
  read.assign(schema->arguments().size(), false);
}

std::optional<size_t> NodeArgs::State::unread() const {
  for (size_t i = 0; i < read.size() && i < node->inputs().size(); ++i) {
    if (!read[i]) return i;
  }
  return std::nullopt;
}

std::string NodeArgs::State::value_text(size_t argument) const {
  return short_text(node->input(argument));
}

namespace {

size_t index_of(const NodeArgs::State& state, std::string_view name) {
  const std::optional<int> index = state.schema->argumentIndexWithName(name);
  if (!index) {
    throw UnsupportedOp({.op = state.op,
                         .argument = std::string(name),
                         .opset = state.table.graph().opset(),
                         .reason = "this overload has no such argument: its symbolic function was "
                                   "written for another one"});
  }
  return static_cast<size_t>(*index);
}

const torch::jit::Value* read_argument(NodeArgs::State& state, std::string_view name) {
  const size_t index = index_of(state, name);
  state.read[index] = true;
  return state.node->input(index);
}

[[noreturn]] void wrong_kind(const NodeArgs& args, std::string_view name, const char* wanted) {
  const NodeArgs::State& state = args.state();
  args.unsupported(name, state.value_text(index_of(state, name)),
                   std::string("expected ") + wanted);
}

}  // namespace

std::string NodeArgs::op() const { return state_.op; }

bool NodeArgs::has(std::string_view name) const {
  return state_.schema->argumentIndexWithName(name).has_value();
}

bool NodeArgs::is_none(std::string_view name) {
  const size_t index = index_of(state_, name);
  const torch::jit::Value* value = state_.node->input(index);
  const bool none = value->mustBeNone();
  if (none) state_.read[index] = true;
  return none;
}

Value NodeArgs::tensor(std::string_view name) {
  return state_.table.get(read_argument(state_, name));
}

Value NodeArgs::optional_tensor(std::string_view name) {
  if (is_none(name)) return {};
  return tensor(name);
}

std::vector<Value> NodeArgs::tensors(std::string_view name) {
  std::optional<std::vector<Value>> elements = state_.table.list(read_argument(state_, name));
  if (!elements)
    unsupported(name, short_text(state_.node->input(index_of(state_, name))),
                "a list of tensors whose length is known only at run time");
  return *std::move(elements);
}

std::optional<TensorData> NodeArgs::constant(std::string_view name) {
  const std::optional<c10::IValue> value = constant_value(read_argument(state_, name));
  if (!value || !value->isTensor()) return std::nullopt;
  return tensor_data(value->toTensor());
}

// The number that a constant is; nothing for a constant of another kind.
static std::optional<Number> number_of(const c10::IValue& value) {
  if (value.isDouble()) return value.toDouble();
  if (value.isInt()) return value.toInt();
  if (value.isBool()) return static_cast<int64_t>(value.toBool());
  if (!value.isTensor() || !value.toTensor().defined() || value.toTensor().numel() != 1) return {};
  const at::Tensor& tensor = value.toTensor();
  if (tensor.is_floating_point()) return tensor.item<double>();
  if (!c10::isIntegralType(tensor.scalar_type(), /*includeBool=*/true)) return {};
  return tensor.item<int64_t>();
}

// The constant behind an argument; refuses what is known only at run time.
static c10::IValue known_constant(const NodeArgs& args, NodeArgs::State& state,
                                  std::string_view name) {
  const torch::jit::Value* value = read_argument(state, name);
  std::optional<c10::IValue> constant = constant_value(value);
  if (!constant) {
    args.unsupported(name, "%" + value->debugName(),
                     "is computed at run time, ONNX needs it as a constant",
                     "make it a constant of the module");
  }
  return *std::move(constant);
}

int64_t NodeArgs::integer(std::string_view name) {
  const std::optional<Number> number = number_of(known_constant(*this, state_, name));
  if (!number || !std::holds_alternative<int64_t>(*number)) wrong_kind(*this, name, "an int");
  return std::get<int64_t>(*number);
}

std::optional<int64_t> NodeArgs::optional_integer(std::string_view name) {
  if (is_none(name)) return std::nullopt;
  return integer(name);
}

Number NodeArgs::number(std::string_view name) {
  const std::optional<Number> number = number_of(known_constant(*this, state_, name));
  if (!number) wrong_kind(*this, name, "a real number");
  return *number;
}

std::optional<Number> NodeArgs::optional_number(std::string_view name) {
  if (is_none(name)) return std::nullopt;
  return number(name);
}

double NodeArgs::real(std::string_view name) { return to_double(number(name)); }

std::optional<double> NodeArgs::optional_real(std::string_view name) {
  if (is_none(name)) return std::nullopt;
  return real(name);
}

bool NodeArgs::boolean(std::string_view name) {
  const c10::IValue value = known_constant(*this, state_, name);
  if (value.isBool()) return value.toBool();
  if (value.isInt()) return value.toInt() != 0;
  wrong_kind(*this, name, "a bool");
}

std::string NodeArgs::string(std::string_view name) {
  const c10::IValue value = known_constant(*this, state_, name);
  if (value.isString()) return value.toStringRef();
  wrong_kind(*this, name, "a string");
}

std::optional<std::string> NodeArgs::optional_string(std::string_view name) {
  if (is_none(name)) return std::nullopt;
  return string(name);
}

std::vector<int64_t> NodeArgs::ints(std::string_view name) {
  const c10::IValue value = known_constant(*this, state_, name);
  if (value.isIntList()) return value.toIntVector();
  if (value.isInt()) return {value.toInt()};
  if (value.isNone()) return {};
  if (value.isList()) {
    std::vector<int64_t> numbers;
    for (const c10::IValue& element : value.toListRef()) {
      if (!element.isInt()) wrong_kind(*this, name, "a list of ints");
      numbers.push_back(element.toInt());
    }
    return numbers;
  }
  wrong_kind(*this, name, "a list of ints");
}

Value NodeArgs::ints_value(std::string_view name) {
  const torch::jit::Value* value = read_argument(state_, name);
  GraphBuilder& graph = state_.table.graph();
  if (constant_value(value)) return graph.ints(ints(name));
  if (state_.table.contains(value)) return state_.table.get(value);
  if (value->node()->kind() != prim::ListConstruct) {
    unsupported(name, short_text(value), "is a list whose elements can't be followed");
  }
  // [2, n, -1]: each element becomes a 1-element tensor.
  std::vector<Value> parts;
  for (const torch::jit::Value* element : value->node()->inputs()) {
    if (const std::optional<c10::IValue> constant = constant_value(element)) {
      if (!constant->isInt()) wrong_kind(*this, name, "a list of ints");
      parts.push_back(graph.ints({constant->toInt()}));
    } else {
      parts.push_back(graph.op("Reshape", {state_.table.get(element), graph.ints({1})}));
    }
  }
  if (parts.size() == 1) return parts.front();
  return graph.op("Concat", parts, {{"axis", int64_t{0}}});
}

Value NodeArgs::integer_value(std::string_view name) {
  return state_.table.get(read_argument(state_, name));
}

std::optional<DType> NodeArgs::optional_dtype(std::string_view name) {
  if (is_none(name)) return std::nullopt;
  const auto type = static_cast<at::ScalarType>(integer(name));
  const DType dtype = dtype_of(type);
  if (dtype == DType::kUndefined)
    unsupported(name, c10::toString(type), "ONNX has no such element type");
  return dtype;
}

void NodeArgs::ignore(std::string_view name,
                      std::string_view /*why: for the reader of the symbolic*/) {
  read_argument(state_, name);
}

size_t NodeArgs::outputs() const {
  const auto outputs = state_.node->outputs();
  if (outputs.size() != 1 || outputs[0]->type()->kind() != c10::TypeKind::ListType)
    return outputs.size();
  for (const torch::jit::Use& use : outputs[0]->uses()) {
    if (use.user->kind() == prim::ListUnpack) return use.user->outputs().size();
  }
  return 1;
}

TensorType NodeArgs::output_type(size_t index) const {
  const auto outputs = state_.node->outputs();
  const torch::jit::Value* value = nullptr;
  if (index < outputs.size()) value = outputs[index];
  if (outputs.size() == 1 && outputs[0]->type()->kind() == c10::TypeKind::ListType) {
    for (const torch::jit::Use& use : outputs[0]->uses()) {
      if (use.user->kind() == prim::ListUnpack) value = use.user->output(index);
    }
  }
  const auto& types = state_.table.program().types;
  auto found = types.find(value);
  return found == types.end() ? TensorType{} : found->second;
}

std::optional<TensorData> NodeArgs::evaluate(size_t index) {
  if (state_.node->isNondeterministic()) return std::nullopt;
  torch::jit::Stack stack;
  for (const torch::jit::Value* input : state_.node->inputs()) {
    std::optional<c10::IValue> constant = constant_value(input);
    if (!constant) return std::nullopt;
    stack.push_back(*std::move(constant));
  }
  const at::NoGradGuard no_grad;
  state_.node->getOperation()(stack);
  if (index >= stack.size() || !stack[index].isTensor()) return std::nullopt;
  state_.read.assign(state_.read.size(), true);
  return tensor_data(stack[index].toTensor());
}

void NodeArgs::unsupported(std::string_view argument, std::string value, std::string reason,
                           std::string hint) const {
  throw UnsupportedOp({.op = state_.op,
                       .argument = std::string(argument),
                       .value = std::move(value),
                       .opset = state_.table.graph().opset(),
                       .reason = std::move(reason),
                       .hint = std::move(hint)});
}

}  // namespace qcdq
