// See settle.h. Folding by recorded shapes gives lower() something to do (a branch is gone, a list
// has a known length), and what lower() then makes new has to be recorded.
#include "symbolic/settle.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "symbolic/graph/message_text.h"
#include "symbolic/lower/lower.h"
#include "symbolic/record/record.h"

namespace qcdq {

namespace {

void run_rounds(Program& program, Recorder& recorder, ProgramDump* dump) {
  // Each round settles one level of branches, loops and lists; models nest a few.
  constexpr int kMostRounds = 64;
  recorder.run();
  std::vector<std::string> folded;
  for (int round = 0; round < kMostRounds; ++round) {
    folded = recorder.fold();
    if (folded.empty()) return;
    lower(program, dump, "lower " + std::to_string(round + 2));
    recorder.refresh();
  }
  throw std::runtime_error("the graph does not settle: after " + std::to_string(kMostRounds) +
                           " rounds, folding by shapes still changes it (" + join_names(folded) +
                           ")");
}

}  // namespace

void settle_lowered(Program& program, ProgramDump* dump) {
  Recorder recorder(program, dump);
  run_rounds(program, recorder, dump);
  recorder.finish();
}

void settle(Program& program, ProgramDump* dump) {
  lower(program, dump, "lower 1");
  Recorder recorder(program, dump);
  run_rounds(program, recorder, dump);
  check_lowered(program);
  recorder.finish();
}

}  // namespace qcdq
