#!/usr/bin/env bash
# One command on a machine with an NVIDIA GPU: builds the ops and their CUDA kernels against the torch of python3, tests
# them for exactness, runs compute-sanitizer over them where it is, measures them, and writes build/gpu/report
# (report.json, .md, .html).
# Needs no network and installs nothing; says what is missing. About 3 minutes on 16 cores.
#   PYTHON=.venv/bin/python bench/gpu.sh     another Python's torch
#   SANITIZER_SECONDS=30 bench/gpu.sh        each compute-sanitizer run is stopped then (default 100)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly out=build/gpu
python=${PYTHON:-python3}
readonly sanitizer_seconds=${SANITIZER_SECONDS:-100}
fail() { printf 'gpu.sh: %s\n' "$*" >&2; exit 1; }
say() { printf '\033[1m== %s (%d s)\033[0m\n' "$*" "$SECONDS" >&2; }

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || gpu=""
[ -n "$gpu" ] || fail "no NVIDIA GPU on this machine (nvidia-smi finds none): nothing was tested or measured"
# "9.0" is what nvcc calls 90.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need g++ "g++ 12 or newer"
need cmake "cmake 3.25 or newer"
need "$python" "$python with torch 2.11 to 2.15 for CUDA"
if ! command -v ninja >/dev/null && ! command -v make >/dev/null; then missing+=("ninja or make"); fi
nvcc=$(command -v nvcc || true)
[ -n "$nvcc" ] || nvcc=${CUDA_HOME:-/usr/local/cuda}/bin/nvcc
[ -x "$nvcc" ] || missing+=("nvcc (NVIDIA's CUDA toolkit; on PATH, or CUDA_HOME set)")
has_header() { echo "#include <$1>" | g++ -x c++ -E - >/dev/null 2>&1; }
if command -v g++ >/dev/null; then
  has_header hwy/highway.h || missing+=("Highway (Debian: libhwy-dev)")
  has_header gtest/gtest.h || missing+=("GoogleTest (Debian: libgtest-dev)")
fi
[ ${#missing[@]} -eq 0 ] || fail "missing: $(printf '%s; ' "${missing[@]}")nothing was built"
torch=$("$python" -c 'import torch
assert torch.version.cuda, "its torch is built without CUDA"
print(torch.__path__[0])') ||
  fail "$python has no torch for CUDA"

say "building for $gpu (compute capability $capability) against $torch"
mkdir -p "$out"
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
cmake -S . -B "$out/build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE="-O2 -DNDEBUG" \
  -DQCDQ_TORCH_DIR="$torch" -DQCDQ_NVCC="$nvcc" -DQCDQ_BUILD_CUDA=ON -DQCDQ_CUDA_ARCHITECTURES="$capability" \
  -DQCDQ_WERROR=OFF -DQCDQ_BUILD_EXPORTER=OFF -DQCDQ_BUILD_EXAMPLES=OFF >"$out/build.log" 2>&1 ||
  { tail -n 30 "$out/build.log" >&2; fail "CMake did not configure"; }
cmake --build "$out/build" -j "$(nproc)" --target qcdq_ops qcdq_cuda cuda_test bench_gpu >>"$out/build.log" 2>&1 ||
  { tail -n 40 "$out/build.log" >&2; fail "it did not build ($out/build.log)"; }

# torch's wheel finds its CUDA libraries beside itself only when Python loads it; programs look where it would.
libraries=$torch/lib
for folder in "$(dirname "$torch")"/nvidia/*/lib; do
  if [ -d "$folder" ]; then libraries=$libraries:$folder; fi
done
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

say "exactness against affine.h and the CPU's ops"
"$out/build/bin/cuda_test" --gtest_brief=1 ||
  fail "there are failing tests: the numbers of these kernels are wrong, nothing is measured"

sanitizer=$(command -v compute-sanitizer || true)
[ -n "$sanitizer" ] || sanitizer=$(dirname "$nvcc")/compute-sanitizer
if [ -x "$sanitizer" ]; then
  say "compute-sanitizer"
  # Every op, every layout of the sums; a launch costs it about a millisecond.
  tests='CudaTest.CanBeCaptured*:CudaTest.EveryType*:CudaTest.Empty*'
  tests+=':CudaTest.LearnedGradients*:CudaTest.ScalesThatStart*'
  for tool in memcheck racecheck; do
    status=0
    timeout "$sanitizer_seconds" "$sanitizer" --tool "$tool" --error-exitcode 9 \
      "$out/build/bin/cuda_test" --gtest_brief=1 --gtest_filter="$tests" \
      >"$out/$tool.log" 2>&1 || status=$?
    case $status in
      0) ;;
      124) say "compute-sanitizer $tool: stopped after $sanitizer_seconds s, no error until then" ;;
      *) tail -n 30 "$out/$tool.log" >&2; fail "compute-sanitizer $tool: errors ($out/$tool.log)" ;;
    esac
  done
else
  say "compute-sanitizer is not here: not run"
fi

say "benchmarks"
rm -rf "$out/raw" && mkdir -p "$out/raw"
"$out/build/bin/bench_gpu" "$out/raw/gpu.json" >"$out/raw/gpu.txt" || fail "bench_gpu failed"
"$python" bench/report.py --raw "$out/raw" --out "$out/report" --command "bench/gpu.sh"
say "done: $out/report"
