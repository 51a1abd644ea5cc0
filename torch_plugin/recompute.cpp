// recompute_quantized (ops.h): a fake-quantised weight or input that the backward of a convolution
// or a linear layer keeps is replaced by what it was computed from, which the graph keeps anyway.
// docs/adr/0002 has the reasons and the numbers.
#include <ATen/core/grad_mode.h>
#include <qcdq/ops.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <memory>
#include <vector>

#include "torch_plugin/quant_node.h"

namespace qcdq {
namespace {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
namespace generated = torch::autograd::generated;

bool is_view(Node* node) {
  return dynamic_cast<generated::TBackward0*>(node) != nullptr ||
         dynamic_cast<generated::ViewBackward0*>(node) != nullptr ||
         dynamic_cast<generated::UnsafeViewBackward0*>(node) != nullptr;
}

// Stands for a saved result of `node`, or a view of one. Holds the inputs itself: the node may have
// been released when only another part of the graph is walked a second time.
class Recomputed : public torch::autograd::SavedVariableHooks {
 public:
  explicit Recomputed(QuantNode& node) : Recomputed(node, node.unpack()) {}
  void call_pack_hook(const at::Tensor& tensor) override {
    sizes_ = tensor.sizes().vec();
    strides_ = tensor.strides().vec();
  }
  at::Tensor call_unpack_hook() override {
    const at::NoGradGuard no_grad;
    const at::Tensor x = x_.unpack();
    const at::Tensor scale = scale_.unpack();
    const at::Tensor zero_point = zero_point_.unpack();
    const Arguments& a = arguments_;
    const at::Tensor y =
        is_learned_
            ? fake_quantize_learned(x, scale, zero_point, a.quant_min, a.quant_max, a.axis,
                                    a.block_size, a.grad_factor)
            : fake_quantize(x, scale, zero_point, a.quant_min, a.quant_max, a.axis, a.block_size);
    return y.as_strided(sizes_, strides_, 0);  // the op's memory is the same at each call
  }

 private:
  Recomputed(const QuantNode& node, const QuantNode::Inputs& in)
      : x_(in.x, /*is_output=*/false),
        scale_(in.scale, /*is_output=*/false),
        zero_point_(in.zero_point, /*is_output=*/false),
        arguments_(node.arguments()),
        is_learned_(node.is_learned()) {}

  SavedVariable x_, scale_, zero_point_;
  Arguments arguments_;
  bool is_learned_;
  std::vector<int64_t> sizes_, strides_;
};

void replace(SavedVariable& saved) {
  if (saved.has_hooks()) return;  // someone else's, or a second call
  const at::Tensor tensor = saved.unpack();
  if (!tensor.defined() || !tensor.grad_fn() || tensor.storage_offset() != 0) return;
  Node* node = tensor.grad_fn().get();
  // at::linear multiplies a matrix view of the input by weight.t().
  if (is_view(node)) node = node->next_edge(0).function.get();
  if (auto* quant = dynamic_cast<QuantNode*>(node)) {
    saved.register_hooks(std::make_unique<Recomputed>(*quant));
  }
}

}  // namespace

at::Tensor recompute_quantized(const at::Tensor& y) {
  Node* node = y.grad_fn().get();
  // Results of more than two dimensions are views of a matrix product's.
  if (is_view(node)) node = node->next_edge(0).function.get();
  if (auto* convolution = dynamic_cast<generated::ConvolutionBackward0*>(node)) {
    replace(convolution->input_);
    replace(convolution->weight_);
  } else if (auto* with_bias = dynamic_cast<generated::AddmmBackward0*>(node)) {
    replace(with_bias->mat1_);
    replace(with_bias->mat2_);
  } else if (auto* product = dynamic_cast<generated::MmBackward0*>(node)) {
    replace(product->self_);
    replace(product->mat2_);
  }
  return y;
}

}  // namespace qcdq
