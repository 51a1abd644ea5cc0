// Reading the archive; see source/pt2/archive.h. source/pt2/graph.cpp makes the graph of the
// program.
#include "symbolic/source/pt2/archive.h"

#include <ATen/ATen.h>
#include <ATen/MapAllocator.h>
#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

namespace qcdq {
namespace {

using caffe2::serialize::PyTorchStreamReader;
using nlohmann::json;

constexpr int64_t kSchemaMajor = 8;
constexpr const char* kHowToSave = "save one with torch.export.save (torch 2.11 to 2.15)";

/// The file's records: JSON is copied, tensors stay in the mapping.
class Records {
 public:
  explicit Records(const std::string& path) : path_(path) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) fail("No such file or directory");
    if (std::filesystem::is_directory(status)) fail("is a directory, expected a .pt2 file");
    std::ifstream file(path, std::ios::binary);
    if (!file) fail("can't be read");
    char magic[4] = {};
    file.read(magic, sizeof magic);
    if (file.gcount() == 0) fail("the file is empty");
    if (file.gcount() < 4 || magic[0] != 'P' || magic[1] != 'K') {
      fail(std::string("not a zip archive, and so no .pt2 file; ") + kHowToSave);
    }
    try {
      reader_ = std::make_unique<PyTorchStreamReader>(path);
      names_ = reader_->getAllRecords();
    } catch (const std::exception&) {
      fail("the zip archive is truncated or damaged");
    }
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(path_ + ": " + what);
  }
  const std::vector<std::string>& names() const { return names_; }
  bool has(const std::string& name) const {
    return std::find(names_.begin(), names_.end(), name) != names_.end();
  }

  std::string text(const std::string& name) {
    const auto [data, size] = copy(name);
    return std::string(static_cast<const char*>(data.get()), size);
  }
  json parse(const std::string& name) {
    try {
      return json::parse(text(name));
    } catch (const json::exception& error) {
      fail("record " + name + " is damaged: " + error.what());
    }
  }

  /// The record as bytes in a tensor: in the file's mapping where it is stored as it is.
  at::Tensor bytes(const std::string& name) {
    if (!has(name)) fail("record " + name + " is missing");
    const auto size = static_cast<int64_t>(reader_->getRecordSize(name));
    const size_t offset = reader_->getRecordOffset(name);
    if (size > 0 && is_stored(reader_->getRecordHeaderOffset(name)) && offset % 16 == 0 &&
        offset + static_cast<size_t>(size) <= mapping().size) {
      // Private pages: an op that writes to a weight never changes the file.
      const std::shared_ptr<Mapping> keep = mapping_;
      return at::from_blob(
          static_cast<char*>(keep->data.get()) + offset, {size}, [keep](void*) {}, at::kByte);
    }
    auto [data, copied] = copy(name);
    auto keep = std::make_shared<at::DataPtr>(std::move(data));
    return at::from_blob(
        keep->get(), {static_cast<int64_t>(copied)}, [keep](void*) {}, at::kByte);
  }

 private:
  struct Mapping {
    at::DataPtr data;
    size_t size = 0;
  };

  std::pair<at::DataPtr, size_t> copy(const std::string& name) {
    if (!has(name)) fail("record " + name + " is missing");
    try {
      auto [data, size] = reader_->getRecord(name);
      return {std::move(data), size};
    } catch (const std::exception&) {
      fail("record " + name + " is damaged");
    }
  }

  const Mapping& mapping() {
    if (!mapping_) {
      mapping_ = std::make_shared<Mapping>();
      const auto size = static_cast<size_t>(std::filesystem::file_size(path_));
      mapping_->data = at::MapAllocator::makeDataPtr(path_, 0, size, &mapping_->size);
    }
    return *mapping_;
  }

  /// Compression method 0 in the record's local header.
  bool is_stored(size_t header) {
    if (header + 10 > mapping().size) return false;
    const char* method = static_cast<const char*>(mapping().data.get()) + header + 8;
    return method[0] == 0 && method[1] == 0;
  }

  std::string path_;
  std::unique_ptr<PyTorchStreamReader> reader_;
  std::vector<std::string> names_;
  std::shared_ptr<Mapping> mapping_;
};

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

/// The name of the program to read: models/NAME.json.
std::string choose_model(const Records& records, const std::string& wanted) {
  std::vector<std::string> models;
  std::string list;
  bool compiled = false;
  for (const std::string& name : records.names()) {
    compiled |= name.starts_with("data/aotinductor/");
    if (!name.starts_with("models/") || !name.ends_with(".json")) continue;
    models.push_back(name.substr(7, name.size() - 12));
    list += (list.empty() ? "" : ", ") + models.back();
  }
  if (models.empty()) {
    if (records.has("serialized_exported_program.json")) {
      records.fail(std::string("written by torch 2.8 or older; ") + kHowToSave);
    }
    records.fail(compiled
                     ? "holds code compiled by AOTInductor and no graph; " + std::string(kHowToSave)
                     : std::string("holds no exported program; ") + kHowToSave);
  }
  const auto has = [&](const std::string& name) {
    return std::find(models.begin(), models.end(), name) != models.end();
  };
  if (!wanted.empty()) {
    if (!has(wanted)) records.fail("holds no program '" + wanted + "' (it has " + list + ")");
    return wanted;
  }
  if (models.size() == 1) return models[0];
  if (has("model")) return "model";
  records.fail("holds several programs (" + list + "): name one");
}

