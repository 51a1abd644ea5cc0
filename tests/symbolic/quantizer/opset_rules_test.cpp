// Every row of opset_rules, asked of onnx's own schemas: the feature is there at its least opset
// and not at the opset before.
#include "symbolic/quantizer/opset_rules.h"

#include <gtest/gtest.h>
#include <onnx/defs/schema.h>

#include <algorithm>
#include <set>

namespace qcdq {
namespace {

bool has(const OpsetRule& rule, int opset) {
  const onnx::OpSchema* schema = onnx::OpSchemaRegistry::Schema(std::string(rule.op), opset, "");
  if (schema == nullptr) return false;
  if (!rule.attribute.empty()) return schema->attributes().contains(std::string(rule.attribute));
  if (rule.type.empty()) return true;
  for (const auto* formals : {&schema->inputs(), &schema->outputs()}) {
    for (const auto& formal : *formals) {
      if (formal.GetName() != rule.type_parameter) continue;
      for (const auto& constraint : schema->typeConstraintParams()) {
        if (constraint.type_param_str != formal.GetTypeStr()) continue;
        const auto& allowed = constraint.allowed_type_strs;
        return std::find(allowed.begin(), allowed.end(), rule.type) != allowed.end();
      }
    }
  }
  return false;
}

TEST(OpsetRules, EveryRowIsWhatTheSchemasSay) {
  for (const OpsetRule& rule : opset_rules()) {
    const auto least = static_cast<int>(rule.least_opset);
    EXPECT_TRUE(has(rule, least)) << rule.wanted << " is not in opset " << least;
    EXPECT_FALSE(has(rule, least - 1)) << rule.wanted << " is in opset " << least - 1 << " already";
  }
}

TEST(OpsetRules, EveryFeatureHasOneRow) {
  std::set<QuantFeature> seen;
  for (const OpsetRule& rule : opset_rules())
    EXPECT_TRUE(seen.insert(rule.feature).second) << rule.wanted;
  EXPECT_EQ(seen.size(), static_cast<size_t>(QuantFeature::kInt2) + 1);
}

TEST(OpsetRules, LookUp) {
  EXPECT_EQ(least_opset(QuantFeature::kPerChannel), 13);
  EXPECT_EQ(feature_name(QuantFeature::kBlocked), "blocked scales");
  EXPECT_EQ(least_opset_for_codes(DType::kInt8), 10);
  EXPECT_EQ(least_opset_for_codes(DType::kUInt16), 21);
  EXPECT_EQ(least_opset_for_codes(DType::kInt64), 0);
}

}  // namespace
}  // namespace qcdq
