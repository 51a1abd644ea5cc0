# The Python wheel (pyproject.toml, scikit-build-core): libraries, program and headers go into the package qcdq, against the torch of
# the Python that builds it. Included before QcdqTorch, which then takes QCDQ_TORCH_DIR from here.
set(CMAKE_INSTALL_LIBDIR lib)
set(CMAKE_INSTALL_BINDIR bin)
# Installed beside torch: site-packages/qcdq/lib and bin, site-packages/torch/lib.
set(QCDQ_TORCH_RPATH "$ORIGIN/../../torch/lib")

if(NOT QCDQ_TORCH_DIR AND DEFINED ENV{QCDQ_TORCH_DIR})
  set(QCDQ_TORCH_DIR $ENV{QCDQ_TORCH_DIR} CACHE PATH "Folder that holds libtorch: include/ and lib/")
endif()
if(NOT QCDQ_TORCH_DIR)
  # -I: pip's isolated build environment hides what is installed; this looks behind it. An activated environment comes second, for
  # python -m build, which builds in an environment of its own.
  set(_qcdq_find_torch "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')")
  foreach(_python ${Python_EXECUTABLE} ${PYTHON_EXECUTABLE} $ENV{VIRTUAL_ENV}/bin/python)
    if(NOT QCDQ_TORCH_DIR AND EXISTS ${_python})
      execute_process(COMMAND ${_python} -I -c "${_qcdq_find_torch}" OUTPUT_VARIABLE _qcdq_found OUTPUT_STRIP_TRAILING_WHITESPACE)
      if(_qcdq_found)
        set(QCDQ_TORCH_DIR ${_qcdq_found} CACHE PATH "Folder that holds libtorch: include/ and lib/")
      endif()
    endif()
  endforeach()
endif()
if(NOT QCDQ_TORCH_DIR)
  message(FATAL_ERROR "No torch to build against: install torch first, then 'pip install .', or 'python -m build --no-isolation' "
                      "in its environment; or set QCDQ_TORCH_DIR.")
endif()

if(NOT QCDQ_ONNX_DIR)
  set(_qcdq_cache $ENV{QCDQ_CACHE})
  if(NOT _qcdq_cache AND DEFINED ENV{XDG_CACHE_HOME})
    set(_qcdq_cache $ENV{XDG_CACHE_HOME}/qcdq)
  elseif(NOT _qcdq_cache)
    set(_qcdq_cache $ENV{HOME}/.cache/qcdq)
  endif()
  set(QCDQ_ONNX_DIR ${_qcdq_cache}/onnx-1.23.2 CACHE PATH "Install prefix of onnx 1.23.2" FORCE)
  if(NOT EXISTS ${QCDQ_ONNX_DIR})
    message(FATAL_ERROR "${QCDQ_ONNX_DIR} isn't there: ./dev setup builds onnx's C++ library once.")
  endif()
endif()
