// Every refusal of the ops: the argument, its value and what was expected are in the message, and
// the exception is c10::ValueError. Numbers are tested in ops_test.cpp.
#include <gtest/gtest.h>
#include <qcdq/ops.h>
#include <torch/torch.h>

#include <functional>
#include <limits>

namespace qcdq {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Calls `body` and checks that it throws Error with `message` in the text.
template <typename Error = c10::ValueError>
void expect_refusal(const std::function<void()>& body, const std::string& message) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what_without_backtrace()).find(message), std::string::npos)
        << "got: " << error.what_without_backtrace() << "\nexpected: " << message;
    return;
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another exception: " << error.what();
    return;
  }
  ADD_FAILURE() << "nothing thrown, expected: " << message;
}

const torch::Tensor& x() {
  static const torch::Tensor tensor = torch::ones({4, 6});
  return tensor;
}
torch::Tensor scale(torch::IntArrayRef sizes = {}) { return torch::full(sizes, 0.5); }
torch::Tensor zero_point(torch::IntArrayRef sizes = {}) { return torch::zeros(sizes, torch::kInt); }

TEST(OpsErrors, TypeOfX) {
  const torch::Tensor integers = torch::ones({4}, torch::kInt);
  const std::string expected = ": x is Int, expected Float, Half, BFloat16 or Double";
  expect_refusal([&] { fake_quantize(integers, scale(), zero_point(), 0, 255); },
                 "qcdq::fake_quantize" + expected);
  expect_refusal([&] { quantize(integers, scale(), zero_point(), 0, 255, torch::kByte); },
                 "qcdq::quantize" + expected);
  expect_refusal([&] { fake_quantize_learned(integers, scale(), zero_point(), 0, 255); },
                 "qcdq::fake_quantize_learned" + expected);
  expect_refusal([&] { choose_qparams(integers, 0, 255); }, "qcdq::choose_qparams" + expected);
  expect_refusal([&] { fake_quantize_dynamic(integers, 0, 255); },
                 "qcdq::fake_quantize_dynamic" + expected);
}

TEST(OpsErrors, TypeOfQ) {
  for (const auto type : {torch::kLong, torch::kBool, torch::kFloat}) {
    expect_refusal(
        [&] { dequantize(torch::ones({4}, type), scale(), zero_point()); },
        std::string("qcdq::dequantize: q is ") + c10::toString(type) +
            ", expected Char (int8), Byte (uint8), Short (int16), UInt16 or Int (int32)");
  }
}

TEST(OpsErrors, StorageType) {
  for (const auto type : {torch::kLong, torch::kBool, torch::kFloat}) {
    expect_refusal(
        [&] { quantize(x(), scale(), zero_point(), 0, 1, type); },
        std::string("qcdq::quantize: dtype is ") + c10::toString(type) +
            ", expected Char (int8), Byte (uint8), Short (int16), UInt16 or Int (int32)");
  }
  expect_refusal(
      [&] {
        dequantize(torch::ones({4}, torch::kChar), scale(), zero_point(), std::nullopt,
                   std::nullopt, torch::kInt);
      },
      "qcdq::dequantize: dtype is Int, expected Float, Half, BFloat16 or Double");
}

TEST(OpsErrors, RangeOfCodes) {
  expect_refusal(
      [&] { fake_quantize(x(), scale(), zero_point(), 7, 7); },
      "qcdq::fake_quantize: quant_min is 7, expected a value below quant_max, which is 7");
  expect_refusal([&] { fake_quantize(x(), scale(), zero_point(), -(1LL << 40), 7); },
                 "quant_min is -1099511627776, expected a value >= -2147483648 (int32)");
  expect_refusal([&] { fake_quantize(x(), scale(), zero_point(), 0, 1LL << 31); },
                 "quant_max is 2147483648, expected a value <= 2147483647 (int32)");
  expect_refusal([&] { choose_qparams(x(), 1, 0); }, "qcdq::choose_qparams: quant_min is 1");
  expect_refusal([&] { fake_quantize_dynamic(x(), 1, 0); },
                 "qcdq::fake_quantize_dynamic: quant_min is 1");
  expect_refusal([&] { fake_quantize_learned(x(), scale(), zero_point(), 1, 0); },
                 "qcdq::fake_quantize_learned: quant_min is 1");
}

