// The SIMD kernels of one instruction set as a table of functions, and the choice among them.
// Filled by simd_kernels.cpp (compiled once per instruction set), called through cpu_kernels.h.
// Torch-free.
#pragma once

#include <cstdint>
#include <vector>

#include "torch_plugin/kernels/param_layout.h"

namespace qcdq {

struct LearnedSums;
template <typename T>
struct Extremes;

/// Runs [begin, end) of a layout with their parameters, as the SIMD kernels take them.
struct SimdRuns {
  const ParamLayout* layout;
  int64_t begin;
  int64_t end;
  const float* scale;
  const float* zero_point;
  float quant_min;
  float quant_max;
  bool streamed = false;  // stores may go past the caches
};

struct SimdParams {
  const float* scale;
  const float* zero_point;
  float quant_min;
  float quant_max;
};

/// First index: f32, f16, bf16. Second index: int8, uint8, int16, uint16, int32. Pointers are to
/// elements of these types and need no alignment; inputs and outputs must not overlap.
struct KernelTable {
  const char* isa;
  void (*fake_quantize[3])(const void* x, void* y, const SimdRuns& runs);
  void (*fake_quantize_backward[3])(const void* grad, const void* x, void* grad_x,
                                    const SimdRuns& runs);
  void (*quantize[3][5])(const void* x, void* codes, const SimdRuns& runs);
  void (*dequantize[3][4])(const void* codes, void* y, const SimdRuns& runs);
  void (*learned_span[3])(const void* grad, const void* x, void* grad_x, int64_t count,
                          const SimdParams& params, LearnedSums* sums);
  void (*learned_columns[3])(const void* grad, const void* x, void* grad_x, int64_t rows,
                             int64_t stride, int64_t columns, const SimdParams& params,
                             LearnedSums* sums);
  void (*extremes[3])(const void* x, int64_t count, Extremes<float>* found);
  void (*extremes_columns[3])(const void* x, int64_t rows, int64_t stride, int64_t columns,
                              Extremes<float>* found);
};

/// The tables that were compiled and that this CPU runs, the best first.
const std::vector<const KernelTable*>& supported_kernel_tables();

/// The table named `isa` (as KernelTable::isa). Throws std::invalid_argument, which lists the names
/// of supported_kernel_tables(), for any other name. Example: `kernel_table_named("AVX2")`.
const KernelTable& kernel_table_named(const char* isa);

/// The table in use: the one that the environment variable QCDQ_FORCE_ISA names, else the best.
/// Read once, at the first call that succeeds; throws as kernel_table_named does.
const KernelTable& kernel_table();

}  // namespace qcdq
