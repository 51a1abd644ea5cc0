// check.cpp, write.cpp and the torch-free half of ONNX Runtime: a graph built by hand is checked,
// written, read back by protobuf and run. Every refusal's words, and that a failed write leaves the
// folder as it was.
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include "qcdq/affine.h"
#include "symbolic/file/file.h"
#include "symbolic/ort/session.h"
#include "tests/symbolic/file/file_fixture.h"

namespace qcdq {
namespace {

namespace fs = std::filesystem;

class WriteTest : public FolderTest {};

onnx::ModelProto parsed(const std::string& path) {
  onnx::ModelProto model;
  EXPECT_TRUE(model.ParseFromString(contents(path)));
  return model;
}

/// The quantiser's graph, its codes an output too.
OnnxGraph codes_graph() {
  OnnxGraph graph = quantizer_graph(0.5f, 8);
  graph.outputs.push_back("codes");
  graph.metadata = {{"qcdq.format", "qcdq"}};
  return graph;
}

TEST_F(WriteTest, RunsInOrtAndEqualsTheFormulaOnTiesAndSpecials) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0.0f,
                                -0.0f,
                                0.25f,
                                0.75f,
                                -0.25f,
                                -0.75f,
                                1.25f,
                                3.5f,
                                -4.0f,
                                -4.3f,
                                100.0f,
                                infinity,
                                -infinity,
                                3e38f,
                                -3e38f,
                                1e-45f,
                                std::numeric_limits<float>::quiet_NaN()};
  const OnnxGraph graph = codes_graph();
  check_model(graph);
  write_model(graph, path("q.onnx"), ExternalData::kAuto);
  for (bool optimize : {false, true}) {
    OrtSessionOptions options;
    options.optimize = optimize;
    const OrtSession session = OrtSession::from_file(path("q.onnx"), options);
    EXPECT_EQ(session.input_names(), std::vector<std::string>{"x"});
    EXPECT_EQ(session.output_names(), (std::vector<std::string>{"y", "codes"}));
    const auto results =
        session.run({TensorData::from<float>(DType::kFloat32, {static_cast<int64_t>(x.size())}, x)},
                    session.output_names());
    ASSERT_EQ(results.size(), 2u);
    ASSERT_EQ(results[0].dims, std::vector<int64_t>{static_cast<int64_t>(x.size())});
    ASSERT_EQ(results[1].dtype, DType::kUInt8);
    const auto* y = static_cast<const float*>(results[0].data.get());
    const auto* codes = static_cast<const uint8_t*>(results[1].data.get());
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(codes[i], quantize_one(x[i], 0.5f, 8, 0, 15)) << "x = " << x[i];
      EXPECT_EQ(y[i], fake_quantize_one(x[i], 0.5f, 8, 0, 15)) << "x = " << x[i];
    }
  }
}

TEST_F(WriteTest, SaysWhoMadeItAndFromWhat) {
  const WriteResult result = write_model(codes_graph(), path("q.onnx"), ExternalData::kAuto);
  const onnx::ModelProto model = parsed(path("q.onnx"));
  EXPECT_EQ(model.producer_name(), "qcdq");
  EXPECT_FALSE(model.producer_version().empty());
  EXPECT_EQ(model.ir_version(), 10);
  EXPECT_EQ(result.ir_version, 10);
  ASSERT_EQ(model.opset_import_size(), 1);
  EXPECT_EQ(model.opset_import(0).version(), 21);
  ASSERT_EQ(model.metadata_props_size(), 1);
  EXPECT_EQ(model.metadata_props(0).key(), "qcdq.format");
  EXPECT_EQ(model.graph().node(2).doc_string(), "net.py:7");
  EXPECT_EQ(model.graph().input_size(), 1) << "initializers are no graph inputs";
  EXPECT_EQ(model.graph().input(0).type().tensor_type().shape().dim(0).dim_param(), "N");
  EXPECT_EQ(result.file_bytes, fs::file_size(path("q.onnx")));
  EXPECT_EQ(result.external_bytes, 0u);
  EXPECT_EQ(listing(), std::set<std::string>{"q.onnx"});
  const onnx::GraphProto& proto = model.graph();
  ASSERT_EQ(proto.initializer_size(), 4);
  EXPECT_EQ(proto.initializer(0).name(), "scale") << "in the order of first use";
  EXPECT_EQ(proto.initializer(3).name(), "highest");
}

