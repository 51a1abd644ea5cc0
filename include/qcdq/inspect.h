// What an .onnx file holds: ops, types, sizes, quantisers and how much of it ONNX Runtime (ORT)
// will run in int8. `qcdq inspect` prints it; no torch and no ONNX Runtime is needed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "qcdq/api.h"
#include "qcdq/symbolic.h"

namespace qcdq {

struct NamedType {
  std::string name;
  TensorType type;
};

struct InitializerTotal {
  int64_t tensors = 0;
  uint64_t bytes = 0;
};

/// One quantiser: a QuantizeLinear with what follows it, or a DequantizeLinear of an initializer.
struct QuantizerSummary {
  std::string node;    // name of the QuantizeLinear, or of the DequantizeLinear of an initializer
  std::string tensor;  // what is quantised: the Q's input, or the initializer
  std::string role;    // "activation", "weight", "bias" (an int32 initializer)
  std::string dtype;   // of the codes: "uint8"
  bool has_range = false;  // a Clip narrows the type's range to [quant_min, quant_max]
  int64_t quant_min = 0;
  int64_t quant_max = 0;
  int64_t axis = -1;                // -1: per tensor
  int64_t block_size = 0;           // 0: not blocked
  std::vector<double> scale;        // empty where it is computed at run time
  std::vector<int64_t> zero_point;  // likewise; {0} where the node has none
};

/// Will ORT run the node in int8? `reason` says why not, and what to change.
struct CoverageLine {
  std::string node;
  std::string op_type;
  bool int8 = false;
  std::string reason;
};

struct ModelSummary {
  std::string path;
  std::string producer;
  int64_t ir_version = 0;
  int64_t opset = 0;
  std::map<std::string, int64_t> domains;  // opset imports beyond ONNX's own
  uint64_t file_bytes = 0;
  uint64_t external_bytes = 0;
  std::vector<NamedType> inputs;
  std::vector<NamedType> outputs;
  std::map<std::string, int64_t> nodes_by_op;
  std::map<std::string, InitializerTotal> initializers;  // by element type
  std::vector<QuantizerSummary> quantizers;              // in the graph's order
  std::vector<CoverageLine> coverage;  // Conv, Gemm, MatMul, Add, ...: what int8 could run
  std::vector<std::pair<std::string, std::string>> metadata;
  bool has_subgraphs = false;  // bodies of If, Loop and Scan are not looked into
};

/// Reads `path` and sums it up. Throws std::runtime_error with one line: a missing file, a file
/// that is not ONNX, external data that is not there.
///
///   qcdq::ModelSummary s = qcdq::inspect_onnx("model.onnx");
///   for (const auto& line : s.coverage) if (!line.int8) std::cout << line.reason << '\n';
QCDQ_API ModelSummary inspect_onnx(const std::string& path);

}  // namespace qcdq
