// Symbolic functions: the public interface by which one torch op becomes ONNX nodes. qcdq's own
// rows (symbolic/symbolics/) and a user's rows from a plugin library are written against this
// header alone; it needs neither torch nor onnx.
//
// Example (examples/custom_op builds it as a library for `qcdq export --plugin`):
//
//   std::vector<qcdq::Value> double_relu(qcdq::GraphBuilder& graph, qcdq::NodeArgs& args) {
//     qcdq::Value y = graph.op("Relu", {args.tensor("x")});
//     return {graph.op("Add", {y, y})};
//   }
//   QCDQ_REGISTER_SYMBOLICS({"mylib::double_relu", 10, double_relu});
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "qcdq/affine.h"
#include "qcdq/api.h"

namespace qcdq {

/// Element types by their number in ONNX (TensorProto.DataType).
enum class DType : int32_t {
  kUndefined = 0,
  kFloat32 = 1,
  kUInt8 = 2,
  kInt8 = 3,
  kUInt16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kFloat64 = 11,
  kUInt32 = 12,
  kUInt64 = 13,
  kBFloat16 = 16,
  kFloat8E4M3FN = 17,
  kFloat8E4M3FNUZ = 18,
  kFloat8E5M2 = 19,
  kFloat8E5M2FNUZ = 20,
  kUInt4 = 21,
  kInt4 = 22,
  kFloat4E2M1 = 23,
  kFloat8E8M0 = 24,
  kUInt2 = 25,
  kInt2 = 26,
};
/// "float32", "int8", "float8e4m3fn", ...; "undefined" for anything that is not in DType.
QCDQ_API std::string_view dtype_name(DType dtype);
/// Bits of one element, from 2 to 64; 0 for kUndefined and kString.
QCDQ_API size_t dtype_bits(DType dtype);
/// Whether values of the type are floating-point numbers, of whatever width.
QCDQ_API bool is_floating(DType dtype);
/// All values of an integer type, of kBool [0, 1], of kUInt64 those that int64 holds. Throws
/// std::invalid_argument for other types. Example: `integer_range(DType::kInt4)` is [-8, 7].
QCDQ_API CodeRange integer_range(DType dtype);

/// A number as the model has it: an integer stays one, so that all of int64 is exact.
using Number = std::variant<int64_t, double>;
/// Exact but for integers beyond 2^53.
inline double to_double(const Number& number) {
  return std::visit([](auto value) { return static_cast<double>(value); }, number);
}

/// Element type and shape of a value. A dimension of -1 is not known; where it has a name,
/// `symbols` holds it.
struct TensorType {
  DType dtype = DType::kUndefined;
  bool ranked = false;               // false: nothing is known about the shape
  std::vector<int64_t> dims;         // -1: dynamic
  std::vector<std::string> symbols;  // empty, or one entry per dimension ("" where it has no name)

  int64_t rank() const { return static_cast<int64_t>(dims.size()); }
  bool is_static() const;  // ranked, and no dimension is -1
};

/// "float32[N,3,224,224]"; "?" for a dimension without a name, "float32[...]" without a rank.
QCDQ_API std::string type_text(const TensorType& type);

/// A constant tensor: dense, row-major, little-endian. Elements of less than a byte are packed from
/// the low bits of each byte on, as in ONNX's raw data; only the last byte may hold fewer. Data is
/// shared with whoever owns it (a torch weight is not copied). Where `data` is null, `produce`
/// computes it when the file is written, and the result is dropped after that.
struct TensorData {
  DType dtype = DType::kUndefined;
  std::vector<int64_t> dims;
  std::shared_ptr<const void> data;
  std::function<std::shared_ptr<const void>()> produce;

  int64_t numel() const;  // 1 for a 0-d tensor
  size_t bytes() const { return (static_cast<size_t>(numel()) * dtype_bits(dtype) + 7) / 8; }
  /// The data, produced if need be. Keep the pointer only while it is used. May be null where there
  /// are no elements, and only there.
  std::shared_ptr<const void> load() const { return data || !produce ? data : produce(); }

