// The baseline of measure_resnet18.py: loads a TorchScript model, runs it once on zeros, ends.
// Usage: qcdq_load_and_run MODEL.pt D0,D1,...
#include <torch/script.h>

#include <cstdio>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: qcdq_load_and_run MODEL.pt D0,D1,...\n");
    return 2;
  }
  try {
    std::vector<int64_t> shape;
    std::stringstream sizes(argv[2]);
    for (std::string size; std::getline(sizes, size, ',');) shape.push_back(std::stoll(size));
    c10::InferenceMode no_grad;
    torch::jit::Module model = torch::jit::load(argv[1], at::kCPU);
    model.eval();
    model.forward({torch::zeros(shape)});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "qcdq_load_and_run: %s\n", error.what());
    return 1;
  }
  return 0;
}