TEST(OpsErrors, RangeMustFitTheStorageType) {
  expect_refusal(
      [&] { quantize(x(), scale(), zero_point(), -129, 127, torch::kChar); },
      "qcdq::quantize: quant_min is -129, expected a value in [-128, 127] for dtype Char");
  expect_refusal([&] { quantize(x(), scale(), zero_point(), 0, 128, torch::kChar); },
                 "quant_max is 128, expected a value in [-128, 127] for dtype Char");
  expect_refusal([&] { quantize(x(), scale(), zero_point(), -1, 255, torch::kByte); },
                 "quant_min is -1, expected a value in [0, 255] for dtype Byte");
  expect_refusal([&] { quantize(x(), scale(), zero_point(), 0, 32768, torch::kShort); },
                 "quant_max is 32768, expected a value in [-32768, 32767] for dtype Short");
  expect_refusal([&] { quantize(x(), scale(), zero_point(), 0, 65536, torch::kUInt16); },
                 "quant_max is 65536, expected a value in [0, 65535] for dtype UInt16");
}

TEST(OpsErrors, TypeOfScale) {
  expect_refusal([&] { fake_quantize(x(), scale().to(torch::kDouble), zero_point(), 0, 255); },
                 "qcdq::fake_quantize: scale is Double, expected Float");
  expect_refusal(
      [&] {
        fake_quantize(x().to(torch::kHalf), scale().to(torch::kBFloat16), zero_point(), 0, 255);
      },
      "scale is BFloat16, expected Float or Half");
  expect_refusal([&] { dequantize(torch::ones({4}, torch::kChar), zero_point(), zero_point()); },
                 "qcdq::dequantize: scale is Int, expected Float, Half, BFloat16 or Double");
  expect_refusal(
      [&] {
        dequantize(torch::ones({4}, torch::kChar), scale().to(torch::kDouble), zero_point(),
                   std::nullopt, std::nullopt, torch::kFloat);
      },
      "scale is Double, expected Float");
}

TEST(OpsErrors, TypeOfZeroPoint) {
  expect_refusal([&] { fake_quantize(x(), scale(), scale(), 0, 255); },
                 "qcdq::fake_quantize: zero_point is Float, expected an integer type");
  expect_refusal([&] { fake_quantize(x(), scale(), zero_point().to(torch::kBool), 0, 255); },
                 "zero_point is Bool, expected an integer type");
  expect_refusal([&] { fake_quantize_learned(x(), scale(), scale().to(torch::kDouble), 0, 255); },
                 "zero_point is Double, expected an integer type, Float or the type of x");
}

TEST(OpsErrors, ValuesOfScale) {
  for (const auto& [value, text] : std::vector<std::pair<double, std::string>>{
           {0.0, "0"}, {-1.0, "-1"}, {kInf, "inf"}, {std::nan(""), "nan"}}) {
    const torch::Tensor bad = torch::tensor({0.5, value}, torch::kFloat);
    const std::string expected = "scale is " + text + " at element 1, expected a finite value > 0";
    const torch::Tensor rows = torch::ones({2, 3});
    expect_refusal([&] { fake_quantize(rows, bad, zero_point({2}), 0, 255, 0); }, expected);
    expect_refusal([&] { quantize(rows, bad, zero_point({2}), 0, 255, torch::kByte, 0); },
                   expected);
    expect_refusal([&] { fake_quantize_learned(rows, bad, zero_point({2}), 0, 255, 0); }, expected);
    expect_refusal([&] { dequantize(rows.to(torch::kChar), bad, zero_point({2}), 0); }, expected);
  }
}

