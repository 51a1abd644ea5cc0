// Every elementwise SIMD kernel of every instruction set that this CPU runs, exactly against
// affine.h: ties and specials, every size around the vector width in buffers that end at a guard
// page, every layout, and random floats; all 2^32 of them in the test named Slow, which
// `./dev test --all` runs. The kernels that reduce are in isa_reduce_test.cpp.
#include <gtest/gtest.h>
#include <hwy/aligned_allocator.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/torch_plugin/isa_fixture.h"
#include "torch_plugin/kernels/exact_rounding.h"

namespace qcdq {
namespace {

template <typename X>
class IsaTest : public testing::Test {};
using StorageTypes = testing::Types<float, F16, BF16>;
TYPED_TEST_SUITE(IsaTest, StorageTypes);

std::vector<int64_t> sizes_around_vectors(int64_t all) {
  std::vector<int64_t> sizes;
  for (int64_t n = 0; n <= 70; ++n) sizes.push_back(n);
  sizes.push_back(all);
  return sizes;
}

TYPED_TEST(IsaTest, FakeQuantizeEqualsTheFormula) {
  using X = TypeParam;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (const Setting& s : kSettings) {
      const std::vector<X> values = stored<X>(interesting_values(s));
      for (const int64_t n : sizes_around_vectors(values.size())) {
        // From the end, so that all values come by.
        const int64_t first = static_cast<int64_t>(values.size()) - n;
        GuardedArray<X> x(
            std::vector<X>(values.begin() + first / 2, values.begin() + first / 2 + n));
        GuardedArray<X> y(n);
        const Call call(ParamLayout::per_tensor(n), s);
        table->fake_quantize[kFloatIndex<X>](x.data(), y.data(), call.runs());
        for (int64_t i = 0; i < n; ++i) {
          ASSERT_TRUE(same_bits(y[i], expected_fake_quantize(x[i], s)))
              << table->isa << " x=" << to_compute(x[i]) << " scale=" << s.scale << " n=" << n;
        }
      }
    }
  }
}

TYPED_TEST(IsaTest, BackwardKeepsTheGradientsBitsInsideTheRange) {
  using X = TypeParam;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (const Setting& s : kSettings) {
      const std::vector<X> values = stored<X>(interesting_values(s));
      for (const int64_t n : sizes_around_vectors(values.size())) {
        GuardedArray<X> x(std::vector<X>(values.end() - n, values.end()));
        GuardedArray<X> grad(n);
        GuardedArray<X> grad_x(n);
        for (int64_t i = 0; i < n; ++i) grad[i] = values[(7 * i) % values.size()];  // NaN included
        const Call call(ParamLayout::per_tensor(n), s);
        table->fake_quantize_backward[kFloatIndex<X>](grad.data(), x.data(), grad_x.data(),
                                                      call.runs());
        for (int64_t i = 0; i < n; ++i) {
          ASSERT_TRUE(same_bits(grad_x[i], expected_inside(x[i], s) ? grad[i] : X{}))
              << table->isa << " x=" << to_compute(x[i]);
        }
      }
    }
  }
}

template <typename X, typename Code>
void check_codes(const KernelTable& table, const Setting& s) {
  if (s.quant_min < static_cast<int64_t>(std::numeric_limits<Code>::min()) ||
      s.quant_max > static_cast<int64_t>(std::numeric_limits<Code>::max())) {
    return;
  }
  const std::vector<X> values = stored<X>(interesting_values(s));
  for (const int64_t n : sizes_around_vectors(values.size())) {
    GuardedArray<X> x(std::vector<X>(values.end() - n, values.end()));
    GuardedArray<Code> codes(n);
    const Call call(ParamLayout::per_tensor(n), s);
    table.quantize[kFloatIndex<X>][kCodeIndex<Code>](x.data(), codes.data(), call.runs());
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(static_cast<int64_t>(codes[i]),
                quantize_one(to_compute(x[i]), s.scale, s.zero_point, s.quant_min, s.quant_max))
          << table.isa << " x=" << to_compute(x[i]);
    }
    if constexpr (sizeof(Code) < 4) {
      GuardedArray<X> y(n);
      table.dequantize[kFloatIndex<X>][kCodeIndex<Code>](codes.data(), y.data(), call.runs());
      for (int64_t i = 0; i < n; ++i) {
        const X expected = from_compute<X>(dequantize_one<float>(codes[i], s.scale, s.zero_point));
        ASSERT_TRUE(same_bits(y[i], expected)) << table.isa << " code=" << int64_t{codes[i]};
      }
    }
  }
}

