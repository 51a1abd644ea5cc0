// The ops on a GPU: equal to affine.h, and to the CPU's ops (which ops_test.cpp and isa_test.cpp
// compare with affine.h) for every type, granularity and stride; streams, graphs, devices. Needs a
// GPU: without one every test is skipped. Quotients are in cuda_division_test.cpp; what can be
// shown without a GPU is in cuda_plan_test.cpp.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>
#include <qcdq/affine.h>
#include <qcdq/modules.h>
#include <qcdq/ops.h>
#include <torch/torch.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "expect_message.h"
#include "gpu_fixture.h"

namespace qcdq {
namespace {

using OptionalInt = std::optional<int64_t>;
// A copy on the GPU with the same strides.
torch::Tensor cuda_strided(const torch::Tensor& t) {
  torch::Tensor copy =
      torch::empty_strided(t.sizes(), t.strides(), t.options().device(torch::kCUDA));
  return copy.copy_(t);
}

struct Case {
  std::string name;
  torch::Tensor scale;
  torch::Tensor zero_point;
  OptionalInt axis;
  OptionalInt block_size;
};

std::vector<Case> all_granularities(torch::IntArrayRef sizes, int64_t quant_min,
                                    int64_t quant_max) {
  std::vector<Case> cases;
  const auto add = [&](OptionalInt axis, OptionalInt block) {
    std::vector<int64_t> shape;
    if (axis && block) {
      shape = sizes.vec();
      shape[*axis] = (shape[*axis] + *block - 1) / *block;
    } else if (axis) {
      shape = {sizes[*axis]};
    }
    torch::Tensor scale = torch::rand(shape) * 0.1 + 0.01;
    if (!axis) scale.fill_(0.5);
    cases.push_back({"axis " + std::to_string(axis.value_or(-1)) + " block " +
                         std::to_string(block.value_or(-1)),
                     scale, torch::randint(quant_min, quant_max + 1, shape, torch::kInt), axis,
                     block});
  };
  add(std::nullopt, std::nullopt);
  for (int64_t axis = 0; axis < static_cast<int64_t>(sizes.size()); ++axis) {
    add(axis, std::nullopt);
    for (const int64_t block : {1, 2, 3, 32, 100}) add(axis, block);
  }
  return cases;
}

// The same values with other strides: contiguous, transposed, channels last, with gaps.
std::vector<torch::Tensor> with_strides(const torch::Tensor& x) {
  std::vector<torch::Tensor> all = {x};
  if (x.dim() >= 2) all.push_back(x.transpose(0, -1).contiguous().transpose(0, -1));
  if (x.dim() == 4) all.push_back(x.contiguous(torch::MemoryFormat::ChannelsLast));
  all.push_back(torch::stack({x, x}, -1).select(-1, 0));
  return all;
}

const std::vector<std::vector<int64_t>> kShapes = {{7}, {3, 70}, {2, 3, 64}, {2, 6, 5, 8}};

TEST_F(CudaTest, EqualsAffineAtEverySizeAroundAVector) {
  std::vector<int64_t> sizes(80);
  for (int64_t i = 0; i < 80; ++i) sizes[i] = i;
  for (const int64_t n : {1023, 1024, 1025, 2047, 2048, 2049, 4097, 8191, 1048579})
    sizes.push_back(n);
  for (const auto type : kFloatTypes) {
    for (const int64_t n : sizes) {
      const torch::Tensor x = sample({n + 1}, type);
      const torch::Tensor on_gpu = cuda(x);
      for (const int64_t start : {0, 1}) {  // 1: not at a vector's place
        const torch::Tensor part = x.narrow(0, start, n);
        const torch::Tensor expected = type == torch::kDouble
                                           ? by_affine<double>(part, 0.5f, 3, -8, 7)
                                           : by_affine<float>(part, 0.5f, 3, -8, 7);
        const torch::Tensor y =
            fake_quantize(on_gpu.narrow(0, start, n), cuda(torch::full({}, 0.5)),
                          cuda(torch::full({}, 3, torch::kInt)), -8, 7);
        ASSERT_TRUE(same(y, expected)) << type << " " << n << " from " << start;
      }
    }
  }
}

TEST_F(CudaTest, FakeQuantizeForwardAndBackwardEqualTheCpu) {
  for (const auto& [lowest, highest] :
       std::vector<std::pair<int64_t, int64_t>>{{-8, 7}, {INT32_MIN, INT32_MAX}}) {
    for (const auto& sizes : kShapes) {
      for (const auto type : kFloatTypes) {
        for (const torch::Tensor& x : with_strides(sample(sizes, type))) {
          for (const Case& c : all_granularities(sizes, -8, 7)) {
            const torch::Tensor grad = torch::randn(sizes).to(type);
            torch::Tensor on_cpu = x.detach().requires_grad_();
            const torch::Tensor y =
                fake_quantize(on_cpu, c.scale, c.zero_point, lowest, highest, c.axis, c.block_size);
            y.backward(grad);
            torch::Tensor on_gpu = cuda_strided(x).requires_grad_();
            const torch::Tensor z = fake_quantize(on_gpu, cuda(c.scale), cuda(c.zero_point), lowest,
                                                  highest, c.axis, c.block_size);
            z.backward(cuda(grad));
            ASSERT_TRUE(same(z.detach(), y.detach())) << c.name << " " << type << x.strides();
            ASSERT_EQ(z.strides(), y.strides());
            ASSERT_TRUE(same(on_gpu.grad(), on_cpu.grad())) << c.name << " " << type << x.strides();
          }
        }
      }
    }
  }
}

TEST_F(CudaTest, CodesEqualTheCpu) {
  struct Storage {
    torch::ScalarType type;
    int64_t lowest;
    int64_t highest;
  };
  const std::vector<int64_t> sizes = {3, 4, 33};
  for (const Storage& s :
       {Storage{torch::kChar, -128, 127}, Storage{torch::kByte, 0, 255},
        Storage{torch::kShort, -32768, 32767}, Storage{torch::kUInt16, 0, 65535},
        Storage{torch::kInt, INT32_MIN, INT32_MAX}, Storage{torch::kInt, -3, 3}}) {
    for (const auto type : kFloatTypes) {
      for (const torch::Tensor& x : with_strides(sample(sizes, type))) {
        for (const Case& c : all_granularities(sizes, 0, 3)) {
          const torch::Tensor q =
              quantize(x, c.scale, c.zero_point, s.lowest, s.highest, s.type, c.axis, c.block_size);
          const torch::Tensor codes = quantize(cuda_strided(x), cuda(c.scale), cuda(c.zero_point),
                                               s.lowest, s.highest, s.type, c.axis, c.block_size);
          ASSERT_TRUE(same(codes, q)) << c.name << " " << type << " " << s.type;
          ASSERT_TRUE(
              same(dequantize(codes, cuda(c.scale), cuda(c.zero_point), c.axis, c.block_size, type),
                   dequantize(q, c.scale, c.zero_point, c.axis, c.block_size, type)))
              << c.name << " " << type << " " << s.type;
        }
      }
    }
  }
}

TEST_F(CudaTest, EveryTypeOfParameter) {
  const torch::Tensor x = sample({100}, torch::kFloat);
  const torch::Tensor expected =
      fake_quantize(x, torch::full({}, 0.5), torch::full({}, 3, torch::kInt), 0, 15);
  for (const auto type :
       {torch::kChar, torch::kByte, torch::kShort, torch::kUInt16, torch::kLong}) {
    EXPECT_TRUE(same(
        fake_quantize(cuda(x), cuda(torch::full({}, 0.5)), cuda(torch::full({}, 3, type)), 0, 15),
        expected));
  }
  for (const auto type : {torch::kHalf, torch::kBFloat16, torch::kDouble}) {
    const torch::Tensor typed = x.to(type);
    const torch::Tensor scale = torch::full({}, 0.3, type);
    const torch::Tensor zero_point = torch::full({}, 2.5, type);
    EXPECT_TRUE(same(fake_quantize_learned(cuda(typed), cuda(scale), cuda(zero_point), 0, 15),
                     fake_quantize_learned(typed, scale, zero_point, 0, 15)));
  }
}

struct Gradients {
  torch::Tensor y, x, scale, zero_point;
};

Gradients learned(const torch::Tensor& x, const Case& c, const torch::Tensor& grad) {
  torch::Tensor leaf = x.detach().requires_grad_();
  torch::Tensor scale = c.scale.detach().requires_grad_();
  torch::Tensor zero_point = c.zero_point.detach().requires_grad_();
  const torch::Tensor y =
      fake_quantize_learned(leaf, scale, zero_point, -4, 3, c.axis, c.block_size, 0.5);
  y.backward(grad);
  return {y.detach(), leaf.grad(), scale.grad(), zero_point.grad()};
}

TEST_F(CudaTest, LearnedGradientsEqualTheCpuWhereSumsAreExact) {
  for (const auto& sizes : kShapes) {
    for (const auto type : kFloatTypes) {
      // Multiples of 1/8 and powers of two: sums are exact in any order.
      const torch::Tensor values = (torch::randint(-40, 41, sizes).to(torch::kFloat) / 8).to(type);
      const torch::Tensor grad = torch::randint(-3, 4, sizes).to(type);
      for (const torch::Tensor& x : with_strides(values)) {
        for (Case c : all_granularities(sizes, -4, 3)) {
          c.scale = torch::pow(2.0, torch::randint(-2, 1, c.scale.sizes())).to(torch::kFloat);
          c.zero_point = c.zero_point.to(torch::kFloat) + 0.25;
          const Gradients cpu = learned(x, c, grad);
          Case on_gpu = c;
          on_gpu.scale = cuda(c.scale);
          on_gpu.zero_point = cuda(c.zero_point);
          const Gradients gpu = learned(cuda_strided(x), on_gpu, cuda(grad));
          ASSERT_TRUE(same(gpu.y, cpu.y)) << c.name << " " << type << x.strides();
          ASSERT_TRUE(same(gpu.x, cpu.x)) << c.name << " " << type << x.strides();
          // -0.0 and 0.0 are one sum here.
          ASSERT_TRUE(torch::equal(gpu.scale.cpu(), cpu.scale)) << c.name << " " << type;
          ASSERT_TRUE(torch::equal(gpu.zero_point.cpu(), cpu.zero_point)) << c.name << " " << type;
        }
      }
    }
  }
}

TEST_F(CudaTest, SumsHaveTheSameBitsEveryTime) {
  for (const auto& sizes :
       std::vector<std::vector<int64_t>>{{1 << 20}, {64, 3, 4099}, {5000, 96}}) {
    for (const Case& plain : all_granularities(sizes, -4, 3)) {
      Case c = plain;
      c.zero_point = c.zero_point.to(torch::kFloat);
      const torch::Tensor x = torch::randn(sizes);
      const torch::Tensor grad = torch::randn(sizes);
      const Gradients cpu = learned(x, c, grad);
      c.scale = cuda(c.scale);
      c.zero_point = cuda(c.zero_point);
      const torch::Tensor on_gpu = cuda(x);
      const torch::Tensor gpu_grad = cuda(grad);
      const Gradients once = learned(on_gpu, c, gpu_grad);
      // The CPU's sums of sixteen are f32, the GPU's f64. Up to 2^20 terms, most of them below 1.
      EXPECT_TRUE(torch::allclose(once.scale.cpu(), cpu.scale, 1e-5, 1e-4)) << c.name;
      EXPECT_TRUE(torch::allclose(once.zero_point.cpu(), cpu.zero_point, 1e-5, 1e-4)) << c.name;
      for (int i = 0; i < 5; ++i) {
        const Gradients again = learned(on_gpu, c, gpu_grad);
        ASSERT_TRUE(torch::equal(again.scale, once.scale)) << c.name;
        ASSERT_TRUE(torch::equal(again.zero_point, once.zero_point)) << c.name;
      }
    }
  }
}

TEST_F(CudaTest, ChosenParametersAndDynamicEqualTheCpu) {
  for (const auto& sizes : std::vector<std::vector<int64_t>>{{7}, {3, 70}, {2, 6, 5, 8}, {70001}}) {
    for (const auto type : kFloatTypes) {
      torch::Tensor values = sample(sizes, type);
      values = torch::where(values.isinf(), torch::full({}, 9.0, type), values);
      for (const torch::Tensor& x : with_strides(values)) {
        for (const Case& c : all_granularities(sizes, -8, 7)) {
          for (const bool symmetric : {false, true}) {
            const auto [scale, zero_point] =
                choose_qparams(x, -127, 127, symmetric, c.axis, c.block_size);
            const auto [gpu_scale, gpu_zero_point] =
                choose_qparams(cuda_strided(x), -127, 127, symmetric, c.axis, c.block_size);
            ASSERT_TRUE(same(gpu_scale, scale)) << c.name << " " << type << x.strides();
            ASSERT_TRUE(same(gpu_zero_point, zero_point)) << c.name << " " << type << x.strides();
            ASSERT_TRUE(same(
                fake_quantize_dynamic(cuda_strided(x), -127, 127, symmetric, c.axis, c.block_size),
                fake_quantize_dynamic(x, -127, 127, symmetric, c.axis, c.block_size)))
                << c.name << " " << type << x.strides();
          }
        }
      }
    }
  }
}

TEST_F(CudaTest, EmptyAndZeroDimensionalTensors) {
  const torch::Tensor scale = cuda(torch::full({}, 0.5));
  const torch::Tensor zero_point = cuda(torch::zeros({1}, torch::kLong));
  EXPECT_EQ(fake_quantize(cuda(torch::full({}, 1.3)), scale, zero_point, -8, 7).item<float>(),
            1.5f);
  EXPECT_EQ(fake_quantize(cuda(torch::empty({0, 3})), scale, zero_point, -8, 7).sizes(),
            (std::vector<int64_t>{0, 3}));
  const auto [chosen, chosen_zero_point] = choose_qparams(cuda(torch::empty({0})), 0, 255);
  EXPECT_EQ(chosen.item<float>(), 1.0f);
  EXPECT_EQ(chosen_zero_point.item<int>(), 0);
  torch::Tensor x = torch::empty({2, 0}, torch::device(torch::kCUDA)).requires_grad_();
  torch::Tensor learned_scale = cuda(torch::ones({2})).requires_grad_();
  fake_quantize_learned(x, learned_scale, cuda(torch::zeros({2})), -8, 7, 0).sum().backward();
  EXPECT_TRUE(torch::equal(learned_scale.grad().cpu(), torch::zeros({2})));
}

TEST_F(CudaTest, RunsOnTheCurrentStream) {
  const torch::Tensor x = torch::randn({1 << 22});
  const torch::Tensor scale = cuda(torch::full({}, 0.1));
  const torch::Tensor zero_point = cuda(torch::zeros({}, torch::kInt));
  const torch::Tensor expected =
      fake_quantize(x * 3, torch::full({}, 0.1), torch::zeros({}, torch::kInt), -128, 127);
  const torch::Tensor on_gpu = cuda(x);
  torch::cuda::synchronize();
  const auto stream = c10::cuda::getStreamFromPool();
  torch::Tensor y;
  {
    const c10::cuda::CUDAStreamGuard guard(stream);
    torch::Tensor busy = on_gpu * 3;
    for (int i = 0; i < 50; ++i) busy = busy * 2 * 0.5;  // the op must wait for this stream's work
    y = fake_quantize(busy, scale, zero_point, -128, 127);
  }
  stream.synchronize();
  EXPECT_TRUE(same(y, expected));
}

TEST_F(CudaTest, CanBeCapturedInAGraph) {
  const torch::Tensor x = cuda(torch::randn({4, 1000}));
  const torch::Tensor grad = cuda(torch::randn({4, 1000}));
  const torch::Tensor scale = cuda(torch::rand({4}) + 0.1);
  const torch::Tensor zero_point = cuda(torch::randint(-4, 4, {4}, torch::kInt));
  const auto all = [&] {
    const auto [chosen, chosen_zero_point] = choose_qparams(x, 0, 255);
    const torch::Tensor q = quantize(x, scale, zero_point, -8, 7, torch::kChar, 0);
    torch::Tensor leaf = x.detach().requires_grad_();
    torch::Tensor learned_scale = scale.detach().requires_grad_();
    const torch::Tensor y = fake_quantize_learned(leaf, learned_scale, zero_point, -8, 7, 0);
    const auto gradients = torch::autograd::grad({y}, {leaf, learned_scale}, {grad});
    return std::vector<torch::Tensor>{fake_quantize(x, scale, zero_point, -8, 7, 0),
                                      q,
                                      dequantize(q, scale, zero_point, 0),
                                      fake_quantize_dynamic(x, 0, 255),
                                      chosen,
                                      chosen_zero_point,
                                      y.detach(),
                                      gradients[0],
                                      gradients[1]};
  };
  const auto stream = c10::cuda::getStreamFromPool();
  const c10::cuda::CUDAStreamGuard guard(stream);
  all();  // what is loaded or created at a first call
  stream.synchronize();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const std::vector<torch::Tensor> captured = all();
  graph.capture_end();
  for (int round = 0; round < 3; ++round) {
    x.copy_(torch::randn({4, 1000}));
    graph.replay();
    stream.synchronize();
    const std::vector<torch::Tensor> expected = all();
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(same(captured[i], expected[i].cpu())) << "result " << i << " round " << round;
    }
  }
}

TEST_F(CudaTest, RunsOnTheDeviceOfItsTensors) {
  if (torch::cuda::device_count() < 2) GTEST_SKIP() << "one GPU: this test needs two";
  const torch::Tensor x = sample({1000}, torch::kFloat);
  const torch::Tensor scale = torch::full({}, 0.1);
  const torch::Tensor zero_point = torch::zeros({}, torch::kInt);
  const torch::Device second(torch::kCUDA, 1);
  const torch::Tensor y =
      fake_quantize(x.to(second), scale.to(second), zero_point.to(second), -8, 7);
  EXPECT_EQ(y.device(), second);
  EXPECT_TRUE(same(y, fake_quantize(x, scale, zero_point, -8, 7)));
  EXPECT_MESSAGE(fake_quantize(x.to(second), scale.to(second), cuda(zero_point), -8, 7),
                 "zero_point is on cuda:0, expected cuda:1");
}

TEST_F(CudaTest, RefusesAsTheCpu) {
  const torch::Tensor x = cuda(torch::randn({4}));
  const torch::Tensor zero_point = cuda(torch::zeros({}, torch::kInt));
  EXPECT_MESSAGE(fake_quantize(x, torch::ones({}), zero_point, -8, 7),
                 "scale is on cpu, expected cuda:0");
  EXPECT_MESSAGE(fake_quantize(x, cuda(torch::ones({})), zero_point, 7, -8),
                 "quant_min is 7, expected a value below quant_max");
}

TEST_F(CudaTest, LayersMoveToTheGpu) {
  QuantIdentity layer(int8());
  const torch::Tensor x = torch::randn({4, 16});
  layer->forward(x);
  layer->eval();
  const torch::Tensor expected = layer->forward(x);
  layer->to(torch::kCUDA);
  EXPECT_TRUE(same(layer->forward(cuda(x)).detach(), expected.detach()));

  QuantLinear linear(QuantLinearOptions(16, 8).weight(int8().per_channel(0)));
  linear->to(torch::kCUDA);
  linear->forward(cuda(x)).sum().backward();
  EXPECT_TRUE(linear->parameters()[0].grad().is_cuda());
}

}  // namespace
}  // namespace qcdq
