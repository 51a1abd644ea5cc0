// ONNX Runtime through its C interface, declared here by hand: no package ships its header. The
// interface is one table of functions to which releases only append, so a position in it never
// changes. See session.h.
#include <dlfcn.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <stdexcept>

#include "qcdq/onnxruntime.h"
#include "symbolic/ort/session.h"

namespace qcdq {

namespace {

using Status = void*;  // null: success

// Positions in the table, and the signature of each function as it is called here.
template <int kPosition, typename Signature>
struct Slot;
template <int kPosition, typename R, typename... Args>
struct Slot<kPosition, R(Args...)> {
  static R call(void* const* table, Args... args) {
    return reinterpret_cast<R (*)(Args...)>(table[kPosition])(args...);
  }
};
using GetErrorMessage = Slot<2, const char*(Status)>;
using CreateEnv = Slot<3, Status(int, const char*, void**)>;
using CreateSession = Slot<7, Status(void*, const char*, void*, void**)>;
using CreateSessionFromArray = Slot<8, Status(void*, const void*, size_t, void*, void**)>;
using Run = Slot<9, Status(void*, void*, const char* const*, void* const*, size_t,
                           const char* const*, size_t, void**)>;
using CreateSessionOptions = Slot<10, Status(void**)>;
using SetOptimizedModelFilePath = Slot<11, Status(void*, const char*)>;
using SetSessionLogSeverityLevel = Slot<22, Status(void*, int)>;
using SetGraphOptimizationLevel = Slot<23, Status(void*, int)>;
using SetIntraOpNumThreads = Slot<24, Status(void*, int)>;
using SessionGetInputCount = Slot<30, Status(void*, size_t*)>;
using SessionGetOutputCount = Slot<31, Status(void*, size_t*)>;
using SessionGetInputName = Slot<36, Status(void*, size_t, void*, char**)>;
using SessionGetOutputName = Slot<37, Status(void*, size_t, void*, char**)>;
using CreateTensorWithData =
    Slot<49, Status(void*, void*, size_t, const int64_t*, size_t, int, void**)>;
using IsTensor = Slot<50, Status(void*, int*)>;
using GetTensorMutableData = Slot<51, Status(void*, void**)>;
using GetTensorElementType = Slot<60, Status(void*, int*)>;
using GetDimensionsCount = Slot<61, Status(void*, size_t*)>;
using GetDimensions = Slot<62, Status(void*, int64_t*, size_t)>;
using GetTensorTypeAndShape = Slot<65, Status(void*, void**)>;
using CreateCpuMemoryInfo = Slot<69, Status(int, int, void**)>;
using AllocatorFree = Slot<76, Status(void*, void*)>;
using GetAllocatorWithDefaultOptions = Slot<78, Status(void**)>;
using ReleaseStatus = Slot<93, void(Status)>;
using ReleaseSession = Slot<95, void(void*)>;
using ReleaseValue = Slot<96, void(void*)>;
using ReleaseTensorTypeAndShapeInfo = Slot<99, void(void*)>;
using ReleaseSessionOptions = Slot<100, void(void*)>;
using AddSessionConfigEntry = Slot<130, Status(void*, const char*, const char*)>;

constexpr uint32_t kTableVersion = 11;  // 1.11 and later have every function above
constexpr int kFatalOnly = 4;           // errors come back as a Status: ORT need not print them too
constexpr int kDisableAll = 0;
constexpr int kEnableAll = 99;

struct TableBase {
  void* const* (*get_table)(uint32_t version);
  const char* (*get_version)();
};

/// An opened library. Never closed: ORT's threads and static objects don't survive that.
struct Library {
  void* const* table = nullptr;
  std::string version;
  void* env = nullptr;
  void* cpu = nullptr;        // memory info
  void* allocator = nullptr;  // of names