TYPED_TEST(IsaTest, CodesEqualTheFormula) {
  using X = TypeParam;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (const Setting& s : kSettings) {
      check_codes<X, int8_t>(*table, s);
      check_codes<X, uint8_t>(*table, s);
      check_codes<X, int16_t>(*table, s);
      check_codes<X, uint16_t>(*table, s);
      check_codes<X, int32_t>(*table, s);
    }
  }
}

std::vector<ParamLayout> layouts() {
  // The last of these have rows enough to fold what their columns need (kernels/exact_rounding.h).
  std::vector<ParamLayout> all = {
      ParamLayout::cyclic(50, 3),          ParamLayout::cyclic(64, 64),
      ParamLayout::cyclic(100, 17),        ParamLayout::cyclic(2950, 100),
      ParamLayout::cyclic(2950, 128),      ParamLayout::cyclic(2980, 128),
      ParamLayout::per_channel(20, 130, 1)};
  for (const int64_t outer : {1, 3}) {
    for (const int64_t axis : {1, 2, 5, 33, 64}) {
      for (const int64_t inner : {1, 2, 7, 19}) {
        all.push_back(ParamLayout::per_channel(outer, axis, inner));
        for (const int64_t block : {1, 2, 4, 32}) {
          all.push_back(ParamLayout::blocked(outer, axis, inner, block));
        }
      }
    }
  }
  return all;
}

TYPED_TEST(IsaTest, EveryLayoutTakesItsParameters) {
  using X = TypeParam;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (const ParamLayout& layout : layouts()) {
      Call call(layout, {0.1f, 0, -8, 7});
      for (int64_t p = 0; p < layout.params(); ++p) {
        call.scale[p] = 0.05f + 0.01f * static_cast<float>(p);
        call.zero_point[p] = static_cast<float>(p % 5 - 2);
      }
      const int64_t n = layout.numel();
      std::mt19937 random(5);
      std::normal_distribution<float> normal;
      GuardedArray<X> x(n);
      for (int64_t i = 0; i < n; ++i) x[i] = from_compute<X>(normal(random));
      GuardedArray<X> y(n);
      std::memset(static_cast<void*>(y.data()), 0xEE, n * sizeof(X));
      // In two calls, split where a thread could be; one with stores past the caches.
      const int64_t middle = layout.runs() / 2;
      table->fake_quantize[kFloatIndex<X>](x.data(), y.data(), call.runs(0, middle));
      call.streamed = true;
      table->fake_quantize[kFloatIndex<X>](x.data(), y.data(), call.runs(middle, layout.runs()));
      for (int64_t r = 0; r < layout.runs(); ++r) {
        const ParamLayout::Run run = layout.run(r);
        for (int64_t i = 0; i < run.count; ++i) {
          const int64_t p = run.param + i * run.param_step;
          const Setting s{call.scale[p], static_cast<int64_t>(call.zero_point[p]), -8, 7};
          const int64_t at = run.offset + i;
          ASSERT_TRUE(same_bits(y[at], expected_fake_quantize(x[at], s))) << table->isa;
        }
      }
    }
  }
}

