// The ops of quantized_decomposed (torch.ao's FX and PT2E forms) where no Python has registered
// them. The loaders of this folder call it; symbolics/quantized_decomposed.cpp exports the ops.
#pragma once

namespace qcdq {

/// Defines the ops of quantized_decomposed that are missing, with kernels that compute what
/// torch.ao's do. True where any was. Called only once a model is found to need them: torch.ao
/// refuses to be imported after another library has defined its ops. Example: a .pt file whose
/// load fails by "Unknown builtin op: quantized_decomposed::quantize_per_tensor" loads after it.
bool register_quantized_decomposed();

}  // namespace qcdq
