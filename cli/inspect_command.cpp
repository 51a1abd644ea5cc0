// qcdq inspect: what an .onnx file holds, and how much of it ONNX Runtime will run in int8.
#include "qcdq/inspect.h"

#include <algorithm>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/report_text.h"
#include "cli/shared_options.h"

namespace qcdq::cli {
namespace {

struct InspectArguments {
  std::string onnx;
  std::string html;
  bool json = false;
};

std::string shape_text(const QuantizerSummary& q) {
  if (q.axis < 0) return "per tensor";
  std::string text = "axis " + std::to_string(q.axis);
  if (q.block_size > 0) text += ", blocks of " + std::to_string(q.block_size);
  return text;
}

/// "0.0123", or "0.001 .. 0.02 (64)" for many.
template <typename T, typename Text>
std::string spread_text(const std::vector<T>& values, const Text& text) {
  if (values.empty()) return "at run time";
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (*low == *high) return text(*low);
  return text(*low) + " .. " + text(*high);
}

nlohmann::ordered_json to_json(const std::vector<NamedType>& values) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const NamedType& value : values) {
    nlohmann::ordered_json dims = nlohmann::ordered_json::array();
    for (size_t i = 0; i < value.type.dims.size(); ++i) {
      const bool named = i < value.type.symbols.size() && !value.type.symbols[i].empty();
      if (value.type.dims[i] < 0 && named) {
        dims.push_back(value.type.symbols[i]);
      } else if (value.type.dims[i] < 0) {
        dims.push_back(nullptr);
      } else {
        dims.push_back(value.type.dims[i]);
      }
    }
    json.push_back({{"name", value.name},
                    {"dtype", dtype_name(value.type.dtype)},
                    {"dims", value.type.ranked ? dims : nlohmann::ordered_json(nullptr)}});
  }
  return json;
}

nlohmann::ordered_json to_json(const QuantizerSummary& q) {
  nlohmann::ordered_json json = {{"node", q.node},       {"tensor", q.tensor},
                                 {"role", q.role},       {"dtype", q.dtype},
                                 {"quant_min", nullptr}, {"quant_max", nullptr},
                                 {"axis", nullptr},      {"block_size", nullptr},
                                 {"scale", q.scale},     {"zero_point", q.zero_point}};
  if (q.has_range) {
    json["quant_min"] = q.quant_min;
    json["quant_max"] = q.quant_max;
  }
  if (q.axis >= 0) json["axis"] = q.axis;
  if (q.block_size > 0) json["block_size"] = q.block_size;
  return json;
}

nlohmann::ordered_json to_json(const ModelSummary& summary) {
  nlohmann::ordered_json json;
  json["path"] = summary.path;
  json["producer"] = summary.producer;
  json["ir_version"] = summary.ir_version;
  json["opset"] = summary.opset;
  json["domains"] = summary.domains;
  json["file_bytes"] = summary.file_bytes;
  json["external_bytes"] = summary.external_bytes;
  json["inputs"] = to_json(summary.inputs);
  json["outputs"] = to_json(summary.outputs);
  json["nodes_by_op"] = summary.nodes_by_op;
  json["initializers"] = nlohmann::ordered_json::object();
  for (const auto& [dtype, total] : summary.initializers) {
    json["initializers"][dtype] = {{"tensors", total.tensors}, {"bytes", total.bytes}};
  }
  json["quantizers"] = nlohmann::ordered_json::array();
  for (const QuantizerSummary& q : summary.quantizers) json["quantizers"].push_back(to_json(q));
  json["coverage"] = nlohmann::ordered_json::array();
  for (const CoverageLine& line : summary.coverage) {
    json["coverage"].push_back({{"node", line.node},
                                {"op_type", line.op_type},
                                {"int8", line.int8},
                                {"reason", line.reason}});
  }
  json["metadata"] = nlohmann::ordered_json::object();
  for (const auto& [key, value] : summary.metadata) json["metadata"][key] = value;
  json["has_subgraphs"] = summary.has_subgraphs;
  return json;
}

