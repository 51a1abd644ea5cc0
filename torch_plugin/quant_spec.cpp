// QuantSpec: ranges, validation, text form and the integers that the state dict holds. Torch-free.
// The public contract is include/qcdq/quant_spec.h.
#include "qcdq/quant_spec.h"

#include <bit>
#include <cmath>
#include <ostream>
#include <sstream>
#include <stdexcept>

namespace qcdq {
namespace {

[[noreturn]] void refuse(const std::string& field, const std::string& value,
                         const std::string& expected) {
  throw std::invalid_argument("QuantSpec: " + field + " = " + value + "; expected " + expected);
}

std::string number(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

const char* scaling_name(Scaling source) {
  switch (source) {
    case Scaling::kDefault:
      return "";
    case Scaling::kMinMax:
      return "minmax";
    case Scaling::kPercentile:
      return "percentile";
    case Scaling::kLearned:
      return "learned";
    case Scaling::kFixed:
      return "fixed";
  }
  return "?";
}

QuantSpec checked(QuantSpec spec) {
  spec.check();
  return spec;
}

}  // namespace

QuantSpec QuantSpec::per_tensor() const {
  QuantSpec spec = *this;
  spec.granularity = Granularity::kPerTensor;
  spec.axis = 0;
  spec.block_size = 0;
  return checked(spec);
}

QuantSpec QuantSpec::per_channel(int64_t channel_axis) const {
  QuantSpec spec = *this;
  spec.granularity = Granularity::kPerChannel;
  spec.axis = channel_axis;
  spec.block_size = 0;
  return checked(spec);
}

QuantSpec QuantSpec::blocked(int64_t block_axis, int64_t size) const {
  QuantSpec spec = *this;
  spec.granularity = Granularity::kBlocked;
  spec.axis = block_axis;
  spec.block_size = size;
  return checked(spec);
}

QuantSpec QuantSpec::narrow(bool on) const {
  QuantSpec spec = *this;
  spec.is_narrow = on;
  return checked(spec);
}

QuantSpec QuantSpec::symmetric(bool on) const {
  QuantSpec spec = *this;
  spec.is_symmetric = on;
  return checked(spec);
}

QuantSpec QuantSpec::scaling(Scaling source) const {
  if (source == Scaling::kFixed) {
    refuse("scaling", "kFixed", "fixed(scale), which says the scale too");
  }
  QuantSpec spec = *this;
  spec.scale_source = source;
  spec.fixed_scale = 0;
  return checked(spec);
}

QuantSpec QuantSpec::fixed(double scale) const {
  QuantSpec spec = *this;
  spec.scale_source = Scaling::kFixed;
  spec.fixed_scale = scale;
  return checked(spec);
}

QuantSpec QuantSpec::power_of_two(bool on) const {
  QuantSpec spec = *this;
  spec.is_power_of_two = on;
  return checked(spec);
}

QuantSpec QuantSpec::percentile(double rank) const {
  QuantSpec spec = *this;
  spec.percentile_rank = rank;
  return checked(spec);
}

QuantSpec QuantSpec::collect_steps(int64_t steps) const {
  QuantSpec spec = *this;
  spec.statistics_steps = steps;
  return checked(spec);
}

int64_t QuantSpec::quant_min() const {
  if (!is_signed) return 0;
  return -(int64_t{1} << (bits - 1)) + (is_narrow ? 1 : 0);
}

int64_t QuantSpec::quant_max() const { return (int64_t{1} << (is_signed ? bits - 1 : bits)) - 1; }

int64_t QuantSpec::divisor() const { return is_signed ? -quant_min() : quant_max(); }

void QuantSpec::check() const {
  if (bits < 1 || bits > 32) refuse("bits", std::to_string(bits), "1 to 32");
  if (is_signed && bits == 1) {
    refuse("bits", "1 (signed)", "2 or more for a signed range, or unsigned 1 bit: uint1()");
  }
  if (!is_signed && bits == 32)
    refuse("bits", "32 (unsigned)", "31 or fewer for an unsigned range");
  if (is_narrow && !is_signed) refuse("narrow", "true (unsigned)", "a signed range");
  if (granularity < Granularity::kPerTensor || granularity > Granularity::kBlocked) {
    refuse("granularity", std::to_string(static_cast<int64_t>(granularity)), "0, 1 or 2");
  }
  if (granularity == Granularity::kBlocked && block_size < 1) {
    refuse("block_size", std::to_string(block_size), "1 or more");
  }
  if (scale_source < Scaling::kDefault || scale_source > Scaling::kFixed) {
    refuse("scaling", std::to_string(static_cast<int64_t>(scale_source)), "0 to 4");
  }
  if (scale_source == Scaling::kFixed) {
    if (!(static_cast<float>(fixed_scale) > 0) || !std::isfinite(static_cast<float>(fixed_scale))) {
      refuse("fixed scale", number(fixed_scale), "a finite float32 number > 0");
    }
    if (!is_symmetric)
      refuse("symmetric", "false (fixed scale)", "true: a fixed scale has zero point 0");
  }
  if (!(percentile_rank > 50 && percentile_rank <= 100)) {
    refuse("percentile", number(percentile_rank), "more than 50 and at most 100");
  }
  if (statistics_steps < 1) refuse("collect_steps", std::to_string(statistics_steps), "1 or more");
}

std::string QuantSpec::to_string() const {
  const QuantSpec plain;
  std::ostringstream out;
  out << (is_signed ? "int" : "uint") << bits;
  if (is_narrow) out << " narrow";
  if (!is_symmetric) out << " asymmetric";
  if (granularity == Granularity::kPerChannel) out << " per_channel(" << axis << ")";
  if (granularity == Granularity::kBlocked) out << " blocked(" << axis << ", " << block_size << ")";
  if (scale_source == Scaling::kFixed) {
    out << " fixed(" << fixed_scale << ")";
  } else if (scale_source != Scaling::kDefault) {
    out << " " << scaling_name(scale_source);
  }
  if (is_power_of_two) out << " power_of_two";
  if (percentile_rank != plain.percentile_rank) out << " rank(" << percentile_rank << ")";
  if (statistics_steps != plain.statistics_steps)
    out << " collect_steps(" << statistics_steps << ")";
  return out.str();
}

std::vector<int64_t> QuantSpec::to_integers() const {
  return {bits,
          is_signed,
          is_narrow,
          is_symmetric,
          is_power_of_two,
          static_cast<int64_t>(granularity),
          axis,
          block_size,
          static_cast<int64_t>(scale_source),
          std::bit_cast<int64_t>(fixed_scale),
          std::bit_cast<int64_t>(percentile_rank),
          statistics_steps};
}

QuantSpec QuantSpec::from_integers(const std::vector<int64_t>& fields) {
  if (static_cast<int64_t>(fields.size()) != kFieldCount) {
    refuse("number of stored fields", std::to_string(fields.size()), std::to_string(kFieldCount));
  }
  QuantSpec spec;
  spec.bits = fields[0];
  spec.is_signed = fields[1] != 0;
  spec.is_narrow = fields[2] != 0;
  spec.is_symmetric = fields[3] != 0;
  spec.is_power_of_two = fields[4] != 0;
  spec.granularity = static_cast<Granularity>(fields[5]);
  spec.axis = fields[6];
  spec.block_size = fields[7];
  spec.scale_source = static_cast<Scaling>(fields[8]);
  spec.fixed_scale = std::bit_cast<double>(fields[9]);
  spec.percentile_rank = std::bit_cast<double>(fields[10]);
  spec.statistics_steps = fields[11];
  return checked(spec);
}

std::ostream& operator<<(std::ostream& out, const QuantSpec& spec) {
  return out << spec.to_string();
}

QuantSpec intn(int64_t bits) {
  QuantSpec spec;
  spec.bits = bits;
  return checked(spec);
}

QuantSpec uintn(int64_t bits) {
  QuantSpec spec;
  spec.bits = bits;
  spec.is_signed = false;
  return checked(spec);
}

}  // namespace qcdq