TEST(OpsErrors, ValuesOfZeroPoint) {
  const torch::Tensor bad = torch::tensor({0, 16}, torch::kInt);
  const torch::Tensor rows = torch::ones({2, 3});
  expect_refusal([&] { fake_quantize(rows, scale({2}), bad, 0, 15, 0); },
                 "qcdq::fake_quantize: zero_point is 16 at element 1, expected a value in [0, 15], "
                 "the range [quant_min, quant_max]");
  expect_refusal([&] { fake_quantize(rows, scale({2}), -bad, 0, 15, 0); },
                 "zero_point is -16 at element 1");
  expect_refusal(
      [&] { dequantize(rows.to(torch::kChar), scale({2}), bad * 10, 0); },
      "qcdq::dequantize: zero_point is 160 at element 1, expected a value in [-128, 127], "
      "the range of q's type");
  expect_refusal(
      [&] { fake_quantize_learned(rows, scale(), torch::full({1}, std::nan("")), 0, 15); },
      "qcdq::fake_quantize_learned: zero_point is nan at element 0, expected a finite value");
}

TEST(OpsErrors, ShapePerTensor) {
  expect_refusal(
      [&] { fake_quantize(x(), scale({4}), zero_point(), 0, 255); },
      "qcdq::fake_quantize: scale has 4 elements (no axis given: per tensor), expected 1");
  expect_refusal([&] { fake_quantize(x(), scale(), zero_point({4}), 0, 255); },
                 "zero_point has 4 elements (no axis given: per tensor), expected 1");
}

TEST(OpsErrors, ShapePerChannel) {
  expect_refusal([&] { fake_quantize(x(), scale({4}), zero_point({4}), 0, 255, 1); },
                 "scale has 4 elements (per channel), expected 6");
  expect_refusal([&] { fake_quantize(x(), scale({6}), zero_point({1}), 0, 255, 1); },
                 "zero_point has 1 elements (per channel), expected 6");
  expect_refusal(
      [&] {
        fake_quantize(x(), scale({6, 1}), zero_point({6}), 0, 255, 1);
      },
      "scale has 2 dimensions, expected 1 (per channel along axis 1)");
}

TEST(OpsErrors, ShapeBlocked) {
  expect_refusal(
      [&] {
        fake_quantize(x(), scale({4, 3}), zero_point({4, 3}), 0, 255, 1, 4);
      },
      "scale has shape [4, 3], expected [4, 2] (blocks of 4 along axis 1)");
  expect_refusal(
      [&] {
        fake_quantize(x(), scale({4, 2}), zero_point({3, 2}), 0, 255, 1, 4);
      },
      "zero_point has shape [3, 2], expected [4, 2]");
  expect_refusal(
      [&] {
        fake_quantize(x(), scale({2}), zero_point({4, 2}), 0, 255, 1, 4);
      },
      "scale has 1 dimensions, expected 2 (blocked: as many as the input)");
}

TEST(OpsErrors, AxisAndBlockSize) {
  const auto call = [&](const torch::Tensor& input, std::optional<int64_t> axis,
                        std::optional<int64_t> block_size) {
    fake_quantize(input, scale(), zero_point(), 0, 255, axis, block_size);
  };
  expect_refusal([&] { call(x(), 2, std::nullopt); },
                 "axis is 2, expected a value in [-2, 1] for an input of 2 dimensions");
  expect_refusal([&] { call(x(), -3, std::nullopt); }, "axis is -3, expected a value in [-2, 1]");
  expect_refusal([&] { call(torch::ones({}), 0, std::nullopt); },
                 "axis is 0 but the input is 0-d; expected axis=None");
  expect_refusal([&] { call(x(), std::nullopt, 4); },
                 "block_size is 4 but axis is None; blocks need an axis");
  expect_refusal([&] { call(x(), 1, 0); }, "block_size is 0, expected a value in [1, 2147483647]");
  expect_refusal([&] { call(x(), 1, -4); }, "block_size is -4, expected a value in [1,");
  expect_refusal([&] { choose_qparams(x(), 0, 255, false, 2); }, "qcdq::choose_qparams: axis is 2");
}