  /// Owned copies of small constants.
  template <typename T>
  static TensorData scalar(DType dtype, T value) {
    return from<T>(dtype, {}, {value});
  }
  template <typename T>
  static TensorData from(DType dtype, std::vector<int64_t> dims, std::vector<T> values) {
    auto owned = std::make_shared<std::vector<T>>(std::move(values));
    return {dtype, std::move(dims), std::shared_ptr<const void>(owned, owned->data()), nullptr};
  }
};

/// A value of the ONNX graph under construction; a default-made one stands for an optional input
/// that is left out.
struct Value {
  std::string name;
  bool present() const { return !name.empty(); }
};

struct OnnxGraph;  // symbolic/graph/onnx_graph.h: opaque outside qcdq

/// The body of an If, Loop or Scan: an attribute of its node, never null. It may use values of the
/// graphs around it by their names. Its opset, domains and metadata are those of the outermost
/// graph.
struct Subgraph {
  std::shared_ptr<const OnnxGraph> graph;
};

using Attribute = std::variant<int64_t, float, std::string, std::vector<int64_t>,
                               std::vector<float>, std::vector<std::string>, TensorData, Subgraph>;
using Attributes = std::vector<std::pair<std::string, Attribute>>;

/// The one type of refusal: what can't be represented, by op, argument, value and opset, and what
/// to do about it. An export looks at the whole model first and throws all its refusals as one.
class QCDQ_API UnsupportedOp : public std::runtime_error {
 public:
  struct Details {
    std::string op;             // "aten::add.Tensor"
    std::string argument = {};  // "" where the op as a whole is meant
    std::string value = {};     // the argument's value, or ""
    int64_t opset = 0;          // 0 where it does not matter
    std::string reason;         // what can't be represented
    std::string hint = {};      // what to do
    std::string where = {};     // module path and source line
  };
  explicit UnsupportedOp(Details details);
  /// What one export refused, at least one; what() has a line for each where they are several.
  explicit UnsupportedOp(std::vector<Details> refusals);
  const Details& details() const { return refusals_.front(); }
  const std::vector<Details>& refusals() const { return refusals_; }

 private:
  std::vector<Details> refusals_;
};

/// Builds the ONNX graph. Every op is checked against onnx's own schema at the target opset (arity,
/// attributes, element types); other domains than "" skip that check and get an opset import.
class QCDQ_API GraphBuilder {
 public:
  struct State;  // symbolic/graph/graph_builder.h
  explicit GraphBuilder(State& state) : state_(state) {}
  GraphBuilder(const GraphBuilder&) = delete;
  GraphBuilder& operator=(const GraphBuilder&) = delete;

  int64_t opset() const;

  /// Adds a node with one output. `op_type` is an ONNX op, or "domain::Op" for another domain.
  /// Absent inputs are Value{}.
  Value op(std::string_view op_type, const std::vector<Value>& inputs,
           const Attributes& attributes = {});
  /// Adds a node with `outputs` outputs.
  std::vector<Value> ops(std::string_view op_type, const std::vector<Value>& inputs, size_t outputs,
                         const Attributes& attributes = {});

  /// Constants become initializers. Equal small literals are NOT shared for Q/DQ parameters: each
  /// call makes its own.
  Value constant(TensorData data, std::string_view name = "");
  /// A 0-d constant. A number that an integer type does not hold (300 in uint8, 1.5, NaN) throws
  /// std::invalid_argument, which refuses the op; what is too large for a float type is infinity.
  Value scalar(DType dtype, const Number& value);
  Value ints(const std::vector<int64_t>& values);  // 1-d int64
  /// Cast to dtype; returns `value` itself where it has that type already.
  Value cast(const Value& value, DType dtype);

  /// What is known of a value. A value of torch's has the element type and shape that the example
  /// runs gave it, one between the nodes of an op what onnx infers (nothing for other domains).
  TensorType type(const Value& value) const;
  /// The constant behind a value, or nullptr where it is computed at run time.
  const TensorData* constant_data(const Value& value) const;

  State& state() const { return state_; }  // opaque outside qcdq

 private:
  State& state_;
};

/// The arguments of one torch op, by their names in its schema. An argument that is neither read
/// nor ignored by name fails the export: nothing is dropped silently.
class QCDQ_API NodeArgs {
 public:
  struct State;  // symbolic/convert/node_args.h
  explicit NodeArgs(State& state) : state_(state) {}
  NodeArgs(const NodeArgs&) = delete;
  NodeArgs& operator=(const NodeArgs&) = delete;

  std::string op() const;  // "aten::add.Tensor": with the overload

  /// The schema has such an argument. Does not count as read.
  bool has(std::string_view name) const;
  /// None was given. Counts as read where it is true: nothing is left to read.
  bool is_none(std::string_view name);
  /// A Tensor argument: a graph value; constants become initializers named by their path in the
  /// module.
  Value tensor(std::string_view name);
  Value optional_tensor(std::string_view name);  // Value{} for None
  std::vector<Value> tensors(std::string_view name);
  /// The constant behind a Tensor argument (shared, not copied), or nothing where it depends on the
  /// inputs. Counts as read.
  std::optional<TensorData> constant(std::string_view name);
  // The constants below refuse a value that is known only at run time, and one of another kind.
  /// int, bool, ScalarType or Layout, or a tensor of one of them.
  int64_t integer(std::string_view name);
  std::optional<int64_t> optional_integer(std::string_view name);
  /// int, float, bool or Scalar, or a tensor of one: integers and booleans stay integers.
  Number number(std::string_view name);
  std::optional<Number> optional_number(std::string_view name);
  /// The same for what is a float by nature: an epsilon, a slope, a scale.
  double real(std::string_view name);
  std::optional<double> optional_real(std::string_view name);
  bool boolean(std::string_view name);
  std::string string(std::string_view name);
  std::optional<std::string> optional_string(std::string_view name);
  std::vector<int64_t> ints(std::string_view name);  // int[]
  /// int[] or SymInt[] that may hold run-time values: a 1-d int64 value (an initializer where all
  /// are known).
  Value ints_value(std::string_view name);
  /// int that may be known only at run time: a 0-d int64 value.
  Value integer_value(std::string_view name);
  std::optional<DType> optional_dtype(std::string_view name);  // ScalarType?
  /// Says that an argument has no meaning in ONNX, and why.
  void ignore(std::string_view name, std::string_view why);

