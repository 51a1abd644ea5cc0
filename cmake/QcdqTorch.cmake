# Imported target qcdq::torch: the libtorch in QCDQ_TORCH_DIR (a wheel's torch folder or an unpacked libtorch, 2.11 to 2.15).
# Only torch_cpu and c10 are linked; find_package(Torch) is avoided because it needs a CUDA toolkit for CUDA wheels.
# Used by the build itself and by the installed qcdqConfig.cmake.
include_guard(GLOBAL)
if(NOT QCDQ_TORCH_DIR)
  file(GLOB _qcdq_torch_candidates ${CMAKE_CURRENT_LIST_DIR}/../.venv/lib/python3*/site-packages/torch)
  list(GET _qcdq_torch_candidates 0 _qcdq_torch_first)
  set(QCDQ_TORCH_DIR "${_qcdq_torch_first}" CACHE PATH "Folder that holds libtorch: include/ and lib/" FORCE)
endif()
if(NOT EXISTS "${QCDQ_TORCH_DIR}/include/torch/script.h" OR NOT EXISTS "${QCDQ_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "QCDQ_TORCH_DIR='${QCDQ_TORCH_DIR}' holds no libtorch (include/torch/script.h, lib/libtorch_cpu.so). "
                      "Run ./dev setup, or pass -DQCDQ_TORCH_DIR=<torch wheel folder or libtorch>.")
endif()
file(STRINGS "${QCDQ_TORCH_DIR}/include/torch/headeronly/version.h" _qcdq_torch_version REGEX "TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" QCDQ_TORCH_VERSION "${_qcdq_torch_version}")
if(QCDQ_TORCH_VERSION VERSION_LESS 2.11 OR QCDQ_TORCH_VERSION VERSION_GREATER 2.15)
  message(FATAL_ERROR "libtorch ${QCDQ_TORCH_VERSION} in ${QCDQ_TORCH_DIR}: qcdq builds against 2.11 to 2.15.")
endif()
foreach(_lib c10 torch_cpu)
  add_library(qcdq_imported_${_lib} SHARED IMPORTED GLOBAL)
  set_target_properties(qcdq_imported_${_lib} PROPERTIES IMPORTED_LOCATION "${QCDQ_TORCH_DIR}/lib/lib${_lib}.so"
                                                         IMPORTED_NO_SONAME FALSE)
endforeach()
add_library(qcdq_torch INTERFACE IMPORTED GLOBAL)
add_library(qcdq::torch ALIAS qcdq_torch)
target_include_directories(qcdq_torch SYSTEM INTERFACE "${QCDQ_TORCH_DIR}/include"
                                                       "${QCDQ_TORCH_DIR}/include/torch/csrc/api/include")
# The CUDA wheels' libtorch_cpu finds its CUDA runtime by its own run path, which ld does not follow.
target_link_options(qcdq_torch INTERFACE "LINKER:--allow-shlib-undefined")
# libtorch is linked to the shared libstdc++. A compiler that links a static one would give a program two of them, or fail with
# "hidden symbol std::string... is referenced by DSO".
target_link_options(qcdq_torch INTERFACE "LINKER:--push-state,--no-as-needed,-l:libstdc++.so.6,--pop-state")
target_link_libraries(qcdq_torch INTERFACE qcdq_imported_torch_cpu qcdq_imported_c10)
target_compile_features(qcdq_torch INTERFACE cxx_std_20)
