// read.cpp: what write.cpp wrote comes back, bodies and narrow types too; and what a hostile file
// may hold is one clear line.
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "symbolic/file/file.h"
#include "symbolic/graph/element_types.h"
#include "symbolic/ort/session.h"
#include "tests/symbolic/file/file_fixture.h"

namespace qcdq {
namespace {

class ReadTest : public FolderTest {
 protected:
  /// The words with which a file is refused that `spoil` has changed, without its path.
  std::string refusal(const OnnxGraph& graph, const std::function<void(onnx::GraphProto&)>& spoil) {
    write_model(graph, path_, ExternalData::kAuto);
    onnx::ModelProto model;
    EXPECT_TRUE(model.ParseFromString(contents(path_)));
    spoil(*model.mutable_graph());
    std::ofstream(path_, std::ios::binary) << model.SerializeAsString();
    const std::string words = error_of([&] { read_model(path_); });
    EXPECT_EQ(words.find('\n'), std::string::npos);
    return words.find(path_ + ": ") == 0 ? words.substr(path_.size() + 2) : words;
  }
};

TEST_F(ReadTest, AnIfComesBack) {
  const OnnxGraph graph = if_graph();
  check_model(graph);
  write_model(graph, path_, ExternalData::kAuto);
  ModelHeader header;
  const OnnxGraph back = read_model(path_, &header);
  EXPECT_EQ(to_text(back), to_text(graph));
  EXPECT_TRUE(header.has_subgraphs);
  check_model(back);
  write_model(quantizer_graph(0.5f, 8), path_, ExternalData::kAuto);
  read_model(path_, &header);
  EXPECT_FALSE(header.has_subgraphs);
}

TEST_F(ReadTest, AnIfRunsInOrt) {
  write_model(if_graph(), path_, ExternalData::kAuto);
  const OrtSession session = OrtSession::from_file(path_, {});
  const auto run = [&](bool condition) {
    const auto results = session.run({TensorData::from<float>(DType::kFloat32, {2}, {0, 3}),
                                      TensorData::scalar<uint8_t>(DType::kBool, condition ? 1 : 0)},
                                     {"y"});
    return read_numbers(results[0]);
  };
  EXPECT_EQ(run(true), (std::vector<double>{0.5, 2}));
  const std::vector<double> negated = run(false);
  EXPECT_EQ(negated[0], -1);
  EXPECT_NEAR(negated[1], -std::exp(3.0), 1e-5);
}

TEST_F(ReadTest, TheCheckerLooksIntoBodies) {
  OnnxGraph graph = if_graph();
  auto broken = std::make_shared<OnnxGraph>(
      *std::get<Subgraph>(*graph.nodes.back().find("then_branch")).graph);
  broken->nodes.front().op_type = "Addition";
  graph.nodes.back().set("then_branch", Subgraph{broken});
  EXPECT_NE(error_of([&] { check_model(graph); }).find("No Op registered for Addition"),
            std::string::npos);
}

TEST_F(ReadTest, BodiesDeepInOneAnotherAreRefused) {
  const auto nested = [](int depth) {
    auto body = std::make_shared<OnnxGraph>();
    body->outputs = {"inner"};
    body->types["inner"] = {DType::kFloat32, true, {2}, {}};
    body->nodes.push_back({"Relu", "", "Relu", {"x"}, {"inner"}, {}, "", ""});
    for (int level = 1; level < depth; ++level) {
      auto around = std::make_shared<OnnxGraph>();
      around->outputs = {"inner"};
      around->types = body->types;
      around->nodes.push_back({"If",
                               "",
                               "If",
                               {"condition"},
                               {"inner"},
                               {{"then_branch", Subgraph{body}}, {"else_branch", Subgraph{body}}},
                               "",
                               ""});
      body = around;
    }
    OnnxGraph graph = if_graph();
    graph.nodes.back().set("then_branch", Subgraph{body});
    return graph;
  };
  write_model(nested(7), path_, ExternalData::kAuto);
  EXPECT_EQ(to_text(read_model(path_)), to_text(nested(7)));

  // Deeper ones by hand: with two branches each, 16 levels would be 65536 bodies.
  const auto deepen = [](int depth) {
    return [depth](onnx::GraphProto& graph) {
      onnx::GraphProto* body = &graph;
      for (int level = 0; level < depth; ++level) {
        onnx::NodeProto& node = *body->add_node();
        node.set_op_type("Scan");
        onnx::AttributeProto& attribute = *node.add_attribute();
        attribute.set_name("body");
        attribute.set_type(onnx::AttributeProto::GRAPH);
        body = attribute.mutable_g();
      }
    };
  };
  EXPECT_EQ(refusal(quantizer_graph(0.5f, 8), deepen(16)), "no error");
  EXPECT_EQ(refusal(quantizer_graph(0.5f, 8), deepen(17)),
            "bodies of If, Loop and Scan lie in one another more than 16 deep");
  EXPECT_EQ(refusal(quantizer_graph(0.5f, 8), deepen(5000)), path_ + " is not an ONNX file");
}

TEST_F(ReadTest, NarrowTypesComeBackAndPassTheChecker) {
  struct Case {
    DType dtype;
    int64_t since_opset;
  };
  for (const auto& [dtype, since_opset] :
       {Case{DType::kFloat8E4M3FN, 19}, Case{DType::kFloat8E4M3FNUZ, 19},
        Case{DType::kFloat8E5M2, 19}, Case{DType::kFloat8E5M2FNUZ, 19}, Case{DType::kUInt4, 21},
        Case{DType::kInt4, 21}, Case{DType::kFloat4E2M1, 23}, Case{DType::kFloat8E8M0, 24},
        Case{DType::kUInt2, 25}, Case{DType::kInt2, 25}}) {
    const std::string name(dtype_name(dtype));
    for (const int64_t size : {1, 5, 3000}) {  // up to more than the checker's stubs hold
      OnnxGraph graph;
      graph.opset = since_opset;
      graph.outputs = {"y"};
      graph.types["y"] = {dtype, true, {size}, {}};
      TensorData data{dtype, {size}, nullptr, nullptr};
      std::vector<uint8_t> bytes(data.bytes());
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 37 + 1);
      if (size == 1 && dtype_bits(dtype) < 8) bytes[0] = 1;
      graph.initializers["w"] = TensorData::from<uint8_t>(dtype, {size}, bytes);
      graph.nodes.push_back({"Identity", "", "id", {"w"}, {"y"}, {}, "", ""});
      EXPECT_EQ(error_of([&] { check_model(graph); }), "no error") << name << " " << size;
      write_model(graph, path_, ExternalData::kAuto);
      const OnnxGraph back = read_model(path_);
      const TensorData* found = back.initializer("w");
      ASSERT_NE(found, nullptr);
      EXPECT_EQ(found->dtype, dtype);
      ASSERT_EQ(found->bytes(), bytes.size());
      EXPECT_EQ(std::memcmp(found->load().get(), bytes.data(), bytes.size()), 0) << name;
      EXPECT_EQ(to_text(back), to_text(graph));
    }
    // An opset earlier, onnx has no such type.
    OnnxGraph early;
    early.opset = since_opset - 1;
    early.outputs = {"y"};
    early.types["y"] = {dtype, true, {1}, {}};
    early.initializers["w"] = TensorData::from<uint8_t>(dtype, {1}, {1});
    early.nodes.push_back({"Identity", "", "id", {"w"}, {"y"}, {}, "", ""});
    EXPECT_NE(error_of([&] { check_model(early); }), "no error") << name;
  }
}

TEST_F(ReadTest, PackedValuesInTheTypedField) {
  // int32_data holds one packed byte each.
  OnnxGraph graph;
  graph.outputs = {"w"};
  graph.initializers["w"] = pack_integers(DType::kInt4, {3}, {1, -8, 7});
  write_model(graph, path_, ExternalData::kAuto);
  onnx::ModelProto model;
  ASSERT_TRUE(model.ParseFromString(contents(path_)));
  onnx::TensorProto& tensor = *model.mutable_graph()->mutable_initializer(0);
  tensor.clear_raw_data();
  tensor.add_int32_data(0x81);
  tensor.add_int32_data(0x07);
  std::ofstream(path_, std::ios::binary) << model.SerializeAsString();
  const OnnxGraph back = read_model(path_);
  EXPECT_EQ(read_integers(*back.initializer("w")), (std::vector<int64_t>{1, -8, 7}));
}

TEST_F(ReadTest, SizesThatDontFitTheDataAreRefused) {
  const auto refused = [&](const std::function<void(onnx::TensorProto&)>& spoil) {
    return refusal(conv_graph(3, 3),
                   [&](onnx::GraphProto& graph) { spoil(*graph.mutable_initializer(0)); });
  };
  EXPECT_EQ(refused([](onnx::TensorProto& w) { w.mutable_raw_data()->pop_back(); }),
            "initializer 'w' holds 215 bytes, expected 216");
  EXPECT_EQ(refused([](onnx::TensorProto& w) {
              w.clear_raw_data();
              for (int i = 0; i < 53; ++i) w.add_float_data(1);
            }),
            "initializer 'w' holds 212 bytes, expected 216");
  EXPECT_EQ(refused([](onnx::TensorProto& w) { w.set_dims(0, -2); }),
            "initializer 'w' has a size that can't be: float32[?,3,3,3]");
  EXPECT_EQ(refused([](onnx::TensorProto& w) {
              w.set_dims(0, int64_t{1} << 40);
              w.set_dims(1, int64_t{1} << 40);
            }),
            "initializer 'w' has a size that can't be: "
            "float32[1099511627776,1099511627776,3,3]");
  const auto external = [](const char* key, const char* value) {
    return [=](onnx::TensorProto& w) {
      w.clear_raw_data();
      w.set_data_location(onnx::TensorProto::EXTERNAL);
      onnx::StringStringEntryProto& entry = *w.add_external_data();
      entry.set_key(key);
      entry.set_value(value);
    };
  };
  EXPECT_EQ(refused(external("length", "215")),
            "initializer 'w' has 215 bytes of external data, expected 216");
  EXPECT_EQ(refused(external("offset", "4k")),
            "the external data of 'w' is at '4k', which is no number");
}

}  // namespace
}  // namespace qcdq