TEST_F(WriteTest, HoldsEveryKindOfAttribute) {
  OnnxGraph graph = conv_graph(3, 3);
  OnnxNode& node = graph.nodes.front();
  node.domain = "test.domain";
  graph.domains["test.domain"] = 3;
  node.set("i", int64_t{-7});
  node.set("f", 0.5f);
  node.set("s", std::string("same"));
  node.set("ints", std::vector<int64_t>{1, -1});
  node.set("floats", std::vector<float>{1.5f});
  node.set("strings", std::vector<std::string>{"a", "b"});
  node.set("t", TensorData::from<int16_t>(DType::kInt16, {2}, {3, -4}));
  write_model(graph, path("a.onnx"), ExternalData::kAuto);
  const onnx::ModelProto model = parsed(path("a.onnx"));
  EXPECT_EQ(model.opset_import(1).domain(), "test.domain");
  EXPECT_EQ(model.opset_import(1).version(), 3);
  std::map<std::string, onnx::AttributeProto> attributes;
  for (const auto& attribute : model.graph().node(0).attribute()) {
    attributes[attribute.name()] = attribute;
  }
  EXPECT_EQ(attributes["i"].i(), -7);
  EXPECT_EQ(attributes["f"].f(), 0.5f);
  EXPECT_EQ(attributes["s"].s(), "same");
  EXPECT_EQ(attributes["ints"].ints(1), -1);
  EXPECT_EQ(attributes["floats"].floats(0), 1.5f);
  EXPECT_EQ(attributes["strings"].strings(1), "b");
  EXPECT_EQ(attributes["t"].t().raw_data(), std::string("\x03\x00\xfc\xff", 4));
}

TEST_F(WriteTest, WritesBoolEmptyAndHalfTensors) {
  OnnxGraph graph = conv_graph(3, 3);
  graph.initializers["flags"] = TensorData::from<uint8_t>(DType::kBool, {3}, {1, 0, 1});
  graph.initializers["nothing"] = {DType::kFloat32, {0, 4}, nullptr, nullptr};
  graph.initializers["half"] = TensorData::from<uint16_t>(DType::kFloat16, {}, {0x3c00});
  for (const char* name : {"flags", "nothing", "half"}) {
    graph.outputs.push_back(name);
  }
  check_model(graph);
  write_model(graph, path("t.onnx"), ExternalData::kAuto);
  const OrtSession session = OrtSession::from_file(path("t.onnx"), {});
  const auto results = session.run(
      {TensorData::from<float>(DType::kFloat32, {1, 3, 4, 4}, std::vector<float>(48, 1.0f))},
      {"y", "flags", "nothing", "half"});
  EXPECT_EQ(static_cast<const float*>(results[0].data.get())[0], 13.5f);
  EXPECT_EQ(std::memcmp(results[1].data.get(), "\x01\x00\x01", 3), 0);
  EXPECT_EQ(results[2].dims, (std::vector<int64_t>{0, 4}));
  EXPECT_EQ(*static_cast<const uint16_t*>(results[3].data.get()), 0x3c00);
}

TEST_F(WriteTest, ProducesDataWhenItWritesAndDropsIt) {
  OnnxGraph graph = conv_graph(3, 3);
  std::weak_ptr<const void> made;
  int calls = 0;
  TensorData& weight = graph.initializers["w"];
  const std::shared_ptr<const void> values = weight.data;
  weight.data = nullptr;
  weight.produce = [&]() -> std::shared_ptr<const void> {
    EXPECT_TRUE(made.expired());
    ++calls;
    auto copy = std::make_shared<std::vector<float>>(54);
    std::memcpy(copy->data(), values.get(), 54 * sizeof(float));
    std::shared_ptr<const void> result(copy, copy->data());
    made = result;
    return result;
  };
  write_model(graph, path("p.onnx"), ExternalData::kAuto);
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(made.expired());
  write_model(conv_graph(3, 3), path("same.onnx"), ExternalData::kAuto);
  EXPECT_EQ(contents(path("p.onnx")), contents(path("same.onnx")));
}

