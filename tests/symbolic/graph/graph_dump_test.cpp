// GraphDump: which files it writes, replaces and leaves alone, and what its contents say of a pass.
#include "symbolic/graph/graph_dump.h"

#include "tests/symbolic/file/file_fixture.h"

namespace qcdq {
namespace {

class GraphDumpTest : public FolderTest {
 protected:
  std::string folder() const { return path("dump"); }
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder())) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }
  /// The contents' lines about passes, without their blanks at the end of a column.
  std::vector<std::string> lines() const {
    std::ifstream file(folder() + "/000_contents.txt");
    std::vector<std::string> lines;
    std::string line;
    while (std::getline(file, line) && !line.empty()) {
    }
    while (std::getline(file, line)) lines.push_back(line);
    return lines;
  }
};

GraphPicture torch_graph(const std::string& text, std::map<std::string, int64_t> ops) {
  return {"torch", text, std::move(ops)};
}

TEST_F(GraphDumpTest, ContentsSayWhatEachPassChanged) {
  GraphDump dump(folder(), "Export to net.onnx at opset 21.");
  dump.start("source", "graph");
  dump.finish(torch_graph("a\nb\nc\n", {{"aten::dropout", 2}, {"aten::relu", 1}}));
  dump.start("lower 1.1", "fold constants");
  dump.finish(torch_graph("a\nb\nc\n", {{"aten::dropout", 2}, {"aten::relu", 1}}));
  dump.start("lower 1.1", "remove dropout");
  dump.finish(torch_graph("a\n", {{"aten::relu", 1}, {"aten::neg", 1}}));
  dump.start("record 1", "types");
  dump.finish(torch_graph("a: float32\n", {{"aten::relu", 1}, {"aten::neg", 1}}));
  dump.start("convert", "symbolic functions");
  dump.finish(picture_of(quantizer_graph(0.5f, 8)));
  dump.start("write", "file");
  dump.finish("wrote 7 bytes");
  EXPECT_EQ(contents(folder() + "/000_contents.txt").find("Export to net.onnx at opset 21.\n"), 0U);
  EXPECT_EQ(lines(),
            (std::vector<std::string>{
                "001  source      graph                         the first torch graph, 3 nodes: "
                "2 aten::dropout, 1 aten::relu",
                "002  lower 1.1   fold constants                no change",
                "003  lower 1.1   remove dropout                -2 aten::dropout, +1 aten::neg",
                "004  record 1    types                         same nodes, 1 line differs",
                "005  convert     symbolic functions            the first ONNX graph, 3 nodes: "
                "1 Clip, 1 DequantizeLinear, 1 QuantizeLinear",
                "006  write       file                          wrote 7 bytes"}));
  EXPECT_EQ(files(),
            (std::set<std::string>{"000_contents.txt", "001_source_graph.txt",
                                   "003_lower-1.1_remove-dropout.txt", "004_record-1_types.txt",
                                   "005_convert_symbolic-functions.txt"}));
  EXPECT_EQ(contents(folder() + "/003_lower-1.1_remove-dropout.txt"), "a\n");
  EXPECT_EQ(contents(folder() + "/005_convert_symbolic-functions.txt"),
            to_text(quantizer_graph(0.5f, 8), NodeDetail::kOrigins));
}

TEST_F(GraphDumpTest, AFailureNamesItsPass) {
  GraphDump dump(folder(), "title");
  dump.start("source", "graph");
  dump.finish(torch_graph("a\n", {{"aten::foo", 1}}));
  dump.start("convert", "symbolic functions");
  dump.fail("2 things can't be exported:\n  aten::foo: no\n  aten::bar: no");
  EXPECT_EQ(lines(), (std::vector<std::string>{
                         "001  source      graph                         the first torch graph, 1 "
                         "node: 1 aten::foo",
                         "002  convert     symbolic functions            FAILED: 2 things can't be "
                         "exported:",
                         "       aten::foo: no", "       aten::bar: no"}));
}

TEST_F(GraphDumpTest, ReplacesItsOwnFilesOnly) {
  std::filesystem::create_directories(folder() + "/004_a_b.txt");
  for (const char* name :
       {"000_contents.txt", "017_lower-1.2_fold-constants.txt", "001_notes.txt", "01_a_b.txt",
        "001_A_b.txt", "001_a_b.onnx", "readme.txt", "1234_a_b.txt"}) {
    std::ofstream(folder() + "/" + name) << "older";
  }
  GraphDump dump(folder(), "title");
  EXPECT_EQ(files(),
            (std::set<std::string>{"000_contents.txt", "001_notes.txt", "004_a_b.txt", "01_a_b.txt",
                                   "001_A_b.txt", "001_a_b.onnx", "readme.txt"}));
  EXPECT_EQ(contents(folder() + "/000_contents.txt").find("title\n"), 0U);
}

TEST_F(GraphDumpTest, SaysWhichPathItCannotWrite) {
  std::ofstream(path("file")) << "no folder";
  EXPECT_EQ(error_of([&] { GraphDump(path("file"), "title"); }),
            "cannot make folder " + path("file") + ": Not a directory");
  EXPECT_EQ(error_of([&] { GraphDump(path("file/below"), "title"); }),
            "cannot make folder " + path("file/below") + ": Not a directory");
  std::filesystem::create_directories(folder() + "/000_contents.txt");
  EXPECT_EQ(error_of([&] { GraphDump(folder(), "title"); }),
            "cannot write " + folder() + "/000_contents.txt: Is a directory");
  std::filesystem::remove(folder() + "/000_contents.txt");
  std::filesystem::create_directories(folder() + "/001_a_b.txt");
  GraphDump dump(folder(), "title");
  dump.start("a", "b");
  EXPECT_EQ(error_of([&] { dump.finish(torch_graph("text", {})); }),
            "cannot write " + folder() + "/001_a_b.txt: Is a directory");
}

}  // namespace
}  // namespace qcdq
