// Input specifications of the command line, NAME=f32[1,3,224,224] and NAME=file.npy, and --dynamic
// NAME:AXIS=SYMBOL: text to plain structs, no torch. model_inputs.h matches them with a model.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qcdq/symbolic.h"

namespace qcdq::cli {

struct IntegerRange {
  int64_t lo = 0;
  int64_t hi = 1;  // included
};

/// One --input. Either `npy` is set, or `dims` holds the shape.
struct InputSpec {
  std::string name;
  std::optional<DType> dtype;  // nothing: the model's, or float32
  std::vector<int64_t> dims;
  std::optional<IntegerRange> range;  // integers only
  std::string npy;
};

/// One --dynamic.
struct AxisSpec {
  std::string input;
  int64_t axis = 0;
  std::string symbol;
  bool operator==(const AxisSpec&) const = default;
};

/// "f32" -> kFloat32; f32 f16 bf16 f64 i8 u8 i16 i32 i64 bool. Nothing for any other text.
std::optional<DType> parse_dtype(const std::string& text);
/// The opposite: "f32"; "?" for a type the command line has no word for.
std::string dtype_word(DType dtype);

/// Parses NAME=DTYPE[D0,D1,...], NAME=[...], NAME=i64[...]{lo..hi} or NAME=FILE.npy. Throws
/// UsageError with the text and what was expected.
///
///   parse_input_spec("ids=i64[1,16]{0..999}")
InputSpec parse_input_spec(const std::string& text);

/// Parses NAME:AXIS=SYMBOL ("x:0=N"). A negative axis counts from the end and is kept as it is.
AxisSpec parse_dynamic_axis(const std::string& text);

/// An array of a .npy file: dense, row-major.
struct NpyArray {
  DType dtype = DType::kUndefined;
  std::vector<int64_t> dims;
  std::shared_ptr<std::vector<char>> bytes;
};
/// Reads .npy versions 1 to 3: little-endian, C order, of f32 f16 f64 i8 u8 i16 i32 i64 bool.
/// Throws std::runtime_error that names the file, what it holds and what was expected. The format:
/// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
NpyArray read_npy(const std::string& path);

}  // namespace qcdq::cli
