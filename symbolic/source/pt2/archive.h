// What a .pt2 file holds, before its graph is read: the program's JSON and its tensors. Opened by
// libtorch's own archive reader; weights stay in the mapped file.
#pragma once

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <vector>

namespace qcdq {

struct Pt2Archive {
  std::string path;
  nlohmann::json program;  // schema 8.x of torch/_export/serde/schema.py
  /// Parameters, buffers and constants by their names in the module; those that share a record
  /// share their storage.
  std::unordered_map<std::string, at::Tensor> tensors;
  /// torch.save of (args, kwargs); empty where the file has none.
  std::vector<char> sample_inputs;
};

/// Opens a .pt2 file. `model`: which of its programs, "" = the only one, or "model". Throws
/// std::runtime_error with one line that says what is wrong: not such an archive, another schema
/// version, a tensor that is pickled.
Pt2Archive read_pt2_archive(const std::string& path, const std::string& model);

/// Torch's element type for the number in the file; throws std::runtime_error for an unknown one.
at::ScalarType pt2_scalar_type(const nlohmann::json& number);

/// `content.at(key)`, with an error that names the key and where it is missing.
const nlohmann::json& pt2_member(const nlohmann::json& content, const char* key);

/// The kind and the content of a union: {"as_int": 3}.
std::pair<const std::string&, const nlohmann::json&> pt2_union(const nlohmann::json& content);

}  // namespace qcdq