  void check(Status status, const std::string& what) const {
    if (status == nullptr) return;
    std::string words = GetErrorMessage::call(table, status);
    ReleaseStatus::call(table, status);
    throw std::runtime_error(what + ": ONNX Runtime says: " + words);
  }
};

const Library& open_library(const std::string& path) {
  static std::mutex mutex;
  static auto& opened = *new std::map<std::string, std::unique_ptr<Library>>();
  const std::lock_guard<std::mutex> lock(mutex);
  if (auto found = opened.find(path); found != opened.end()) return *found->second;
  void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw std::runtime_error("cannot load ONNX Runtime: " + std::string(::dlerror()));
  }
  auto get_base = reinterpret_cast<const TableBase* (*)()>(::dlsym(handle, "OrtGetApiBase"));
  if (get_base == nullptr) {
    throw std::runtime_error(path + " is not ONNX Runtime: it has no OrtGetApiBase");
  }
  auto library = std::make_unique<Library>();
  library->version = get_base()->get_version();
  library->table = get_base()->get_table(kTableVersion);
  if (library->table == nullptr) {
    throw std::runtime_error(path + " is ONNX Runtime " + library->version +
                             ": expected 1.11 or later");
  }
  library->check(CreateEnv::call(library->table, kFatalOnly, "qcdq", &library->env), path);
  library->check(CreateCpuMemoryInfo::call(library->table, 0, 0, &library->cpu), path);
  library->check(GetAllocatorWithDefaultOptions::call(library->table, &library->allocator), path);
  return *opened.emplace(path, std::move(library)).first->second;
}

const Library& library_of(const OrtSessionOptions& options) {
  return open_library(find_onnxruntime(options.library));
}

/// An object of ORT's and the function that frees it.
template <typename Release>
struct Owned {
  explicit Owned(const Library& from) : library(from) {}
  ~Owned() {
    if (object != nullptr) Release::call(library.table, object);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  const Library& library;
  void* object = nullptr;
};

void configure(const Library& library, void* session_options, const OrtSessionOptions& options) {
  const std::string what = "session options";
  void* const* t = library.table;
  library.check(SetSessionLogSeverityLevel::call(t, session_options, kFatalOnly), what);
  library.check(SetIntraOpNumThreads::call(t, session_options, options.threads), what);
  library.check(SetGraphOptimizationLevel::call(t, session_options,
                                                options.optimize ? kEnableAll : kDisableAll),
                what);
  if (!options.optimized_model_path.empty()) {
    library.check(
        SetOptimizedModelFilePath::call(t, session_options, options.optimized_model_path.c_str()),
        what);
  }
  for (const auto& [key, value] : options.config) {
    library.check(AddSessionConfigEntry::call(t, session_options, key.c_str(), value.c_str()),
                  "session option " + key + "=" + value);
  }
}

}  // namespace

struct OrtSession::State {
  explicit State(const Library& from) : library(from) {}
  ~State() {
    if (session != nullptr) ReleaseSession::call(library.table, session);
  }
  const Library& library;
  void* session = nullptr;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;

