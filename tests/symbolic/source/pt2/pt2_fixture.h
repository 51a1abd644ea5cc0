// .pt2 archives written record by record: the JSON of a small program, and the fixture that writes
// it with what a test changes. Used by pt2_test.cpp and pt2_graph_test.cpp.
#pragma once

#include <caffe2/serialize/inline_container.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qcdq/export.h"
#include "tests/symbolic/program_fixture.h"

namespace qcdq {

using nlohmann::json;

inline json tensor(const std::string& name) { return {{"as_tensor", {{"name", name}}}}; }
inline json size(int64_t value) { return {{"as_int", value}}; }
inline json symbol(const std::string& name, int64_t hint) {
  return {{"as_expr",
           {{"expr_str", "Symbol('" + name + "', positive=True, integer=True)"},
            {"hint", {{"as_int", hint}}}}}};
}
inline json meta(const std::vector<json>& sizes, const std::vector<json>& strides, int dtype = 7) {
  return {{"dtype", dtype},
          {"sizes", sizes},
          {"requires_grad", false},
          {"device", {{"type", "cpu"}, {"index", nullptr}}},
          {"strides", strides},
          {"storage_offset", {{"as_int", 0}}},
          {"layout", 7}};
}
inline json argument(const std::string& name, const json& value) {
  return {{"name", name}, {"arg", value}, {"kind", 1}};
}
inline json node(const std::string& target, const std::vector<json>& inputs,
                 const std::vector<json>& outputs) {
  return {{"target", target},
          {"inputs", inputs},
          {"outputs", outputs},
          {"metadata",
           {{"stack_trace", "File \"/models/me/net.py\", line 12, in forward\n    return y\n"},
            {"nn_module_stack", "L__self__,,Net;L__self___fc,fc,torch.nn.Linear"}}}};
}

/// x[s0, 2] -> relu(x) * w, with a weight w[2].
inline json scaled_relu() {
  json program;
  program["schema_version"] = {{"major", 8}, {"minor", 20}};
  program["torch_version"] = "2.15.0";
  program["range_constraints"] = {{"s0", {{"min_val", 2}, {"max_val", 9}}}};
  json& graph = program["graph_module"]["graph"];
  graph["tensor_values"] = {{"x", meta({symbol("s0", 3), size(2)}, {size(2), size(1)})}};
  graph["nodes"] = json::array(
      {node("torch.ops.aten.relu.default", {argument("self", tensor("x"))}, {tensor("relu")}),
       node("torch.ops.aten.mul.Tensor",
            {argument("self", tensor("relu")), argument("other", tensor("w"))}, {tensor("mul")})});
  json& signature = program["graph_module"]["signature"];
  signature["input_specs"] =
      json::array({{{"parameter", {{"arg", {{"name", "w"}}}, {"parameter_name", "fc.weight"}}}},
                   {{"user_input", {{"arg", tensor("x")}}}}});
  signature["output_specs"] = json::array({{{"user_output", {{"arg", tensor("mul")}}}}});
  return program;
}

class Pt2 : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("qcdq_pt2_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    path_ = (folder_ / "model.pt2").string();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  /// Writes the archive; `more` adds or replaces records.
  void write(const json& program, std::map<std::string, std::string> more = {}) const {
    const std::vector<float> weight = {2, -3};
    std::map<std::string, std::string> records = {
        {"archive_format", "pt2"},
        {"archive_version", "0"},
        {"byteorder", "little"},
        {"models/model.json", program.dump()},
        {"data/weights/weight_0",
         std::string(reinterpret_cast<const char*>(weight.data()), 2 * sizeof(float))},
        {"data/weights/model_weights_config.json",
         json({{"config",
                {{"fc.weight",
                  {{"path_name", "weight_0"},
                   {"is_param", true},
                   {"use_pickle", false},
                   {"tensor_meta", meta({size(2)}, {size(1)})}}}}}})
             .dump()}};
    for (auto& [name, bytes] : more) records[name] = bytes;
    caffe2::serialize::PyTorchStreamWriter writer(path_);
    for (const auto& [name, bytes] : records) {
      if (!bytes.empty()) writer.writeRecord(name, bytes.data(), bytes.size());
    }
    writer.writeEndOfFile();
  }

  std::string error() const {
    std::string text = error_of([&] { load_pt2(path_); });
    if (text.starts_with(path_ + ": ")) text.erase(0, path_.size() + 2);
    return text;
  }
  std::string error_of_program(const json& program) const {
    write(program);
    return error();
  }

  std::filesystem::path folder_;
  std::string path_;
};

}  // namespace qcdq
