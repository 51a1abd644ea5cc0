// GraphBuilder: adds nodes to an OnnxGraph, each one checked against onnx's own schema at the
// target opset. Symbolic functions (symbolics/*.cpp) call it; convert.cpp owns its state.
#include "symbolic/graph/graph_builder.h"

#include <onnx/defs/schema.h>

#include <algorithm>
#include <map>
#include <set>

#include "symbolic/graph/element_types.h"
#include "symbolic/graph/infer_types.h"
#include "symbolic/graph/message_text.h"

namespace qcdq {

namespace {

using onnx::AttributeProto;
using onnx::OpSchema;
using onnx::OpSchemaRegistry;

[[noreturn]] void refuse_op(const GraphBuilder::State& state, std::string value, std::string reason,
                            std::string hint = "") {
  throw UnsupportedOp({.op = state.torch_op,
                       .value = std::move(value),
                       .opset = state.graph.opset,
                       .reason = std::move(reason),
                       .hint = std::move(hint),
                       .where = place_text(state.scope, state.source)});
}

// "tensor(float)" and so on; ONNX spells two of the names its own way.
std::string type_string(DType dtype) {
  if (dtype == DType::kFloat32) return "tensor(float)";
  if (dtype == DType::kFloat64) return "tensor(double)";
  return "tensor(" + std::string(dtype_name(dtype)) + ")";
}

DType named_dtype(const std::string& type) {
  constexpr auto kNewestType = static_cast<int32_t>(DType::kInt2);
  for (int32_t number = 1; number <= kNewestType; ++number) {
    const auto dtype = static_cast<DType>(number);
    if (dtype_bits(dtype) != 0 && type_string(dtype) == type) return dtype;
  }
  return type == "tensor(string)" ? DType::kString : DType::kUndefined;
}

const std::vector<std::string>* allowed_types(const OpSchema& schema,
                                              const std::string& type_parameter) {
  for (const auto& constraint : schema.typeConstraintParams()) {
    if (constraint.type_param_str == type_parameter) return &constraint.allowed_type_strs;
  }
  return nullptr;
}

const OpSchema& schema_for(const GraphBuilder::State& state, const std::string& op_type) {
  const auto opset = static_cast<int>(state.graph.opset);
  const OpSchema* schema = OpSchemaRegistry::Schema(op_type, opset, "");
  if (schema != nullptr && !schema->Deprecated()) return *schema;
  // Of the onnx that is linked, which may know newer opsets than qcdq writes.
  const int newest = OpSchemaRegistry::DomainToVersionRange::Instance().Map().at("").second;
  for (int later = opset + 1; later <= newest; ++later) {
    if (OpSchemaRegistry::Schema(op_type, later, "") != nullptr) {
      refuse_op(state, "",
                "needs ONNX " + op_type + ", which exists from opset " + std::to_string(later),
                "export with --opset " + std::to_string(later) + " or newer");
    }
  }
  refuse_op(state, "", "asks for ONNX " + op_type + ", which ONNX doesn't have");
}

bool attribute_matches(const Attribute& value, AttributeProto::AttributeType type) {
  switch (type) {
    case AttributeProto::INT:
      return std::holds_alternative<int64_t>(value);
    case AttributeProto::FLOAT:
      return std::holds_alternative<float>(value);
    case AttributeProto::STRING:
      return std::holds_alternative<std::string>(value);
    case AttributeProto::INTS:
      return std::holds_alternative<std::vector<int64_t>>(value);
    case AttributeProto::FLOATS:
      return std::holds_alternative<std::vector<float>>(value);
    case AttributeProto::STRINGS:
      return std::holds_alternative<std::vector<std::string>>(value);
    case AttributeProto::TENSOR:
      return std::holds_alternative<TensorData>(value);
    case AttributeProto::GRAPH: {
      const auto* body = std::get_if<Subgraph>(&value);
      return body != nullptr && body->graph != nullptr;
    }
    default:
      return false;
  }
}

void check_attributes(const GraphBuilder::State& state, const OpSchema& schema,
                      const Attributes& attributes) {
  std::set<std::string> given;
  for (const auto& [name, value] : attributes) {
    auto found = schema.attributes().find(name);
    if (found == schema.attributes().end()) {
      refuse_op(state, "", "ONNX " + schema.Name() + " has no attribute '" + name + "'");
    }
    if (!attribute_matches(value, found->second.type)) {
      refuse_op(state, "",
                "attribute '" + name + "' of ONNX " + schema.Name() +
                    " has the wrong type, expected " +
                    onnx::AttributeProto_AttributeType_Name(found->second.type));
    }
    if (!given.insert(name).second) {
      refuse_op(state, "", "attribute '" + name + "' of ONNX " + schema.Name() + " is given twice");
    }
  }
  for (const auto& [name, attribute] : schema.attributes()) {
    if (attribute.required && !given.contains(name)) {
      refuse_op(state, "", "ONNX " + schema.Name() + " requires attribute '" + name + "'");
    }
  }
}

const OpSchema::FormalParameter* parameter(const std::vector<OpSchema::FormalParameter>& formal,
                                           size_t index) {
  if (index < formal.size()) return &formal[index];
  if (formal.empty() || formal.back().GetOption() != OpSchema::Variadic) return nullptr;
  return &formal.back();
}

// Checks the inputs; the result says which element type each type parameter ("T") stands for.
std::map<std::string, DType> check_inputs(const GraphBuilder::State& state, const OpSchema& schema,
                                          const std::vector<std::string>& inputs) {
  const auto count = static_cast<int64_t>(inputs.size());
  if (count < schema.min_input() || count > schema.max_input()) {
    refuse_op(state, "",
              "ONNX " + schema.Name() + " takes " + std::to_string(schema.min_input()) + " to " +
                  std::to_string(schema.max_input()) + " inputs, got " + std::to_string(count));
  }
  std::map<std::string, DType> bound;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const OpSchema::FormalParameter& formal = *parameter(schema.inputs(), i);
    if (inputs[i].empty()) {
      if (formal.GetOption() != OpSchema::Optional) {
        refuse_op(
            state, "",
            "input '" + formal.GetName() + "' of ONNX " + schema.Name() + " can't be left out");
      }
      continue;
    }
    const DType dtype = state.graph.type(inputs[i]).dtype;
    if (dtype == DType::kUndefined) continue;
    const std::string type = type_string(dtype);
    const std::string& type_parameter = formal.GetTypeStr();
    const std::vector<std::string>* allowed = allowed_types(schema, type_parameter);
    const bool fits = allowed != nullptr
                          ? std::find(allowed->begin(), allowed->end(), type) != allowed->end()
                          : type == type_parameter;
    if (!fits) {
      refuse_op(state, "",
                "ONNX " + schema.Name() + " takes no " + std::string(dtype_name(dtype)) +
                    " as input '" + formal.GetName() + "' (it takes " +
                    (allowed != nullptr ? join_names(*allowed) : type_parameter) + ")");
    }
    if (allowed == nullptr ||
        (formal.GetOption() == OpSchema::Variadic && !formal.GetIsHomogeneous()))
      continue;
    auto [known, fresh] = bound.emplace(type_parameter, dtype);
    if (!fresh && known->second != dtype) {
      refuse_op(state, "",
                "inputs of ONNX " + schema.Name() + " that share a type have " +
                    std::string(dtype_name(known->second)) + " and " +
                    std::string(dtype_name(dtype)));
    }
  }
  return bound;
}

// The element type of an output that the schema alone tells; kUndefined where it doesn't.
DType schema_dtype(const OpSchema& schema, const std::map<std::string, DType>& bound,
                   size_t output) {
  const std::string& type_parameter = parameter(schema.outputs(), output)->GetTypeStr();
  if (auto found = bound.find(type_parameter); found != bound.end()) return found->second;
  const std::vector<std::string>* allowed = allowed_types(schema, type_parameter);
  if (allowed == nullptr) return named_dtype(type_parameter);
  return allowed->size() == 1 ? named_dtype(allowed->front()) : DType::kUndefined;
}

std::string scoped(const GraphBuilder::State& state, const std::string& name) {
  return state.scope.empty() ? name : state.scope + "/" + name;
}

}  // namespace