  void read_names() {
    void* const* t = library.table;
    auto take = [&](char* name) {
      std::string copy = name;
      library.check(AllocatorFree::call(t, library.allocator, name), "names");
      return copy;
    };
    size_t count = 0;
    char* name = nullptr;
    library.check(SessionGetInputCount::call(t, session, &count), "names");
    for (size_t i = 0; i < count; ++i) {
      library.check(SessionGetInputName::call(t, session, i, library.allocator, &name), "names");
      inputs.push_back(take(name));
    }
    library.check(SessionGetOutputCount::call(t, session, &count), "names");
    for (size_t i = 0; i < count; ++i) {
      library.check(SessionGetOutputName::call(t, session, i, library.allocator, &name), "names");
      outputs.push_back(take(name));
    }
  }
};

OrtSession::OrtSession(std::unique_ptr<State> state) : state_(std::move(state)) {}
OrtSession::~OrtSession() = default;
OrtSession::OrtSession(OrtSession&&) noexcept = default;
OrtSession& OrtSession::operator=(OrtSession&&) noexcept = default;
const std::vector<std::string>& OrtSession::input_names() const { return state_->inputs; }
const std::vector<std::string>& OrtSession::output_names() const { return state_->outputs; }

OrtSession OrtSession::from_file(const std::string& path, const OrtSessionOptions& options) {
  auto state = std::make_unique<State>(library_of(options));
  const Library& library = state->library;
  Owned<ReleaseSessionOptions> session_options(library);
  library.check(CreateSessionOptions::call(library.table, &session_options.object), path);
  configure(library, session_options.object, options);
  library.check(CreateSession::call(library.table, library.env, path.c_str(),
                                    session_options.object, &state->session),
                "cannot load " + path);
  state->read_names();
  return OrtSession(std::move(state));
}

OrtSession OrtSession::from_bytes(const std::string& bytes, const std::string& folder,
                                  const OrtSessionOptions& options) {
  auto state = std::make_unique<State>(library_of(options));
  const Library& library = state->library;
  Owned<ReleaseSessionOptions> session_options(library);
  library.check(CreateSessionOptions::call(library.table, &session_options.object), "session");
  configure(library, session_options.object, options);
  if (!folder.empty()) {
    library.check(AddSessionConfigEntry::call(
                      library.table, session_options.object,
                      "session.model_external_initializers_file_folder_path", folder.c_str()),
                  "session");
  }
  library.check(CreateSessionFromArray::call(library.table, library.env, bytes.data(), bytes.size(),
                                             session_options.object, &state->session),
                "cannot load the model");
  state->read_names();
  return OrtSession(std::move(state));
}

std::vector<TensorData> OrtSession::run(const std::vector<TensorData>& inputs,
                                        const std::vector<std::string>& outputs) const {
  const Library& library = state_->library;
  void* const* t = library.table;
  if (inputs.size() != state_->inputs.size()) {
    throw std::runtime_error("the ONNX model takes " + std::to_string(state_->inputs.size()) +
                             " inputs, got " + std::to_string(inputs.size()));
  }
  // Values made here are freed whatever happens.
  struct Values {
    const Library& library;
    std::vector<void*> objects;
    ~Values() {
      for (void* value : objects) {
        if (value != nullptr) ReleaseValue::call(library.table, value);
      }
    }
  };
  Values fed{library, std::vector<void*>(inputs.size(), nullptr)};
  Values fetched{library, std::vector<void*>(outputs.size(), nullptr)};
  std::vector<std::shared_ptr<const void>> held;
  std::vector<const char*> input_names;
  std::vector<const char*> output_names;
  static char empty = 0;  // ORT wants an address even for no elements
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TensorData& tensor = inputs[i];
    held.push_back(tensor.load());
    void* data = held.back() ? const_cast<void*>(held.back().get()) : &empty;
    library.check(CreateTensorWithData::call(t, library.cpu, data, tensor.bytes(),
                                             tensor.dims.data(), tensor.dims.size(),
                                             static_cast<int>(tensor.dtype), &fed.objects[i]),
                  "input '" + state_->inputs[i] + "'");
    input_names.push_back(state_->inputs[i].c_str());
  }
  for (const std::string& name : outputs) output_names.push_back(name.c_str());
  library.check(Run::call(t, state_->session, nullptr, input_names.data(), fed.objects.data(),
                          fed.objects.size(), output_names.data(), output_names.size(),
                          fetched.objects.data()),
                "cannot run the model");

  std::vector<TensorData> results;
  for (size_t i = 0; i < outputs.size(); ++i) {
    void* value = fetched.objects[i];
    const std::string what = "output '" + outputs[i] + "'";
    int is_tensor = 0;
    library.check(IsTensor::call(t, value, &is_tensor), what);
    if (is_tensor == 0) throw std::runtime_error(what + " is not a tensor");
    Owned<ReleaseTensorTypeAndShapeInfo> info(library);
    library.check(GetTensorTypeAndShape::call(t, value, &info.object), what);
    int dtype = 0;
    size_t rank = 0;
    library.check(GetTensorElementType::call(t, info.object, &dtype), what);
    library.check(GetDimensionsCount::call(t, info.object, &rank), what);
    TensorData result{static_cast<DType>(dtype), std::vector<int64_t>(rank), nullptr, nullptr};
    if (rank > 0) {
      library.check(GetDimensions::call(t, info.object, result.dims.data(), rank), what);
    }
    void* data = nullptr;
    library.check(GetTensorMutableData::call(t, value, &data), what);
    fetched.objects[i] = nullptr;
    const std::shared_ptr<void> owner(value,
                                      [t](void* released) { ReleaseValue::call(t, released); });
    result.data = std::shared_ptr<const void>(owner, data);
    results.push_back(std::move(result));
  }
  return results;
}

std::string ort_version(const std::string& path) { return open_library(path).version; }

}  // namespace qcdq
