// Splits work over torch's intra-op threads. A file of its own because at::parallel_for is a
// template that runs on one thread unless its includer is compiled with -fopenmp (see
// parallel.cpp).
#pragma once

#include <cstdint>
#include <functional>

namespace qcdq {

/// Calls body(part_begin, part_end) for disjoint parts of [begin, end), each of at least grain_size
/// elements, on as many threads as at::get_num_threads() allows.
void parallel_for(int64_t begin, int64_t end, int64_t grain_size,
                  const std::function<void(int64_t, int64_t)>& body);

}  // namespace qcdq