// Forward, backward and codes of long runs, where kernels multiply instead of dividing and compare
// x with an interval (kernels/exact_rounding.h); all parameters of the layout are those of `s`.
template <typename X>
void check_long_runs(const KernelTable& table, const std::vector<X>& x, const Setting& s,
                     const ParamLayout& layout, bool streamed) {
  const int64_t n = static_cast<int64_t>(x.size());
  ASSERT_EQ(layout.numel(), n);
  Call call(layout, s);
  call.streamed = streamed;
  const std::vector<X> grad(n, from_compute<X>(1.5f));
  // Aligned, or nothing would be streamed.
  const auto y = hwy::AllocateAligned<X>(n);
  const auto grad_x = hwy::AllocateAligned<X>(n);
  std::vector<int32_t> codes(n);
  table.fake_quantize[kFloatIndex<X>](x.data(), y.get(), call.runs());
  table.fake_quantize_backward[kFloatIndex<X>](grad.data(), x.data(), grad_x.get(), call.runs());
  table.quantize[kFloatIndex<X>][kCodeIndex<int32_t>](x.data(), codes.data(), call.runs());
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_EQ(codes[i],
              quantize_one(to_compute(x[i]), s.scale, s.zero_point, s.quant_min, s.quant_max))
        << table.isa << " x=" << to_compute(x[i]) << " scale=" << s.scale;
    ASSERT_TRUE(same_bits(y[i], expected_fake_quantize(x[i], s)))
        << table.isa << " x=" << to_compute(x[i]) << " scale=" << s.scale;
    ASSERT_TRUE(same_bits(grad_x[i], expected_inside(x[i], s) ? grad[i] : X{}))
        << table.isa << " x=" << to_compute(x[i]) << " scale=" << s.scale;
  }
}

// Products that are proved for the whole type, tested in each group, and tested with a parameter
// for each column.
template <typename X>
void check_every_value(const std::vector<Setting>& settings) {
  std::vector<X> x(1 << 16);
  ASSERT_GE(x.size(), kProvedRun);
  for (size_t i = 0; i < x.size(); ++i) x[i].bits = static_cast<uint16_t>(i);
  for (const KernelTable* table : supported_kernel_tables()) {
    for (const Setting& s : settings) {
      check_long_runs(*table, x, s, ParamLayout::per_tensor(x.size()), false);
      check_long_runs(*table, x, s, ParamLayout::per_channel(1, 4, x.size() / 4), true);
      check_long_runs(*table, x, s, ParamLayout::per_channel(1, 16, x.size() / 16), true);
      check_long_runs(*table, x, s, ParamLayout::cyclic(x.size(), 200), false);
      check_long_runs(*table, x, s, ParamLayout::cyclic(x.size(), kMostColumnsOfRows), true);
    }
  }
}

// Powers of two have many ties. A search found the first five: a product with the inverse gives the
// other code for 0.021697998 in f16 (10, not 9), 13.4296875 in f16, 0.3515625 in bf16, 0.28125 in
// bf16, 0.09375 in bf16. The value of code 1 of the sixth is half way between two bf16 numbers;
// that of the seventh is just above, and half way with the nearest scale of 22 bits.
std::vector<Setting> many_scales(int count) {
  std::vector<Setting> settings = kSettings;
  for (const float scale : {0.00228399993f, 0.214874998f, 0.0281249993f, 0.00449999981f,
                            0.00749999983f, 1.00390625f, 1.00390637f}) {
    settings.push_back({scale, 0, -128, 127});
  }
  std::mt19937 random(23);
  std::uniform_real_distribution<float> exponent(-14.0f, 4.0f);
  for (int i = 0; i < count; ++i) {
    const float scale = std::exp2(i % 8 == 0 ? std::floor(exponent(random)) : exponent(random));
    const int64_t zero_point = static_cast<int64_t>(random() % 256) - 128;
    settings.push_back({scale, i % 2 == 0 ? 0 : zero_point, -128, 127});
  }
  return settings;
}

TEST(IsaLongRuns, EveryHalf) { check_every_value<F16>(many_scales(60)); }
TEST(IsaLongRuns, EveryBfloat16) { check_every_value<BF16>(many_scales(60)); }

