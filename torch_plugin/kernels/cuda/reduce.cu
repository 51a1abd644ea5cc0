// GPU kernels of the ops that reduce: the gradients of fake_quantize_learned, and choose_qparams.
// What each thread does is in reduce.h, who sums what in reduce_plan.h.
#include "torch_plugin/kernels/cuda/launch.h"

namespace qcdq::cuda {
namespace {

// Pieces is RunPieces, ColumnPieces or SlotTotals.
template <typename Pieces>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(const __grid_constant__ Pieces pieces) {
  using Sum = typename Pieces::Sum;
  // Raw memory: shared variables of a type with initialisers are not allowed.
  __shared__ alignas(Sum) unsigned char storage[kReduceThreads * sizeof(Sum)];
  Sum* sums = reinterpret_cast<Sum*>(storage);
  const int thread = static_cast<int>(threadIdx.x);
  sums[thread] = pieces.lane_sum(blockIdx.x, thread);
  const Team team = pieces.team();  // the same in all threads
  for (int half = team.size() / 2; half > 0; half /= 2) {
    // The last steps stay within a warp, each of whose lanes wrote what the step reads.
    if (half >= 32) {
      __syncthreads();
    } else {
      __syncwarp();
    }
    fold(sums, thread, team, half);
  }
  // The first lane of a team wrote its total itself: no barrier is needed.
  pieces.finish(blockIdx.x, thread, sums[thread]);
}

template <typename Pieces>
cudaError_t launch_pieces(const Pieces& pieces, cudaStream_t stream) {
  return launch(&reduce_kernel<Pieces>, pieces.blocks(), kReduceThreads, stream, pieces);
}

// The kernels of a reduction.
template <typename Work, typename Store>
cudaError_t reduce(const ParamLayout& layout, const Work& work, const Store& store, void* memory,
                   cudaStream_t stream) {
  auto* slots = static_cast<typename Work::Sum*>(memory);
  const auto run = [&](const auto& pieces) {
    const cudaError_t status = launch_pieces(pieces, stream);
    if (status != cudaSuccess || pieces.plan.one_piece_each()) return status;
    return launch_pieces(SlotTotals<Store>{SlotPlan(pieces.plan), store, slots}, stream);
  };
  if (has_runs(layout)) {
    return run(RunPieces<Work, Store>{RunPlan(layout, Work::kVector), work, store, slots});
  }
  return run(ColumnPieces<Work, Store>{ColumnPlan(layout), work, store, slots});
}

}  // namespace

int64_t slot_bytes(const ParamLayout& layout, FloatType type) {
  static_assert(sizeof(ExtremesSum<double>) <= sizeof(LearnedSum));
  constexpr auto kBytes = static_cast<int64_t>(sizeof(LearnedSum));
  if (!has_runs(layout)) return kBytes * ColumnPlan(layout).slots();
  const int element = type == FloatType::kF64 ? 8 : type == FloatType::kF32 ? 4 : 2;
  return kBytes * RunPlan(layout, kVectorBytes / element).slots();
}

cudaError_t learned_backward(const Call& call, FloatType type, const void* grad, const void* x,
                             void* grad_x, void* slots, const StoreGradients& store) {
  return with_float_type(type, [&]<typename X>(X) {
    return with_accumulator<X>(call.accumulator, [&]<typename Acc>(Acc) {
      using Work = LearnedBackward<X, Acc>;
      const Work work{static_cast<const X*>(grad), static_cast<const X*>(x),
                      static_cast<X*>(grad_x), all_aligned(grad, x, grad_x),
                      Params<typename Work::T, typename Work::Acc>(call.params)};
      return reduce(call.layout, work, store, slots, call.stream);
    });
  });
}

cudaError_t choose_qparams(const ParamLayout& layout, FloatType type, const void* x,
                           int64_t quant_min, int64_t quant_max, bool symmetric, float* scale,
                           int32_t* zero_point, void* slots, cudaStream_t stream) {
  return with_float_type(type, [&]<typename X>(X) {
    const FindExtremes<X> work{static_cast<const X*>(x), all_aligned(x)};
    const StoreChosen<ComputeType<X>> store{quant_min, quant_max, symmetric, scale, zero_point};
    return reduce(layout, work, store, slots, stream);
  });
}

}  // namespace qcdq::cuda
