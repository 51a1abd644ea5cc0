// What every symbolic function asks about torch: which element type an op computes in, how many
// dimensions a value has, which dimension a negative number means. symbolics/onnx_forms.h has the
// ONNX side: the nodes that stand for it at an opset.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/graph/message_text.h"

namespace qcdq {

/// The rank of `x`, which is argument `name`; refuses where it is not known.
int64_t rank_of(const GraphBuilder& graph, const NodeArgs& args, std::string_view name,
                const Value& x);
/// The dimensions of `x` (-1: dynamic); refuses where its rank is not known.
std::vector<int64_t> dims_of(const GraphBuilder& graph, const NodeArgs& args, std::string_view name,
                             const Value& x);
/// dim in [0, rank); a 0-d tensor counts as rank 1, as in torch.
int64_t wrap_dim(int64_t dim, int64_t rank);

/// torch's promotion of two element types of equal standing.
DType promote_types(DType a, DType b);
/// torch's result_type of two tensors: a 0-d tensor only counts where its category (bool < integer
/// < floating) is higher.
DType result_type(const GraphBuilder& graph, const Value& a, const Value& b);
/// torch's result_type of a tensor and a number, which counts only where its category is higher:
/// it is then int64 or float32, torch's default types.
DType result_type(DType tensor, const Number& number);

/// The number in `dtype` as torch casts it beside a tensor: integers wrap around, 300 is 44 in
/// uint8.
Number cast_number(DType dtype, const Number& number);
/// The same where torch stores the number itself (full, masked_fill, where): a float loses its
/// fraction, a negative integer wraps around in a type without a sign. What does not fit is left as
/// it is: GraphBuilder::scalar refuses it, and torch does too.
Number stored_number(DType dtype, const Number& number);

/// `x` in the element type that torch's output was recorded with.
Value as_output(GraphBuilder& graph, const NodeArgs& args, const Value& x);

/// Whether the op is an overload that takes a Scalar where others take a second Tensor.
bool ends_with_scalar(const NodeArgs& args);

/// One number stands for all spatial dimensions, as torch's layers have it.
std::vector<int64_t> spread(std::vector<int64_t> values, int64_t spatial);

}  // namespace qcdq
