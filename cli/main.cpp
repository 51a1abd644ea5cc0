// The program qcdq: parses the command line, runs one command and turns failures into one line on
// stderr and an exit code. Each command is a file beside this one.
#include <c10/util/Exception.h>

#include <algorithm>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace qcdq::cli {
namespace {

std::vector<std::string> text_lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find_first_not_of(" \t\r");
    if (first != std::string::npos) lines.push_back(line.substr(first));
  }
  return lines;
}

/// torch's messages are pages; the line that says what went wrong.
std::string torch_line(const std::string& message) {
  const std::vector<std::string> lines = text_lines(message);
  // An exception inside a model's code: a heading, a trace of the code, then "RuntimeError: ...".
  for (const std::string& line : lines) {
    const size_t at = line.find("Error: ");
    const bool names_a_type = at != std::string::npos && line.find(' ') == at + 6;
    if (&line != lines.data() && names_a_type) return "the model failed: " + line;
  }
  return lines.empty() ? "failed" : lines[0];
}

void print_failure(const std::string& command, const std::string& line) {
  std::cerr << "qcdq" << (command.empty() ? "" : " " + command) << ": " << line << "\n";
}

/// "--input A=.. B=.." becomes "--input=A=.. --input=B=..": specs hold a '=', the model's file
/// name that may follow them is not taken for one.
std::vector<std::string> separate_specs(int argc, char** argv) {
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if ((word != "--input" && word != "--dynamic") || i + 1 == argc) {
      arguments.push_back(word);
      continue;
    }
    arguments.push_back(word + "=" + argv[++i]);
    while (i + 1 < argc && argv[i + 1][0] != '-' &&
           std::string(argv[i + 1]).find('=') != std::string::npos) {
      arguments.push_back(word + "=" + argv[++i]);
    }
  }
  return arguments;
}

int run_program(int argc, char** argv) {
  CLI::App app(
      "qcdq " QCDQ_VERSION
      ": quantise libtorch models, export them to ONNX and prove the result in ONNX Runtime",
      "qcdq");
  app.set_version_flag("--version", "qcdq " QCDQ_VERSION);
  app.require_subcommand(0, 1);
  app.footer(
      "Examples:\n"
      "  qcdq export model.pt -o model.onnx --input x=f32[1,3,224,224] --verify\n"
      "  qcdq inspect model.onnx\n"
      "  qcdq COMMAND --help");
  Run run;
  add_export_command(app, run);
  add_verify_command(app, run);
  add_inspect_command(app, run);
  add_ops_command(app, run);
  add_planned_commands(app, run);

  std::string command;  // for messages
  for (const CLI::App* known : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (argc > 1 && known->get_name() == argv[1]) command = argv[1];
  }
  try {
    std::vector<std::string> arguments = separate_specs(argc, argv);
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    app.parse(arguments);
    if (!run) {
      throw UsageError(
          "a command is missing, expected one of export, verify, inspect, ops; see "
          "qcdq --help");
    }
    return run();
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    print_failure(command, text_lines(e.what()).empty() ? "bad usage" : text_lines(e.what())[0]);
    return kBadUsage;
  } catch (const UsageError& e) {
    print_failure(command, e.what());
    return kBadUsage;
  } catch (const c10::Error& e) {
    print_failure(command, torch_line(e.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    print_failure(command, "out of memory");
  } catch (const std::exception& e) {
    const std::string message = e.what();
    if (message.find("TorchScript interpreter") != std::string::npos) {
      print_failure(command, torch_line(message));
    } else {
      // One line per refusal.
      for (const std::string& line : text_lines(message)) print_failure(command, line);
    }
  }
  return kFailed;
}

}  // namespace

void add_planned_commands(CLI::App& app, Run& run) {
  for (const char* name : {"quantize", "bench"}) {
    CLI::App* command = app.add_subcommand(name, "Not built yet");
    command->allow_extras();
    command->callback([&run] {
      run = []() -> int { throw std::runtime_error("this command is not built yet"); };
    });
  }
}

}  // namespace qcdq::cli

int main(int argc, char** argv) { return qcdq::cli::run_program(argc, argv); }
