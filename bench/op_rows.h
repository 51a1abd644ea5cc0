// The rows of bench_ops: for one op, pass, granularity, type and size, what is called for
// x.clone(), qcdq's op, aten's op and the same formula composed of torch ops. Forward and backward
// have "traffic" too: x.clone() and x + grad, which read and write the same arrays and do nothing
// else.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "bench/interleave.h"

namespace qcdq::bench {

struct OpCase {
  std::string op;           // quantize, dequantize, fake_quantize, fake_quantize_learned,
                            // choose_qparams, fake_quantize_dynamic
  std::string pass;         // fwd, fwd_grad (x requires a gradient, no backward), fwd_bwd
  std::string granularity;  // per_tensor, channel_0, channel_1, channel_last, blocked
  at::ScalarType type;
  int64_t bytes;  // of x
  int threads;
};

/// The impls that exist for a case, in the order of make_rows; "copy" is the ruler and the first.
std::vector<std::string> impls_of(const OpCase& op_case);

/// Allocates the case's tensors (seed 0) and says what to call. Sets torch's number of threads.
std::vector<Row> make_rows(const OpCase& op_case);

const char* type_name(at::ScalarType type);

}  // namespace qcdq::bench