TEST_F(WriteTest, ExternalDataStandsBesideTheModel) {
  OnnxGraph graph = conv_graph(300, 300);
  graph.initializers["b"] = TensorData::from<float>(DType::kFloat32, {2}, {1.0f, 2.0f});
  graph.nodes.front().inputs.push_back("b");
  check_model(graph);
  write_model(graph, path("inside.onnx"), ExternalData::kNever);
  const WriteResult result = write_model(graph, path("e.onnx"), ExternalData::kAlways);
  EXPECT_EQ(listing(), (std::set<std::string>{"inside.onnx", "e.onnx", "e.onnx.data"}));
  EXPECT_EQ(result.external_bytes, 300u * 18 * sizeof(float));
  EXPECT_EQ(result.external_bytes, fs::file_size(path("e.onnx.data")));
  EXPECT_EQ(result.file_bytes, fs::file_size(path("e.onnx")));
  const onnx::ModelProto model = parsed(path("e.onnx"));
  EXPECT_EQ(model.graph().initializer(0).external_data(0).value(), "e.onnx.data");
  EXPECT_EQ(model.graph().initializer(1).raw_data().size(), 8u) << "small tensors stay inside";

  const TensorData x =
      TensorData::from<float>(DType::kFloat32, {1, 300, 4, 4}, std::vector<float>(4800, 0.25f));
  std::vector<float> outcomes;
  for (const std::string& name : {path("inside.onnx"), path("e.onnx")}) {
    const auto y = OrtSession::from_file(name, {}).run({x}, {"y"});
    outcomes.push_back(*static_cast<const float*>(y[0].data.get()));
  }
  const auto from_bytes =
      OrtSession::from_bytes(contents(path("e.onnx")), folder_.string(), {}).run({x}, {"y"});
  outcomes.push_back(*static_cast<const float*>(from_bytes[0].data.get()));
  EXPECT_EQ(outcomes, (std::vector<float>{338.5f, 338.5f, 338.5f}));
}

TEST_F(WriteTest, MoreThanTwoGigabytesGoToExternalData) {
  constexpr int64_t kRows = 1100;
  constexpr int64_t kColumns = 1000 * 1000;
  OnnxGraph graph;
  graph.inputs = {"x"};
  graph.outputs = {"y"};
  graph.types["x"] = {DType::kInt64, true, {1}, {}};
  graph.types["y"] = {DType::kInt8, true, {1, kColumns}, {}};
  // Zero pages that the kernel hands out on reading: no memory is really taken twice.
  auto produce = [] {
    return std::shared_ptr<const void>(std::calloc(kRows * kColumns, 1), std::free);
  };
  graph.initializers["a"] = {DType::kInt8, {kRows, kColumns}, nullptr, produce};
  graph.initializers["b"] = {DType::kInt8, {kRows, kColumns}, nullptr, produce};
  graph.nodes.push_back({"Gather", "", "ga", {"a", "x"}, {"ya"}, {}, "", ""});
  graph.nodes.push_back({"Gather", "", "gb", {"b", "x"}, {"y"}, {}, "", ""});
  check_model(graph);
  EXPECT_EQ(error_of([&] {
              write_model(graph, path("big.onnx"), ExternalData::kNever);
            }).substr(0, path("big.onnx").size() + 37),
            "cannot write " + path("big.onnx") + ": the model takes 220000");
  EXPECT_EQ(listing(), std::set<std::string>{});
  const WriteResult result = write_model(graph, path("big.onnx"), ExternalData::kAuto);
  EXPECT_EQ(listing(), (std::set<std::string>{"big.onnx", "big.onnx.data"}));
  EXPECT_GE(result.external_bytes, 2u * kRows * kColumns);
  EXPECT_EQ(result.external_bytes, fs::file_size(path("big.onnx.data")));
  EXPECT_LT(result.file_bytes, 10000u);
}

