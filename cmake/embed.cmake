# sheaf_embed(TARGET SYMBOL FILE…): a static library with the bytes of each file and a table
# `const struct embed_file SYMBOL[]` (common/pure/embed.h), sorted by name, ended by a null name.
function(sheaf_embed target symbol)
    set(source ${CMAKE_CURRENT_BINARY_DIR}/${symbol}.c)
    set(body "#include \"common/pure/embed.h\"\n#include <stddef.h>\n")
    set(rows "")
    set(index 0)
    foreach(file IN LISTS ARGN)
        get_filename_component(name ${file} NAME)
        set(id "embed_${symbol}_${index}")
        string(APPEND body "__asm__(\".section .rodata\\n.balign 16\\n${id}:\\n.incbin \\\"${file}\\\"\\n"
                           "${id}_end:\\n.byte 0\\n.previous\\n\");\n"
                           "extern const unsigned char ${id}[];\nextern const unsigned char ${id}_end[];\n")
        string(APPEND rows "    {\"${name}\", ${id}, ${id}_end},\n")
        math(EXPR index "${index} + 1")
    endforeach()
    string(APPEND body "const struct embed_file ${symbol}[] = {\n${rows}    {NULL, NULL, NULL},\n};\n")
    file(CONFIGURE OUTPUT ${source} CONTENT "${body}" @ONLY)
    set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS "${ARGN}")
    add_library(${target} STATIC ${source})
    target_link_libraries(${target} PRIVATE sheaf_flags_generated)
    target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR})
endfunction()
