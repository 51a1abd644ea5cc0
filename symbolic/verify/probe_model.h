// An .onnx file as verifier.cpp needs it: its quantisers, and copies of the model with more
// outputs. It keeps the protobuf message whole (read.cpp's OnnxGraph would drop what the exporter
// doesn't know). No torch.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

/// One QuantizeLinear of the main graph, by the names of its values; "" where there is none.
struct FileQuantizer {
  std::string node;  // its name
  std::string x;     // what is quantised
  std::string scale;
  std::string zero_point;
  std::string quantized;  // the node's own output
  std::string codes;      // what a DequantizeLinear sees: that output, or a Clip's behind it
  std::string clip_min;
  std::string clip_max;
  int64_t axis = 1;
  int64_t block_size = 0;
  bool constant = false;  // x is an initializer: a weight
};

/// A float bias that export rounded to int32 codes, as the file's metadata has it.
struct RoundedBias {
  std::string value;  // the DequantizeLinear's output
  std::string codes;
  std::string scale;
  std::vector<float> floats;  // what it was
};

using NamedTensors = std::unordered_map<std::string, TensorData>;

class OnnxFile {
 public:
  /// Throws std::runtime_error where `path` can't be read or is no ONNX file.
  explicit OnnxFile(const std::string& path);
  ~OnnxFile();
  OnnxFile(const OnnxFile&) = delete;
  OnnxFile& operator=(const OnnxFile&) = delete;

  const std::string& path() const { return path_; }
  /// The folder in which external data is looked up.
  std::string folder() const;
  const std::vector<std::string>& outputs() const { return outputs_; }
  /// In the order of the graph.
  const std::vector<FileQuantizer>& quantizers() const { return quantizers_; }
  bool is_graph_input(const std::string& value) const;
  const std::vector<RoundedBias>& rounded_biases() const { return rounded_biases_; }

  /// The model's bytes with `values` as further outputs, behind its own.
  std::string with_outputs(const std::vector<std::string>& values) const;
  /// The model's bytes, cut at the codes of each quantiser in `types`: what used them reads a
  /// further graph input of that element type instead, and the codes are further outputs. Fed with
  /// the codes of another run, it says what each part of the model makes of them by itself.
  std::string cut_at_codes(const std::unordered_map<std::string, DType>& types) const;
  /// Name of the graph input that stands for `codes` in cut_at_codes().
  static std::string cut_input(const std::string& codes);
  /// The model's bytes, each quantiser's input (weights excepted) moved by `fraction` of its
  /// quantiser's range. A quantiser whose scale is no float32 initializer of one element is left as
  /// it is.
  std::string with_moved_quantizer_inputs(double fraction) const;
  /// The model's bytes with the rounded biases as the floats that they were, and `values` as
  /// further outputs.
  std::string with_float_biases(const std::vector<std::string>& values) const;

 private:
  struct Model;
  std::string path_;
  std::unique_ptr<Model> model_;
  std::vector<std::string> outputs_;
  std::vector<FileQuantizer> quantizers_;
  std::vector<RoundedBias> rounded_biases_;
};

}  // namespace qcdq
