// Lowering: from the inlined graph of a source to one block of functional ops. passes.h has the
// single passes, lower.cpp their order.
#pragma once

#include <span>
#include <string>

#include "symbolic/program/program_dump.h"

namespace qcdq {

/// A pass of the list that lower() goes through again and again: true where it changed the graph.
struct LoweringPass {
  const char* name;
  bool (*run)(Program&);
};
/// The list, in its order.
std::span<const LoweringPass> lowering_passes();

/// Applies the ordered list of passes until none changes the graph, then what has to be done once.
/// Never folds a fake-quantise op. May be called again after record/ has folded what the shapes
/// decide; `phase` ("lower 1") is what a dump calls this time. Throws UnsupportedOp, or
/// std::runtime_error where the passes do not come to an end, naming those that still change it.
void lower(Program& program, ProgramDump* dump = nullptr, const std::string& phase = "lower");

/// The part of lower() that may not end: runs `passes` in turn, as rounds "lower 1.`first_round`"
/// and on, until a round changes nothing. Returns the number of the round after that.
int run_until_settled(Program& program, std::span<const LoweringPass> passes, ProgramDump* dump,
                      const std::string& phase, int first_round = 1);
/// After the last round: throws UnsupportedOp for the writes that are still there.
void check_lowered(const Program& program);

}  // namespace qcdq
