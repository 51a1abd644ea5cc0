// The digits of digits.bin, split into training and held-out images. README.md says where they are
// from.
#pragma once

#include <torch/types.h>

#include <string>

struct Digits {
  at::Tensor train_images, train_labels;  // [N, 1, 8, 8] f32 in [0, 1]; [N] int64
  at::Tensor test_images, test_labels;    // a fifth of the images, drawn with a fixed seed
};

/// Throws std::runtime_error that says what is wrong with the file.
Digits load_digits(const std::string& path);
