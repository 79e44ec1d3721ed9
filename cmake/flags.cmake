# Warnings, hardening and sanitizers for our own code. Generated code links sheaf_flags_generated.
add_library(sheaf_flags_base INTERFACE)
target_include_directories(sheaf_flags_base INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(sheaf_flags_base INTERFACE _GNU_SOURCE SHEAF_VERSION="${PROJECT_VERSION}")
# One result on every compiler: no fused multiply-add behind our back.
target_compile_options(sheaf_flags_base INTERFACE -fno-common -ffp-contract=off -g)
target_link_options(sheaf_flags_base INTERFACE -Wl,--as-needed)
if(SHEAF_SANITIZE)
    target_compile_options(sheaf_flags_base INTERFACE
        -fsanitize=${SHEAF_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(sheaf_flags_base INTERFACE -fsanitize=${SHEAF_SANITIZE})
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release" OR CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
    target_compile_options(sheaf_flags_base INTERFACE
        -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE)
    target_link_options(sheaf_flags_base INTERFACE -pie -Wl,-z,relro,-z,now)
endif()

add_library(sheaf_flags INTERFACE)
target_link_libraries(sheaf_flags INTERFACE sheaf_flags_base)
target_compile_options(sheaf_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes
    -Wmissing-prototypes -Wvla -Wformat=2 -Wundef -Wcast-qual -Wwrite-strings -Wswitch-enum
    $<$<BOOL:${SHEAF_WERROR}>:-Werror>)
# gcc 12 reports impossible paths with this one under sanitizers, where it sees its own checks.
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND NOT SHEAF_SANITIZE)
    target_compile_options(sheaf_flags INTERFACE -Wnull-dereference)
endif()
# C gives string literals no const; clang sees one and warns where a generated struct takes them.
if(CMAKE_C_COMPILER_ID MATCHES "Clang")
    target_compile_options(sheaf_flags INTERFACE -Wno-cast-qual -Wno-missing-field-initializers)
endif()

add_library(sheaf_flags_generated INTERFACE)
target_link_libraries(sheaf_flags_generated INTERFACE sheaf_flags_base)

# sheaf_library(NAME [LINK lib…]): a static library of every .c file in the current folder.
function(sheaf_library name)
    cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    list(FILTER sources EXCLUDE REGEX "/main[^/]*\\.c$")
    if(NOT sources)
        add_library(${name} INTERFACE)
        target_link_libraries(${name} INTERFACE ${arg_LINK})
        return()
    endif()
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC ${arg_LINK} PRIVATE sheaf_flags)
    target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
endfunction()

# sheaf_program(NAME MAIN LINK lib… [PACKAGE worker|gateway|orchestrator|cli [HELPER]]): installed by
# that package; a helper is started by our programs alone, so it is in no one's PATH.
function(sheaf_program name main)
    cmake_parse_arguments(arg "HELPER" "PACKAGE" "LINK" ${ARGN})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${main})
        return()
    endif()
    add_executable(${name} ${main})
    target_link_libraries(${name} PRIVATE ${arg_LINK} sheaf_flags)
    if(NOT arg_PACKAGE)
        return()
    endif()
    if(arg_HELPER)
        set(folder ${CMAKE_INSTALL_LIBEXECDIR}/sheaf)
    else()
        set(folder ${CMAKE_INSTALL_BINDIR})
    endif()
    install(TARGETS ${name} RUNTIME DESTINATION ${folder} COMPONENT ${arg_PACKAGE})
endfunction()
