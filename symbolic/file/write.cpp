// Writes the model as a stream: protobuf serialises the skeleton, the weights go from where they
// are straight into the file. Files appear by rename, complete and synced, or not at all.
#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "symbolic/file/file.h"
#include "symbolic/file/proto.h"

namespace qcdq {
namespace {

namespace fs = std::filesystem;

// Field numbers of onnx.proto, as length-delimited tags.
constexpr uint8_t kModelGraph = (7 << 3) | 2;
constexpr uint8_t kGraphInitializer = (5 << 3) | 2;
constexpr uint8_t kTensorRawData = (9 << 3) | 2;

constexpr uint64_t kLargestProtobuf = INT_MAX;  // a parser refuses more
constexpr size_t kSmallestExternal = 1024;      // below it, a tensor stays in the model file
constexpr uint64_t kPage = 4096;                // mmap of a whole tensor needs a page's start
constexpr uint64_t kCacheLine = 64;
constexpr size_t kBufferBytes = size_t{1} << 18;
constexpr size_t kLargestWrite = size_t{1} << 30;  // Linux writes at most 2 GiB - 4 KiB at a time

[[noreturn]] void fail(const std::string& path, int error) {
  throw std::runtime_error("cannot write " + path + ": " + std::generic_category().message(error));
}

/// A file under a temporary name in the folder of `path`. Gone when the object goes, unless
/// commit() renamed it.
class NewFile {
 public:
  explicit NewFile(const std::string& path) : path_(path) {
    static std::atomic<unsigned> counter{0};
    const fs::path target(path);
    for (int attempt = 0; attempt < 100; ++attempt) {
      temporary_ = (target.parent_path() /
                    ("." + target.filename().string() + "." + std::to_string(::getpid()) + "." +
                     std::to_string(counter++) + ".tmp"))
                       .string();
      // 0666 and the process's umask: the permissions of any newly made file.
      fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ >= 0 || errno != EEXIST) break;
    }
    if (fd_ < 0) {
      temporary_.clear();
      fail(path_, errno);
    }
    buffer_.reserve(kBufferBytes);
  }
  ~NewFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void append(const void* data, size_t bytes) {
    written_ += bytes;
    if (bytes >= kBufferBytes) {
      flush();
      write_out(static_cast<const char*>(data), bytes);
      return;
    }
    if (buffer_.size() + bytes > kBufferBytes) flush();
    buffer_.append(static_cast<const char*>(data), bytes);
  }
  void append(const std::string& bytes) { append(bytes.data(), bytes.size()); }
  void pad_to(uint64_t offset) {
    static constexpr char kZeros[kPage] = {};
    while (written_ < offset) append(kZeros, std::min<uint64_t>(kPage, offset - written_));
  }
  uint64_t written() const { return written_; }

  void sync() {
    flush();
    if (::fsync(fd_) != 0) fail(path_, errno);
    const int fd = std::exchange(fd_, -1);
    if (::close(fd) != 0) fail(path_, errno);
  }
  void commit() {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(path_, errno);
    temporary_.clear();
  }

 private:
  void flush() {
    write_out(buffer_.data(), buffer_.size());
    buffer_.clear();
  }
  void write_out(const char* data, size_t bytes) {
    while (bytes > 0) {
      const ssize_t n = ::write(fd_, data, std::min(bytes, kLargestWrite));
      if (n < 0) {
        if (errno == EINTR) continue;
        fail(path_, errno);
      }
      data += n;
      bytes -= static_cast<size_t>(n);
    }
  }

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  std::string buffer_;
  uint64_t written_ = 0;
};

/// Keeps what is at `path` under a second name until drop() or restore(): two files can't be
/// renamed at once, so the data file's old content must be able to come back if the model file's
/// rename fails.
class Backup {
 public:
  explicit Backup(const std::string& path)
      : path_(path), kept_(path + "." + std::to_string(::getpid()) + ".old") {
    ::unlink(kept_.c_str());
    if (::link(path.c_str(), kept_.c_str()) != 0) {
      if (errno != ENOENT) fail(path, errno);
      kept_.clear();
    }
  }
  ~Backup() {
    if (!kept_.empty()) ::unlink(kept_.c_str());
  }
  void restore() {
    if (kept_.empty()) {
      ::unlink(path_.c_str());
    } else if (::rename(kept_.c_str(), path_.c_str()) == 0) {
      kept_.clear();
    }
  }

 private:
  std::string path_;
  std::string kept_;
};

/// The file to replace: a symbolic link's target, never the link; never a device or a folder.
std::string real_target(const std::string& path) {
  std::error_code error;
  fs::path target(path);
  if (fs::is_symlink(target, error)) {
    target = fs::weakly_canonical(target, error);
    if (error) fail(path, error.value());
  }
  const fs::file_status status = fs::status(target, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    if (fs::is_directory(status)) fail(path, EISDIR);
    throw std::runtime_error("cannot write " + path + ": it is not a regular file");
  }
  if (!target.has_filename()) {
    throw std::runtime_error("cannot write '" + path + "': expected a file name");
  }
  return target.string();
}

void sync_folder_of(const std::string& path) {
  fs::path folder = fs::path(path).parent_path();
  if (folder.empty()) folder = ".";
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // a folder that may be written but not read: the rename itself has succeeded
  ::fsync(fd);
  ::close(fd);
}

void append_length(std::string& to, uint8_t tag, uint64_t length) {
  uint8_t bytes[16];
  bytes[0] = tag;
  const uint8_t* end =
      google::protobuf::io::CodedOutputStream::WriteVarint64ToArray(length, bytes + 1);
  to.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(end - bytes));
}

