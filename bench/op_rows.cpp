// What each row of bench_ops calls; see op_rows.h.
#include "bench/op_rows.h"

#include <torch/torch.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "qcdq/ops.h"

namespace qcdq::bench {
namespace {

constexpr int64_t kQuantMin = -128;
constexpr int64_t kQuantMax = 127;
constexpr int64_t kBlockSize = 32;

struct Shape {
  std::vector<int64_t> sizes;
  std::optional<int64_t> axis;
  std::optional<int64_t> block_size;
};

// 64 channels as in a network's first stages; axis 1 with 1,024 elements a channel as in an image.
Shape shape_of(const std::string& granularity, int64_t elements) {
  const int64_t channels = elements >= 4096 ? 64 : 8;
  if (granularity == "channel_0") return {{channels, elements / channels}, 0, {}};
  if (granularity == "channel_1") {
    const int64_t inner = std::min<int64_t>(1024, elements / channels);
    return {{elements / (channels * inner), channels, inner}, 1, {}};
  }
  if (granularity == "channel_last") return {{elements / channels, channels}, 1, {}};
  if (granularity == "blocked") {
    const int64_t row = std::min<int64_t>(1024, elements);
    return {{elements / row, row}, 1, kBlockSize};
  }
  return {{elements}, {}, {}};
}

std::vector<int64_t> param_sizes(const Shape& shape) {
  if (!shape.axis) return {1};
  if (!shape.block_size) return {shape.sizes[*shape.axis]};
  std::vector<int64_t> sizes = shape.sizes;
  sizes[*shape.axis] = (sizes[*shape.axis] + *shape.block_size - 1) / *shape.block_size;
  return sizes;
}

// Everything that the rows of one case share.
struct Tensors {
  OpCase op_case;
  Shape shape;
  at::Tensor x, grad, scale, zero_point, float_zero_point, codes;
  double one_scale = 0.0;
  int64_t one_zero_point = 0;
  // Views for the ops without blocks: x and the parameters in broadcastable form.
  at::Tensor broadcast_x, broadcast_scale, broadcast_zero_point;

