// Launches and type dispatch that the .cu files share. Only nvcc compiles it.
#pragma once

#include <cuda_runtime.h>

#include "torch_plugin/kernels/cuda/cuda_kernels.h"
#include "torch_plugin/kernels/cuda/elementwise.h"

namespace qcdq::cuda {

/// Calls body(X{}) with the kernels' type of the elements.
template <typename Body>
cudaError_t with_float_type(FloatType type, Body&& body) {
  switch (type) {
    case FloatType::kF16:
      return body(F16{});
    case FloatType::kBF16:
      return body(BF16{});
    case FloatType::kF64:
      return body(double{});
    default:
      return body(float{});
  }
}

template <typename Body>
cudaError_t with_code_type(CodeType type, Body&& body) {
  switch (type) {
    case CodeType::kInt8:
      return body(int8_t{});
    case CodeType::kUint8:
      return body(uint8_t{});
    case CodeType::kInt16:
      return body(int16_t{});
    case CodeType::kUint16:
      return body(uint16_t{});
    default:
      return body(int32_t{});
  }
}

/// Calls body(Acc{}) with the type that holds codes of elements of type X.
template <typename X, typename Body>
cudaError_t with_accumulator(Accumulator accumulator, Body&& body) {
  if constexpr (!std::is_same_v<X, double>) {
    if (accumulator == Accumulator::kFloat) return body(float{});
  }
  return body(double{});
}

/// `blocks` fits a grid: at 2^31 blocks the smallest piece of work is larger than any GPU's memory.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream,
                   const Arguments&... arguments) {
  if (blocks == 0) return cudaSuccess;  // nothing to do; a grid of 0 blocks is an error
  if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
  kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(arguments...);
  return cudaGetLastError();
}

template <typename Body>
__global__ void __launch_bounds__(kThreads) elementwise_kernel(const __grid_constant__ Body body) {
  body.run(blockIdx.x, static_cast<int>(threadIdx.x));
}

/// Op over the whole of call.layout; `second` is null where Op has one input.
template <typename Op>
cudaError_t launch_elementwise(const Call& call, const void* first, const void* second, void* out) {
  const Params<typename Op::T, typename Op::Acc> params(call.params);
  const auto start = [&]<Sharing kSharing>() {
    using Body = Elementwise<Op, kSharing>;
    const Body body{static_cast<const typename Body::First*>(first),
                    static_cast<const typename Body::Second*>(second),
                    static_cast<typename Body::Out*>(out),
                    call.layout.numel(),
                    all_aligned(first, second, out),
                    ParamIndex(call.layout),
                    params};
    return launch(&elementwise_kernel<Body>, body.blocks(), kThreads, call.stream, body);
  };
  // f64 and ranges beyond 2^24 are rare: the general kernel serves them, whatever the layout.
  if constexpr (std::is_same_v<typename Op::Acc, float>) {
    constexpr int kVector = vector_of<Op>();
    switch (sharing_of(call.layout, kVector)) {
      case Sharing::kAll:
        return start.template operator()<Sharing::kAll>();
      case Sharing::kVector:
        return start.template operator()<Sharing::kVector>();
      case Sharing::kConsecutive:
        if (!params.template can_read<kVector>()) break;
        return start.template operator()<Sharing::kConsecutive>();
      case Sharing::kAny:
        break;
    }
  }
  return start.template operator()<Sharing::kAny>();
}

}  // namespace qcdq::cuda
