// The little language of --input and --dynamic, and the reader of .npy files; see input_spec.h.
#include "cli/input_spec.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <utility>

#include "cli/commands.h"

namespace qcdq::cli {
namespace {

constexpr std::array<std::pair<const char*, DType>, 10> kDTypeWords = {{
    {"f32", DType::kFloat32},
    {"f16", DType::kFloat16},
    {"bf16", DType::kBFloat16},
    {"f64", DType::kFloat64},
    {"i8", DType::kInt8},
    {"u8", DType::kUInt8},
    {"i16", DType::kInt16},
    {"i32", DType::kInt32},
    {"i64", DType::kInt64},
    {"bool", DType::kBool},
}};
constexpr const char* kDTypeList = "f32 f16 bf16 f64 i8 u8 i16 i32 i64 bool";
constexpr const char* kSpecForm =
    "NAME=DTYPE[D0,D1,...], NAME=[D0,D1,...] or NAME=FILE.npy, such as x=f32[1,3,224,224]";

[[noreturn]] void bad_spec(const std::string& text, const std::string& why) {
  throw UsageError("--input " + text + ": " + why);
}

std::optional<int64_t> parse_int(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc() || stop != end) return std::nullopt;
  return value;
}

/// The text between `open` and its end, split at commas; spaces around a number are allowed.
std::vector<int64_t> parse_dims(const std::string& inside, const std::string& spec) {
  std::vector<int64_t> dims;
  if (inside.find_first_not_of(' ') == std::string::npos) return dims;
  size_t start = 0;
  while (start <= inside.size()) {
    const size_t comma = std::min(inside.find(',', start), inside.size());
    std::string part = inside.substr(start, comma - start);
    part.erase(0, part.find_first_not_of(' '));
    part.erase(part.find_last_not_of(' ') + 1);
    const std::optional<int64_t> dim = parse_int(part);
    if (!dim || *dim < 0) {
      bad_spec(spec, "dimension '" + part + "' is not a size, expected an integer >= 0");
    }
    dims.push_back(*dim);
    start = comma + 1;
  }
  return dims;
}

IntegerRange parse_range(const std::string& text, const std::string& spec) {
  const size_t dots = text.find("..");
  if (text.size() < 2 || text.back() != '}' || dots == std::string::npos) {
    bad_spec(spec, "'" + text + "' is not a range, expected {lo..hi}");
  }
  const auto lo = parse_int(text.substr(1, dots - 1));
  const auto hi = parse_int(text.substr(dots + 2, text.size() - dots - 3));
  if (!lo || !hi || *lo > *hi) {
    bad_spec(spec, "'" + text + "' is not a range, expected {lo..hi} of integers, lo <= hi");
  }
  return {*lo, *hi};
}

void check_range(const InputSpec& spec, const std::string& text) {
  if (!spec.range) return;
  if (!spec.dtype || is_floating(*spec.dtype)) {
    bad_spec(text, "a range {lo..hi} needs an integer type, such as i64[1,16]{0..999}");
  }
  if (!integer_range(*spec.dtype).holds({spec.range->lo, spec.range->hi})) {
    bad_spec(text, "{" + std::to_string(spec.range->lo) + ".." + std::to_string(spec.range->hi) +
                       "} does not fit " + dtype_word(*spec.dtype));
  }
}

}  // namespace

std::optional<DType> parse_dtype(const std::string& text) {
  for (const auto& [word, dtype] : kDTypeWords) {
    if (text == word) return dtype;
  }
  return std::nullopt;
}

std::string dtype_word(DType dtype) {
  for (const auto& [word, known] : kDTypeWords) {
    if (dtype == known) return word;
  }
  return "?";
}

InputSpec parse_input_spec(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    bad_spec(text, std::string("expected ") + kSpecForm);
  }
  InputSpec spec;
  spec.name = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  if (value.ends_with(".npy")) {
    spec.npy = value;
    return spec;
  }
  const size_t open = value.find('[');
  const size_t close = value.find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) {
    bad_spec(text, std::string("expected ") + kSpecForm);
  }
  const std::string word = value.substr(0, open);
  if (!word.empty()) {
    spec.dtype = parse_dtype(word);
    if (!spec.dtype) {
      bad_spec(text, "unknown type '" + word + "', expected one of " + kDTypeList);
    }
  }
  spec.dims = parse_dims(value.substr(open + 1, close - open - 1), text);
  if (close + 1 < value.size()) spec.range = parse_range(value.substr(close + 1), text);
  check_range(spec, text);
  return spec;
}

