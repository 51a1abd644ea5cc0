// The registry of symbolic functions: which row wins, and that the lookup by name finds what a scan
// of all rows finds. Also torch's promotion rules as symbolics/torch_rules.h has them.
#include "symbolic/symbolics/registry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "symbolic/graph/graph_builder.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {
namespace {

// qcdq's own rows: this runs before any test registers rows of its own.
const std::vector<ListedSymbolic> kOwnRows = all_symbolics();

TEST(TorchRules, PromotionIsTorchs) {
  EXPECT_EQ(promote_types(DType::kUInt8, DType::kInt8), DType::kInt16);
  EXPECT_EQ(promote_types(DType::kInt64, DType::kFloat16), DType::kFloat16);
  EXPECT_EQ(promote_types(DType::kBFloat16, DType::kFloat16), DType::kFloat32);
  EXPECT_EQ(promote_types(DType::kBool, DType::kUInt8), DType::kUInt8);
  EXPECT_EQ(result_type(DType::kInt32, 0.5), DType::kFloat32);
  EXPECT_EQ(result_type(DType::kFloat16, 0.5), DType::kFloat16);
  EXPECT_EQ(result_type(DType::kBool, 2), DType::kInt64);
  EXPECT_EQ(result_type(DType::kUInt8, 2), DType::kUInt8);
  OnnxGraph graph;
  graph.types["x"] = {DType::kFloat32, true, {2, 3}, {}};
  graph.types["i"] = {DType::kInt64, true, {3}, {}};
  graph.types["zero_dim"] = {DType::kFloat64, true, {}, {}};
  GraphBuilder::State state{graph, {}, "", "", "", nullptr};
  const GraphBuilder builder(state);
  EXPECT_EQ(result_type(builder, Value{"x"}, Value{"zero_dim"}), DType::kFloat32);
  EXPECT_EQ(result_type(builder, Value{"i"}, Value{"zero_dim"}), DType::kFloat64);
}

TEST(TorchRules, NumbersWrapAroundOrAreStoredAsInTorch) {
  EXPECT_EQ(cast_number(DType::kUInt8, 300), Number(int64_t{44}));
  EXPECT_EQ(cast_number(DType::kUInt8, -1), Number(int64_t{255}));
  EXPECT_EQ(cast_number(DType::kInt8, 200), Number(int64_t{-56}));
  EXPECT_EQ(cast_number(DType::kInt64, INT64_MIN), Number(INT64_MIN));
  EXPECT_EQ(cast_number(DType::kBool, 2), Number(int64_t{1}));
  EXPECT_EQ(cast_number(DType::kFloat16, 300), Number(int64_t{300}));
  EXPECT_EQ(stored_number(DType::kInt64, -1.9), Number(-1.0));
  EXPECT_EQ(stored_number(DType::kUInt8, -1), Number(int64_t{255}));
  EXPECT_EQ(stored_number(DType::kUInt8, 300), Number(int64_t{300}));
  EXPECT_EQ(stored_number(DType::kUInt8, INT64_MIN), Number(INT64_MIN));
  EXPECT_EQ(stored_number(DType::kInt8, -129), Number(int64_t{-129}));
  EXPECT_EQ(stored_number(DType::kBool, 0.5), Number(int64_t{1}));
  EXPECT_EQ(stored_number(DType::kFloat32, 0.5), Number(0.5));
}

std::vector<Value> first_function(GraphBuilder&, NodeArgs&) { return {}; }
std::vector<Value> second_function(GraphBuilder&, NodeArgs&) { return {}; }

TEST(Registry, NewestRowThatTheOpsetAllowsWins) {
  register_symbolics(
      {{"test::versioned", 13, first_function}, {"test::versioned", 18, second_function}});
  int64_t least = 0;
  EXPECT_EQ(find_symbolic("test::versioned", "", 12, &least), nullptr);
  EXPECT_EQ(least, 13);
  EXPECT_EQ(find_symbolic("test::versioned", "", 17)->function, &first_function);
  EXPECT_EQ(find_symbolic("test::versioned", "Tensor", 26)->function, &second_function);
  EXPECT_EQ(find_symbolic("test::unknown", "", 21, &least), nullptr);
  EXPECT_EQ(least, 0);
}

TEST(Registry, OverloadsComeFirstAndUserRowsWin) {
  register_symbolics({{"test::op", 10, first_function}, {"test::op.Scalar", 10, second_function}});
  EXPECT_EQ(find_symbolic("test::op", "Scalar", 21)->function, &second_function);
  EXPECT_EQ(find_symbolic("test::op", "Tensor", 21)->function, &first_function);
  const Symbolic* own = find_symbolic("aten::lift_fresh", "", 21);
  ASSERT_NE(own, nullptr);
  register_symbolics({{"aten::lift_fresh", 10, first_function}});
  EXPECT_EQ(find_symbolic("aten::lift_fresh", "", 21)->function, &first_function);
}

TEST(Registry, NoRowTwice) {
  std::set<std::pair<std::string, int>> seen;
  for (const Symbolic& row : kOwnRows) {
    EXPECT_TRUE(seen.emplace(row.torch_op, row.since_opset).second) << row.torch_op;
  }
  EXPECT_GT(seen.size(), 200U);
}

std::string file_of(const std::string& torch_op) {
  for (const ListedSymbolic& row : all_symbolics()) {
    if (row.torch_op == torch_op) return row.file;
  }
  return "no row";
}

TEST(Registry, RowsNameTheirFile) {
  EXPECT_EQ(file_of("aten::relu"), "activations.cpp");
  EXPECT_EQ(file_of("qcdq::quantize"), "quantizers.cpp");
  // A user's row names the library, or the program, that holds it.
  register_symbolics({{"test::of_this_program", 10, first_function}});
  EXPECT_EQ(file_of("test::of_this_program"), "cases_test");
  static const std::string name = "test::made_at_run_time";
  register_symbolics({{name.c_str(), 10, first_function}});
  EXPECT_EQ(file_of(name), "plugin");
}

// What find_symbolic promises, as a scan of every row of one origin.
struct Scan {
  const Symbolic* exact = nullptr;
  const Symbolic* general = nullptr;
  std::vector<int64_t> opsets;  // of every row for the op