uint64_t length_prefix_bytes(uint64_t length) {
  return 1 + google::protobuf::io::CodedOutputStream::VarintSize64(length);
}

/// One initializer as it will stand in the file: its header is serialised, its data is not touched
/// yet.
struct Planned {
  const TensorData* data = nullptr;
  std::string header;              // TensorProto without raw_data
  uint64_t inline_bytes = 0;       // of raw_data in the model file
  std::optional<uint64_t> offset;  // in the data file

  uint64_t tensor_bytes() const {
    return header.size() +
           (inline_bytes > 0 ? length_prefix_bytes(inline_bytes) + inline_bytes : 0);
  }
};

struct Plan {
  std::string graph;  // GraphProto without initializers
  std::string model;  // ModelProto without its graph
  std::vector<Planned> initializers;
  uint64_t external_bytes = 0;

  uint64_t graph_bytes() const {
    uint64_t bytes = graph.size();
    for (const Planned& planned : initializers) {
      bytes += length_prefix_bytes(planned.tensor_bytes()) + planned.tensor_bytes();
    }
    return bytes;
  }
  uint64_t file_bytes() const {
    return model.size() + length_prefix_bytes(graph_bytes()) + graph_bytes();
  }
};

std::string serialize(const google::protobuf::MessageLite& message) {
  std::string bytes;
  if (!message.SerializeToString(&bytes)) {
    throw std::runtime_error("protobuf can't serialise a graph of more than 2 GB without weights");
  }
  return bytes;
}

/// `data_file`: the file name of external data, "" to keep all of it in the model file.
Plan make_plan(const OnnxGraph& graph, const std::string& data_file) {
  Plan plan;
  onnx::ModelProto model = model_without_initializers(graph);
  plan.graph = serialize(model.graph());
  model.clear_graph();
  plan.model = serialize(model);
  for (const std::string& name : initializers_by_first_use(graph)) {
    Planned planned;
    planned.data = &graph.initializers.at(name);
    onnx::TensorProto header = tensor_header(name, *planned.data);
    const uint64_t bytes = planned.data->bytes();
    if (!data_file.empty() && bytes >= kSmallestExternal) {
      const uint64_t alignment = bytes >= kPage ? kPage : kCacheLine;
      planned.offset = (plan.external_bytes + alignment - 1) / alignment * alignment;
      plan.external_bytes = *planned.offset + bytes;
      header.set_data_location(onnx::TensorProto::EXTERNAL);
      auto add_entry = [&](const char* key, const std::string& value) {
        onnx::StringStringEntryProto& entry = *header.add_external_data();
        entry.set_key(key);
        entry.set_value(value);
      };
      add_entry("location", data_file);
      add_entry("offset", std::to_string(*planned.offset));
      add_entry("length", std::to_string(bytes));
    } else {
      planned.inline_bytes = bytes;
    }
    planned.header = serialize(header);
    plan.initializers.push_back(std::move(planned));
  }
  return plan;
}

void append_data(NewFile& file, const TensorData& data) {
  const std::shared_ptr<const void> values = data.load();  // what produce() made is gone after this
  file.append(values.get(), data.bytes());
}

void write_plan(const Plan& plan, NewFile& file, NewFile* data_file) {
  std::string prefix;
  append_length(prefix, kModelGraph, plan.graph_bytes());
  file.append(plan.model);
  file.append(prefix);
  file.append(plan.graph);
  for (const Planned& planned : plan.initializers) {
    prefix.clear();
    append_length(prefix, kGraphInitializer, planned.tensor_bytes());
    file.append(prefix);
    file.append(planned.header);
    if (planned.inline_bytes > 0) {
      prefix.clear();
      append_length(prefix, kTensorRawData, planned.inline_bytes);
      file.append(prefix);
      append_data(file, *planned.data);
    } else if (planned.offset) {
      data_file->pad_to(*planned.offset);
      append_data(*data_file, *planned.data);
    }
  }
}

}  // namespace

WriteResult write_model(const OnnxGraph& graph, const std::string& path,
                        ExternalData external_data) {
  const std::string target = real_target(path);
  const std::string data_target = target + ".data";
  const std::string data_name = fs::path(data_target).filename().string();

  Plan plan = make_plan(graph, external_data == ExternalData::kAlways ? data_name : std::string());
  if (plan.file_bytes() > kLargestProtobuf) {
    if (external_data == ExternalData::kNever) {
      throw std::runtime_error(
          "cannot write " + path + ": the model takes " + std::to_string(plan.file_bytes()) +
          " bytes and one ONNX file holds at most " + std::to_string(kLargestProtobuf) +
          ": allow external data (auto or always)");
    }
    plan = make_plan(graph, data_name);
    if (plan.file_bytes() > kLargestProtobuf) {
      throw std::runtime_error(
          "cannot write " + path + ": the graph alone takes " + std::to_string(plan.file_bytes()) +
          " bytes, and one ONNX file holds at most " + std::to_string(kLargestProtobuf));
    }
  }

  std::optional<NewFile> data_file;
  if (plan.external_bytes > 0) data_file.emplace(real_target(data_target));
  NewFile file(target);
  write_plan(plan, file, data_file ? &*data_file : nullptr);
  file.sync();
  if (data_file) {
    data_file->sync();
    Backup backup(data_target);
    data_file->commit();
    try {
      file.commit();
    } catch (...) {
      backup.restore();
      throw;
    }
  } else {
    file.commit();
  }
  sync_folder_of(target);
  return {plan.file_bytes(), plan.external_bytes, ir_version_for_opset(graph.opset)};
}

}  // namespace qcdq