AxisSpec parse_dynamic_axis(const std::string& text) {
  const auto fail = [&text](const std::string& why) {
    throw UsageError("--dynamic " + text + ": " + why);
  };
  const size_t equals = text.find('=');
  const size_t colon = equals == std::string::npos ? equals : text.rfind(':', equals);
  if (colon == std::string::npos || colon == 0) {
    fail("expected NAME:AXIS=SYMBOL, such as x:0=N");
  }
  AxisSpec axis;
  axis.input = text.substr(0, colon);
  axis.symbol = text.substr(equals + 1);
  const auto number = parse_int(text.substr(colon + 1, equals - colon - 1));
  if (!number) fail("'" + text.substr(colon + 1, equals - colon - 1) + "' is not an axis number");
  axis.axis = *number;
  if (axis.symbol.empty()) fail("the symbol is empty, expected a name such as N");
  if (parse_int(axis.symbol)) fail("the symbol is a number, expected a name such as N");
  return axis;
}

namespace {

/// The value of 'key' in the header's Python literal, up to the next comma outside brackets.
std::string header_value(const std::string& header, const std::string& key) {
  const size_t at = header.find("'" + key + "'");
  if (at == std::string::npos) return "";
  size_t start = header.find(':', at);
  if (start == std::string::npos) return "";
  start = header.find_first_not_of(' ', start + 1);
  if (start == std::string::npos) return "";
  const char open = header[start];
  size_t end;
  if (open == '\'' || open == '"') {
    end = header.find(open, start + 1);
    ++start;
  } else if (open == '(') {
    end = header.find(')', start);
    ++start;
  } else {
    end = header.find_first_of(",}", start);
  }
  return end == std::string::npos ? "" : header.substr(start, end - start);
}

DType npy_dtype(const std::string& path, const std::string& descr) {
  constexpr std::array<std::pair<const char*, DType>, 9> kDescriptions = {{
      {"<f4", DType::kFloat32},
      {"<f2", DType::kFloat16},
      {"<f8", DType::kFloat64},
      {"|i1", DType::kInt8},
      {"|u1", DType::kUInt8},
      {"<i2", DType::kInt16},
      {"<i4", DType::kInt32},
      {"<i8", DType::kInt64},
      {"|b1", DType::kBool},
  }};
  for (const auto& [text, dtype] : kDescriptions) {
    if (descr == text) return dtype;
  }
  throw std::runtime_error(path + ": element type '" + descr +
                           "', expected a little-endian array of f32 f16 f64 i8 u8 i16 i32 i64 "
                           "bool");
}

}  // namespace

NpyArray read_npy(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path + ": " + std::strerror(errno));
  std::array<unsigned char, 12> prefix{};
  in.read(reinterpret_cast<char*>(prefix.data()), 10);
  if (!in || std::memcmp(prefix.data(), "\x93NUMPY", 6) != 0 || prefix[6] < 1 || prefix[6] > 3) {
    throw std::runtime_error(path + " is not a .npy file (of version 1 to 3)");
  }
  uint32_t length = prefix[8] | prefix[9] << 8;
  if (prefix[6] > 1) {
    in.read(reinterpret_cast<char*>(prefix.data() + 10), 2);
    length |= static_cast<uint32_t>(prefix[10]) << 16 | static_cast<uint32_t>(prefix[11]) << 24;
  }
  if (!in || length > (1U << 20)) throw std::runtime_error(path + ": the header is damaged");
  std::string header(length, ' ');
  in.read(header.data(), length);

  NpyArray array;
  const std::string descr = header_value(header, "descr");
  const std::string order = header_value(header, "fortran_order");
  if (!in || descr.empty() || order.empty() || header.find("'shape'") == std::string::npos) {
    throw std::runtime_error(path + ": the header is damaged");
  }
  array.dtype = npy_dtype(path, descr);
  if (order != "False") {
    throw std::runtime_error(path + ": Fortran order, expected C order (numpy.ascontiguousarray)");
  }
  std::string shape = header_value(header, "shape");
  size_t bytes = dtype_bits(array.dtype) / 8;
  for (size_t start = 0; start < shape.size();) {
    const size_t comma = std::min(shape.find(',', start), shape.size());
    std::string part = shape.substr(start, comma - start);
    part.erase(0, part.find_first_not_of(' '));
    if (!part.empty()) {
      const auto dim = parse_int(part);
      if (!dim || *dim < 0) throw std::runtime_error(path + ": the header is damaged");
      array.dims.push_back(*dim);
      if (__builtin_mul_overflow(bytes, static_cast<size_t>(*dim), &bytes)) {
        throw std::runtime_error(path + ": the header is damaged");
      }
    }
    start = comma + 1;
  }
  // The size is checked against the file before that much memory is taken.
  const auto data_start = in.tellg();
  in.seekg(0, std::ios::end);
  const auto there = static_cast<size_t>(in.tellg() - data_start);
  if (there < bytes) {
    throw std::runtime_error(path + ": " + std::to_string(there) + " bytes of data, expected " +
                             std::to_string(bytes));
  }
  in.seekg(data_start);
  array.bytes = std::make_shared<std::vector<char>>(bytes);
  in.read(array.bytes->data(), static_cast<std::streamsize>(bytes));
  if (!in) throw std::runtime_error("cannot read " + path);
  return array;
}

}  // namespace qcdq::cli
