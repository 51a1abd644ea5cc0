// The language of --input and --dynamic, and the .npy reader: every form, every refusal.
#include "cli/input_spec.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include "cli/commands.h"

namespace qcdq::cli {
namespace {

template <typename Error>
std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error of that type";
}

std::string spec_error(const std::string& text) {
  return message_of<UsageError>([&] { parse_input_spec(text); });
}

TEST(InputSpec, ReadsEveryForm) {
  const InputSpec image = parse_input_spec("x=f32[1,3, 224 ,224]");
  EXPECT_EQ(image.name, "x");
  EXPECT_EQ(image.dtype, DType::kFloat32);
  EXPECT_EQ(image.dims, (std::vector<int64_t>{1, 3, 224, 224}));
  EXPECT_FALSE(image.range);

  const InputSpec scalar = parse_input_spec("t=f64[]");
  EXPECT_EQ(scalar.dtype, DType::kFloat64);
  EXPECT_TRUE(scalar.dims.empty());

  const InputSpec told = parse_input_spec("x=[0,2]");
  EXPECT_FALSE(told.dtype);
  EXPECT_EQ(told.dims, (std::vector<int64_t>{0, 2}));

  const InputSpec ids = parse_input_spec("ids=i64[1,16]{-3..999}");
  ASSERT_TRUE(ids.range);
  EXPECT_EQ(ids.range->lo, -3);
  EXPECT_EQ(ids.range->hi, 999);

  const InputSpec file = parse_input_spec("x=some/dir/a=b[1].npy");
  EXPECT_EQ(file.npy, "some/dir/a=b[1].npy");
}

TEST(InputSpec, KnowsEveryType) {
  for (const char* word : {"f32", "f16", "bf16", "f64", "i8", "u8", "i16", "i32", "i64", "bool"}) {
    const auto dtype = parse_dtype(word);
    ASSERT_TRUE(dtype) << word;
    EXPECT_EQ(dtype_word(*dtype), word);
  }
  EXPECT_FALSE(parse_dtype("float32"));
  EXPECT_FALSE(parse_dtype(""));
  EXPECT_EQ(dtype_word(DType::kString), "?");
}

TEST(InputSpec, RefusesWithTextAndExpectation) {
  const std::string form =
      "expected NAME=DTYPE[D0,D1,...], NAME=[D0,D1,...] or NAME=FILE.npy, such as "
      "x=f32[1,3,224,224]";
  EXPECT_EQ(spec_error("x"), "--input x: " + form);
  EXPECT_EQ(spec_error("=f32[1]"), "--input =f32[1]: " + form);
  EXPECT_EQ(spec_error("x=f32"), "--input x=f32: " + form);
  EXPECT_EQ(spec_error("x=f32]1["), "--input x=f32]1[: " + form);
  EXPECT_EQ(spec_error("x=f31[1]"),
            "--input x=f31[1]: unknown type 'f31', expected one of f32 f16 bf16 f64 i8 u8 i16 i32 "
            "i64 bool");
  EXPECT_EQ(spec_error("x=f32[1,a]"),
            "--input x=f32[1,a]: dimension 'a' is not a size, expected an integer >= 0");
  EXPECT_EQ(spec_error("x=f32[1,]"),
            "--input x=f32[1,]: dimension '' is not a size, expected an integer >= 0");
  EXPECT_EQ(spec_error("x=f32[-1]"),
            "--input x=f32[-1]: dimension '-1' is not a size, expected an integer >= 0");
  EXPECT_EQ(spec_error("x=f32[99999999999999999999]"),
            "--input x=f32[99999999999999999999]: dimension '99999999999999999999' is not a size, "
            "expected an integer >= 0");
  EXPECT_EQ(spec_error("x=i64[1]{5}"),
            "--input x=i64[1]{5}: '{5}' is not a range, expected {lo..hi}");
  EXPECT_EQ(spec_error("x=i64[1]{5..4}"),
            "--input x=i64[1]{5..4}: '{5..4}' is not a range, expected {lo..hi} of integers, lo <= "
            "hi");
  EXPECT_EQ(spec_error("x=f32[1]{0..1}"),
            "--input x=f32[1]{0..1}: a range {lo..hi} needs an integer type, such as "
            "i64[1,16]{0..999}");
  EXPECT_EQ(spec_error("x=u8[1]{0..256}"), "--input x=u8[1]{0..256}: {0..256} does not fit u8");
}

TEST(AxisSpec, ReadsAndRefuses) {
  const AxisSpec axis = parse_dynamic_axis("x:0=N");
  EXPECT_EQ(axis, (AxisSpec{"x", 0, "N"}));
  EXPECT_EQ(parse_dynamic_axis("ids:-1=length").axis, -1);
  const auto error = [](const std::string& text) {
    return message_of<UsageError>([&] { parse_dynamic_axis(text); });
  };
  EXPECT_EQ(error("x:0"), "--dynamic x:0: expected NAME:AXIS=SYMBOL, such as x:0=N");
  EXPECT_EQ(error("x=N"), "--dynamic x=N: expected NAME:AXIS=SYMBOL, such as x:0=N");
  EXPECT_EQ(error(":0=N"), "--dynamic :0=N: expected NAME:AXIS=SYMBOL, such as x:0=N");
  EXPECT_EQ(error("x:a=N"), "--dynamic x:a=N: 'a' is not an axis number");
  EXPECT_EQ(error("x:0="), "--dynamic x:0=: the symbol is empty, expected a name such as N");
  EXPECT_EQ(error("x:0=4"), "--dynamic x:0=4: the symbol is a number, expected a name such as N");
}

class Npy : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() /
             ("qcdq_npy_" + std::to_string(::getpid()) + ".npy"))
                .string();
  }
  void TearDown() override { std::filesystem::remove(path_); }

  void write(const std::string& header, const std::string& data, int version = 1) {
    std::string file = "\x93NUMPY";
    file += static_cast<char>(version);
    file += '\0';
    const auto length = static_cast<uint32_t>(header.size());
    for (int i = 0; i < (version == 1 ? 2 : 4); ++i) {
      file += static_cast<char>(length >> (8 * i));
    }
    std::ofstream(path_, std::ios::binary) << file << header << data;
  }
  std::string error() {
    return message_of<std::runtime_error>([&] { read_npy(path_); });
  }

  std::string path_;
};

