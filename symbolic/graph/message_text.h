// Text in messages, notes and names of places, the same for every room.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qcdq {

/// "[2, 3]": a shape, or another list of integers.
std::string list_text(const std::vector<int64_t>& values);
/// "a, b, c".
std::string join_names(const std::vector<std::string>& names);
/// "layer1.0.conv1, model.py:12" of a module path and a source line; either may be "".
std::string place_text(const std::string& path, const std::string& line);

}  // namespace qcdq
