# Headers, both libraries, the CMake package and the file for pkg-config, all by the library's name (rouse_output_name), so
# that rouse and rouse-sim may lie in one prefix: they share the headers. Everything installed may be moved as a whole.
include(CMakePackageConfigHelpers)

set(rouse_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/${rouse_output_name}")
set(rouse_generated_dir "${PROJECT_BINARY_DIR}/package")

install(TARGETS rouse_static rouse_shared
        EXPORT ${rouse_output_name}Targets
        RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}"
        LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(FILES ${rouse_headers} DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/rouse")
install(EXPORT ${rouse_output_name}Targets NAMESPACE ${rouse_output_name}:: DESTINATION "${rouse_package_dir}")

configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/rouseConfig.cmake.in"
                              "${rouse_generated_dir}/${rouse_output_name}Config.cmake"
                              INSTALL_DESTINATION "${rouse_package_dir}")
write_basic_package_version_file("${rouse_generated_dir}/${rouse_output_name}ConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${rouse_generated_dir}/${rouse_output_name}Config.cmake" "${rouse_generated_dir}/${rouse_output_name}ConfigVersion.cmake"
        DESTINATION "${rouse_package_dir}")

# The prefix follows from where the .pc file lies, so that `cmake --install --prefix` and moving the tree keep it right. How
# many folders up that is depends on the library folder (lib, lib64, lib/x86_64-linux-gnu).
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
    set(rouse_pc_prefix "${CMAKE_INSTALL_PREFIX}")
    set(rouse_pc_libdir "${CMAKE_INSTALL_LIBDIR}")
else()
    file(RELATIVE_PATH rouse_pc_up "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
    string(REGEX REPLACE "/$" "" rouse_pc_up "${rouse_pc_up}")
    set(rouse_pc_prefix "\${pcfiledir}/${rouse_pc_up}")
    set(rouse_pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
endif()
if(IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
    set(rouse_pc_includedir "${CMAKE_INSTALL_INCLUDEDIR}")
else()
    set(rouse_pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
set(rouse_pc_system "-pthread")
if(WIN32)
    set(rouse_pc_system "-lws2_32 -lsynchronization")
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/rouse.pc.in" "${rouse_generated_dir}/${rouse_output_name}.pc" @ONLY)
install(FILES "${rouse_generated_dir}/${rouse_output_name}.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