TEST_F(Npy, ReadsBothHeaderSizes) {
  const std::string header = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }   \n";
  const std::string data("\x01\0\x02\0\x03\0\x04\0\x05\0\xff\xff", 12);
  for (const int version : {1, 2, 3}) {
    write(header, data, version);
    const NpyArray array = read_npy(path_);
    EXPECT_EQ(array.dtype, DType::kInt16);
    EXPECT_EQ(array.dims, (std::vector<int64_t>{2, 3}));
    int16_t values[6];
    ASSERT_EQ(array.bytes->size(), sizeof(values));
    std::memcpy(values, array.bytes->data(), sizeof(values));
    EXPECT_EQ(values[1], 2);
    EXPECT_EQ(values[5], -1);
  }
}

TEST_F(Npy, ReadsScalarsAndVectors) {
  write("{'descr': '|b1', 'fortran_order': False, 'shape': (), }\n", "\x01");
  EXPECT_TRUE(read_npy(path_).dims.empty());
  EXPECT_EQ(read_npy(path_).bytes->size(), 1U);
  write("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n", "abc");
  EXPECT_EQ(read_npy(path_).dims, (std::vector<int64_t>{3}));
}

TEST_F(Npy, RefusesByName) {
  EXPECT_EQ(error(), "cannot open " + path_ + ": No such file or directory");
  std::ofstream(path_) << "not an array";
  EXPECT_EQ(error(), path_ + " is not a .npy file (of version 1 to 3)");
  write("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }\n", "0000");
  EXPECT_EQ(error(), path_ +
                         ": element type '>f4', expected a little-endian array of f32 f16 f64 i8 "
                         "u8 i16 i32 i64 bool");
  write("{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }\n", "0000");
  EXPECT_EQ(error(), path_ + ": Fortran order, expected C order (numpy.ascontiguousarray)");
  write("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", "0000");
  EXPECT_EQ(error(), path_ + ": 4 bytes of data, expected 8");
  write("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }\n", "0000");
  EXPECT_EQ(error(), path_ + ": the header is damaged");
  write("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807,), }\n", "0000");
  EXPECT_EQ(error(), path_ + ": the header is damaged");
  write("nonsense", "");
  EXPECT_EQ(error(), path_ + ": the header is damaged");
}

}  // namespace
}  // namespace qcdq::cli
