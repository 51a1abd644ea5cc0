// The C++ half of tests/python/test_nn_parity.py: reads a net from an archive that Python wrote,
// prints its outputs, trains it, prints them again and writes an archive for Python to read.
//   archive_program IN.pt OUT.pt STEPS
#include <torch/torch.h>

#include <cstdio>
#include <iostream>
#include <string>

#include "qcdq/modules.h"

namespace {

using qcdq::Scaling;

// The same layers, in the same order, as Net in test_nn_parity.py.
struct NetImpl : torch::nn::Module {
  NetImpl() {
    fc->set_input_quantizer(relu->act_quant);
    register_module("input", input);
    register_module("conv", conv);
    register_module("relu", relu);
    register_module("up", up);
    register_module("shifted", shifted);
    register_module("fc", fc);
    register_module("line", line);
    register_module("line_up", line_up);
    register_module("head", head);
  }

  torch::Tensor forward(torch::Tensor x) {
    x = relu->forward(conv->forward(input->forward(x)));
    const torch::Tensor a = fc->forward(x.flatten(1));
    const torch::Tensor b = shifted->forward(up->forward(x)).flatten(1);
    const torch::Tensor c = line_up->forward(line->forward(a.unsqueeze(1))).flatten(1);
    return head->forward(torch::cat({a, b, c}, 1));
  }

  qcdq::QuantIdentity input{qcdq::int8().scaling(Scaling::kMinMax)};
  qcdq::QuantConv2d conv{qcdq::QuantConv2dOptions(1, 4, 3)
                             .padding(1)
                             .weight(qcdq::int4().per_channel(0).narrow())
                             .input(qcdq::int8().collect_steps(2))};
  qcdq::QuantReLU relu{qcdq::uint4().collect_steps(2)};
  qcdq::QuantConvTranspose2d up{
      qcdq::QuantConvTranspose2dOptions(4, 2, 2).stride(2).groups(2).input(
          qcdq::uint8().power_of_two())};
  qcdq::QuantIdentity shifted{qcdq::uint8().symmetric(false).collect_steps(2)};
  qcdq::QuantLinear fc{qcdq::QuantLinearOptions(256, 16)};
  qcdq::QuantConv1d line{
      qcdq::QuantConv1dOptions(1, 2, 3).weight(qcdq::int8().scaling(Scaling::kLearned))};
  qcdq::QuantConvTranspose1d line_up{
      qcdq::QuantConvTranspose1dOptions(2, 2, 3).bias(false).weight(qcdq::int3())};
  qcdq::QuantLinear head{
      qcdq::QuantLinearOptions(560, 5).weight(qcdq::int4().blocked(1, 32)).bias(std::nullopt)};
};
TORCH_MODULE(Net);

torch::Tensor batch(double phase) {
  return torch::sin(torch::arange(2 * 8 * 8, torch::kFloat) * 0.37 + phase).view({2, 1, 8, 8});
}

void print(Net& net) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor y = net->forward(batch(0.5)).contiguous();
  for (int64_t i = 0; i < y.numel(); ++i) std::printf("%.9g ", y.data_ptr<float>()[i]);
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) {
    std::cerr << "usage: archive_program IN.pt OUT.pt STEPS\n";
    return 2;
  }
  Net net;
  torch::load(net, argv[1]);
  net->eval();
  print(net);
  net->train();
  torch::optim::SGD optimizer(net->parameters(), 0.01);
  for (int step = 0; step < std::stoi(argv[3]); ++step) {
    optimizer.zero_grad();
    net->forward(batch(step)).square().mean().backward();
    optimizer.step();
  }
  net->eval();
  print(net);
  torch::save(net, argv[2]);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
