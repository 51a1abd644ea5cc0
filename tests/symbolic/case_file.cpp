// Reads case files and makes Programs of their IR text; see case_file.h.
#include "tests/symbolic/case_file.h"

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/irparser.h>

#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

#include "symbolic/lower/passes.h"
#include "symbolic/program/interpreter.h"
#include "symbolic/source/quantized_decomposed.h"

namespace qcdq::testing {

namespace {

struct Declaration {
  bool constant = false;
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> first, second;  // sizes in the two runs
  std::vector<std::string> symbols;
  double low = -2, high = 2;
};

at::ScalarType dtype_named(const std::string& name) {
  static const std::map<std::string, at::ScalarType> kNames = {
      {"f32", at::kFloat}, {"f16", at::kHalf}, {"bf16", at::kBFloat16}, {"f64", at::kDouble},
      {"i8", at::kChar},   {"u8", at::kByte},  {"i16", at::kShort},     {"i32", at::kInt},
      {"i64", at::kLong},  {"bool", at::kBool}};
  return kNames.at(name);
}

Declaration parse_declaration(const std::string& line) {
  std::istringstream words(line);
  std::string kind, type, range;
  Declaration result;
  words >> kind >> result.name >> type >> range;
  result.constant = kind == "const";
  const size_t bracket = type.find('[');
  result.dtype = dtype_named(type.substr(0, bracket));
  std::istringstream dims(type.substr(bracket + 1, type.size() - bracket - 2));
  for (std::string dim; std::getline(dims, dim, ',');) {
    const size_t equals = dim.find('=');
    const size_t colon = dim.find(':');
    result.symbols.push_back(equals == std::string::npos ? "" : dim.substr(0, equals));
    const size_t start = equals == std::string::npos ? 0 : equals + 1;
    result.first.push_back(std::stoll(dim.substr(start)));
    result.second.push_back(colon == std::string::npos ? result.first.back()
                                                       : std::stoll(dim.substr(colon + 1)));
  }
  if (const size_t dots = range.find(".."); dots != std::string::npos) {
    result.low = std::stod(range.substr(0, dots));
    result.high = std::stod(range.substr(dots + 2));
  }
  return result;
}

at::Tensor random_tensor(const Declaration& declaration, const std::vector<int64_t>& sizes) {
  if (at::isFloatingType(declaration.dtype)) {
    return (at::rand(sizes) * (declaration.high - declaration.low) + declaration.low)
        .to(declaration.dtype);
  }
  const bool boolean = declaration.dtype == at::kBool;
  const auto low = boolean ? 0 : static_cast<int64_t>(declaration.low);
  const auto high = boolean ? 2 : static_cast<int64_t>(declaration.high) + 1;
  return at::randint(low, high, sizes, at::kLong).to(declaration.dtype);
}

std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(' ');
  return begin == std::string::npos ? ""
                                    : text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

std::vector<std::string> split_arguments(const std::string& text) {
  std::vector<std::string> arguments;
  int depth = 0;
  std::string current;
  bool quoted = false;
  for (char c : text) {
    if (c == '"') quoted = !quoted;
    depth += c == '[' || (c == '"' && quoted) ? 1 : (c == ']' || c == '"' ? -1 : 0);
    if (c == ',' && depth == 0) {
      arguments.push_back(trim(current));
      current.clear();
    } else {
      current += c;
    }
  }
  if (!trim(current).empty()) arguments.push_back(trim(current));
  return arguments;
}

// Turns the case's lines into text for parseIR: literals become constants, names lose their dots.
class IrText {
 public:
  std::string line(const std::string& text) {
    const size_t operation = text.find("::");
    const size_t open = text.find('(', operation == std::string::npos ? 0 : operation);
    const size_t close = text.rfind(')');
    std::string arguments;
    for (const std::string& argument : split_arguments(text.substr(open + 1, close - open - 1))) {
      arguments += (arguments.empty() ? "" : ", ") + value(argument);
    }
    return constants() + "  " + name(text.substr(0, open)) + "(" + arguments + ")\n";
  }

  static std::string name(std::string text) {  // %conv.weight -> %conv_weight
    bool value = false;
    for (char& c : text) {
      if (c == '%') value = true;
      if (c == ' ' || c == ',') value = false;
      if (value && c == '.') c = '_';
    }
    return text;
  }

 private:
  std::string constants() { return std::exchange(pending_, ""); }

  std::string constant(const std::string& type, const std::string& operation) {
    const std::string made = "%literal_" + std::to_string(next_++);
    pending_ += "  " + made + " : " + type + " = " + operation + "\n";
    return made;
  }

