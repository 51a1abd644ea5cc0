// Random models that write in place through views, as the source of a forward: valid TorchScript
// and valid Python. Every shape in them is known, so that nearly all of them run.
#pragma once

#include <cstdint>
#include <string>

namespace qcdq {

/// The forward of program number `seed`: def forward(self, x, y), x of shape [4, 6], y of [6].
std::string random_write_program(uint64_t seed);

}  // namespace qcdq
