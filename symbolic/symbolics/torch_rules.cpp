// The functions of symbolics/torch_rules.h. Promotion goes by categories, bool < integer <
// floating, and within one by size. The only node that any of them adds is a Cast.
#include "symbolic/symbolics/torch_rules.h"

#include <algorithm>
#include <cmath>

namespace qcdq {

namespace {

int category(DType dtype) {
  if (dtype == DType::kBool) return 0;
  return is_floating(dtype) ? 2 : 1;
}

bool is_signed_integer(DType dtype) {
  return dtype == DType::kInt8 || dtype == DType::kInt16 || dtype == DType::kInt32 ||
         dtype == DType::kInt64;
}

}  // namespace

int64_t rank_of(const GraphBuilder& graph, const NodeArgs& args, std::string_view name,
                const Value& x) {
  return static_cast<int64_t>(dims_of(graph, args, name, x).size());
}

std::vector<int64_t> dims_of(const GraphBuilder& graph, const NodeArgs& args, std::string_view name,
                             const Value& x) {
  TensorType type = graph.type(x);
  if (!type.ranked) args.unsupported(name, "%" + x.name, "is a tensor whose rank is not known");
  return std::move(type.dims);
}

int64_t wrap_dim(int64_t dim, int64_t rank) {
  return dim < 0 ? dim + std::max<int64_t>(rank, 1) : dim;
}

DType promote_types(DType a, DType b) {
  if (a == b) return a;
  if (category(a) != category(b)) return category(a) > category(b) ? a : b;
  const DType larger = dtype_bits(a) >= dtype_bits(b) ? a : b;
  if (category(a) == 2)
    return dtype_bits(a) == dtype_bits(b) ? DType::kFloat32 : larger;  // f16 and bf16
  if (is_signed_integer(a) == is_signed_integer(b)) return larger;
  const DType without_sign = is_signed_integer(a) ? b : a;
  const DType with_sign = is_signed_integer(a) ? a : b;
  if (dtype_bits(with_sign) > dtype_bits(without_sign)) return with_sign;
  switch (dtype_bits(without_sign)) {
    case 8:
      return DType::kInt16;
    case 16:
      return DType::kInt32;
    default:
      return DType::kInt64;
  }
}

DType result_type(const GraphBuilder& graph, const Value& a, const Value& b) {
  const TensorType x = graph.type(a);
  const TensorType y = graph.type(b);
  const bool x_zero = x.ranked && x.dims.empty();
  const bool y_zero = y.ranked && y.dims.empty();
  if (x_zero != y_zero) {
    const DType dimensioned = x_zero ? y.dtype : x.dtype;
    const DType zero = x_zero ? x.dtype : y.dtype;
    return category(zero) > category(dimensioned) ? zero : dimensioned;
  }
  return promote_types(x.dtype, y.dtype);
}

DType result_type(DType tensor, const Number& number) {
  if (std::holds_alternative<double>(number)) return is_floating(tensor) ? tensor : DType::kFloat32;
  return tensor == DType::kBool ? DType::kInt64 : tensor;
}

Number cast_number(DType dtype, const Number& number) {
  if (is_floating(dtype) || dtype == DType::kBool || std::holds_alternative<double>(number))
    return stored_number(dtype, number);
  const size_t unused = 64 - dtype_bits(dtype);
  const uint64_t high = static_cast<uint64_t>(std::get<int64_t>(number)) << unused;
  // A right shift of a signed number spreads its sign.
  if (is_signed_integer(dtype)) return static_cast<int64_t>(high) >> unused;
  return static_cast<int64_t>(high >> unused);
}

Number stored_number(DType dtype, const Number& number) {
  if (is_floating(dtype)) return number;
  if (dtype == DType::kBool) return int64_t{to_double(number) != 0};
  if (const auto* real = std::get_if<double>(&number)) return std::trunc(*real);
  const int64_t integer = std::get<int64_t>(number);
  const CodeRange range = integer_range(dtype);
  return integer < 0 && range.min == 0 && integer >= -range.max ? cast_number(dtype, number)
                                                                : number;
}

Value as_output(GraphBuilder& graph, const NodeArgs& args, const Value& x) {
  return graph.cast(x, args.output_type().dtype);
}

bool ends_with_scalar(const NodeArgs& args) { return args.op().ends_with(".Scalar"); }

std::vector<int64_t> spread(std::vector<int64_t> values, int64_t spatial) {
  if (values.size() == 1) values.resize(spatial, values[0]);
  return values;
}

}  // namespace qcdq