  bool is_learned() const { return op_case.op == "fake_quantize_learned"; }
  bool has_backward() const { return op_case.pass == "fwd_bwd"; }
};

void broadcast(Tensors& t) {
  const auto view = [&](const at::Tensor& param) {
    if (!t.shape.axis) return param;
    std::vector<int64_t> sizes(t.shape.sizes.size(), 1);
    if (t.shape.block_size) {
      sizes = param.sizes().vec();
      sizes.push_back(1);
    } else {
      sizes[*t.shape.axis] = param.numel();
    }
    return param.view(sizes);
  };
  t.broadcast_scale = view(t.scale);
  t.broadcast_zero_point = view(t.is_learned() ? t.float_zero_point : t.zero_point);
  t.broadcast_x = t.shape.block_size ? t.x.view({t.shape.sizes[0], -1, *t.shape.block_size}) : t.x;
}

std::shared_ptr<Tensors> make_tensors(const OpCase& op_case) {
  torch::manual_seed(0);
  auto t = std::make_shared<Tensors>();
  t->op_case = op_case;
  const int64_t elements = op_case.bytes / static_cast<int64_t>(c10::elementSize(op_case.type));
  t->shape = shape_of(op_case.granularity, elements);
  // 1.6 standard deviations of 0.8 reach the range's ends: some values saturate, most don't.
  t->x = (torch::randn(t->shape.sizes) * 0.8).to(op_case.type);
  const std::vector<int64_t> sizes = param_sizes(t->shape);
  t->scale = torch::rand(sizes) * 0.004 + 0.0103;
  t->zero_point = torch::randint(-10, 11, sizes, torch::kInt32);
  t->float_zero_point = t->zero_point.to(torch::kFloat32);
  t->one_scale = t->scale.flatten()[0].item<double>();
  t->one_zero_point = t->zero_point.flatten()[0].item<int64_t>();
  if (op_case.op == "dequantize") {
    t->codes = qcdq::quantize(t->x, t->scale, t->zero_point, kQuantMin, kQuantMax, at::kChar,
                              t->shape.axis, t->shape.block_size);
  }
  if (op_case.pass != "fwd") {
    if (t->has_backward()) t->grad = torch::randn_like(t->x);
    t->x.requires_grad_(true);
    if (t->is_learned()) {
      t->scale.requires_grad_(true);
      t->float_zero_point.requires_grad_(true);
    }
  }
  broadcast(*t);
  return t;
}

// Round half to even of x / scale, plus the zero point, clamped, back to values: seven passes.
at::Tensor composite(const Tensors& t) {
  const at::Tensor x = t.broadcast_x.to(torch::kFloat32);
  at::Tensor steps = x / t.broadcast_scale;
  if (t.op_case.pass != "fwd") steps = steps + (steps.round() - steps).detach();
  const at::Tensor codes =
      ((t.op_case.pass != "fwd" ? steps : steps.round()) + t.broadcast_zero_point)
          .clamp(kQuantMin, kQuantMax);
  if (t.op_case.op == "quantize") return codes.to(torch::kInt8);
  return ((codes - t.broadcast_zero_point) * t.broadcast_scale).to(t.op_case.type);
}

at::Tensor composite_dequantize(const Tensors& t) {
  const at::Tensor codes = t.codes.view(t.broadcast_x.sizes()).to(torch::kFloat32);
  return (codes - t.broadcast_zero_point) * t.broadcast_scale;
}

std::tuple<at::Tensor, at::Tensor> composite_qparams(const at::Tensor& x) {
  const auto [lowest, highest] = x.aminmax();
  const at::Tensor low = lowest.to(torch::kFloat32).clamp_max(0.0);
  const at::Tensor high = highest.to(torch::kFloat32).clamp_min(0.0);
  const at::Tensor scale = (high - low) / static_cast<double>(kQuantMax - kQuantMin);
  const at::Tensor zero_point =
      (kQuantMin - low / scale).round().clamp(kQuantMin, kQuantMax).to(torch::kInt32);
  return {scale, zero_point};
}

at::Tensor ours(const Tensors& t) {
  const auto& [sizes, axis, block_size] = t.shape;
  const std::string& op = t.op_case.op;
  if (op == "quantize") {
    return qcdq::quantize(t.x, t.scale, t.zero_point, kQuantMin, kQuantMax, at::kChar, axis,
                          block_size);
  }
  if (op == "dequantize") {
    return qcdq::dequantize(t.codes, t.scale, t.zero_point, axis, block_size);
  }
  if (op == "fake_quantize_learned") {
    return qcdq::fake_quantize_learned(t.x, t.scale, t.float_zero_point, kQuantMin, kQuantMax, axis,
                                       block_size);
  }
  if (op == "choose_qparams") {
    return std::get<0>(qcdq::choose_qparams(t.x, kQuantMin, kQuantMax, false, axis, block_size));
  }
  if (op == "fake_quantize_dynamic") {
    return qcdq::fake_quantize_dynamic(t.x, kQuantMin, kQuantMax, false, axis, block_size);
  }
  return qcdq::fake_quantize(t.x, t.scale, t.zero_point, kQuantMin, kQuantMax, axis, block_size);
}

// aten has no blocks: on contiguous data they are the channels of a [blocks, block_size] view.
at::Tensor aten_fake_quantize(const Tensors& t) {
  if (t.shape.block_size) {
    return at::fake_quantize_per_channel_affine(t.x.view({-1, *t.shape.block_size}),
                                                t.scale.flatten(), t.zero_point.flatten(), 0,
                                                kQuantMin, kQuantMax);
  }
  if (t.shape.axis) {
    return at::fake_quantize_per_channel_affine(t.x, t.scale, t.zero_point, *t.shape.axis,
                                                kQuantMin, kQuantMax);
  }
  return at::fake_quantize_per_tensor_affine(t.x, t.one_scale, t.one_zero_point, kQuantMin,
                                             kQuantMax);
}

at::Tensor aten_tensor_qparams(const Tensors& t) {
  return at::fake_quantize_per_tensor_affine(t.x, t.scale, t.zero_point, kQuantMin, kQuantMax);
}

at::Tensor aten_learnable(const Tensors& t) {
  if (t.shape.axis) {
    return at::_fake_quantize_learnable_per_channel_affine(
        t.x, t.scale, t.float_zero_point, *t.shape.axis, kQuantMin, kQuantMax, 1.0);
  }
  return at::_fake_quantize_learnable_per_tensor_affine(t.x, t.scale, t.float_zero_point, kQuantMin,
                                                        kQuantMax, 1.0);
}

using Forward = std::function<at::Tensor(const Tensors&)>;

Row forward_row(std::string impl, const std::shared_ptr<Tensors>& tensors, Forward forward) {
  const bool with_graph = tensors->op_case.pass != "fwd";
  return {std::move(impl), [tensors, forward = std::move(forward), with_graph] {
            const at::AutoGradMode mode(with_graph);
            const at::Tensor y = forward(*tensors);
          }};
}

// The gradients are returned, not added to .grad: an addition of x's size is not the op's cost.
Row backward_row(std::string impl, const std::shared_ptr<Tensors>& tensors, Forward forward) {
  return {std::move(impl), [tensors, forward = std::move(forward)] {
            const at::Tensor y = forward(*tensors);
            std::vector<at::Tensor> inputs = {tensors->x};
            if (tensors->is_learned()) {
              inputs.push_back(tensors->scale);
              inputs.push_back(tensors->float_zero_point);
            }
            const auto gradients =
                torch::autograd::grad({y}, inputs, {tensors->grad.view(y.sizes())}, {}, false,
                                      /*allow_unused=*/true);
          }};
}

std::vector<std::pair<std::string, Forward>> forwards(const OpCase& c) {
  std::vector<std::pair<std::string, Forward>> all = {{"ours", ours}};
  if (c.op == "fake_quantize") {
    all.emplace_back("aten", aten_fake_quantize);
    if (c.granularity == "per_tensor") all.emplace_back("aten_tensor_qparams", aten_tensor_qparams);
    all.emplace_back("composite", composite);
  } else if (c.op == "fake_quantize_learned") {
    if (c.granularity != "blocked") all.emplace_back("aten_learnable", aten_learnable);
    all.emplace_back("composite", composite);
  } else if (c.op == "quantize") {
    if (c.granularity == "per_tensor") {
      all.emplace_back("aten", [](const Tensors& t) {
        return at::quantize_per_tensor(t.x, t.one_scale, t.one_zero_point, at::kQInt8);
      });
    }
    all.emplace_back("composite", composite);
  } else if (c.op == "dequantize") {
    all.emplace_back("composite", composite_dequantize);
  } else if (c.op == "choose_qparams" && c.granularity == "per_tensor") {
    all.emplace_back("aten", [](const Tensors& t) {
      at::_choose_qparams_per_tensor(t.x);
      return at::Tensor();
    });
    all.emplace_back("composite",
                     [](const Tensors& t) { return std::get<0>(composite_qparams(t.x)); });
  } else if (c.op == "fake_quantize_dynamic" && c.granularity == "per_tensor") {
    all.emplace_back("composite", [](const Tensors& t) {
      const auto [scale, zero_point] = composite_qparams(t.x.detach());
      return at::fake_quantize_per_tensor_affine(t.x, scale, zero_point, kQuantMin, kQuantMax);
    });
  }
  return all;
}

}  // namespace

std::vector<std::string> impls_of(const OpCase& op_case) {
  std::vector<std::string> names = {"copy"};
  if (op_case.pass == "fwd_bwd") names.emplace_back("traffic");
  for (const auto& [name, forward] : forwards(op_case)) names.push_back(name);
  return names;
}

std::vector<Row> make_rows(const OpCase& op_case) {
  at::set_num_threads(op_case.threads);
  const auto tensors = make_tensors(op_case);
  std::vector<Row> rows;
  rows.push_back({"copy", [x = tensors->x.detach()] {
                    const at::NoGradGuard no_grad;
                    const at::Tensor y = x.clone();
                  }});
  if (tensors->has_backward()) {
    rows.push_back({"traffic", [x = tensors->x.detach(), grad = tensors->grad] {
                      const at::NoGradGuard no_grad;
                      const at::Tensor y = x.clone();
                      const at::Tensor grad_x = at::add(x, grad);
                    }});
  }
  for (auto& [name, forward] : forwards(op_case)) {
    rows.push_back(tensors->has_backward() ? backward_row(name, tensors, forward)
                                           : forward_row(name, tensors, forward));
  }
  return rows;
}

const char* type_name(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return "f16";
    case at::kBFloat16:
      return "bf16";
    default:
      return "f32";
  }
}

}  // namespace qcdq::bench
