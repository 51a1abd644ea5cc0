// Lowering: from the inlined graph of a source to one block of functional ops. passes.h has the
// single passes, lower.cpp their order.
#pragma once

#include "symbolic/program/program.h"

namespace qcdq {

/// Applies the ordered list of passes until none changes the graph. Never folds a fake-quantise op.
/// May be called again after record/ has folded what the shapes decide. Throws UnsupportedOp, or
/// std::runtime_error where the passes do not come to an end.
void lower(Program& program);
/// After the last round: throws UnsupportedOp for the writes that are still there.
void check_lowered(const Program& program);

}  // namespace qcdq
