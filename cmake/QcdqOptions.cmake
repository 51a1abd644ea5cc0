# Compile options of qcdq's own code: warnings, floating point, sanitizers, ccache; and the precompiled torch header.
add_library(qcdq_options INTERFACE)
# FMA contraction moves rounding ties: the formula of include/qcdq/affine.h must be computed as written.
target_compile_options(qcdq_options INTERFACE -ffp-contract=off -Wall -Wextra $<$<BOOL:${QCDQ_WERROR}>:-Werror>)
if(QCDQ_SANITIZE)
  # vptr needs typeinfo that libtorch does not export (c10::DynamicType).
  target_compile_options(qcdq_options INTERFACE -fsanitize=${QCDQ_SANITIZE} -fno-sanitize=vptr -fno-omit-frame-pointer
                                                -fno-sanitize-recover=all)
  target_link_options(qcdq_options INTERFACE -fsanitize=${QCDQ_SANITIZE})
endif()

find_program(QCDQ_CCACHE ccache)
if(QCDQ_CCACHE)
  # A precompiled header needs these two sloppiness flags to be cacheable.
  set(_launcher ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
                CCACHE_PCH_EXTSUM=true ${QCDQ_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${_launcher})
endif()

# <torch/torch.h> costs 25-35 s per file; targets that use torch take this header instead:
#   qcdq_use_torch(<target>)
add_library(qcdq_torch_header OBJECT ${PROJECT_SOURCE_DIR}/cmake/torch_header.cpp)
target_link_libraries(qcdq_torch_header PRIVATE qcdq::torch qcdq_options)
target_precompile_headers(qcdq_torch_header PRIVATE <torch/torch.h> <torch/script.h>)
if(QCDQ_CCACHE)
  target_compile_options(qcdq_torch_header PRIVATE -fpch-preprocess)
endif()
function(qcdq_use_torch target)
  target_link_libraries(${target} PRIVATE qcdq::torch qcdq_options)
  target_precompile_headers(${target} REUSE_FROM qcdq_torch_header)
  get_target_property(_type ${target} TYPE)
  if(_type STREQUAL "EXECUTABLE")
    # The header is compiled with -fPIC; GCC refuses it under an executable's -fPIE.
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  if(QCDQ_CCACHE)
    target_compile_options(${target} PRIVATE -fpch-preprocess)
  endif()
endfunction()
