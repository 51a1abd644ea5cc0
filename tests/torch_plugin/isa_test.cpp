// Every SIMD kernel of every instruction set that this CPU runs, exactly against affine.h: ties and
// specials, every size around the vector width in buffers that end at a guard page, every layout,
// and random floats; all 2^32 of them in the test named Slow, which `./dev test --all` runs.
#include <gtest/gtest.h>
#include <qcdq/affine.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "torch_plugin/kernels/cpu_kernels.h"

namespace qcdq {
namespace {

// `count` elements that end where an unreadable page begins: one read or write too far is a fault.
template <typename T>
class GuardedArray {
 public:
  explicit GuardedArray(int64_t count) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    size_ = (bytes + page - 1) / page * page + page;
    base_ = static_cast<char*>(
        mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + size_ - page, page, PROT_NONE) != 0) {
      throw std::runtime_error("no memory for a guarded array");
    }
    data_ = reinterpret_cast<T*>(base_ + size_ - page - bytes);
  }
  explicit GuardedArray(const std::vector<T>& values) : GuardedArray(values.size()) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~GuardedArray() { munmap(base_, size_); }
  GuardedArray(const GuardedArray&) = delete;
  GuardedArray& operator=(const GuardedArray&) = delete;

  T* data() { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  int64_t size() const { return count_; }

 private:
  int64_t count_;
  size_t size_;
  char* base_;
  T* data_;
};

struct Setting {
  float scale;
  int64_t zero_point;
  int64_t quant_min;
  int64_t quant_max;
};

const std::vector<Setting> kSettings = {
    {0.1f, 0, -128, 127},  {0.0123f, 3, -128, 127},        {0.0021485f, 128, 0, 255},
    {0.5f, -3, -8, 7},     {1e-38f, 0, -127, 127},         {1e30f, 1, 0, 3},
    {3.7f, 0, -3, 3},      {0.25f, -1, -32768, 32767},     {0.013f, 32768, 0, 65535},
    {1.0f, 150, 100, 200}, {0.7f, 5, -(1 << 23), 1 << 23}, {1e-45f, 0, -8, 7},
};

bool narrow_enough(const Setting& s) { return !needs_wide_accumulator(s.quant_min, s.quant_max); }

// Every point where the formula changes its mind and its neighbours, specials, then random values.
std::vector<float> interesting_values(const Setting& s) {
  using Limits = std::numeric_limits<float>;
  std::vector<float> values = {0.0f,
                               -0.0f,
                               Limits::denorm_min(),
                               -Limits::denorm_min(),
                               Limits::min(),
                               -Limits::min(),
                               Limits::max(),
                               Limits::lowest(),
                               Limits::infinity(),
                               -Limits::infinity(),
                               Limits::quiet_NaN(),
                               -Limits::quiet_NaN(),
                               65504.0f,
                               65520.0f,
                               6e-8f,
                               -6e-8f};
  const auto around = [&](double code) {
    for (const double at : {code, code + 0.5}) {
      const float v = static_cast<float>(at * static_cast<double>(s.scale));
      values.push_back(v);
      values.push_back(std::nextafter(v, Limits::infinity()));
      values.push_back(std::nextafter(v, -Limits::infinity()));
    }
  };
  for (int code = -12; code <= 12; ++code) around(code);
  for (const int64_t bound : {s.quant_min, s.quant_max}) {
    for (int64_t d = -2; d <= 2; ++d) around(static_cast<double>(bound - s.zero_point + d));
  }
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> codes(
      1.2 * static_cast<double>(s.quant_min - s.zero_point) - 1.0,
      1.2 * static_cast<double>(s.quant_max - s.zero_point) + 1.0);
  for (int i = 0; i < 200; ++i) {
    values.push_back(static_cast<float>(codes(random) * static_cast<double>(s.scale)));
  }
  return values;
}

template <typename X>
std::vector<X> stored(const std::vector<float>& values) {
  std::vector<X> out;
  for (const float v : values) out.push_back(from_compute<X>(v));
  return out;
}

template <typename X>
X expected_fake_quantize(X x, const Setting& s) {
  return from_compute<X>(
      fake_quantize_one(to_compute(x), s.scale, s.zero_point, s.quant_min, s.quant_max));
}

template <typename X>
bool expected_inside(X x, const Setting& s) {
  const float code = unclamped_code(to_compute(x), s.scale, static_cast<float>(s.zero_point));
  return code >= static_cast<float>(s.quant_min) && code <= static_cast<float>(s.quant_max);
}

template <typename T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// A call's parameters, kept alive.
struct Call {
  Call(const ParamLayout& l, const Setting& s)
      : layout(l),
        scale(l.params(), s.scale),
        zero_point(l.params(), static_cast<float>(s.zero_point)),
        lowest(static_cast<float>(s.quant_min)),
        highest(static_cast<float>(s.quant_max)) {}
  SimdRuns runs() const { return runs(0, layout.runs()); }
  SimdRuns runs(int64_t begin, int64_t end) const {
    return {&layout, begin, end, scale.data(), zero_point.data(), lowest, highest};
  }
  SimdParams params() const { return {scale.data(), zero_point.data(), lowest, highest}; }
  ParamLayout layout;
  std::vector<float> scale;
  std::vector<float> zero_point;
  float lowest;
  float highest;
};

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
  std::vector<ParamLayout> all = {ParamLayout::cyclic(50, 3), ParamLayout::cyclic(64, 64),
                                  ParamLayout::cyclic(100, 17)};
  for (const int64_t outer : {1, 3}) {
    for (const int64_t axis : {1, 2, 5, 33}) {
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
      // In two calls, split where a thread could be.
      const int64_t middle = layout.runs() / 2;
      table->fake_quantize[kFloatIndex<X>](x.data(), y.data(), call.runs(0, middle));
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

TYPED_TEST(IsaTest, LearnedSpanHasTheBitsOfThePlainLoop) {
  using X = TypeParam;
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (const Setting& s : kSettings) {
      for (const int64_t n : {0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 100, 4095, 4096, 4097, 9001}) {
        const std::vector<X> values = stored<X>(interesting_values(s));
        GuardedArray<X> x(n);
        GuardedArray<X> grad(n);
        for (int64_t i = 0; i < n; ++i) {
          x[i] = values[i % values.size()];
          grad[i] = from_compute<X>(std::exp(3.0f * normal(random)) * (i % 3 == 0 ? -1.0f : 1.0f));
        }
        const int64_t blocks = (n + kSumBlock - 1) / kSumBlock;
        GuardedArray<X> grad_x(n);
        GuardedArray<LearnedSums> sums(blocks);
        const Call call(ParamLayout::per_tensor(n), s);
        table->learned_span[kFloatIndex<X>](grad.data(), x.data(), grad_x.data(), n, call.params(),
                                            sums.data());
        const double zero_point = static_cast<double>(s.zero_point);
        std::vector<X> plain_grad_x(n);
        std::vector<LearnedSums> plain_sums(blocks);
        learned_backward_span(
            grad.data(), x.data(), plain_grad_x.data(), n,
            QuantParams<float, double>{&s.scale, &zero_point, s.quant_min, s.quant_max},
            plain_sums.data());
        for (int64_t i = 0; i < n; ++i) ASSERT_TRUE(same_bits(grad_x[i], plain_grad_x[i]));
        for (int64_t b = 0; b < blocks; ++b) {
          ASSERT_TRUE(same_bits(sums[b], plain_sums[b]))
              << table->isa << " n=" << n << " scale=" << s.scale << ": " << sums[b].scale << " "
              << plain_sums[b].scale << ", " << sums[b].outside << " " << plain_sums[b].outside;
        }
      }
    }
  }
}

TYPED_TEST(IsaTest, LearnedColumnsHaveTheBitsOfThePlainLoop) {
  using X = TypeParam;
  std::mt19937 random(13);
  std::normal_distribution<float> normal;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (const int64_t columns : {1, 2, 3, 7, 8, 9, 16, 33, 255, 256, 257, 300}) {
      for (const int64_t rows : {1, 7, 8, 9, 40}) {
        const int64_t stride = columns + 2;
        const int64_t n = (rows - 1) * stride + columns;
        Call call(ParamLayout::per_channel(rows, columns, 1), {0.1f, 0, -8, 7});
        std::vector<double> zero_points;
        for (int64_t c = 0; c < columns; ++c) {
          call.scale[c] = 0.05f + 0.01f * static_cast<float>(c);
          call.zero_point[c] = static_cast<float>(c % 5 - 2);
          zero_points.push_back(call.zero_point[c]);
        }
        GuardedArray<X> x(n);
        GuardedArray<X> grad(n);
        for (int64_t i = 0; i < n; ++i) {
          x[i] = from_compute<X>(normal(random));
          grad[i] = from_compute<X>(std::exp(3.0f * normal(random)) * (i % 3 == 0 ? -1.0f : 1.0f));
        }
        GuardedArray<X> grad_x(n);
        GuardedArray<LearnedSums> sums(columns);
        std::vector<X> plain_grad_x(n);
        std::vector<LearnedSums> plain_sums(columns);
        table->learned_columns[kFloatIndex<X>](grad.data(), x.data(), grad_x.data(), rows, stride,
                                               columns, call.params(), sums.data());
        learned_backward_columns(
            grad.data(), x.data(), plain_grad_x.data(), rows, stride, columns,
            QuantParams<float, double>{call.scale.data(), zero_points.data(), -8, 7},
            plain_sums.data());
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < columns; ++c) {
            ASSERT_TRUE(same_bits(grad_x[r * stride + c], plain_grad_x[r * stride + c]));
          }
        }
        for (int64_t c = 0; c < columns; ++c) {
          ASSERT_TRUE(same_bits(sums[c], plain_sums[c])) << table->isa << " column " << c;
        }
      }
    }
  }
}

