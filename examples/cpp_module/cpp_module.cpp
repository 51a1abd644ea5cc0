// A small quantised network: made, calibrated, exported to ONNX and run in ONNX Runtime, without
// Python.
#include <qcdq/export.h>
#include <qcdq/modules.h>
#include <qcdq/verify.h>
#include <torch/torch.h>

#include <iostream>

struct NetImpl : torch::nn::Module {
  NetImpl() {
    register_module("input", input);
    register_module("conv", conv);
    register_module("relu", relu);
    register_module("fc", fc);
  }
  at::Tensor forward(const at::Tensor& x) { return fc(relu(conv(input(x))).flatten(1)); }
  qcdq::QuantIdentity input{qcdq::int8()};
  qcdq::QuantConv2d conv{
      qcdq::QuantConv2dOptions(1, 8, 3).weight(qcdq::int4().per_channel(0).narrow())};
  qcdq::QuantReLU relu{qcdq::uint4()};
  qcdq::QuantLinear fc{qcdq::QuantLinearOptions(8 * 6 * 6, 10).weight(qcdq::int8())};
};
TORCH_MODULE(Net);

int main() try {
  torch::manual_seed(0);
  Net net;
  for (int step = 0; step < 10; ++step) net->forward(torch::randn({8, 1, 8, 8}));  // statistics
  net->eval();

  const at::Tensor x = torch::randn({4, 1, 8, 8});
  const qcdq::ExportReport report = qcdq::export_onnx(net, {x}, "net.onnx", {.opset = 21});
  std::cout << report.path << ": " << report.file_bytes << " bytes\n";

  const auto forward = [&](const std::vector<c10::IValue>& in) -> c10::IValue {
    return net->forward(in[0].toTensor());
  };
  const qcdq::VerifyReport proof = qcdq::verify_onnx(forward, {{x}}, report.path);
  std::cout << "codes compared: " << proof.codes_compared()
            << ", differing: " << proof.codes_differing()
            << ", largest relative difference: " << proof.max_relative() << "\n";
  for (const std::string& failure : proof.failures) std::cerr << failure << "\n";
  return proof.ok() ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
