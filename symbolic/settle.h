// Settling: lower() and the recorder in turn until nothing changes. What it leaves is what convert
// sees.
#pragma once

#include "symbolic/program/program.h"

namespace qcdq {

/// Lowers and records a program of a source. Throws UnsupportedOp or std::runtime_error, also where
/// the two do not come to an end, naming what still changes the graph.
void settle(Program& program);
/// The same for a graph that lower() has seen already.
void settle_lowered(Program& program);

}  // namespace qcdq
