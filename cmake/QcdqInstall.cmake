# cmake --install and find_package(qcdq): libraries, headers, the program, and the imported torch target they stand on.
include(CMakePackageConfigHelpers)
set(_qcdq_targets qcdq_ops)
if(QCDQ_BUILD_EXPORTER)
  list(APPEND _qcdq_targets qcdq_onnx)
  install(TARGETS qcdq RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(TARGETS ${_qcdq_targets} EXPORT qcdqTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(QCDQ_BUILD_CUDA)
  install(TARGETS qcdq_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})  # beside qcdq_ops, which loads it
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/qcdq DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(_qcdq_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/qcdq)
install(EXPORT qcdqTargets NAMESPACE qcdq:: DESTINATION ${_qcdq_config_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/qcdqConfig.cmake.in ${PROJECT_BINARY_DIR}/qcdqConfig.cmake
                              INSTALL_DESTINATION ${_qcdq_config_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/qcdqConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/qcdqConfig.cmake ${PROJECT_BINARY_DIR}/qcdqConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/QcdqTorch.cmake DESTINATION ${_qcdq_config_dir})
