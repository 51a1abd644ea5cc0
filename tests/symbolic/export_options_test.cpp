// The words of export's options: each names one choice, and no other word names any.
#include "qcdq/export_options.h"

#include <gtest/gtest.h>

#include <set>

namespace qcdq {
namespace {

template <typename Option>
void expect_words(const std::string& list, Option first) {
  std::set<Option> values;
  std::set<std::string_view> words;
  for (const auto& [value, word] : OptionWords<Option>::kWords) {
    EXPECT_EQ(option_word(value), word);
    EXPECT_EQ(parse_option<Option>(word), value);
    values.insert(value);
    words.insert(word);
  }
  EXPECT_EQ(values.size(), std::size(OptionWords<Option>::kWords));
  EXPECT_EQ(words.size(), values.size());
  EXPECT_EQ(list_option_words<Option>(), list);
  EXPECT_EQ(parse_option<Option>(list.substr(0, list.find(','))), first);
  for (const char* other : {"", "Auto", "auto ", "no such word"}) {
    EXPECT_EQ(parse_option<Option>(other), std::nullopt) << other;
  }
}

TEST(ExportOptions, EveryChoiceHasOneWord) {
  expect_words("auto, signed, unsigned", ActivationStorage::kAuto);
  expect_words("int, qdq", Weights::kInt);
  expect_words("int8, uint8", WeightStorage::kInt8);
  expect_words("auto, always, never", ExternalData::kAuto);
  // Nothing is left out of a table: the enums end with these.
  EXPECT_EQ(static_cast<size_t>(ActivationStorage::kUnsigned) + 1,
            std::size(OptionWords<ActivationStorage>::kWords));
  EXPECT_EQ(static_cast<size_t>(Weights::kQdq) + 1, std::size(OptionWords<Weights>::kWords));
  EXPECT_EQ(static_cast<size_t>(WeightStorage::kUInt8) + 1,
            std::size(OptionWords<WeightStorage>::kWords));
  EXPECT_EQ(static_cast<size_t>(ExternalData::kNever) + 1,
            std::size(OptionWords<ExternalData>::kWords));
}

TEST(ExportOptions, Opsets) {
  EXPECT_FALSE(is_opset(kOldestOpset - 1));
  EXPECT_TRUE(is_opset(kOldestOpset));
  EXPECT_TRUE(is_opset(ExportOptions().opset));
  EXPECT_TRUE(is_opset(kNewestOpset));
  EXPECT_FALSE(is_opset(kNewestOpset + 1));
  EXPECT_EQ(opset_range_text(), "10 to 26");
}

}  // namespace
}  // namespace qcdq
