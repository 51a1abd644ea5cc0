// Lowering of writes: element types of in-place ops, writes to views, dicts; each graph computes
// what the module itself computes.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "symbolic/lower/lower.h"
#include "symbolic/settle.h"
#include "symbolic/source/source.h"
#include "tests/symbolic/lower/writes_fixture.h"

namespace qcdq {
namespace {

TEST(LowerMutation, InPlaceOpsKeepTheirElementType) {
  const at::Tensor half = at::tensor({1.5F, 2.0009765625F}).to(at::kHalf);
  const at::Tensor single = at::tensor({0.0003F, 1e-4F});
  const std::string on_input = R"(
def forward(self, x, y):
    x.add_(y)
    return x * 1000
)";
  const Program program = checked(on_input, {half, single});
  EXPECT_EQ(ops(program).count("aten::type_as"), 1U);
  checked(R"(
def forward(self, x, y):
    z = x * 1
    z.mul_(y)
    z.add_(y)
    return z * 1000
)",
          {half, single});
  checked(R"(
def forward(self, x, y):
    z = x + 0
    z.gt_(1)
    return z + y, z
)",
          {at::tensor({1.0F, 2.0F}), at::tensor({0.0F, 0.5F})});
}

TEST(LowerMutation, OpsThatKeepTheTypeOfSelfNeedNoCast) {
  // Before record(), which knows the types and would drop a cast to the same one.
  Program program = program_of_ir(R"(
graph(%x : Tensor, %y : Tensor, %i : Tensor, %m : Tensor):
  %zero : int = prim::Constant[value=0]()
  %one : int = prim::Constant[value=1]()
  %no : bool = prim::Constant[value=0]()
  %sum : str = prim::Constant[value="sum"]()
  %z : Tensor = aten::mul(%x, %one)
  %i0 : Tensor = aten::alias(%i)
  %a : Tensor = aten::masked_fill_(%z, %m, %y)
  %b : Tensor = aten::index_fill_(%a, %zero, %i, %one)
  %c : Tensor = aten::index_copy_(%b, %zero, %i, %y)
  %d : Tensor = aten::index_add_(%c, %zero, %i, %y, %one)
  %e : Tensor = aten::masked_scatter_(%d, %m, %y)
  %f : Tensor = aten::scatter_(%e, %zero, %i, %y)
  %g : Tensor = aten::scatter_add_(%f, %zero, %i, %y)
  %h : Tensor = aten::scatter_reduce_(%g, %zero, %i, %y, %sum, %no)
  %j : Tensor = aten::copy_(%h, %y, %no)
  return (%j))",
                                  std::vector<at::Tensor>(4, at::ones({2})));
  lower(program);
  Ops counts = ops(program);
  EXPECT_EQ(counts["aten::type_as"], 0);
  for (const char* op : {"masked_fill.Tensor", "index_fill.int_Scalar", "index_copy", "index_add",
                         "masked_scatter", "scatter.src", "scatter_add", "scatter_reduce.two"}) {
    EXPECT_EQ(counts[std::string("aten::") + op], 1) << op;
  }
}

TEST(LowerMutation, CastsOfEqualTypesAreDropped) {
  const Program program = checked(R"(
def forward(self, x, y):
    z = x * 2
    z += y
    return z
)",
                                  {at::ones({2}), at::ones({2})});
  EXPECT_EQ(ops(program), (Ops{{"aten::add.Tensor", 1}, {"aten::mul.Scalar", 1}}));
}

TEST(LowerMutation, WritesToViewsAreScattered) {
  const at::Tensor x = at::arange(24, at::kFloat).reshape({4, 6});
  const at::Tensor y = at::arange(6, at::kFloat).add(100);
  const Program column = checked(R"(
def forward(self, x):
    x[:, 0] = 0
    return x + 1
)",
                                 {x});
  EXPECT_EQ(ops(column).count("aten::select_scatter"), 1U);
  checked(R"(
def forward(self, x, y):
    z = x + 0
    z[1:3] = y
    z[-1, ::2] = 7
    z[0].mul_(y)
    return z, z[1]
)",
          {x, y});
  checked(R"(
def forward(self, x, y):
    z = x * 1
    z.transpose(0, 1)[2] = 5
    z.unsqueeze(0)[:, 1].add_(y)
    return z
)",
          {x, y});
}

