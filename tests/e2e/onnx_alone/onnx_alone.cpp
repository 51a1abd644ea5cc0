// Exports a TorchScript file. The model may hold qcdq's ops, of which this program names none: they
// come with libqcdq_onnx.so. Usage: onnx_alone MODEL.pt OUT.onnx
#include <qcdq/export.h>

#include <exception>
#include <iostream>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: onnx_alone MODEL.pt OUT.onnx\n";
    return 2;
  }
  try {
    const torch::jit::Module model = qcdq::load_torchscript(argv[1]);
    const qcdq::ExportReport report = qcdq::export_onnx(model, {torch::zeros({2, 3})}, argv[2]);
    std::cout << report.path << "\n";
  } catch (const std::exception& error) {
    std::cerr << "onnx_alone: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