  std::string value(const std::string& text) {
    if (text[0] == '%') return name(text);
    if (text == "None") return constant("NoneType", "prim::Constant()");
    if (text == "True" || text == "False")
      return constant("bool",
                      std::string("prim::Constant[value=") + (text == "True" ? "1" : "0") + "]()");
    if (text[0] == '"') return constant("str", "prim::Constant[value=" + text + "]()");
    if (text[0] == '[') {
      std::string elements;
      std::string type = "int";
      for (const std::string& element : split_arguments(text.substr(1, text.size() - 2))) {
        if (element.find('.') != std::string::npos && element[0] != '%') type = "float";
        // %T:a is a Tensor, %O:a one of a list of Optional[Tensor], %a an int
        const bool tensor = element.starts_with("%T:") || element.starts_with("%O:");
        if (tensor) type = element[1] == 'T' ? "Tensor" : "Tensor?";
        elements +=
            (elements.empty() ? "" : ", ") + value(tensor ? "%" + element.substr(3) : element);
      }
      return constant(type + "[]", "prim::ListConstruct(" + elements + ")");
    }
    const bool real = text.find_first_of(".e") != std::string::npos;
    return constant(real ? "float" : "int", "prim::Constant[value=" + text + "]()");
  }

  std::string pending_;
  int next_ = 0;
};

}  // namespace

CaseFile read_cases(const std::filesystem::path& path) {
  CaseFile file;
  file.path = path;
  std::ifstream stream(path);
  if (!stream) throw std::runtime_error("can't read " + path.string());
  bool expected = false;
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with("### ")) {
      file.cases.emplace_back().name = line.substr(4);
      expected = false;
    }
    if (file.cases.empty()) {
      file.preamble += line + "\n";
      continue;
    }
    Case& one = file.cases.back();
    if (expected) {
      if (!line.empty()) one.expected += line + "\n";
      continue;
    }
    if (line == "---") {
      expected = true;
      continue;
    }
    if (line.empty()) continue;
    one.text += line + "\n";
    if (line.starts_with("opset ")) one.opset = std::stoll(line.substr(6));
    if (line.starts_with("input ") || line.starts_with("const ")) one.declarations.push_back(line);
    if (line.starts_with("%") || line.starts_with("return")) one.body.push_back(line);
  }
  return file;
}

void write_cases(const CaseFile& file) {
  std::ofstream stream(file.path);
  stream << file.preamble;
  for (size_t i = 0; i < file.cases.size(); ++i) {
    if (i > 0) stream << "\n";
    stream << file.cases[i].text << "---\n" << file.cases[i].expected;
  }
}

Program program_of(const Case& one) {
  std::vector<Declaration> declarations;
  std::string inputs;
  for (const std::string& line : one.declarations) {
    declarations.push_back(parse_declaration(line));
    inputs +=
        (inputs.empty() ? "" : ", ") + IrText::name("%" + declarations.back().name) + " : Tensor";
  }
  IrText ir;
  std::string text = "graph(" + inputs + "):\n";
  for (const std::string& line : one.body) text += ir.line(line);

  Program program;
  if (text.find("quantized_decomposed::") != std::string::npos) register_quantized_decomposed();
  program.graph = std::make_shared<torch::jit::Graph>();
  torch::jit::parseIR(text, program.graph.get());
  at::manual_seed(7);
  auto parameters = std::make_shared<std::vector<at::Tensor>>();
  for (size_t i = 0, input = 0; i < declarations.size(); ++i) {
    const Declaration& declaration = declarations[i];
    if (!declaration.constant) {
      ProgramInput made;
      made.name = declaration.name;
      made.examples = {random_tensor(declaration, declaration.first),
                       random_tensor(declaration, declaration.second)};
      made.symbols = declaration.symbols;
      program.inputs.push_back(std::move(made));
      ++input;
      continue;
    }
    const at::Tensor parameter = random_tensor(declaration, declaration.first);
    parameters->push_back(parameter);
    program.parameter_paths[parameter.const_data_ptr()] = declaration.name;
    const torch::jit::WithInsertPoint at_start(*program.graph->nodes().begin());
    program.graph->inputs()[input]->replaceAllUsesWith(program.graph->insertConstant(parameter));
    program.graph->eraseInput(input);
  }
  program.owner = parameters;
  for (size_t i = 0; i < program.graph->outputs().size(); ++i)
    program.output_names.push_back("y" + std::to_string(i));
  const auto copy = program.graph->copy();
  program.reference = [copy](const std::vector<c10::IValue>& values) {
    std::optional<RunFailure> failure;
    const Run run = interpret(*copy, values, failure);
    if (failure) throw std::runtime_error(failure->message);
    std::vector<at::Tensor> tensors;
    for (const c10::IValue& output : run.outputs) tensors.push_back(output.toTensor());
    return tensors;
  };
  lower_quantized(program);
  return program;
}

}  // namespace qcdq::testing
