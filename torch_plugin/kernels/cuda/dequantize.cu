// GPU kernels of dequantize (elementwise.h).
#include "torch_plugin/kernels/cuda/launch.h"

namespace qcdq::cuda {

cudaError_t dequantize(const Call& call, FloatType type, CodeType code_type, const void* codes,
                       void* y) {
  return with_float_type(type, [&]<typename X>(X) {
    return with_code_type(code_type, [&]<typename Code>(Code) {
      return with_accumulator<X>(call.accumulator, [&]<typename Acc>(Acc) {
        if constexpr (sizeof(Code) == 4 && std::is_same_v<Acc, float>) {
          return cudaErrorInvalidValue;  // differences of int32 codes need f64
        } else {
          return launch_elementwise<Dequantize<X, Code, Acc>>(call, codes, nullptr, y);
        }
      });
    });
  });
}

}  // namespace qcdq::cuda
