// Handwritten digits from training to ONNX Runtime, in C++ alone: a small CNN in float, then
// quantisation-aware training at three widths; each model is exported, verified and run on the
// held-out images. Prints one table.
//   digits [--data FILE] [--output FOLDER]
#include <qcdq/export.h>
#include <qcdq/modules.h>
#include <qcdq/verify.h>
#include <torch/torch.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "data.h"

namespace {

using torch::Tensor;

struct Widths {
  std::string name;
  std::optional<qcdq::QuantSpec> weight, activation;  // nothing: float
  double allowed_loss = 0;                            // points of accuracy against float
  // uint8 weights are exact on every CPU; int8 ones of 8 bits saturate against uint8 activations
  // on x86 CPUs without VNNI.
  qcdq::WeightStorage weight_storage = qcdq::WeightStorage::kInt8;
};

// Two convolutions and a linear layer. Every layer takes its input's scale from the quantiser
// before it, so that the biases are int32 and ONNX Runtime can run the whole net on integers.
struct NetImpl : torch::nn::Module {
  explicit NetImpl(const Widths& widths)
      : conv1(qcdq::QuantConv2dOptions(1, 16, 3).padding(1).weight(widths.weight)),
        conv2(qcdq::QuantConv2dOptions(16, 32, 3).padding(1).weight(widths.weight)),
        fc(qcdq::QuantLinearOptions(32 * 4 * 4, 10).weight(widths.weight)) {
    register_module("conv1", conv1);
    register_module("conv2", conv2);
    register_module("fc", fc);
    if (!widths.activation) return;
    const auto spec = widths.activation->collect_steps(100);
    input = register_module("input", qcdq::QuantIdentity(qcdq::uint8().collect_steps(100)));
    relu1 = register_module("relu1", qcdq::QuantReLU(spec));
    relu2 = register_module("relu2", qcdq::QuantReLU(spec));
    conv1->set_input_quantizer(input->act_quant);
    conv2->set_input_quantizer(relu1->act_quant);
    fc->set_input_quantizer(relu2->act_quant);
  }

  Tensor forward(const Tensor& images) {
    Tensor x = input ? input(images) : images;
    x = conv1(x);
    x = relu1 ? relu1(x) : torch::relu(x);
    x = conv2(x);
    x = relu2 ? relu2(x) : torch::relu(x);
    return fc(torch::max_pool2d(x, 2).flatten(1));
  }