TEST_F(WriteTest, AFailedWriteLeavesTheFolderAsItWas) {
  write_model(conv_graph(3, 3), path("m.onnx"), ExternalData::kAuto);
  const std::string before = contents(path("m.onnx"));
  OnnxGraph graph = conv_graph(3, 3);
  graph.initializers["w"].data = nullptr;
  graph.initializers["w"].produce = []() -> std::shared_ptr<const void> {
    throw std::runtime_error("weights are gone");
  };
  EXPECT_EQ(error_of([&] { write_model(graph, path("m.onnx"), ExternalData::kAuto); }),
            "weights are gone");
  EXPECT_EQ(listing(), std::set<std::string>{"m.onnx"});
  EXPECT_EQ(contents(path("m.onnx")), before);

  // A limit on file size gives the same course as a full disk: write() fails in the middle.
  rlimit unlimited{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  auto* ignored = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = unlimited;
  small.rlim_cur = 100000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string inside =
      error_of([&] { write_model(conv_graph(3000, 3000), path("m.onnx"), ExternalData::kAuto); });
  const std::string external =
      error_of([&] { write_model(conv_graph(3000, 3000), path("m.onnx"), ExternalData::kAlways); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &unlimited), 0);
  std::signal(SIGXFSZ, ignored);
  EXPECT_EQ(inside, "cannot write " + path("m.onnx") + ": File too large");
  EXPECT_EQ(external, "cannot write " + path("m.onnx.data") + ": File too large");
  EXPECT_EQ(listing(), std::set<std::string>{"m.onnx"});
  EXPECT_EQ(contents(path("m.onnx")), before);
}

TEST_F(WriteTest, RefusesTargetsThatAreNoFiles) {
  const OnnxGraph graph = conv_graph(3, 3);
  auto write_to = [&](const std::string& target) {
    return error_of([&] { write_model(graph, target, ExternalData::kAlways); });
  };
  EXPECT_EQ(write_to(path("none/m.onnx")),
            "cannot write " + path("none/m.onnx") + ": No such file or directory");
  fs::create_directory(path("folder"));
  EXPECT_EQ(write_to(path("folder")), "cannot write " + path("folder") + ": Is a directory");
  EXPECT_EQ(write_to("/dev/null"), "cannot write /dev/null: it is not a regular file");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  OnnxGraph big = conv_graph(300, 300);
  fs::create_directory(path("d.onnx.data"));
  EXPECT_EQ(error_of([&] { write_model(big, path("d.onnx"), ExternalData::kAlways); }),
            "cannot write " + path("d.onnx.data") + ": Is a directory");
  if (::geteuid() != 0) {
    ::chmod(path("folder").c_str(), 0500);
    EXPECT_EQ(write_to(path("folder/m.onnx")),
              "cannot write " + path("folder/m.onnx") + ": Permission denied");
  }
  EXPECT_EQ(listing(), (std::set<std::string>{"folder", "d.onnx.data"}));
}

TEST_F(WriteTest, ReplacesTheFileBehindALink) {
  write_model(conv_graph(3, 3), path("real.onnx"), ExternalData::kAuto);
  fs::create_symlink(path("real.onnx"), path("link.onnx"));
  write_model(conv_graph(4, 4), path("link.onnx"), ExternalData::kAuto);
  EXPECT_TRUE(fs::is_symlink(path("link.onnx")));
  EXPECT_EQ(parsed(path("real.onnx")).graph().initializer(0).dims(1), 4);
}

TEST(IrVersionTest, IsTheLeastOfTheOpset) {
  const std::vector<std::pair<int64_t, int64_t>> expected = {
      {10, 5}, {11, 6}, {12, 7},  {13, 7},  {14, 7},  {15, 8},  {16, 8},  {17, 8}, {18, 8},
      {19, 9}, {20, 9}, {21, 10}, {22, 10}, {23, 11}, {24, 12}, {25, 13}, {26, 13}};
  for (const auto& [opset, ir] : expected) EXPECT_EQ(ir_version_for_opset(opset), ir) << opset;
  EXPECT_EQ(error_of([] { ir_version_for_opset(9); }),
            "opset 9 has no known IR version: expected 10 to 28");
}

TEST_F(WriteTest, OrtSaysWhatIsWrong) {
  const std::string missing = error_of([&] { OrtSession::from_file(path("none.onnx"), {}); });
  EXPECT_EQ(missing.find("cannot load " + path("none.onnx") + ": ONNX Runtime says: "), 0u)
      << missing;
  OrtSessionOptions options;
  options.library = path("here");
  EXPECT_EQ(error_of([&] { OrtSession::from_file("m.onnx", options); }),
            "no ONNX Runtime at " + path("here") +
                " (given): expected libonnxruntime.so, or a folder that holds it");
  std::ofstream(path("here")) << "no library";
  EXPECT_EQ(error_of([&] {
              OrtSession::from_file("m.onnx", options);
            }).find("cannot load ONNX Runtime: "),
            0u);
  write_model(conv_graph(3, 3), path("m.onnx"), ExternalData::kAuto);
  const OrtSession session = OrtSession::from_file(path("m.onnx"), {});
  EXPECT_EQ(error_of([&] { session.run({}, {"y"}); }), "the ONNX model takes 1 inputs, got 0");
  const std::string shape = error_of([&] {
    session.run({TensorData::from<float>(DType::kFloat32, {2}, {1, 2})}, {"y"});
  });
  EXPECT_EQ(shape.find("cannot run the model: ONNX Runtime says: "), 0u) << shape;
}

}  // namespace
}  // namespace qcdq
