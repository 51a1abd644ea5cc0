// The SIMD kernels, compiled once per instruction set by Highway's foreach_target, and the choice
// among them. The loops are in simd_elementwise-inl.h and simd_reduce-inl.h; kernel_table.h is the
// interface.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "torch_plugin/kernels/cpu_kernels.h"

// The sums keep vectors in arrays, which scalable vectors forbid: NEON serves SVE machines.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "torch_plugin/kernels/simd_kernels.cpp"
#include <hwy/aligned_allocator.h>
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "torch_plugin/kernels/simd_elementwise-inl.h"
#include "torch_plugin/kernels/simd_reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qcdq {
namespace HWY_NAMESPACE {

const KernelTable* target_table() {
  static constexpr KernelTable kTable = {
      nullptr,
      {fake_quantize<float>, fake_quantize<F16>, fake_quantize<BF16>},
      {fake_quantize_backward<float>, fake_quantize_backward<F16>, fake_quantize_backward<BF16>},
      {{quantize<float, int8_t>, quantize<float, uint8_t>, quantize<float, int16_t>,
        quantize<float, uint16_t>, quantize<float, int32_t>},
       {quantize<F16, int8_t>, quantize<F16, uint8_t>, quantize<F16, int16_t>,
        quantize<F16, uint16_t>, quantize<F16, int32_t>},
       {quantize<BF16, int8_t>, quantize<BF16, uint8_t>, quantize<BF16, int16_t>,
        quantize<BF16, uint16_t>, quantize<BF16, int32_t>}},
      {{dequantize<float, int8_t>, dequantize<float, uint8_t>, dequantize<float, int16_t>,
        dequantize<float, uint16_t>},
       {dequantize<F16, int8_t>, dequantize<F16, uint8_t>, dequantize<F16, int16_t>,
        dequantize<F16, uint16_t>},
       {dequantize<BF16, int8_t>, dequantize<BF16, uint8_t>, dequantize<BF16, int16_t>,
        dequantize<BF16, uint16_t>}},
      {learned_span<float>, learned_span<F16>, learned_span<BF16>},
      {learned_columns<float>, learned_columns<F16>, learned_columns<BF16>},
      {extremes<float>, extremes<F16>, extremes<BF16>},
      {extremes_columns<float>, extremes_columns<F16>, extremes_columns<BF16>}};
  static const KernelTable kNamed = [] {
    KernelTable table = kTable;
    table.isa = hwy::TargetName(HWY_TARGET);
    return table;
  }();
  return &kNamed;
}

}  // namespace HWY_NAMESPACE
}  // namespace qcdq
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qcdq {

HWY_EXPORT(target_table);

const std::vector<const KernelTable*>& supported_kernel_tables() {
  static const std::vector<const KernelTable*> kTables = [] {
    std::vector<const KernelTable*> tables;
    // A lower bit is a better target (hwy/targets.h).
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
      hwy::ChosenTarget one;  // a choice of our own: Highway's is shared with the whole process
      one.Update(target);
      tables.push_back(HWY_DISPATCH_TABLE(target_table)[one.GetIndex()]());
    }
    return tables;
  }();
  return kTables;
}

const KernelTable& kernel_table_named(const char* isa) {
  std::string names;
  for (const KernelTable* table : supported_kernel_tables()) {
    if (std::string(isa) == table->isa) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->isa);
  }
  throw std::invalid_argument("qcdq: QCDQ_FORCE_ISA is '" + std::string(isa) +
                              "', expected one of " + names + " (what this CPU runs)");
}

const KernelTable& kernel_table() {
  static const KernelTable* const table = [] {
    const char* forced = std::getenv("QCDQ_FORCE_ISA");
    return forced != nullptr ? &kernel_table_named(forced) : supported_kernel_tables().front();
  }();
  return *table;
}

template <typename X>
void find_extremes(const X* x, int64_t count, Extremes<ComputeType<X>>* found) {
  kernel_table().extremes[kFloatIndex<X>](x, count, found);
}

template <typename X>
void find_extremes_columns(const X* x, int64_t rows, int64_t stride, int64_t columns,
                           Extremes<ComputeType<X>>* found) {
  kernel_table().extremes_columns[kFloatIndex<X>](x, rows, stride, columns, found);
}

#define QCDQ_INSTANTIATE(X)                                            \
  template void find_extremes<X>(const X*, int64_t, Extremes<float>*); \
  template void find_extremes_columns<X>(const X*, int64_t, int64_t, int64_t, Extremes<float>*);
QCDQ_INSTANTIATE(float)
QCDQ_INSTANTIATE(F16)
QCDQ_INSTANTIATE(BF16)

}  // namespace qcdq
#endif  // HWY_ONCE
