// The part of ExportOptions that decides which nodes are written: symbolic functions, quantizer/
// and qdq/ see it. No torch.
#pragma once

namespace qcdq {

struct EmissionOptions {
  bool signed_activations = false;  // --activation-storage signed
  bool qdq_weights = false;         // --weights qdq
  bool uint8_weights = false;       // --weight-storage uint8
  bool cast_f64 = false;
};

}  // namespace qcdq
