// What the commands of the program share: how a command is added to the command line, and the two
// kinds of failure that main.cpp turns into exit codes. One file a command beside this one.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <stdexcept>
#include <string>

namespace qcdq::cli {

inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;  // refused or failed
inline constexpr int kBadUsage =
    2;  // the command line can't be parsed, or a value is outside its set
inline constexpr int kMismatch = 3;  // verification mismatch

/// The command line asks for something outside its documented set: exit 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What main.cpp runs after parsing; returns the exit code, or throws.
using Run = std::function<int()>;

// Each adds its command to `app` and sets `run` when it is the one that was typed.
void add_export_command(CLI::App& app, Run& run);
void add_verify_command(CLI::App& app, Run& run);
void add_inspect_command(CLI::App& app, Run& run);
void add_ops_command(CLI::App& app, Run& run);
/// Commands whose issue has not been built yet: refused by name.
void add_planned_commands(CLI::App& app, Run& run);

}  // namespace qcdq::cli