int64_t GraphBuilder::opset() const { return state_.graph.opset; }

Value GraphBuilder::op(std::string_view op_type, const std::vector<Value>& inputs,
                       const Attributes& attributes) {
  return ops(op_type, inputs, 1, attributes).front();
}

std::vector<Value> GraphBuilder::ops(std::string_view op_type, const std::vector<Value>& inputs,
                                     size_t outputs, const Attributes& attributes) {
  OnnxNode node;
  node.op_type = op_type;
  if (const size_t colons = op_type.find("::"); colons != std::string_view::npos) {
    node.domain = op_type.substr(0, colons);
    node.op_type = op_type.substr(colons + 2);
  }
  for (const Value& input : inputs) node.inputs.push_back(input.name);
  while (!node.inputs.empty() && node.inputs.back().empty()) node.inputs.pop_back();
  node.attributes = attributes;
  node.torch_op = state_.torch_op;
  node.source = state_.source;

  std::vector<TensorType> types(outputs);
  if (node.domain.empty()) {
    const OpSchema& schema = schema_for(state_, node.op_type);
    check_attributes(state_, schema, attributes);
    const std::map<std::string, DType> bound = check_inputs(state_, schema, node.inputs);
    const auto count = static_cast<int64_t>(outputs);
    if (count < schema.min_output() || count > schema.max_output()) {
      refuse_op(state_, "",
                "ONNX " + node.op_type + " gives " + std::to_string(schema.min_output()) + " to " +
                    std::to_string(schema.max_output()) + " outputs, asked for " +
                    std::to_string(count));
    }
    types = infer_types(state_.graph, node, outputs, schema);
    for (size_t i = 0; i < outputs; ++i) {
      if (types[i].dtype == DType::kUndefined) types[i].dtype = schema_dtype(schema, bound, i);
    }
  } else {
    state_.graph.domains.emplace(node.domain, 1);
  }

  state_.graph.reserve_names_in_bodies(node);
  node.name = state_.graph.unique_name(scoped(state_, node.op_type));
  std::vector<Value> results;
  for (size_t i = 0; i < outputs; ++i) {
    const std::string suffix = outputs == 1 ? "_output" : "_output_" + std::to_string(i);
    results.push_back({state_.graph.unique_name(node.name + suffix)});
    node.outputs.push_back(results.back().name);
    state_.graph.types[results.back().name] = std::move(types[i]);
  }
  state_.graph.nodes.push_back(std::move(node));
  return results;
}

Value GraphBuilder::constant(TensorData data, std::string_view name) {
  const std::string base = name.empty() ? scoped(state_, "constant") : std::string(name);
  return {state_.graph.add_initializer(base, std::move(data))};
}

Value GraphBuilder::scalar(DType dtype, const Number& value) {
  return constant(scalar_data(dtype, value));
}

Value GraphBuilder::ints(const std::vector<int64_t>& values) {
  return constant(
      TensorData::from<int64_t>(DType::kInt64, {static_cast<int64_t>(values.size())}, values));
}

Value GraphBuilder::cast(const Value& value, DType dtype) {
  if (type(value).dtype == dtype) return value;
  return op("Cast", {value}, {{"to", static_cast<int64_t>(dtype)}});
}

TensorType GraphBuilder::type(const Value& value) const { return state_.graph.type(value.name); }

const TensorData* GraphBuilder::constant_data(const Value& value) const {
  return state_.graph.initializer(value.name);
}

const EmissionOptions& emission(const GraphBuilder& graph) { return graph.state().emission; }

void add_note(GraphBuilder& graph, std::string line) {
  if (graph.state().notes != nullptr) graph.state().notes->push_back(std::move(line));
}

}  // namespace qcdq
