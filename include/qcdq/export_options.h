// What an export can be asked for, and the one word for each choice: the command line, Python and
// the metadata of the written file use the same. No torch.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qcdq {

/// The opsets that can be written.
inline constexpr int64_t kOldestOpset = 10;
inline constexpr int64_t kNewestOpset = 26;

/// Codes of activations. kAuto is unsigned, which ONNX Runtime fuses.
enum class ActivationStorage { kAuto, kSigned, kUnsigned };
/// kInt: an integer initializer and its DequantizeLinear. kQdq: a float initializer with
/// QuantizeLinear, Clip and DequantizeLinear behind it.
enum class Weights { kInt, kQdq };
/// Codes of weights of 8 bits and less.
enum class WeightStorage { kInt8, kUInt8 };
/// Weights in a file of their own. kAuto: where the model is over 2 GB.
enum class ExternalData { kAuto, kAlways, kNever };

struct DynamicAxis {
  std::string input;  // name of the input
  int64_t axis = 0;
  std::string symbol;  // name of the dimension in the file, "N"
  bool operator==(const DynamicAxis&) const = default;
};

struct ExportOptions {
  int64_t opset = 21;  // kOldestOpset to kNewestOpset
  ActivationStorage activation_storage = ActivationStorage::kAuto;
  Weights weights = Weights::kInt;
  WeightStorage weight_storage = WeightStorage::kInt8;
  ExternalData external_data = ExternalData::kAuto;
  std::string method = "forward";              // TorchScript only
  std::vector<std::string> input_names = {};   // default: the names of the method's arguments
  std::vector<std::string> output_names = {};  // default: "output", or "output_0", "output_1", ...
  std::vector<DynamicAxis> dynamic_axes = {};
  bool cast_f64 = false;  // quantise f64 tensors through f32 (else they are refused)
  /// A folder that gets the graph as text after each pass and a table of contents; "" = none. It is
  /// made if need be, and files of an earlier dump in it are replaced. A refused export leaves what
  /// there was up to the pass that refused.
  std::string dump = {};
  std::function<void(const std::string& phase)> progress = {};  // called as each phase starts
};

/// One choice of an option and its word.
template <typename Option>
struct OptionWord {
  Option value;
  std::string_view word;
};
/// The words of an option: kWords of the specialisation for its enum.
template <typename Option>
struct OptionWords;
template <>
struct OptionWords<ActivationStorage> {
  static constexpr OptionWord<ActivationStorage> kWords[] = {
      {ActivationStorage::kAuto, "auto"},
      {ActivationStorage::kSigned, "signed"},
      {ActivationStorage::kUnsigned, "unsigned"}};
};
template <>
struct OptionWords<Weights> {
  static constexpr OptionWord<Weights> kWords[] = {{Weights::kInt, "int"}, {Weights::kQdq, "qdq"}};
};
template <>
struct OptionWords<WeightStorage> {
  static constexpr OptionWord<WeightStorage> kWords[] = {{WeightStorage::kInt8, "int8"},
                                                         {WeightStorage::kUInt8, "uint8"}};
};
template <>
struct OptionWords<ExternalData> {
  static constexpr OptionWord<ExternalData> kWords[] = {{ExternalData::kAuto, "auto"},
                                                        {ExternalData::kAlways, "always"},
                                                        {ExternalData::kNever, "never"}};
};

/// "unsigned" for ActivationStorage::kUnsigned.
template <typename Option>
constexpr std::string_view option_word(Option value) {
  for (const auto& [known, word] : OptionWords<Option>::kWords) {
    if (known == value) return word;
  }
  return "";
}

/// The choice that `word` names; nothing where it names none.
template <typename Option>
constexpr std::optional<Option> parse_option(std::string_view word) {
  for (const auto& [value, known] : OptionWords<Option>::kWords) {
    if (known == word) return value;
  }
  return std::nullopt;
}

/// "auto, signed, unsigned", for messages.
template <typename Option>
std::string list_option_words() {
  std::string list;
  for (const auto& [value, word] : OptionWords<Option>::kWords) {
    list += (list.empty() ? "" : ", ") + std::string(word);
  }
  return list;
}

/// "10 to 26", for messages.
inline std::string opset_range_text() {
  return std::to_string(kOldestOpset) + " to " + std::to_string(kNewestOpset);
}
constexpr bool is_opset(int64_t opset) { return kOldestOpset <= opset && opset <= kNewestOpset; }

}  // namespace qcdq
