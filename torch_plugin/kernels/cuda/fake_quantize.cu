// GPU kernels of fake_quantize and its backward (elementwise.h).
#include "torch_plugin/kernels/cuda/launch.h"

namespace qcdq::cuda {

cudaError_t fake_quantize(const Call& call, FloatType type, const void* x, void* y) {
  return with_float_type(type, [&]<typename X>(X) {
    return with_accumulator<X>(call.accumulator, [&]<typename Acc>(Acc) {
      return launch_elementwise<FakeQuantize<X, Acc>>(call, x, nullptr, y);
    });
  });
}

cudaError_t fake_quantize_backward(const Call& call, FloatType type, const void* grad,
                                   const void* x, void* grad_x) {
  return with_float_type(type, [&]<typename X>(X) {
    return with_accumulator<X>(call.accumulator, [&]<typename Acc>(Acc) {
      return launch_elementwise<FakeQuantizeBackward<X, Acc>>(call, grad, x, grad_x);
    });
  });
}

}  // namespace qcdq::cuda
