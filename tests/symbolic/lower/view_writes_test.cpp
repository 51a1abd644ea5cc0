// Writes through views: each kind of view, and what they share; and random programs of them.
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/symbolic/lower/random_writes.h"
#include "tests/symbolic/lower/writes_fixture.h"

namespace qcdq {
namespace {

at::Tensor grid() { return at::arange(24, at::kFloat).reshape({4, 6}).sub(9); }

TEST(ViewWrites, EveryKindOfViewIsWrittenBack) {
  const char* views[] = {"z[::2]",
                         "z[-3]",
                         "z[:, 1:4]",
                         "z.select(-1, -2)",
                         "z.narrow(1, 2, 3)",
                         "z.narrow(0, -2, 2)",
                         "z.transpose(0, 1)",
                         "z.t()",
                         "z.permute([1, 0])",
                         "z.permute([-1, 0])",
                         "z.view(2, 12)",
                         "z.view(-1)[3:9]",
                         "z.reshape(3, 8)",
                         "z.flatten()",
                         "z.unflatten(1, [2, 3])[:, 1]",
                         "z.unsqueeze(1)",
                         "z[1:2].squeeze(0)",
                         "z.squeeze()",
                         "z.detach()",
                         "z.view_as(z)",
                         "z.diagonal()",
                         "z.diagonal(1)[1:]",
                         "z.unfold(1, 2, 2)[1]",
                         "z.as_strided([2, 2], [6, 2], 1)",
                         "z.expand(4, 6)",
                         "z.unsqueeze(0).expand(3, 4, 6)[1]",
                         "z.chunk(2, 1)[1]",
                         "z.unbind(0)[2]",
                         "z.contiguous()",
                         "z.to(6)"};
  for (const std::string view : views) {
    checked("def forward(self, x):\n    z = x * 1\n    v = " + view +
                "\n    v.add_(2)\n    v.mul_(v)\n    w = v * 1\n    z.sub_(0.5)\n"
                "    return z, v, w\n",
            {grid()});
  }
}

TEST(ViewWrites, PartsOfASplitAreWrittenBack) {
  checked(R"(
def forward(self, x):
    z = x * 1
    a, b = z.chunk(2, 1)
    c, d, e = z.split([1, 2, 1])
    p, q, r, s = z.unbind(0)
    a.fill_(3)
    d.mul_(b.sum())
    q.copy_(s)
    r += e[0] + p
    return z, a, b, c, d, e, p, q, r, s
)",
          {grid()});
}

TEST(ViewWrites, WritesThroughSeveralViewsMeet) {
  checked(R"(
def forward(self, x):
    v = x[0:4]
    w = v[::2]
    u = x.t()[1:3]
    w.fill_(0.5)
    v.sub_(x, alpha=2)
    u.clamp_(-1, 1)
    x[1].mul_(w[0])
    return x + 0, v, w, u
)",
          {grid()});
  // An input itself: the caller's tensor is no output, what is read of it is.
  checked(R"(
def forward(self, x):
    x.relu_()
    x[0] = x[1] - 1
    return x
)",
          {grid()});
}

TEST(ViewWrites, MaskedAndIndexedWritesGoThroughViews) {
  checked(R"(
def forward(self, x):
    z = x + 0
    v = z[-2:]
    v[v < -0.2] = -0.36
    v.masked_fill_(v > 4, 4)
    v[:, torch.tensor([1, 3])] = 9
    v.index_put_((torch.tensor([1, 1]),), torch.tensor(2.0), accumulate=True)
    z.t()[2].masked_scatter_(z[:, 2] > 0, torch.ones([4]) * 5)
    return z, v
)",
          {grid()});
}

TEST(ViewWrites, CopiesBroadcastAndCast) {
  const Program program = checked(R"(
def forward(self, x, n):
    z = x + 0
    z[:, 1:3].copy_(n[:, 1:2])
    m = n + 0
    m[0].copy_(x[1])
    m.add_(1)
    return z, m
)",
                                  {grid(), grid().to(at::kLong)});
  EXPECT_EQ(program.types.at(program.graph->outputs()[1]).dtype, DType::kInt64);
}

TEST(ViewWrites, ReshapeAndItsLikeShareOrCopyAsInTorch) {
  checked(R"(
def forward(self, x):
    z = x + 0
    shared = z.reshape(-1)
    copied = z.t().reshape(-1)
    same = z.to(6)
    other = z.to(7)
    dense = z[:, 1:].contiguous()
    z.fill_(3)
    copied.add_(1)
    dense.mul_(2)
    return z, shared, copied, same, other, dense
)",
          {grid()});
}

TEST(ViewWrites, ResultsGoIntoOut) {
  checked(R"(
def forward(self, x, y):
    z = x * 1
    torch.add(x[0], y, out=z[1])
    made = torch.empty([0])
    torch.mul(x, y, out=made)
    kept = torch.zeros([6])
    torch.sub(y, 1, out=kept)
    return z, made, kept
)",
          {grid(), at::ones({6})});
}