TYPED_TEST(IsaTest, ExtremesIgnoreNaNAndCountZero) {
  using X = TypeParam;
  std::mt19937 random(17);
  std::normal_distribution<float> normal;
  for (const KernelTable* table : supported_kernel_tables()) {
    for (int64_t n = 0; n <= 140; ++n) {
      GuardedArray<X> x(n);
      for (int64_t i = 0; i < n; ++i) {
        x[i] = from_compute<X>(i % 5 == 1 ? std::nanf("") : normal(random) + (n % 3 - 1) * 4.0f);
      }
      Extremes<float> expected;
      for (int64_t i = 0; i < n; ++i) {
        const float v = to_compute(x[i]);
        if (v < expected.lowest) expected.lowest = v;
        if (v > expected.highest) expected.highest = v;
      }
      Extremes<float> found;
      table->extremes[kFloatIndex<X>](x.data(), n, &found);
      ASSERT_TRUE(same_bits(found, expected)) << table->isa << " n=" << n;
    }
    for (const int64_t columns : {1, 3, 8, 17}) {
      const int64_t rows = 70;
      GuardedArray<X> x(rows * columns);
      std::vector<Extremes<float>> expected(columns);
      for (int64_t i = 0; i < x.size(); ++i) {
        x[i] = from_compute<X>(i % 7 == 1 ? std::nanf("") : normal(random));
        const float v = to_compute(x[i]);
        Extremes<float>& e = expected[i % columns];
        if (v < e.lowest) e.lowest = v;
        if (v > e.highest) e.highest = v;
      }
      std::vector<Extremes<float>> found(columns);
      table->extremes_columns[kFloatIndex<X>](x.data(), rows, columns, columns, found.data());
      for (int64_t c = 0; c < columns; ++c) {
        ASSERT_TRUE(same_bits(found[c], expected[c])) << table->isa << " column " << c;
      }
    }
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