TEST(IsaLongRuns, TiesOfManyScales) {
  for (const Setting& s : many_scales(400)) {
    std::vector<float> x = interesting_values(s);
    for (int64_t distance = -260; distance <= 260; ++distance) {
      const float tie = static_cast<float>((static_cast<double>(distance) + 0.5) * s.scale);
      x.push_back(tie);
      for (const float towards : {1e38f, -1e38f}) {
        x.push_back(std::nextafter(tie, towards));
        x.push_back(std::nextafter(x.back(), towards));
      }
    }
    const auto n = static_cast<int64_t>(x.size());
    ASSERT_GE(x.size(), kIntervalRun);
    for (const KernelTable* table : supported_kernel_tables()) {
      for (const bool streamed : {false, true}) {
        check_long_runs(*table, x, s, ParamLayout::per_tensor(n), streamed);
        // Columns of one row, and of several rows, as a group.
        check_long_runs(*table, x, s, ParamLayout::cyclic(n, 160), streamed);
        check_long_runs(*table, x, s, ParamLayout::cyclic(n, kMostColumnsOfRows), streamed);
      }
    }
  }
}

TEST(Streaming, TheSizeOfTheWholeResultDecides) {
  const auto streamed = [](int64_t elements, auto type, int64_t part) {
    const ParamLayout layout = ParamLayout::per_tensor(part);
    return simd_runs<decltype(type)>({layout, 0, 1, elements}, {nullptr, nullptr, 0, 1}).streamed;
  };
  const int64_t floats = kLeastStreamedBytes / 4;
  EXPECT_TRUE(streamed(floats, float{}, floats));
  EXPECT_FALSE(streamed(floats - 1, float{}, floats - 1));
  EXPECT_TRUE(streamed(floats, float{}, floats / 8));  // a thread's part
  EXPECT_FALSE(streamed(floats, BF16{}, floats));
  EXPECT_TRUE(streamed(2 * floats, BF16{}, 2 * floats));
  const ParamLayout layout = ParamLayout::per_tensor(floats);
  EXPECT_EQ((RunRange{layout, 0, 1}.array_elements), floats);
}

TEST(ExactRounding, TheIntervalEndsWhereTheCodeLeavesTheRange) {
  for (const Setting& s : many_scales(200)) {
    if (!has_ordinary_inverse(s.scale)) continue;
    const auto lowest = static_cast<float>(s.quant_min - s.zero_point);
    const auto highest = static_cast<float>(s.quant_max - s.zero_point);
    if (std::max(-lowest, highest) > kFurthestInterval) continue;
    const Interval inside = inside_interval(s.scale, lowest, highest);
    for (const float x : {inside.first, inside.last}) EXPECT_TRUE(expected_inside(x, s)) << x;
    EXPECT_FALSE(expected_inside(std::nextafter(inside.first, -1e38f), s)) << s.scale;
    EXPECT_FALSE(expected_inside(std::nextafter(inside.last, 1e38f), s)) << s.scale;
  }
}

// Random and exhaustive floats.
const std::vector<Setting> kSweeps = {
    {0.0123f, 0, -128, 127}, {0.0021485f, 131, 0, 255}, {0.7f, -3, -8, 7}};

void check_float_bits(const std::vector<uint32_t>& bits, const Setting& s) {
  const int64_t n = static_cast<int64_t>(bits.size());
  const Call call(ParamLayout::per_tensor(n), s);
  std::vector<float> expected(n);
  std::vector<float> y(n);
  const float* x = reinterpret_cast<const float*>(bits.data());
  for (int64_t i = 0; i < n; ++i) expected[i] = expected_fake_quantize(x[i], s);
  for (const KernelTable* table : supported_kernel_tables()) {
    table->fake_quantize[0](x, y.data(), call.runs());
    if (std::memcmp(y.data(), expected.data(), n * sizeof(float)) == 0) continue;
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_TRUE(same_bits(y[i], expected[i])) << table->isa << " x=" << x[i];
    }
  }
}

TEST(IsaSweep, RandomFloats) {
  std::mt19937 random(19);
  std::vector<uint32_t> bits(1 << 20);
  for (int part = 0; part < 16; ++part) {
    for (uint32_t& b : bits) b = random();
    for (const Setting& s : kSweeps) check_float_bits(bits, s);
  }
}

