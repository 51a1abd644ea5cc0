// Compiled with -fopenmp and without the precompiled header (which has no OpenMP). The library is
// not linked to libgomp: libtorch_cpu brings its own, and a second one would not know torch's
// thread count.
#include "torch_plugin/parallel.h"

#include <ATen/Parallel.h>

namespace qcdq {

void parallel_for(int64_t begin, int64_t end, int64_t grain_size,
                  const std::function<void(int64_t, int64_t)>& body) {
  at::parallel_for(begin, end, grain_size, body);
}

}  // namespace qcdq
