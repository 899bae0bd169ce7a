# Runs one WAY of using rouse from outside, in a folder of its own: installs what has been built, builds the consumer
# against it and runs it. Run by CTest with the variables that CMakeLists.txt beside this file passes.
cmake_minimum_required(VERSION 3.20)

function(run)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "OUTPUT" "COMMAND;ENVIRONMENT")
    execute_process(COMMAND "${CMAKE_COMMAND}" -E env ${arg_ENVIRONMENT} ${arg_COMMAND}
                    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
    list(JOIN arg_COMMAND " " command)
    message(STATUS "${command}\n${output}")
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "status ${status}: ${command}")
    endif()
    if(arg_OUTPUT)
        string(STRIP "${output}" output)
        set(${arg_OUTPUT} "${output}" PARENT_SCOPE)
    endif()
endfunction()

# install_into(<prefix>)
function(install_into prefix)
    run(COMMAND "${CMAKE_COMMAND}" --install "${BUILD_DIR}" --prefix "${prefix}" --config "${CONFIG}")
endfunction()

# build_and_run(<name> <cmake argument>...) configures the consumer project in a folder of that name.
function(build_and_run name)
    set(build "${WORK_DIR}/${name}")
    run(COMMAND "${CMAKE_COMMAND}" -S "${SOURCE_DIR}/tests/install/consumer" -B "${build}" -G "${GENERATOR}"
                "-DCMAKE_C_COMPILER=${COMPILER}" "-DCMAKE_BUILD_TYPE=${CONFIG}" "-DEXPECTED_BACKEND=${BACKEND}" "-DNAME=${NAME}"
                ${ARGN})
    run(COMMAND "${CMAKE_COMMAND}" --build "${build}" --config "${CONFIG}")
    run(COMMAND "${CMAKE_CTEST_COMMAND}" --test-dir "${build}" --output-on-failure --no-tests=error -C "${CONFIG}")
endfunction()

# pkg_config(<prefix> <libdir> <out> <argument>...)
function(pkg_config prefix libdir out)
    run(COMMAND "${PKG_CONFIG}" ${ARGN} ${NAME} OUTPUT output
        ENVIRONMENT "PKG_CONFIG_PATH=${prefix}/${libdir}/pkgconfig")
    separate_arguments(output UNIX_COMMAND "${output}")
    set(${out} "${output}" PARENT_SCOPE)
endfunction()

# compile_by_pkg_config(<prefix> <libdir>) builds and runs the consumer with the shared library.
function(compile_by_pkg_config prefix libdir)
    pkg_config("${prefix}" "${libdir}" flags --cflags --libs)
    pkg_config("${prefix}" "${libdir}" backend --variable=backend)
    if(NOT backend STREQUAL BACKEND)
        message(FATAL_ERROR "${NAME}.pc says backend=${backend}, expected ${BACKEND}")
    endif()
    run(COMMAND "${COMPILER}" "${SOURCE_DIR}/tests/install/consumer/main.c" -o "${WORK_DIR}/by_pkg_config" ${flags})
    # Both spellings, for ELF and Mach-O.
    run(COMMAND "${WORK_DIR}/by_pkg_config"
        ENVIRONMENT "LD_LIBRARY_PATH=${prefix}/${libdir}" "DYLD_LIBRARY_PATH=${prefix}/${libdir}")
endfunction()

file(REMOVE_RECURSE "${WORK_DIR}")
file(MAKE_DIRECTORY "${WORK_DIR}")
set(prefix "${WORK_DIR}/prefix")

if(WAY STREQUAL "find_package")
    install_into("${prefix}")
    build_and_run(static_by_default "-DCMAKE_PREFIX_PATH=${prefix}")
    build_and_run(shared_by_choice "-DCMAKE_PREFIX_PATH=${prefix}" -DBUILD_SHARED_LIBS=ON)
elseif(WAY STREQUAL "pkg_config")
    install_into("${prefix}")
    compile_by_pkg_config("${prefix}" "${LIBDIR}")
elseif(WAY STREQUAL "pkg_config_static")
    install_into("${prefix}")
    pkg_config("${prefix}" "${LIBDIR}" flags --static --cflags --libs)
    # Both libraries lie side by side and the linker prefers the shared one, so name the static one.
    list(TRANSFORM flags REPLACE "^-l${NAME}$" "${prefix}/${LIBDIR}/lib${NAME}.a")
    run(COMMAND "${COMPILER}" "${SOURCE_DIR}/tests/install/consumer/main.c" -o "${WORK_DIR}/static" ${flags})
    run(COMMAND "${WORK_DIR}/static")
elseif(WAY STREQUAL "add_subdirectory")
    build_and_run(embedded "-DROUSE_SOURCE_DIR=${SOURCE_DIR}" "-DROUSE_BACKEND=${BACKEND}")
elseif(WAY STREQUAL "moved_prefix")
    install_into("${WORK_DIR}/before")
    file(RENAME "${WORK_DIR}/before" "${prefix}")
    build_and_run(by_find_package "-DCMAKE_PREFIX_PATH=${prefix}")
    compile_by_pkg_config("${prefix}" "${LIBDIR}")
elseif(WAY STREQUAL "multiarch_libdir")
    # Library folders differ in depth, and the .pc file finds its prefix by counting them.
    set(libdir lib/some-machine-gnu)
    run(COMMAND "${CMAKE_COMMAND}" -S "${SOURCE_DIR}" -B "${WORK_DIR}/build" -G "${GENERATOR}"
                "-DCMAKE_C_COMPILER=${COMPILER}" "-DCMAKE_BUILD_TYPE=${CONFIG}" "-DROUSE_BACKEND=${BACKEND}"
                -DCMAKE_INSTALL_LIBDIR=${libdir}
                -DROUSE_BUILD_TESTS=OFF -DROUSE_BUILD_EXAMPLES=OFF -DROUSE_BUILD_BENCH=OFF)
    run(COMMAND "${CMAKE_COMMAND}" --build "${WORK_DIR}/build" --config "${CONFIG}")
    run(COMMAND "${CMAKE_COMMAND}" --install "${WORK_DIR}/build" --prefix "${prefix}" --config "${CONFIG}")
    compile_by_pkg_config("${prefix}" "${libdir}")
elseif(WAY STREQUAL "beside_the_real_one")
    # A program with the real library and its test with the simulated one: in one prefix, in one project.
    run(COMMAND "${CMAKE_COMMAND}" -S "${SOURCE_DIR}" -B "${WORK_DIR}/real" -G "${GENERATOR}"
                "-DCMAKE_C_COMPILER=${COMPILER}" "-DCMAKE_BUILD_TYPE=${CONFIG}"
                -DROUSE_BUILD_TESTS=OFF -DROUSE_BUILD_EXAMPLES=OFF -DROUSE_BUILD_BENCH=OFF)
    run(COMMAND "${CMAKE_COMMAND}" --build "${WORK_DIR}/real" --config "${CONFIG}")
    run(COMMAND "${CMAKE_COMMAND}" --install "${WORK_DIR}/real" --prefix "${prefix}" --config "${CONFIG}")
    install_into("${prefix}")
    build_and_run(both "-DCMAKE_PREFIX_PATH=${prefix}" "-DREAL_TOO=ON"
                  "-DSIMULATED_SOURCE=${SOURCE_DIR}/examples/simulated.c")
else()
    message(FATAL_ERROR "unknown way: ${WAY}")
endif()
