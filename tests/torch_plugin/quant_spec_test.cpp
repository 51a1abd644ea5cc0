// QuantSpec: ranges, text form, the integers in the state dict, refusals.
// Code under test: torch_plugin/quant_spec.cpp.
#include "qcdq/quant_spec.h"

#include <gtest/gtest.h>

#include <ostream>

#include "expect_message.h"

namespace {

using qcdq::QuantSpec;
using qcdq::Scaling;

TEST(QuantSpec, Ranges) {
  struct Row {
    QuantSpec spec;
    int64_t low, high, divisor;
  };
  for (const Row& row :
       {Row{qcdq::int8(), -128, 127, 128}, Row{qcdq::int8().narrow(), -127, 127, 127},
        Row{qcdq::uint8(), 0, 255, 255}, Row{qcdq::int4(), -8, 7, 8},
        Row{qcdq::intn(3).narrow(), -3, 3, 3}, Row{qcdq::uint4(), 0, 15, 15},
        Row{qcdq::uint1(), 0, 1, 1}, Row{qcdq::intn(2).narrow(), -1, 1, 1},
        Row{qcdq::uint16(), 0, 65535, 65535},
        Row{qcdq::int32(), -2147483648LL, 2147483647LL, 2147483648LL}}) {
    EXPECT_EQ(row.spec.quant_min(), row.low) << row.spec;
    EXPECT_EQ(row.spec.quant_max(), row.high) << row.spec;
    EXPECT_EQ(row.spec.divisor(), row.divisor) << row.spec;
  }
}

TEST(QuantSpec, PrintCompareAndRoundTrip) {
  const QuantSpec spec = qcdq::int4().per_channel(1).narrow().scaling(Scaling::kLearned);
  EXPECT_EQ(spec.to_string(), "int4 narrow per_channel(1) learned");
  EXPECT_EQ(qcdq::uint8().to_string(), "uint8");
  EXPECT_EQ(qcdq::uint8().symmetric(false).scaling(Scaling::kMinMax).to_string(),
            "uint8 asymmetric minmax");
  EXPECT_EQ(qcdq::int8().blocked(1, 32).power_of_two().to_string(),
            "int8 blocked(1, 32) power_of_two");
  EXPECT_EQ(qcdq::int8().fixed(0.25).to_string(), "int8 fixed(0.25)");
  EXPECT_EQ(qcdq::int8().percentile(99.9).collect_steps(5).to_string(),
            "int8 rank(99.9) collect_steps(5)");
  EXPECT_NE(spec, qcdq::int4());
  for (const QuantSpec& one :
       {spec, qcdq::uint1(), qcdq::int8().fixed(0.1).percentile(99.9).collect_steps(7),
        qcdq::uint8().symmetric(false).power_of_two(), qcdq::intn(5).blocked(-1, 16)}) {
    EXPECT_EQ(QuantSpec::from_integers(one.to_integers()), one);
  }
  EXPECT_EQ(spec.per_tensor(), qcdq::int4().narrow().scaling(Scaling::kLearned));
}

TEST(QuantSpec, RefuseByName) {
  EXPECT_MESSAGE(qcdq::intn(1), "bits = 1 (signed); expected 2 or more");
  EXPECT_MESSAGE(qcdq::intn(0), "bits = 0; expected 1 to 32");
  EXPECT_MESSAGE(qcdq::intn(33), "bits = 33; expected 1 to 32");
  EXPECT_MESSAGE(qcdq::uintn(32), "bits = 32 (unsigned)");
  EXPECT_MESSAGE(qcdq::uint8().narrow(), "narrow = true (unsigned)");
  EXPECT_MESSAGE(qcdq::int8().blocked(0, 0), "block_size = 0; expected 1 or more");
  EXPECT_MESSAGE(qcdq::int8().fixed(0), "fixed scale = 0; expected a finite");
  EXPECT_MESSAGE(qcdq::int8().symmetric(false).fixed(1), "symmetric = false (fixed scale)");
  EXPECT_MESSAGE(qcdq::int8().scaling(Scaling::kFixed), "expected fixed(scale)");
  EXPECT_MESSAGE(qcdq::int8().percentile(50), "percentile = 50; expected more than 50");
  EXPECT_MESSAGE(qcdq::int8().collect_steps(0), "collect_steps = 0; expected 1 or more");
  EXPECT_MESSAGE(QuantSpec::from_integers({1, 2}), "number of stored fields = 2; expected 12");
}

}  // namespace