TEST(LowerMutation, ViewsFromBeforeTheWriteSeeIt) {
  const at::Tensor x = at::arange(24, at::kFloat).reshape({4, 6});
  checked(R"(
def forward(self, x):
    z = x + 0
    row = z[1]
    before = row * 2
    part = row[2:]
    z[:, 3] = 50
    part[0] = 60
    return before, row, part, z
)",
          {x});
}

TEST(LowerMutation, AWholeWriteIsSeenByViews) {
  checked(R"(
def forward(self, x):
    row = x[0]
    x.relu_()
    return row + x
)",
          {at::arange(-3, 3, at::kFloat).reshape({2, 3})});
}

TEST(LowerMutation, WritesToPartsOfWeightsAreRefused) {
  for (const char* write : {"self.w[0]", "self.w.reshape(-1)[0]"}) {
    const torch::jit::Module module = module_of(std::string(R"(
def forward(self, x):
    )") + write + R"( = 0
    return x + self.w
)");
    EXPECT_NE(error_of([&] {
                Program program = program_from_torchscript(module, {at::ones({2})}, {});
                lower(program);
              }).find("the model changes"),
              std::string::npos)
        << write;
  }
}

TEST(LowerMutation, DictsBecomeTheirValues) {
  const Program program = checked(R"(
def forward(self, x):
    found = {"low": x * 2}
    found["high"] = found["low"] + 1
    found["low"] = found["high"] * 3
    return found
)",
                                  {at::ones({2})});
  EXPECT_EQ(program.output_names, (std::vector<std::string>{"low", "high"}));
  EXPECT_EQ(ops(program), (Ops{{"aten::add.Scalar", 1}, {"aten::mul.Scalar", 2}}));
}

TEST(LowerMutation, TensorsInTuplesAndListsAreInputs) {
  const torch::jit::Module module = module_of(R"(
def forward(self, pair: Tuple[Tensor, Tensor], rest: List[Tensor], scale: float):
    total = pair[0] - pair[1]
    for one in rest:
        total = total + one * scale
    return total
)");
  const c10::IValue pair = c10::ivalue::Tuple::create({at::full({2}, 5.0), at::full({2}, 3.0)});
  const c10::List<at::Tensor> rest({at::ones({2}), at::full({2}, 10.0)});
  Program program = program_from_torchscript(module, {pair, rest, 2.0}, {});
  std::vector<std::string> names;
  std::vector<c10::IValue> examples;
  for (const ProgramInput& input : program.inputs) {
    names.push_back(input.name);
    examples.push_back(input.examples.at(0));
  }
  EXPECT_EQ(names, (std::vector<std::string>{"pair_0", "pair_1", "rest_0", "rest_1"}));
  EXPECT_TRUE(at::equal(program.reference(examples).at(0), at::full({2}, 24.0)));
  settle(program);
  EXPECT_TRUE(at::equal(run_graph(program).at(0), at::full({2}, 24.0)));
}

TEST(LowerMutation, AnOptionalThatIsGivenIsATensor) {
  const torch::jit::Module module = module_of(R"(
def forward(self, a, k: int = 2, b: Optional[Tensor] = None):
    if b is not None:
        a = a * k + b
    return a
)");
  for (bool given : {true, false}) {
    std::vector<c10::IValue> inputs = {at::ones({2}), 3};
    if (given) inputs.emplace_back(at::ones({2}));
    Program program = program_from_torchscript(module, inputs, {});
    settle(program);
    EXPECT_EQ(program.inputs.size(), given ? 2U : 1U);
    EXPECT_EQ(ops(program).count("prim::unchecked_cast"), 0U);
    EXPECT_TRUE(at::equal(run_graph(program).at(0), at::full({2}, given ? 4.0 : 1.0)));
  }
}

}  // namespace
}  // namespace qcdq
