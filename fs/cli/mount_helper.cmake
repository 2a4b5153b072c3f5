# Installs the link that mount(8) calls, into ${dir}; see CMakeLists.txt.
if(dir STREQUAL "")
	if(CMAKE_INSTALL_PREFIX MATCHES "^/usr(/local)?/?$")
		set(dir /sbin)
	else()
		set(dir "${CMAKE_INSTALL_PREFIX}/sbin")
	endif()
endif()
set(link "${dir}/mount.fuse.ckptfs")
message(STATUS "Installing: $ENV{DESTDIR}${link}")
file(MAKE_DIRECTORY "$ENV{DESTDIR}${dir}")
file(CREATE_LINK "${CMAKE_INSTALL_PREFIX}/${program}" "$ENV{DESTDIR}${link}"
	SYMBOLIC)
list(APPEND CMAKE_INSTALL_MANIFEST_FILES "${link}")