std::string quantizer_text(const QuantizerSummary& q) {
  std::string text = "    " + q.role + " " + q.tensor + ": " + q.dtype;
  if (q.has_range) {
    text += " in [" + std::to_string(q.quant_min) + "," + std::to_string(q.quant_max) + "]";
  }
  text += ", " + shape_text(q);
  text += ", scale " + spread_text(q.scale, [](double v) { return number_text(v); });
  text += ", zero point " + spread_text(q.zero_point, [](int64_t v) { return std::to_string(v); });
  return text + "\n";
}

std::string values_text(const char* title, const std::vector<NamedType>& values) {
  std::string text = std::string("  ") + title;
  for (size_t i = 0; i < values.size(); ++i) {
    text += (i > 0 ? ", " : " ") + values[i].name + " " + type_text(values[i].type);
  }
  return text + "\n";
}

std::string to_text(const ModelSummary& summary) {
  std::string text = summary.path + ": " + size_text(summary.file_bytes);
  if (summary.external_bytes > 0) {
    text += " and " + size_text(summary.external_bytes) + " of external data";
  }
  text += ", opset " + std::to_string(summary.opset);
  for (const auto& [domain, version] : summary.domains) {
    text += ", " + domain + " " + std::to_string(version);
  }
  text += ", IR " + std::to_string(summary.ir_version);
  if (!summary.producer.empty()) text += ", by " + summary.producer;
  text += "\n" + values_text("inputs: ", summary.inputs);
  text += values_text("outputs:", summary.outputs);
  text += "  " + nodes_text(summary.nodes_by_op) + "\n";
  if (summary.has_subgraphs) text += "  bodies of If, Loop and Scan are not looked into\n";
  text += "  initializers:";
  if (summary.initializers.empty()) text += " none";
  bool first = true;
  for (const auto& [dtype, total] : summary.initializers) {
    text += std::string(first ? " " : ", ") + dtype + " " + size_text(total.bytes) + " in " +
            std::to_string(total.tensors) + (total.tensors == 1 ? " tensor" : " tensors");
    first = false;
  }
  text += "\n  quantisers: " + std::to_string(summary.quantizers.size()) + "\n";
  for (const QuantizerSummary& q : summary.quantizers) text += quantizer_text(q);
  const auto in_int8 = std::count_if(summary.coverage.begin(), summary.coverage.end(),
                                     [](const CoverageLine& line) { return line.int8; });
  text += "  int8 in ONNX Runtime: " + std::to_string(in_int8) + " of " +
          std::to_string(summary.coverage.size()) + " nodes that could be\n";
  // A float model would list every node with the same reason.
  if (summary.quantizers.empty()) return text;
  for (const CoverageLine& line : summary.coverage) {
    if (!line.int8) text += "    float " + line.node + ": " + line.reason + "\n";
  }
  return text;
}

int inspect_model(const InspectArguments& arguments) {
  if (!arguments.html.empty()) throw std::runtime_error("--html is not built yet; use --json");
  const ModelSummary summary = inspect_onnx(arguments.onnx);
  std::cout << (arguments.json ? json_text(to_json(summary)) : to_text(summary));
  return kOk;
}

}  // namespace

void add_inspect_command(CLI::App& app, Run& run) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = app.add_subcommand(
      "inspect", "Show a file's ops, types, sizes, quantisers and int8 coverage");
  command->add_option("OUT.onnx", arguments->onnx, "The .onnx file")->required();
  command->add_option("--html", arguments->html, "Not built yet")->type_name("OUT.html");
  add_json_flag(*command, arguments->json);
  command->footer(
      "Examples:\n"
      "  qcdq inspect resnet18.onnx\n"
      "  qcdq inspect resnet18.onnx --json\n"
      "\n"
      "Exit codes: 0 ok, 1 failed, 2 bad usage.");
  command->callback([arguments, &run] { run = [arguments] { return inspect_model(*arguments); }; });
}

}  // namespace qcdq::cli