TEST(IsaSweep, SlowAllFloats) {
  std::vector<uint32_t> bits(1 << 20);
  for (uint64_t first = 0; first < (uint64_t{1} << 32); first += bits.size()) {
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint32_t>(first + i);
    for (const Setting& s : kSweeps) check_float_bits(bits, s);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(Isa, AnUnknownNameIsAnErrorThatListsTheNames) {
  EXPECT_EQ(&kernel_table_named(supported_kernel_tables().front()->isa),
            supported_kernel_tables().front());
  try {
    kernel_table_named("avx9");
    FAIL() << "not refused";
  } catch (const std::invalid_argument& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("QCDQ_FORCE_ISA is 'avx9', expected one of "), std::string::npos);
    for (const KernelTable* table : supported_kernel_tables()) {
      EXPECT_NE(message.find(table->isa), std::string::npos) << message;
    }
  }
}

// In fresh processes, since the choice is made once.
TEST(IsaDeathTest, TheEnvironmentForcesATable) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto choose = [](const char* isa) {
    setenv("QCDQ_FORCE_ISA", isa, 1);
    try {
      std::fprintf(stderr, "chosen: %s", kernel_table().isa);
    } catch (const std::invalid_argument& error) {
      std::fprintf(stderr, "%s", error.what());
    }
    std::exit(0);
  };
  const KernelTable* last = supported_kernel_tables().back();
  EXPECT_EXIT(choose(last->isa), testing::ExitedWithCode(0), std::string("chosen: ") + last->isa);
  EXPECT_EXIT(choose("AVX"), testing::ExitedWithCode(0),
              "QCDQ_FORCE_ISA is 'AVX', expected one of");
}

TEST(FloatTypes, ConversionsAreNearestEven) {
  // A value half way between two neighbours goes to the even one, others to the nearer one.
  for (uint32_t bits = 0; bits < 0x7C00u; ++bits) {
    const F16 below{static_cast<uint16_t>(bits)};
    const float low = to_compute(below);
    const double magnitude =
        bits < 1024 ? std::ldexp(bits, -24) : std::ldexp(1024.0 + (bits & 1023), (bits >> 10) - 25);
    ASSERT_EQ(static_cast<double>(low), magnitude);
    ASSERT_EQ(from_compute<F16>(low).bits, bits);
    ASSERT_EQ(from_compute<F16>(-low).bits, bits | 0x8000u);
    const float high =
        bits == 0x7BFFu ? 65536.0f : to_compute(F16{static_cast<uint16_t>(bits + 1)});
    const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    ASSERT_EQ(from_compute<F16>(middle).bits, bits + (bits & 1)) << low;
    ASSERT_EQ(from_compute<F16>(std::nextafter(middle, 0.0f)).bits, bits);
    ASSERT_EQ(from_compute<F16>(std::nextafter(middle, 1e9f)).bits, bits + 1);
  }
  for (uint32_t bits = 0; bits < 0x7F80u; ++bits) {
    const float low = to_compute(BF16{static_cast<uint16_t>(bits)});
    ASSERT_EQ(from_compute<BF16>(low).bits, bits);
    const float middle = std::bit_cast<float>(bits << 16 | 0x8000u);
    ASSERT_EQ(from_compute<BF16>(middle).bits, bits + (bits & 1));
    ASSERT_EQ(from_compute<BF16>(std::bit_cast<float>(bits << 16 | 0x7FFFu)).bits, bits);
    ASSERT_EQ(from_compute<BF16>(std::bit_cast<float>(bits << 16 | 0x8001u)).bits, bits + 1);
  }
  EXPECT_TRUE(std::isnan(to_compute(from_compute<F16>(std::nanf("")))));
  EXPECT_TRUE(std::isnan(to_compute(from_compute<BF16>(std::nanf("")))));
  EXPECT_EQ(from_compute<F16>(std::numeric_limits<float>::infinity()).bits, 0x7C00u);
}

TEST(IsaSettings, AreAllForTheSimdKernels) {
  for (const Setting& s : kSettings) EXPECT_TRUE(narrow_enough(s));
  for (const Setting& s : kSweeps) EXPECT_TRUE(narrow_enough(s));
}

}  // namespace
}  // namespace qcdq
