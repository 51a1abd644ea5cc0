// The autograd node of fake_quantize and fake_quantize_learned: keeps the inputs of the op. Its two
// kinds are in autograd_ops.cpp; recompute.cpp finds them in a graph and calls their op again.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <mutex>
#include <optional>
#include <utility>

namespace qcdq {

// The arguments that both ops keep for their backward.
struct Arguments {
  int64_t quant_min;
  int64_t quant_max;
  std::optional<int64_t> axis;
  std::optional<int64_t> block_size;
  double grad_factor = 1.0;
};

// Keeps the inputs of an op; apply() of a derived class computes their gradients.
class QuantNode : public torch::autograd::Node {
 public:
  QuantNode(torch::autograd::edge_list&& next, const at::Tensor& x, const at::Tensor& scale,
            const at::Tensor& zero_point, const Arguments& arguments)
      : Node(std::move(next)),
        arguments_(arguments),
        x_(x, /*is_output=*/false),
        scale_(scale, /*is_output=*/false),
        zero_point_(zero_point, /*is_output=*/false) {}

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    x_.reset_data();
    scale_.reset_data();
    zero_point_.reset_data();
  }

  struct Inputs {
    at::Tensor x;
    at::Tensor scale;
    at::Tensor zero_point;
  };
  // Throws torch's own error where release_variables came first (a second backward).
  Inputs unpack() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {x_.unpack(), scale_.unpack(), zero_point_.unpack()};
  }
  const Arguments& arguments() const { return arguments_; }
  // Whether the op is fake_quantize_learned.
  virtual bool is_learned() const = 0;

 protected:
  const Arguments arguments_;

 private:
  torch::autograd::SavedVariable x_;
  torch::autograd::SavedVariable scale_;
  torch::autograd::SavedVariable zero_point_;
};

}  // namespace qcdq
