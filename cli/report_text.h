// How the commands write what they found: sizes, counts, and verification reports as text and JSON.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "qcdq/verify.h"

namespace qcdq::cli {

std::string size_text(uint64_t bytes);   // "44.7 MB" (powers of ten)
std::string number_text(double value);   // "1.3e-06", three digits
std::string seconds_text(double value);  // "0.42 s"
/// "52 nodes: Conv 20, Relu 17, Add 8", the most frequent first.
std::string nodes_text(const std::map<std::string, int64_t>& nodes_by_op);

/// The report as an object: the members of VerifyReport by name, "ok" and "notes".
nlohmann::ordered_json to_json(const VerifyReport& report, const std::vector<std::string>& notes);
/// A few lines for a person; `list_codes` adds one line per quantiser.
std::string verify_text(const VerifyReport& report, const std::vector<std::string>& notes,
                        bool list_codes);
/// Indented JSON text that ends with a newline; bytes that are not UTF-8 are replaced.
std::string json_text(const nlohmann::ordered_json& json);

}  // namespace qcdq::cli