  /// Type of the op's output as recorded on the example inputs (dimensions that change with a
  /// dynamic axis are -1).
  TensorType output_type(size_t index = 0) const;
  size_t outputs() const;
  /// Runs the torch op where all its arguments are constants, and returns its output `index`, a
  /// tensor that they decide: they all count as read then. Nothing otherwise, and for random ops.
  std::optional<TensorData> evaluate(size_t index = 0);

  /// Throws UnsupportedOp for this op: unsupported("mode", "bicubic", "ONNX has no ...", "use
  /// bilinear").
  [[noreturn]] void unsupported(std::string_view argument, std::string value, std::string reason,
                                std::string hint = "") const;

  State& state() const { return state_; }  // opaque outside qcdq

 private:
  State& state_;
};

using SymbolicFunction = std::vector<Value> (*)(GraphBuilder&, NodeArgs&);

/// What the exporter must know of a torch op besides its conversion: facts of the op itself, at
/// every opset. A set; `kBoolResult | kMovesElements` has both.
enum class OpTraits : uint32_t {
  kNone = 0,
  /// Every element of the results is an element of the first argument: a quantised tensor stays on
  /// its grid.
  kMovesElements = 1U << 0,
  /// The result is bool, whatever the arguments are.
  kBoolResult = 1U << 1,
  /// The result has the element type of the first argument, whatever the others are.
  kKeepsElementType = 1U << 2,
  /// How many elements it gives depends on the values of its arguments: what an example run saw of
  /// the shape says nothing about the next run.
  kShapeFromData = 1U << 3,
  /// Reads the shape, the element type or the identity of its first argument, never its elements.
  kQuery = 1U << 4,
  /// Never computed at export time, though all its arguments are constants: a weight's quantiser
  /// must be in the file, and memory that nobody has written has no values.
  kNeverFold = 1U << 5,
  /// The result is the first argument, rounded to a quantiser's grid: it stands for the same
  /// weight.
  kFakeQuantizes = 1U << 6,
  /// Its schema calls the result a view; it may be a copy as large as its first argument.
  kMayCopy = 1U << 7,
};
constexpr OpTraits operator|(OpTraits a, OpTraits b) {
  return static_cast<OpTraits>(static_cast<uint32_t>(a) | static_cast<uint32_t>(b));
}
/// Whether `traits` has all of `wanted`.
constexpr bool has_traits(OpTraits traits, OpTraits wanted) { return (traits | wanted) == traits; }

/// One row of the table. The row with the largest since_opset <= target opset wins; a row for an
/// overload ("aten::add.Tensor") before one for all overloads ("aten::add"). function == nullptr: a
/// 1:1 row, all Tensor arguments become inputs of onnx_op. Else onnx_op is what `qcdq ops` lists.
/// Without both the row holds traits only, and the op is not convertible.
struct Symbolic {
  const char* torch_op;
  int since_opset;
  SymbolicFunction function;
  const char* onnx_op = nullptr;
  /// Those of every row of the op count, a plugin's too, whatever the opset: a row that names an
  /// overload speaks for that overload alone.
  OpTraits traits = OpTraits::kNone;

  bool converts() const { return function != nullptr || onnx_op != nullptr; }
};

/// Adds rows at run time; they win over qcdq's own. Call it from your library
/// (QCDQ_REGISTER_SYMBOLICS does so when it is loaded).
QCDQ_API void register_symbolics(std::initializer_list<Symbolic> rows);

/// A row with the file that it comes from: for qcdq's own the source file in symbolic/symbolics/
/// ("arithmetic.cpp"), for others the library that registered it ("libcustom_op.so"), or "plugin"
/// where its name is not known.
struct ListedSymbolic : Symbolic {
  std::string file;
};
/// Every row: qcdq's own in the order of the tables, then users' in the order of registration. Rows
/// of traits only are among them.
QCDQ_API std::vector<ListedSymbolic> all_symbolics();

#define QCDQ_REGISTER_SYMBOLICS(...)                 \
  static const bool qcdq_symbolics_registered = [] { \
    ::qcdq::register_symbolics({__VA_ARGS__});       \
    return true;                                     \
  }()

}  // namespace qcdq
