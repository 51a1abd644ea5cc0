// The graph as text after each pass of an export, in a folder: `qcdq export --dump DIR`. It knows
// text only; who has a graph makes a GraphPicture of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

/// A graph at one moment.
struct GraphPicture {
  std::string kind;  // "torch" or "ONNX": pictures of one kind are compared
  std::string text;
  std::map<std::string, int64_t> nodes_by_op;
};
GraphPicture picture_of(const OnnxGraph& graph);

/// Writes 000_contents.txt, one line a pass that says what it changed, and NNN_phase_pass.txt, the
/// graph, for each pass that changed something. Each is on the disk when its pass is done, so that
/// a crash leaves them too. Members throw std::runtime_error, one line that names the path, where
/// the folder can't be written.
class GraphDump {
 public:
  /// Makes the folder if need be, and removes the files of an earlier dump from it; others stay.
  /// `title` is the first line of the contents.
  GraphDump(const std::string& folder, const std::string& title);

  /// A pass begins: "lower 1.2", "fold constants".
  void start(const std::string& phase, const std::string& pass);
  /// It is done, and has left this graph.
  void finish(const GraphPicture& after);
  /// It is done; what it did is said in words.
  void finish(const std::string& result);
  /// The export ends here: why, and in which pass. Never throws: the reason itself is on its way to
  /// the user.
  void fail(const std::string& why) noexcept;

 private:
  void write_line(const std::string& result);

  std::filesystem::path folder_;
  std::ofstream contents_;
  int number_ = 0;  // of the pass that runs, or ran last
  bool running_ = false;
  std::string phase_;
  std::string pass_;
  std::map<std::string, GraphPicture> last_;  // by kind
};

}  // namespace qcdq