void check_version(Records& records, const json& program) {
  for (const auto& [name, value] : {std::pair<const char*, const char*>{"archive_format", "pt2"},
                                    {"archive_version", "0"},
                                    {"byteorder", "little"}}) {
    if (!records.has(name)) continue;
    const std::string found = trimmed(records.text(name));
    if (found != value) {
      records.fail(std::string(name) + " is '" + found.substr(0, 20) + "', expected '" + value +
                   "'");
    }
  }
  const json& version = pt2_member(program, "schema_version");
  const int64_t major = pt2_member(version, "major").get<int64_t>();
  if (major == kSchemaMajor) return;
  records.fail("schema version " + std::to_string(major) + "." +
               std::to_string(pt2_member(version, "minor").get<int64_t>()) + " (torch " +
               program.value("torch_version", "unknown") + "), expected " +
               std::to_string(kSchemaMajor) + ".x; " + kHowToSave);
}

std::vector<int64_t> concrete(const json& sizes) {
  std::vector<int64_t> result;
  for (const json& size : sizes) result.push_back(pt2_member(size, "as_int").get<int64_t>());
  return result;
}

/// The tensors of one config file: data/weights/NAME_weights_config.json.
void add_tensors(Records& records, const std::string& folder, const std::string& config,
                 std::unordered_map<std::string, at::Tensor>& tensors) {
  if (!records.has(folder + config)) return;
  std::unordered_map<std::string, at::Tensor> storages;  // tied weights share a record
  const json content = records.parse(folder + config);
  for (const auto& [name, payload] : pt2_member(content, "config").items()) {
    const json& meta = pt2_member(payload, "tensor_meta");
    if (meta.is_null()) continue;  // an object: refused where the program takes it
    if (payload.value("use_pickle", false)) {
      records.fail("'" + name + "' is pickled (a tensor subclass), expected a plain tensor");
    }
    if (pt2_member(meta, "layout").get<int64_t>() != 7) {
      records.fail("'" + name + "' is sparse, expected a dense tensor");
    }
    const at::ScalarType type = pt2_scalar_type(pt2_member(meta, "dtype"));
    const std::vector<int64_t> sizes = concrete(pt2_member(meta, "sizes"));
    const std::vector<int64_t> strides = concrete(pt2_member(meta, "strides"));
    const int64_t start = pt2_member(pt2_member(meta, "storage_offset"), "as_int").get<int64_t>();
    if (c10::multiply_integers(sizes) == 0) {
      tensors[name] = at::empty(sizes, type);
      continue;
    }
    const std::string record = folder + pt2_member(payload, "path_name").get<std::string>();
    at::Tensor& bytes = storages[record];
    if (!bytes.defined()) bytes = records.bytes(record);
    int64_t last = start;
    for (size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides.at(i);
    const auto width = static_cast<int64_t>(c10::elementSize(type));
    if (start < 0 || last < start || (last + 1) * width > bytes.numel()) {
      records.fail("'" + name + "' needs " + std::to_string((last + 1) * width) +
                   " bytes, record " + record + " has " + std::to_string(bytes.numel()));
    }
    // A view by pointer, not by slicing: the record may be no multiple of the element's size.
    const at::Tensor keep = bytes;
    tensors[name] = at::from_blob(
        static_cast<char*>(bytes.data_ptr()) + start * width, sizes, strides, [keep](void*) {},
        at::TensorOptions(type));
  }
}

}  // namespace

const json& pt2_member(const json& content, const char* key) {
  const auto found = content.is_object() ? content.find(key) : content.end();
  if (!content.is_object() || found == content.end()) {
    std::string text = content.dump();
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    throw std::runtime_error("the exported program is damaged: no '" + std::string(key) + "' in " +
                             text);
  }
  return *found;
}

std::pair<const std::string&, const json&> pt2_union(const json& content) {
  if (!content.is_object() || content.size() != 1) {
    throw std::runtime_error("the exported program is damaged: expected one kind of value, got " +
                             content.dump().substr(0, 80));
  }
  const auto entry = content.begin();
  return {entry.key(), entry.value()};
}

at::ScalarType pt2_scalar_type(const json& number) {
  static const std::unordered_map<int64_t, at::ScalarType> types = {{1, at::kByte},
                                                                    {2, at::kChar},
                                                                    {3, at::kShort},
                                                                    {4, at::kInt},
                                                                    {5, at::kLong},
                                                                    {6, at::kHalf},
                                                                    {7, at::kFloat},
                                                                    {8, at::kDouble},
                                                                    {9, at::kComplexHalf},
                                                                    {10, at::kComplexFloat},
                                                                    {11, at::kComplexDouble},
                                                                    {12, at::kBool},
                                                                    {13, at::kBFloat16},
                                                                    {28, at::kUInt16},
                                                                    {29, at::kFloat8_e4m3fn},
                                                                    {30, at::kFloat8_e5m2},
                                                                    {31, at::kFloat8_e4m3fnuz},
                                                                    {32, at::kFloat8_e5m2fnuz},
                                                                    {33, at::kFloat8_e8m0fnu},
                                                                    {34, at::kUInt32},
                                                                    {35, at::kUInt64}};
  const auto found = types.find(number.get<int64_t>());
  if (found == types.end()) {
    throw std::runtime_error("element type number " + number.dump() + " is unknown");
  }
  return found->second;
}

Pt2Archive read_pt2_archive(const std::string& path, const std::string& model) {
  Records records(path);
  Pt2Archive archive;
  archive.path = path;
  const std::string name = choose_model(records, model);
  archive.program = records.parse("models/" + name + ".json");
  check_version(records, archive.program);
  add_tensors(records, "data/weights/", name + "_weights_config.json", archive.tensors);
  add_tensors(records, "data/constants/", name + "_constants_config.json", archive.tensors);
  const std::string samples = "data/sample_inputs/" + name + ".pt";
  if (records.has(samples)) {
    const std::string bytes = records.text(samples);
    archive.sample_inputs.assign(bytes.begin(), bytes.end());
  }
  return archive;
}

}  // namespace qcdq
