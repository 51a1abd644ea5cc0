// Settling: lower() and the recorder in turn until nothing changes. What it leaves is what convert
// sees.
#pragma once

#include "symbolic/program/program_dump.h"

namespace qcdq {

/// Lowers and records a program of a source. Throws UnsupportedOp or std::runtime_error, also where
/// the two do not come to an end, naming what still changes the graph.
void settle(Program& program, ProgramDump* dump = nullptr);
/// The same for a graph that lower() has seen already; writes that are left in it are not refused.
void settle_lowered(Program& program, ProgramDump* dump = nullptr);

}  // namespace qcdq
