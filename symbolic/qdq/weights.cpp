// Weights in qdq_passes: quantisers of constants become integer initializers behind a
// DequantizeLinear, views of them become part of the codes (ORT fuses only DequantizeLinear ->
// Conv, Gemm or MatMul), and the options --weight-storage uint8 and --weights qdq are applied last.
#include <algorithm>
#include <cstring>
#include <limits>

#include "symbolic/qdq/match.h"
#include "symbolic/quantizer/opset_rules.h"

namespace qcdq {
namespace {

std::string without_suffix(const std::string& name, const std::string& suffix) {
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : name;
}

// The codes' name without what quantisation appended to it: layer1.0.conv1.weight.
std::string weight_name(const std::string& codes) { return without_suffix(codes, "_quantized"); }

TensorData permute(const TensorData& data, const std::vector<int64_t>& perm) {
  const size_t rank = data.dims.size();
  std::vector<int64_t> strides(rank, 1);
  for (size_t i = rank; i-- > 1;) strides[i - 1] = strides[i] * data.dims[i];
  std::vector<int64_t> dims(rank), step(rank);
  for (size_t i = 0; i < rank; ++i) {
    dims[i] = data.dims[perm[i]];
    step[i] = strides[perm[i]];
  }
  const size_t size = dtype_bits(data.dtype) / 8;
  if (size == 0) {
    throw std::logic_error("permute: elements of less than a byte can't be moved one by one");
  }
  const int64_t numel = data.numel();
  std::shared_ptr<char[]> out(new char[std::max<size_t>(data.bytes(), 1)]);
  const std::shared_ptr<const void> loaded = data.load();
  const char* from = static_cast<const char*>(loaded.get());
  std::vector<int64_t> at(rank, 0);
  int64_t offset = 0;
  for (int64_t i = 0; i < numel; ++i) {
    std::memcpy(out.get() + static_cast<size_t>(i) * size,
                from + static_cast<size_t>(offset) * size, size);
    for (size_t d = rank; d-- > 0;) {
      offset += step[d];
      if (++at[d] < dims[d]) break;
      offset -= step[d] * dims[d];
      at[d] = 0;
    }
  }
  return {data.dtype, std::move(dims), std::shared_ptr<const void>(out, out.get()), nullptr};
}

// The axis of `to` along which channels lie as they do along `axis` of `from`; -1 where none does.
int64_t reshaped_axis(const std::vector<int64_t>& from, int64_t axis,
                      const std::vector<int64_t>& to) {
  int64_t before = 1;
  for (int64_t i = 0; i < axis; ++i) before *= from[i];
  int64_t product = 1;
  for (size_t i = 0; i < to.size(); ++i) {
    if (product == before && to[i] == from[axis]) return static_cast<int64_t>(i);
    product *= to[i];
  }
  return -1;
}

// Gives the view's users a DequantizeLinear of their own over the viewed codes.
void replace_view(QdqState& state, OnnxGraph::NodeIt view, const IntegerConstant& weight,
                  TensorData codes, const QuantParams& params, std::optional<TensorData> x) {
  OnnxGraph& graph = state.graph;
  const std::string name = graph.add_initializer(weight.codes, std::move(codes));
  const TensorType type{DType::kFloat32, true, graph.initializer(name)->dims, {}};
  OnnxNode& dq =
      insert_node(graph, view, "DequantizeLinear", weight_name(name), {name}, type, *weight.dq);
  set_quant_params(graph, dq, params, weight_name(name));
  if (auto origin = state.origins.find(weight.codes); origin != state.origins.end()) {
    state.origins[name] = {std::move(x), origin->second.range};
  }
  const std::string replaced = view->outputs[0];
  const std::string by = dq.outputs[0];
  graph.nodes.erase(view);
  replace_uses(graph, replaced, by);
}

bool fold_transpose(QdqState& state, OnnxGraph::NodeIt view, const IntegerConstant& weight) {
  const TensorData codes = *state.graph.initializer(weight.codes);
  std::vector<int64_t> perm;
  if (const Attribute* given = view->find("perm")) {
    perm = std::get<std::vector<int64_t>>(*given);
  } else {
    for (int64_t i = static_cast<int64_t>(codes.dims.size()); i-- > 0;) perm.push_back(i);
  }
  QuantParams params = weight.params;
  if (!params.per_tensor()) {
    params.axis = std::find(perm.begin(), perm.end(), weight.params.axis) - perm.begin();
  }
  if (params.block_size > 0) {
    const TensorData scale =
        permute(TensorData::from(DType::kFloat32, params.dims, params.scale), perm);
    const TensorData zero =
        permute(TensorData::from(DType::kInt64, params.dims, params.zero_point), perm);
    params.dims = scale.dims;
    const float* scales = static_cast<const float*>(scale.data.get());
    const int64_t* zeros = static_cast<const int64_t*>(zero.data.get());
    params.scale.assign(scales, scales + scale.numel());
    params.zero_point.assign(zeros, zeros + zero.numel());
  }
  std::optional<TensorData> x;
  if (auto origin = state.origins.find(weight.codes); origin != state.origins.end()) {
    if (origin->second.x) x = permute(*origin->second.x, perm);
  }
  replace_view(state, view, weight, permute(codes, perm), params, std::move(x));
  return true;
}

bool fold_reshape(QdqState& state, OnnxGraph::NodeIt view, const IntegerConstant& weight) {
  TensorData codes = *state.graph.initializer(weight.codes);
  std::vector<int64_t> dims;
  const TensorType type = state.graph.type(view->outputs[0]);
  if (type.is_static()) {
    dims = type.dims;
  } else if (view->op_type == "Identity") {
    dims = codes.dims;
  } else {
    return false;
  }
  int64_t numel = 1;
  for (int64_t d : dims) numel *= d;
  if (numel != codes.numel()) return false;
  QuantParams params = weight.params;
  if (params.block_size > 0 && dims != codes.dims) return false;
  if (params.per_channel()) {
    params.axis = reshaped_axis(codes.dims, params.axis, dims);
    if (params.axis < 0) return false;
  }
  std::optional<TensorData> x;
  if (auto origin = state.origins.find(weight.codes); origin != state.origins.end()) {
    x = origin->second.x;
    if (x) x->dims = dims;
  }
  codes.dims = dims;
  replace_view(state, view, weight, std::move(codes), params, std::move(x));
  return true;
}

// Gemm has a flag for it: the codes stay as they are.
bool fold_into_gemm(QdqState& state, const GraphIndex& index, OnnxGraph::NodeIt view) {
  const Attribute* perm = view->find("perm");
  if (perm != nullptr && std::get<std::vector<int64_t>>(*perm) != std::vector<int64_t>{1, 0}) {
    return false;
  }
  const std::string& output = view->outputs[0];
  const std::vector<OnnxNode*>& users = index.consumers(output);
  if (users.empty() || state.graph.is_output(output)) return false;
  for (const OnnxNode* user : users) {
    if (user->op_type != "Gemm" || user->inputs[1] != output || user->inputs[0] == output)
      return false;
  }
  for (OnnxNode* user : users) {
    user->set("transB", int64_t{1} - user->int_attribute("transB", 0));
    user->inputs[1] = view->inputs[0];
  }
  state.graph.nodes.erase(view);
  return true;
}

bool fold_view(QdqState& state, const GraphIndex& index, OnnxGraph::NodeIt view) {
  const ElementMove moves = onnx_op_facts(*view).moves;
  const bool transpose = moves == ElementMove::kTransposes;
  if (!transpose && moves != ElementMove::kReshapes) return false;
  if (state.graph.is_output(view->outputs[0])) return false;
  const auto weight = integer_constant(state.graph, index, view->inputs[0]);
  if (!weight) return false;
  if (transpose) {
    return fold_into_gemm(state, index, view) || fold_transpose(state, view, *weight);
  }
  return fold_reshape(state, view, *weight);
}

}  // namespace

void fold_constant_quantizers(QdqState& state) {
  OnnxGraph& graph = state.graph;
  for (auto it = graph.nodes.begin(); it != graph.nodes.end();) {
    auto q = it++;
    if (q->op_type != "QuantizeLinear" || !q->domain.empty()) continue;
    const TensorData* x = graph.initializer(q->inputs[0]);
    if (x == nullptr || !is_floating(x->dtype)) continue;
    const std::optional<QuantParams> params = quant_params(graph, *q);
    if (!params) continue;
    CodeRange range = integer_range(params->storage);
    std::string result = q->outputs[0];
    auto clip = graph.nodes.end();
    const GraphIndex index(graph);
    if (index.uses(result) == 1 && !graph.is_output(result)) {
      OnnxNode& user = *index.consumers(result)[0];
      const auto bounds = user.op_type == "Clip" ? clip_bounds(graph, user) : std::nullopt;
      if (bounds) {
        range.min = static_cast<int64_t>(std::max<double>(bounds->first, range.min));
        range.max = static_cast<int64_t>(std::min<double>(bounds->second, range.max));
        clip = find_node(graph, user);
        result = user.outputs[0];
      }
    }
    const TensorData source = *x;
    const std::string codes = graph.add_initializer(q->inputs[0] + "_quantized",
                                                    quantize_constant(source, *params, range));
    if (state.options.qdq_weights) state.origins[codes] = {source, range};
    if (clip != graph.nodes.end()) {
      if (it == clip) ++it;
      graph.nodes.erase(clip);
    }
    graph.nodes.erase(q);
    replace_uses(graph, result, codes);
  }
}

void fold_weight_views(QdqState& state) {
  rewrite_until_stable(state, fold_view);  // a view may lie over another
}

void store_weights_as_uint8(QdqState& state) {
  if (!state.options.uint8_weights) return;
  OnnxGraph& graph = state.graph;
  const GraphIndex index(graph);
  std::map<std::string, std::string> stored;  // int8 codes -> uint8 codes
  for (OnnxNode& node : graph.nodes) {
    if (!onnx_op_facts(node).takes_weight) continue;
    auto weight = integer_constant(graph, index, node.inputs[1]);
    if (!weight || weight->params.storage != DType::kInt8) continue;
    const TensorData codes = *graph.initializer(weight->codes);
    // Codes within [-64, 64] can't saturate on any CPU: they keep int8, which has the faster
    // kernels.
    const CodeRange used = code_ranges(codes, 0, 1)[0];
    if (used.min >= -64 && used.max <= 64) continue;
    std::string& name = stored[weight->codes];
    if (name.empty()) {
      name = graph.add_initializer(weight->codes,
                                   transform_codes(codes, 0, {1}, {128}, DType::kUInt8));
      if (auto origin = state.origins.find(weight->codes); origin != state.origins.end()) {
        const CodeRange range = origin->second.range;
        state.origins[name] = {origin->second.x, {range.min + 128, range.max + 128}};
      }
    }
    weight->dq->inputs[0] = name;
    QuantParams params = weight->params;
    params.storage = DType::kUInt8;
    for (int64_t& zero_point : params.zero_point) zero_point += 128;
    set_quant_params(graph, *weight->dq, params, weight_name(name));
  }
}

void restore_float_weights(QdqState& state) {
  if (!state.options.qdq_weights) return;
  OnnxGraph& graph = state.graph;
  const GraphIndex index(graph);
  std::vector<IntegerConstant> weights;
  for (OnnxNode& node : graph.nodes) {
    if (node.op_type != "DequantizeLinear") continue;
    auto found = integer_constant(graph, index, node.outputs[0]);
    if (found && is_8bit(found->params.storage)) weights.push_back(std::move(*found));
  }
  for (const IntegerConstant& weight : weights) {
    const TensorData codes = *graph.initializer(weight.codes);
    const QuantParams& params = weight.params;
    const CodeRange full = integer_range(params.storage);
    const auto origin = state.origins.find(weight.codes);
    const CodeRange range = origin == state.origins.end() ? full : origin->second.range;
    TensorData x = origin != state.origins.end() && origin->second.x
                       ? *origin->second.x
                       : dequantize_constant(codes, params);
    const std::string base = weight_name(weight.codes);
    std::string value = graph.add_initializer(base, std::move(x));
    const auto before = find_node(graph, *weight.dq);
    const TensorType type{DType::kFloat32, true, codes.dims, {}};
    const TensorType code_type{params.storage, true, codes.dims, {}};
    const bool narrow = range != full;
    const bool integer_clip = graph.opset >= least_opset(QuantFeature::kIntegerClip);
    if (narrow && !integer_clip) {
      const auto bound = [&](int64_t code) {
        return static_cast<float>(code - params.zero_point[0]) * params.scale[0];
      };
      OnnxNode& clip = insert_node(graph, before, "Clip", base, {value}, type, *weight.dq);
      if (graph.opset < 11) {
        clip.set("min", bound(range.min));
        clip.set("max", bound(range.max));
      } else {
        for (int64_t code : {range.min, range.max}) {
          clip.inputs.push_back(graph.add_initializer(
              base + "_clip", TensorData::scalar<float>(DType::kFloat32, bound(code))));
        }
      }
      value = clip.outputs[0];
    }
    OnnxNode& q =
        insert_node(graph, before, "QuantizeLinear", base, {value}, code_type, *weight.dq);
    set_quant_params(graph, q, params, base);
    value = q.outputs[0];
    if (narrow && integer_clip) {
      std::vector<std::string> inputs = {value};
      for (int64_t code : {range.min, range.max}) {
        inputs.push_back(
            graph.add_initializer(base + "_clip", pack_integers(params.storage, {}, {code})));
      }
      value = insert_node(graph, before, "Clip", base, std::move(inputs), code_type, *weight.dq)
                  .outputs[0];
    }
    weight.dq->inputs[0] = value;
  }
}

void note_saturation(QdqState& state) {
  const OnnxGraph& graph = state.graph;
  const GraphIndex index(state.graph);
  int64_t layers = 0;
  int64_t at_risk = 0;
  std::string first;
  for (const OnnxNode& node : graph.nodes) {
    const Int8Kernel kernel = onnx_op_facts(node).int8;
    const bool conv = kernel == Int8Kernel::kConv;
    if (!conv && kernel != Int8Kernel::kMatrix) continue;
    const auto weight = integer_constant(graph, index, node.inputs[1]);
    const auto input = quantized_value(graph, index, node.inputs[0]);
    if (!weight || !input || !is_8bit(input->params.storage)) continue;
    ++layers;
    if (weight->params.storage != DType::kInt8) continue;
    const TensorData& codes = *graph.initializer(weight->codes);
    // One product per output and tap never fills the 16 bits: depthwise layers are exact.
    if (conv && codes.dims.size() > 1 && codes.dims[1] == 1) continue;
    // int8 codes become uint8 ones, 128 higher, inside ORT.
    const int64_t shift = input->params.storage == DType::kInt8 ? 128 : 0;
    const CodeRange used = code_ranges(codes, 0, 1)[0];
    if (input->range.max + shift <= 127 || (used.min >= -64 && used.max <= 64)) continue;
    ++at_risk;
    if (first.empty()) first = node.name;
  }
  if (at_risk == 0) return;
  state.notes.push_back(std::to_string(at_risk) + " of " + std::to_string(layers) +
                        " quantised layers (the first: " + first +
                        ") may saturate on x86 CPUs without VNNI: their uint8 activations pass 127 "
                        "and their int8 weights pass +-64. "
                        "Exact everywhere: --weight-storage uint8 (slower on VNNI CPUs), or 7-bit "
                        "weights or activations");
}

}  // namespace qcdq