  qcdq::QuantIdentity input{nullptr};
  qcdq::QuantReLU relu1{nullptr}, relu2{nullptr};
  qcdq::QuantConv2d conv1, conv2;
  qcdq::QuantLinear fc;
};
TORCH_MODULE(Net);

void train(Net& net, const Digits& digits, int epochs, double rate) {
  constexpr int64_t kBatch = 32;
  net->train();
  torch::optim::Adam adam(net->parameters(), torch::optim::AdamOptions(rate));
  const int64_t count = digits.train_labels.size(0);
  for (int epoch = 0; epoch < epochs; ++epoch) {
    // The rate falls to a tenth in a straight line.
    const double now = rate * (1 - 0.9 * epoch / std::max(epochs - 1, 1));
    static_cast<torch::optim::AdamOptions&>(adam.param_groups()[0].options()).lr(now);
    const Tensor order = torch::randperm(count);
    for (int64_t first = 0; first + kBatch <= count; first += kBatch) {
      const Tensor rows = order.narrow(0, first, kBatch);
      adam.zero_grad();
      const Tensor logits = net->forward(digits.train_images.index_select(0, rows));
      torch::nn::functional::cross_entropy(logits, digits.train_labels.index_select(0, rows))
          .backward();
      adam.step();
    }
  }
  net->eval();
}

void copy_weights(const Net& from, Net& to) {
  torch::NoGradGuard no_grad;
  auto target = to->named_parameters();
  for (const auto& item : from->named_parameters()) target[item.key()].copy_(item.value());
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double accuracy(const Tensor& classes, const Tensor& labels) {
  return 100.0 * classes.eq(labels).sum().item<double>() / static_cast<double>(labels.size(0));
}

struct Row {
  std::string name, file, nodes;
  double eager = 0, ort = 0, export_seconds = 0, batch_ms = 0, kilobytes = 0;
  int64_t classes_differ = 0, codes = 0, codes_differ = 0;
  std::vector<std::string> messages, failures;
};

// Exports the net, verifies the file, and runs it on the held-out images.
Row prove(const Widths& widths, Net& net, const Digits& digits,
          const std::filesystem::path& folder) {
  constexpr int64_t kBatch = 60;
  constexpr int kRuns = 100;
  torch::NoGradGuard no_grad;
  Row row;
  row.name = widths.name;
  row.file = (folder / (widths.name + ".onnx")).string();
  const Tensor& images = digits.test_images;
  const Tensor batch = images.narrow(0, 0, kBatch).contiguous();

  const auto start = std::chrono::steady_clock::now();
  qcdq::ExportOptions options;
  options.weight_storage = widths.weight_storage;
  options.input_names = {"image"};
  options.output_names = {"logits"};
  options.dynamic_axes = {{.input = "image", .axis = 0, .symbol = "N"}};
  const qcdq::ExportReport exported = qcdq::export_onnx(net, {batch}, row.file, options);
  row.export_seconds = seconds_since(start);
  row.kilobytes = static_cast<double>(exported.file_bytes) / 1000;
  row.messages = exported.notes;
  std::ostringstream nodes;
  for (const auto& [op, count] : exported.nodes_by_op) nodes << " " << count << " " << op;
  row.nodes = nodes.str();

  const qcdq::BoxedForward forward = [&net](const std::vector<c10::IValue>& in) -> c10::IValue {
    return net->forward(in[0].toTensor());
  };
  const qcdq::VerifyReport verified = qcdq::verify_onnx(forward, {{images}}, row.file);
  row.codes = verified.codes_compared();
  row.codes_differ = verified.codes_differing();
  row.messages.insert(row.messages.end(), verified.warnings.begin(), verified.warnings.end());
  row.failures = verified.failures;

  qcdq::OrtModel model(row.file);
  const Tensor eager_classes = net->forward(images).argmax(1);
  const Tensor ort_classes = model.run({images})[0].argmax(1);
  row.eager = accuracy(eager_classes, digits.test_labels);
  row.ort = accuracy(ort_classes, digits.test_labels);
  row.classes_differ = eager_classes.ne(ort_classes).sum().item<int64_t>();
  const auto runs = std::chrono::steady_clock::now();
  for (int i = 0; i < kRuns; ++i) model.run({batch});
  row.batch_ms = 1000 * seconds_since(runs) / kRuns;
  return row;
}

void print(const std::vector<Row>& rows, double float_accuracy) {
  std::printf("\n%-6s %8s %8s %8s %9s %16s %8s %9s %9s\n", "model", "float", "eager", "ORT",
              "classes", "codes", "file", "export", "ORT");
  std::printf("%-6s %8s %8s %8s %9s %16s %8s %9s %9s\n", "", "%", "%", "%", "differ",
              "differ / all", "kB", "s", "ms/60");
  for (const Row& row : rows) {
    const std::string codes = std::to_string(row.codes_differ) + " / " + std::to_string(row.codes);
    std::printf("%-6s %8.2f %8.2f %8.2f %9lld %16s %8.1f %9.3f %9.3f\n", row.name.c_str(),
                float_accuracy, row.eager, row.ort, static_cast<long long>(row.classes_differ),
                codes.c_str(), row.kilobytes, row.export_seconds, row.batch_ms);
  }
  std::printf("\n");
  for (const Row& row : rows) std::printf("%s:%s\n", row.file.c_str(), row.nodes.c_str());
  for (const Row& row : rows) {
    for (const auto& line : row.messages)
      std::printf("note (%s): %s\n", row.name.c_str(), line.c_str());
  }
  std::printf(
      "\nTo look at a file: open it in Netron (https://netron.app, or pip install netron).\n");
}

// What the demo promises; one line for each promise that doesn't hold.
std::vector<std::string> broken_promises(const std::vector<Row>& rows,
                                         const std::vector<Widths>& all) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    for (const auto& line : row.failures) lines.push_back(row.name + ": " + line);
    if (row.classes_differ != 0)
      lines.push_back(row.name + ": ONNX Runtime gives other classes than eager");
    if (row.codes_differ != 0) lines.push_back(row.name + ": codes differ");
    if (rows[0].eager - row.eager > all[i].allowed_loss + 1e-9) {
      lines.push_back(row.name + ": loses more than " + std::to_string(all[i].allowed_loss) +
                      " points");
    }
  }
  return lines;
}

int run(const std::string& data, const std::string& output) {
  const auto start = std::chrono::steady_clock::now();
  // Layers this small lose more to waking threads than they gain.
  at::set_num_threads(1);
  torch::manual_seed(0);
  const Digits digits = load_digits(data);
  std::filesystem::create_directories(output);
  std::printf("%lld images to train on, %lld held out\n",
              static_cast<long long>(digits.train_labels.size(0)),
              static_cast<long long>(digits.test_labels.size(0)));
  const auto weight = [](int64_t bits) { return qcdq::intn(bits).narrow().per_channel(0); };
  const std::vector<Widths> all = {
      {"float", std::nullopt, std::nullopt},
      {"w8a8", weight(8), qcdq::uint8(), 1, qcdq::WeightStorage::kUInt8},
      {"w4a4", weight(4), qcdq::uint4(), 2},
      {"w3a4", weight(3), qcdq::uint4(), 2}};
  Net float_net(all[0]);
  std::vector<Row> rows;
  for (const Widths& widths : all) {
    std::printf("training %s ...\n", widths.name.c_str());
    std::fflush(stdout);
    Net net = widths.weight ? Net(widths) : float_net;
    if (widths.weight) {
      copy_weights(float_net, net);
      qcdq::name_layers(*net);
    }
    train(net, digits, widths.weight ? 12 : 20, widths.weight ? 1e-3 : 3e-3);
    rows.push_back(prove(widths, net, digits, output));
  }
  print(rows, rows[0].eager);
  const auto broken = broken_promises(rows, all);
  for (const auto& line : broken) std::cerr << "digits: " << line << "\n";
  std::printf("%.1f s in all\n", seconds_since(start));
  return broken.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) try {
  std::string data = DIGITS_DATA, output = "digits_models";
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if ((flag != "--data" && flag != "--output") || i + 1 == argc) {
      std::cerr << "usage: digits [--data FILE] [--output FOLDER]\n";
      return 2;
    }
    (flag == "--data" ? data : output) = argv[++i];
  }
  return run(data, output);
} catch (const std::exception& error) {
  std::cerr << "digits: " << error.what() << "\n";
  return 1;
}