TEST(ViewWrites, AnEmptyTensorIsFilled) {
  const Program program = checked(R"(
def forward(self, x):
    z = torch.empty_like(x)
    z[:, ::2] = x[:, 1::2]
    z[:, 1::2] = -x[:, ::2]
    return z
)",
                                  {grid()});
  EXPECT_EQ(ops(program).count("aten::empty_like"), 0U);
}

TEST(ViewWrites, ATensorChangesItsOwnShape) {
  checked(R"(
def forward(self, x):
    z = x + 0
    v = z[1:2]
    v.squeeze_(0)
    z.t_()
    z[0] = 7
    v.add_(1)
    return z, v, z.unsqueeze_(0)
)",
          {grid()});
}

TEST(ViewWrites, BranchesAndLoopsThatGoAreWrittenIn) {
  checked(R"(
def forward(self, x):
    z = x + 0
    v = z[1]
    if x.size(0) > 3:
        v.fill_(2)
    else:
        z = z * 2
    for i in range(x.size(1)):
        z[i % 4, i] = z[0, 0] + i
    rows = []
    for i in range(2):
        rows.append(z[i])
    z.sub_(1)
    return z, v, torch.cat(rows)
)",
          {grid()});
}

TEST(ViewWrites, ABranchOnWhatALoopWroteIsOnData) {
  // The branch must not be fixed to the one that the example takes.
  EXPECT_NE(refusal_of(R"(
def forward(self, x):
    z = torch.zeros([3])
    for i in range(x.size(0)):
        if x[0, 0] > 0:
            z[0] = x[0, 0]
    if bool(z[0] > 0):
        return x + 1
    return x - 1
)",
                       {grid().neg()}),
            "");
}

TEST(ViewWrites, ListsAndTuplesHoldTheNewestValue) {
  checked(R"(
def forward(self, x):
    z = x + 0
    both = [z[0], z[1]]
    pair = (z, both[1])
    z.add_(1)
    both[0].mul_(2)
    return torch.cat(both), pair
)",
          {grid()});
}

TEST(ViewWrites, WritesThatCannotBecomeFunctionalAreRefusedByName) {
  const std::string overlap = refusal_of(R"(
def forward(self, x):
    x[:, 1:] = x[:, :-1]
    return x
)",
                                         {grid()});
  EXPECT_NE(overlap.find("aten::copy_"), std::string::npos) << overlap;
  EXPECT_NE(overlap.find("reads memory that it writes to"), std::string::npos) << overlap;
  const std::string branch = refusal_of(R"(
def forward(self, x):
    z = x + 0
    if bool(x.sum() > 0):
        z[0] = 1
    return z
)",
                                        {grid()});
  EXPECT_NE(branch.find("in a branch or loop"), std::string::npos) << branch;
  const std::string either = refusal_of(R"(
def forward(self, x):
    a = x + 1
    b = x + 2
    z = a if bool(x.sum() > 0) else b
    z[0] = 1
    return a, b
)",
                                        {grid()});
  EXPECT_NE(either.find("one of several"), std::string::npos) << either;
  const std::string resized = refusal_of(R"(
def forward(self, x):
    z = x + 0
    z.resize_([2, 2])
    return z
)",
                                         {grid()});
  EXPECT_NE(resized.find("aten::resize_"), std::string::npos) << resized;
}

/// How many programs the short suite tries; QCDQ_RANDOM_WRITES=FIRST:LAST takes others.
std::pair<uint64_t, uint64_t> random_seeds() {
  const char* given = std::getenv("QCDQ_RANDOM_WRITES");
  if (given == nullptr) return {0, 200};
  const std::string range = given;
  return {std::stoull(range), std::stoull(range.substr(range.find(':') + 1))};
}

TEST(ViewWrites, RandomProgramsGiveTheSame) {
  const std::vector<at::Tensor> inputs = {grid().div(4), at::arange(6, at::kFloat).sub(2)};
  const auto [first, last] = random_seeds();
  uint64_t exported = 0;
  uint64_t failing = 0;  // in torch itself
  std::map<std::string, int> refused;
  for (uint64_t seed = first; seed < last; ++seed) {
    const std::string script = random_write_program(seed);
    const torch::jit::Module module = module_of(script);
    Program program = program_from_torchscript(module, copies_of(inputs), {});
    if (!error_of([&] { program.reference(copies_of(inputs)); }).empty()) {
      ++failing;
      continue;
    }
    try {
      settle(program);
    } catch (const UnsupportedOp& refusal) {
      ++refused[refusal.details().op + ": " + refusal.details().reason];
      continue;
    }
    ++exported;
    EXPECT_FALSE(has_mutation(program.graph->block())) << seed << "\n" << script;
    expect_same(program, inputs, std::to_string(seed) + "\n" + script);
    expect_same(program, other_values(inputs), std::to_string(seed) + "\n" + script);
    if (HasFailure()) return;
  }
  uint64_t refusals = 0;
  for (const auto& [reason, count] : refused) {
    std::cout << count << " refused: " << reason << "\n";
    refusals += static_cast<uint64_t>(count);
  }
  std::cout << exported << " the same, " << refusals << " refused, " << failing
            << " that torch does not run\n";
  EXPECT_LT(refusals * 10, exported + refusals);
  EXPECT_LT(failing * 4, last - first);
}

}  // namespace
}  // namespace qcdq
