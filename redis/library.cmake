# cmake "-DINPUTS=a.lua;b.lua" -DLUA=out.lua -DC=out.c -P library.cmake
# Joins the parts of the function library into one source that FUNCTION LOAD takes, and the same as a C array. The library's name
# and the SUFFIX of its functions carry the hash of the parts, so that two versions of the service run on one Redis side by side.
set(body "")
foreach(input IN LISTS INPUTS)
  file(READ ${input} part)
  string(APPEND body "${part}")
endforeach()
string(SHA1 hash "${body}")
string(SUBSTRING ${hash} 0 12 hash)
set(source "#!lua name=ringback_${hash}\nlocal SUFFIX = '_${hash}'\n${body}")
file(WRITE ${LUA} "${source}")

string(HEX "${source}" hex)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
file(WRITE ${C} "#include \"redis/library.h\"\n\nconst char redis_library_hash[] = \"${hash}\";\nconst char redis_library_source[] = {\n${bytes}0};\nconst size_t redis_library_source_size = sizeof redis_library_source - 1;\n")
