// Prints random_write_program(first) to random_write_program(last - 1) for the tests in Python, an
// empty line between two: write_programs FIRST LAST.
#include <cstdint>
#include <cstdio>
#include <string>

#include "tests/symbolic/lower/random_writes.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: write_programs FIRST LAST\n", stderr);
    return 2;
  }
  const uint64_t last = std::stoull(argv[2]);
  for (uint64_t seed = std::stoull(argv[1]); seed < last; ++seed) {
    std::printf("%s\n", qcdq::random_write_program(seed).c_str());
  }
}
