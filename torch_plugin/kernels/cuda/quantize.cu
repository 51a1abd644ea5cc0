// GPU kernels of quantize (elementwise.h); apart from dequantize.cu, so that nvcc compiles both at
// once.
#include "torch_plugin/kernels/cuda/launch.h"

namespace qcdq::cuda {

cudaError_t quantize(const Call& call, FloatType type, CodeType code_type, const void* x,
                     void* codes) {
  return with_float_type(type, [&]<typename X>(X) {
    return with_code_type(code_type, [&]<typename Code>(Code) {
      return with_accumulator<X>(call.accumulator, [&]<typename Acc>(Acc) {
        return launch_elementwise<Quantize<X, Code, Acc>>(call, x, nullptr, codes);
      });
    });
  });
}

}  // namespace qcdq::cuda