TEST(OpsErrors, Device) {
  expect_refusal([&] { fake_quantize(x().to(torch::kMeta), scale(), zero_point(), 0, 255); },
                 "qcdq::fake_quantize: scale is on cpu, expected meta, the device of the input");
  expect_refusal(
      [&] { fake_quantize(x().to(torch::kMeta), scale().to(torch::kMeta), zero_point(), 0, 255); },
      "zero_point is on cpu, expected meta");
}

TEST(OpsErrors, LearnedAndSymmetric) {
  expect_refusal(
      [&] {
        fake_quantize_learned(x(), scale(), zero_point(), 0, 255, std::nullopt, std::nullopt, kInf);
      },
      "qcdq::fake_quantize_learned: grad_factor is inf, expected a finite value");
  expect_refusal([&] { choose_qparams(x(), 1, 255, /*symmetric=*/true); },
                 "qcdq::choose_qparams: symmetric is True with quant_min 1 and quant_max 255, "
                 "expected quant_min <= 0 < quant_max");
  expect_refusal(
      [&] { fake_quantize_dynamic(x(), -8, 0, /*symmetric=*/true); },
      "qcdq::fake_quantize_dynamic: symmetric is True with quant_min -8 and quant_max 0");
}

TEST(OpsErrors, GradOfBackwardOps) {
  const auto op = c10::Dispatcher::singleton()
                      .findSchemaOrThrow("qcdq::fake_quantize_backward", "")
                      .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                        const at::Tensor&, int64_t, int64_t, std::optional<int64_t>,
                                        std::optional<int64_t>)>();
  const auto call = [&](const torch::Tensor& grad) {
    op.call(grad, x(), scale(), zero_point(), 0, 255, std::nullopt, std::nullopt);
  };
  expect_refusal(
      [&] {
        call(torch::ones({4, 6}, torch::kHalf));
      },
      "qcdq::fake_quantize_backward: grad is Half, expected Float, the type of x");
  expect_refusal(
      [&] {
        call(torch::ones({6, 4}));
      },
      "grad has shape [6, 4], expected [4, 6], the shape of x");
  expect_refusal([&] { call(torch::ones({4})); }, "grad has 1 dimensions, expected 2, as x");
}

TEST(OpsErrors, DoubleBackwardIsRefusedByName) {
  torch::Tensor leaf = torch::randn({4}, torch::requires_grad());
  torch::Tensor learned = torch::full({1}, 0.5, torch::requires_grad());
  const auto second = [&](const torch::Tensor& y) {
    const auto first = torch::autograd::grad({(y * y).sum()}, {leaf}, {}, true, true);
    first[0].sum().backward();
  };
  expect_refusal<c10::NotImplementedError>(
      [&] { second(fake_quantize(leaf, scale(), zero_point(), -8, 7)); },
      "qcdq::fake_quantize: double backward is not supported");
  expect_refusal<c10::NotImplementedError>(
      [&] { second(fake_quantize_learned(leaf, learned, zero_point(), -8, 7)); },
      "qcdq::fake_quantize_learned: double backward is not supported");
  expect_refusal<c10::NotImplementedError>([&] { second(fake_quantize_dynamic(leaf, -8, 7)); },
                                           "qcdq::fake_quantize: double backward is not supported");
}

TEST(OpsErrors, BackwardThroughDequantizeIsRefused) {
  const torch::Tensor learned = torch::full({1}, 0.5, torch::requires_grad());
  const torch::Tensor y = dequantize(torch::ones({4}, torch::kChar), learned, zero_point());
  EXPECT_EQ(y.sum().item<float>(), 2.0f);
  expect_refusal<c10::NotImplementedError>(
      [&] { y.sum().backward(); },
      "qcdq::dequantize: scale requires a gradient, but dequantize has none; learn a scale with "
      "qcdq::fake_quantize_learned");
}

}  // namespace
}  // namespace qcdq
