# The extension's description, as the application reads it from the file that this makes.
foreach(_key HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${_key}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${_key} is not set")
  endif()
  file(APPEND ${CMAKE_BINARY_DIR}/${PROJECT_NAME}.s4ext.tmp "${_key} ${EXTENSION_${_key}}\n")
endforeach()
file(RENAME ${CMAKE_BINARY_DIR}/${PROJECT_NAME}.s4ext.tmp ${CMAKE_BINARY_DIR}/${PROJECT_NAME}.s4ext)
