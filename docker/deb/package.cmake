# What is installed besides libraries and headers, and the four Debian packages that `cpack -G DEB` makes of it: ringback-server,
# ringback-client, libringback1 and libringback-dev. Their dependencies on libraries are computed by dpkg-shlibdeps.
include(GNUInstallDirs)
set(deb ${CMAKE_CURRENT_LIST_DIR})
set(out ${PROJECT_BINARY_DIR}/package)
file(MAKE_DIRECTORY ${out})

install(TARGETS ringbackd RUNTIME DESTINATION ${CMAKE_INSTALL_SBINDIR} COMPONENT server)
install(TARGETS ringback RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT client)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/proto/ DESTINATION ${CMAKE_INSTALL_DATADIR}/ringback/proto COMPONENT development
  FILES_MATCHING PATTERN "*.proto" PATTERN "buf*.yaml")

# Manual pages, completion and the service's options come out of the programs' own tables.
find_program(GZIP gzip REQUIRED)
add_custom_command(OUTPUT ${out}/ringback.1.gz ${out}/ringback.bash
  COMMAND sh -c "\"$1\" --man | \"$2\" -9n >ringback.1.gz && \"$1\" completion bash >ringback.bash" sh $<TARGET_FILE:ringback> ${GZIP}
  DEPENDS ringback WORKING_DIRECTORY ${out} VERBATIM)
add_custom_command(OUTPUT ${out}/ringbackd.8.gz ${out}/ringbackd.env
  COMMAND sh -c "\"$1\" --man | \"$2\" -9n >ringbackd.8.gz && \"$1\" --environment-file >ringbackd.env" sh $<TARGET_FILE:ringbackd> ${GZIP}
  DEPENDS ringbackd WORKING_DIRECTORY ${out} VERBATIM)
# Programs under a sanitizer are not run at build time; nobody installs them.
set(always ALL)
if(RINGBACK_SANITIZE)
  set(always)
endif()
add_custom_target(ringback_documents ${always} DEPENDS ${out}/ringback.1.gz ${out}/ringbackd.8.gz)
install(FILES ${out}/ringback.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT client)
install(FILES ${out}/ringback.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME ringback COMPONENT client)
install(FILES ${out}/ringbackd.8.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man8 COMPONENT server)
# /etc belongs to /usr; any other prefix has one of its own, and stays movable.
set(environment_dir ${CMAKE_INSTALL_SYSCONFDIR}/ringback)
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(environment_dir ${CMAKE_INSTALL_FULL_SYSCONFDIR}/ringback)
endif()
install(FILES ${out}/ringbackd.env DESTINATION ${environment_dir} COMPONENT server)
configure_file(${deb}/ringbackd.service.in ${out}/ringbackd.service @ONLY)
install(FILES ${out}/ringbackd.service DESTINATION lib/systemd/system COMPONENT server)
install(FILES ${deb}/ringback.conf DESTINATION lib/sysusers.d COMPONENT server)

# Every package has its licence and its changelog.
set(RINGBACK_PACKAGE_RELEASE "1" CACHE STRING "the Debian revision of the packages")
set(RINGBACK_PACKAGE_DATE "Thu, 01 Jan 1970 00:00:00 +0000" CACHE STRING "the date in their changelog (RFC 5322)")
file(READ ${PROJECT_SOURCE_DIR}/LICENSE licence)
string(REGEX REPLACE "\n\n" "\n.\n" licence "${licence}")
string(REGEX REPLACE "\n" "\n " licence "${licence}")
string(STRIP "${licence}" licence)
configure_file(${deb}/copyright.in ${out}/copyright @ONLY)
configure_file(${deb}/changelog.in ${out}/changelog.Debian @ONLY)
execute_process(COMMAND ${GZIP} -9nkf ${out}/changelog.Debian COMMAND_ERROR_IS_FATAL ANY)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME ringback)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "Ringback maintainers <maintainers@ringback.dev>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_COMPONENTS_ALL server client library development)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE ${RINGBACK_PACKAGE_RELEASE})
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/client/lib)
set(version "${PROJECT_VERSION}-${RINGBACK_PACKAGE_RELEASE}")

# package(COMPONENT NAME SECTION "summary" "description" "depends" "recommends" "suggests" [control files...])
function(package component name section summary description depends recommends suggests)
  string(TOUPPER ${component} key)
  install(FILES ${out}/copyright ${out}/changelog.Debian.gz DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${name}
    COMPONENT ${component} EXCLUDE_FROM_ALL)
  foreach(pair "PACKAGE_NAME;${name}" "PACKAGE_SECTION;${section}" "DESCRIPTION;${summary}\n${description}"
               "PACKAGE_DEPENDS;${depends}" "PACKAGE_RECOMMENDS;${recommends}" "PACKAGE_SUGGESTS;${suggests}")
    list(POP_FRONT pair field)
    if(pair)
      set(CPACK_DEBIAN_${key}_${field} "${pair}" PARENT_SCOPE)
    endif()
  endforeach()
  if(ARGN)
    set(CPACK_DEBIAN_${key}_PACKAGE_CONTROL_EXTRA "${ARGN}" PARENT_SCOPE)
  endif()
endfunction()

package(server ringback-server net "priority job queues that call back, the server"
  "ringbackd serves job queues with priorities over gRPC, keeps them in Redis,\nand posts an XML callback when a job has ended."
  "" "redis-server (>= 5:7) | valkey-server" "ringback-client"
  ${deb}/postinst ${deb}/prerm ${deb}/postrm ${deb}/conffiles)
package(client ringback-client net "priority job queues that call back, tool and workers"
  "The command-line tool ringback, which submits, watches and manages jobs, runs\nworkers and receives callbacks; and the commands that do media, speech and\ndocument jobs."
  "python3:any" "" "ffmpeg, pocketsphinx, pocketsphinx-en-us, libreoffice-writer-nogui, libreoffice-calc-nogui, libreoffice-impress-nogui, poppler-utils")
package(library libringback1 libs "client library of Ringback, priority job queues"
  "libringback calls a Ringback server from C: every method of its contract, with\nsafe repetitions, streams and the stubs of protobuf-c."
  "" "" "" ${deb}/triggers)
package(development libringback-dev libdevel "client library of Ringback, development files"
  "Headers, the static library, the pkg-config and CMake packages, and the\ncontract (.proto files) for stubs in other languages."
  "libringback1 (= ${version}), libprotobuf-c-dev, libgrpc-dev" "" "pkg-config, cmake")
include(CPack)