  Scan(std::span<const ListedSymbolic> rows, const std::string& op, const std::string& overload,
       int64_t opset) {
    for (const Symbolic& row : rows) {
      const bool is_exact = row.torch_op == op + "." + overload;
      if (!row.converts() || (!is_exact && row.torch_op != op)) continue;
      opsets.push_back(row.since_opset);
      if (row.since_opset > opset) continue;
      const Symbolic*& newest = is_exact ? exact : general;
      if (newest == nullptr || row.since_opset >= newest->since_opset) newest = &row;
    }
  }
  const Symbolic* row() const { return exact != nullptr ? exact : general; }
};

bool same_row(const Symbolic* a, const Symbolic* b) {
  if (a == nullptr || b == nullptr) return a == b;
  return a->torch_op == b->torch_op && a->since_opset == b->since_opset &&
         a->function == b->function && a->onnx_op == b->onnx_op;
}

void expect_as_scanned(const std::vector<ListedSymbolic>& rows, const std::string& op,
                       const std::string& overload) {
  const std::span<const ListedSymbolic> all(rows);
  for (int64_t opset = 9; opset <= 26; ++opset) {
    const Scan own(all.first(kOwnRows.size()), op, overload, opset);
    const Scan user(all.subspan(kOwnRows.size()), op, overload, opset);
    int64_t least = -1;
    const Symbolic* found = find_symbolic(op, overload, opset, &least);
    EXPECT_TRUE(same_row(found, user.row() != nullptr ? user.row() : own.row()))
        << op << " ." << overload << " at opset " << opset;
    std::vector<int64_t> opsets = own.opsets;
    opsets.insert(opsets.end(), user.opsets.begin(), user.opsets.end());
    EXPECT_EQ(least, opsets.empty() ? 0 : *std::min_element(opsets.begin(), opsets.end())) << op;
  }
}

TEST(Registry, EveryRowIsFoundAsByAScan) {
  register_symbolics({{"test::scanned", 12, first_function},
                      {"test::scanned", 18, second_function},
                      {"test::scanned.Scalar", 14, second_function},
                      {"test::scanned.Scalar", 14, first_function, "Relu"},
                      {"test::scanned.Scalar", 11, second_function}});
  // Of an op that qcdq knows from opset 10 on, for an overload that it doesn't name.
  register_symbolics({{"aten::lift_fresh.test", 16, second_function}});
  const std::vector<ListedSymbolic> rows = all_symbolics();
  ASSERT_GE(rows.size(), kOwnRows.size() + 6);
  for (const Symbolic& row : rows) {
    const std::string name = row.torch_op;
    expect_as_scanned(rows, name, "");
    expect_as_scanned(rows, name, "no_such_overload");
    const size_t dot = name.rfind('.');
    if (dot == std::string::npos) continue;
    expect_as_scanned(rows, name.substr(0, dot), name.substr(dot + 1));
    expect_as_scanned(rows, name.substr(0, dot), "");
  }
}

// "aten::where.self" as name and overload.
OpTraits traits_of(const std::string& full) {
  const size_t dot = full.rfind('.');
  return dot == std::string::npos ? op_traits(full)
                                  : op_traits(full.substr(0, dot), full.substr(dot + 1));
}

void expect_traits(OpTraits wanted, const std::vector<std::string>& ops) {
  for (const std::string& op : ops) {
    EXPECT_TRUE(has_traits(traits_of(op), wanted)) << op << " " << static_cast<uint32_t>(wanted);
  }
}

TEST(OpTraits, WhatThePassesRelyOn) {
  expect_traits(OpTraits::kNeverFold,
                {"aten::fake_quantize_per_tensor_affine",
                 "aten::fake_quantize_per_channel_affine",
                 "aten::fake_quantize_per_tensor_affine.tensor_qparams",
                 "aten::fake_quantize_per_tensor_affine_cachemask",
                 "aten::fake_quantize_per_channel_affine_cachemask",
                 "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
                 "aten::_fake_quantize_learnable_per_tensor_affine",
                 "aten::_fake_quantize_learnable_per_channel_affine",
                 "aten::fused_moving_avg_obs_fake_quant",
                 "aten::_fused_moving_avg_obs_fq_helper",
                 "aten::_fused_moving_avg_obs_fq_helper_functional",
                 "aten::quantize_per_tensor",
                 "aten::quantize_per_tensor.tensor_qparams",
                 "aten::quantize_per_tensor.tensors",
                 "aten::quantize_per_channel",
                 "aten::quantize_per_tensor_dynamic",
                 "aten::dequantize.self",
                 "aten::dequantize.tensors",
                 "aten::empty.memory_format",
                 "aten::empty_like",
                 "aten::empty_strided",
                 "aten::empty_permuted",
                 "aten::empty_quantized",
                 "aten::new_empty",
                 "aten::new_empty_strided"});
  expect_traits(
      OpTraits::kFakeQuantizes,
      {"qcdq::fake_quantize", "qcdq::fake_quantize_learned", "qcdq::fake_quantize_dynamic",
       "quantized_decomposed::fake_quant_per_channel", "aten::fake_quantize_per_tensor_affine",
       "aten::fake_quantize_per_tensor_affine.tensor_qparams",
       "aten::fake_quantize_per_channel_affine", "aten::fake_quantize_per_tensor_affine_cachemask",
       "aten::_fake_quantize_learnable_per_tensor_affine",
       "aten::_fake_quantize_learnable_per_channel_affine",
       "aten::fused_moving_avg_obs_fake_quant"});
  expect_traits(OpTraits::kQuery, {"aten::size",
                                   "aten::size.int",
                                   "aten::dim",
                                   "aten::numel",
                                   "aten::len.Tensor",
                                   "aten::len.t",
                                   "aten::stride",
                                   "aten::stride.int",
                                   "aten::is_floating_point",
                                   "aten::is_complex",
                                   "aten::_shape_as_tensor",
                                   "aten::__is__",
                                   "aten::__isnot__",
                                   "prim::dtype",
                                   "prim::device",
                                   "prim::layout",
                                   "prim::requires_grad",
                                   "prim::is_cuda",
                                   "prim::is_cpu",
                                   "prim::is_sparse",
                                   "prim::is_nested",
                                   "prim::is_quantized",
                                   "prim::is_mkldnn",
                                   "prim::is_meta"});
  expect_traits(OpTraits::kShapeFromData,
                {"aten::where", "aten::argwhere", "aten::nonzero", "aten::nonzero_numpy",
                 "aten::masked_select", "aten::_unique", "aten::_unique2", "aten::unique_dim",
                 "aten::unique_consecutive", "aten::bincount", "aten::repeat_interleave.Tensor",
                 "aten::repeat_interleave.self_Tensor", "torchvision::nms"});
  expect_traits(OpTraits::kBoolResult,
                {"aten::eq.Tensor", "aten::ne.Scalar", "aten::lt.Tensor", "aten::gt.Scalar",
                 "aten::le.Tensor", "aten::ge.Scalar", "aten::logical_not", "aten::logical_and"});
  expect_traits(
      OpTraits::kKeepsElementType,
      {"aten::full_like", "aten::copy", "aten::fill.Tensor", "aten::masked_fill.Tensor",
       "aten::index_put", "aten::index_fill.int_Tensor", "aten::masked_scatter", "aten::index_add",
       "aten::index_copy", "aten::scatter.src", "aten::scatter.value", "aten::scatter.reduce",
       "aten::scatter.value_reduce", "aten::scatter_add", "aten::scatter_reduce.two"});
  expect_traits(OpTraits::kMayCopy,
                {"aten::to.dtype", "aten::to.device", "aten::contiguous", "aten::reshape",
                 "aten::reshape_as", "aten::flatten.using_ints", "aten::ravel"});
  for (const char* op : {"view",
                         "reshape",
                         "_unsafe_view",
                         "flatten.using_ints",
                         "unflatten.int",
                         "transpose.int",
                         "permute",
                         "t",
                         "contiguous",
                         "clone",
                         "detach",
                         "alias",
                         "squeeze",
                         "squeeze.dim",
                         "unsqueeze",
                         "slice.Tensor",
                         "select.int",
                         "index_select",
                         "expand",
                         "expand_as",
                         "chunk",
                         "split.Tensor",
                         "split_with_sizes",
                         "unbind.int",
                         "max_pool1d",
                         "max_pool2d",
                         "max_pool3d",
                         "pixel_shuffle",
                         "dropout",
                         "upsample_nearest1d",
                         "upsample_nearest2d.vec",
                         "upsample_nearest3d",
                         "reflection_pad1d",
                         "reflection_pad2d"}) {
    expect_traits(OpTraits::kMovesElements, {std::string("aten::") + op});
  }
}

TEST(OpTraits, ARowOfAnOverloadSpeaksForItAlone) {
  EXPECT_EQ(op_traits("aten::where", "self"), OpTraits::kNone);
  EXPECT_EQ(op_traits("aten::repeat_interleave", "self_int"), OpTraits::kNone);
  EXPECT_EQ(op_traits("aten::len", "str"), OpTraits::kNone);
  EXPECT_EQ(op_traits("aten::add", "Tensor"), OpTraits::kNone);
  EXPECT_EQ(op_traits("aten::no_such_op"), OpTraits::kNone);
}

TEST(OpTraits, PluginsAddToThem) {
  // The conversion is theirs now; what a fake quantiser is has not changed.
  register_symbolics({{"aten::_fused_moving_avg_obs_fq_helper", 10, first_function}});
  expect_traits(OpTraits::kNeverFold, {"aten::_fused_moving_avg_obs_fq_helper"});
  register_symbolics({{"test::facts", 10, first_function, nullptr, OpTraits::kBoolResult},
                      {"test::facts", 18, first_function, nullptr, OpTraits::kMovesElements},
                      {"aten::add.Tensor", 0, nullptr, nullptr, OpTraits::kKeepsElementType}});
  EXPECT_EQ(op_traits("test::facts"), OpTraits::kBoolResult | OpTraits::kMovesElements);
  EXPECT_EQ(op_traits("aten::add", "Tensor"), OpTraits::kKeepsElementType);
  ASSERT_NE(find_symbolic("aten::add", "Tensor", 21), nullptr);  // qcdq's own conversion
}

TEST(OpTraits, AQuantizerThatNoRowNamesIsNotFolded) {
  EXPECT_EQ(op_traits("aten::some_new_fake_quantize_per_block"), OpTraits::kNeverFold);
  EXPECT_EQ(op_traits("aten::fused_fake_quant"), OpTraits::kNeverFold);
  EXPECT_EQ(op_traits("aten::quantile"), OpTraits::kNone);
}

TEST(OpTraits, ARowOfTraitsIsNoConversion) {
  for (const char* op : {"aten::masked_select", "aten::_unique2", "prim::dtype"}) {
    int64_t least = -1;
    EXPECT_EQ(find_symbolic(op, "", 26, &least), nullptr) << op;
    EXPECT_EQ(least, 0) << op;
  }
  for (const Symbolic& row : kOwnRows) {
    EXPECT_TRUE(row.converts() || row.traits != OpTraits::kNone) << row.torch_op;
  }
}

}  // namespace
}  // namespace qcdq
