// A program's torch::jit graph as text, and a pass over it as a line of a dump
// (graph/graph_dump.h).
#pragma once

#include <string>
#include <type_traits>
#include <unordered_map>

#include "symbolic/graph/graph_dump.h"
#include "symbolic/program/program.h"

namespace qcdq {

/// Types of values by Value::unique(), which no later value has.
using TypesById = std::unordered_map<size_t, TensorType>;

/// One line a node: `%5: float32[1,4,8,8] = aten::conv2d(input=%x, weight=%conv1.weight,
/// stride=[1, 1], ...)  # conv1, net.py:12`. Weights are named by their path in the module and
/// stand, without their data, before their first user; other constants, and lists of them that
/// nobody writes to, stand in the arguments.
GraphPicture picture_of(const Program& program, const TypesById& types);

/// What the phases on a Program tell a dump.
class ProgramDump {
 public:
  ProgramDump(GraphDump& dump, const Program& program) : dump_(dump), program_(program) {}

  void start(const std::string& phase, const std::string& pass) { dump_.start(phase, pass); }
  void finish() { dump_.finish(picture_of(program_, types_)); }
  /// program.types is of the graph as it is now: these types are shown until the next call.
  void keep_types();

 private:
  GraphDump& dump_;
  const Program& program_;
  TypesById types_;
};

/// Runs `pass`, as a line of the dump where there is one, and returns what it returns.
template <typename Pass>
auto run_pass(ProgramDump* dump, const std::string& phase, const char* name, Pass pass) {
  if (dump == nullptr) return pass();
  dump->start(phase, name);
  if constexpr (std::is_void_v<decltype(pass())>) {
    pass();
    dump->finish();
  } else {
    auto result = pass();
    dump->finish();
    return result;
  }
}

}  // namespace qcdq
