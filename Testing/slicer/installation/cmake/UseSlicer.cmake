option(BUILD_TESTING "Test the project" ON)
if(BUILD_TESTING)
  enable_testing()
endif()

# Copy one file of a target from the sources to the build tree when it changes.
function(_stand_in_copy target source relative destination)
  if(NOT EXISTS ${source})
    message(FATAL_ERROR "${target}: there is no file ${source}")
  endif()
  if(IS_DIRECTORY ${source})
    message(FATAL_ERROR "${target}: ${source} is a folder")
  endif()
  add_custom_command(
    OUTPUT ${destination}/${relative}
    COMMAND ${CMAKE_COMMAND} -E copy ${source} ${destination}/${relative}
    DEPENDS ${source}
    )
  set_property(GLOBAL APPEND PROPERTY _stand_in_${target} ${destination}/${relative})
endfunction()

macro(ctkMacroCompilePythonScript)
  cmake_parse_arguments(_ctk "NO_INSTALL_SUBDIR;GLOBAL_TARGET"
    "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(_name TARGET_NAME SCRIPTS DESTINATION_DIR INSTALL_DIR)
    if(NOT DEFINED _ctk_${_name})
      message(FATAL_ERROR "ctkMacroCompilePythonScript: ${_name} is mandatory")
    endif()
  endforeach()
  if(NOT DEFINED _ctk_SOURCE_DIR)
    set(_ctk_SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  foreach(_file IN LISTS _ctk_SCRIPTS)
    if(NOT _file MATCHES "\\.py$")
      string(APPEND _file ".py")
    endif()
    _stand_in_copy(${_ctk_TARGET_NAME} ${_ctk_SOURCE_DIR}/${_file} ${_file} ${_ctk_DESTINATION_DIR})
  endforeach()
  foreach(_file IN LISTS _ctk_RESOURCES)
    _stand_in_copy(${_ctk_TARGET_NAME} ${_ctk_SOURCE_DIR}/${_file} ${_file} ${_ctk_DESTINATION_DIR})
  endforeach()
  get_property(_copied GLOBAL PROPERTY _stand_in_${_ctk_TARGET_NAME})
  add_custom_target(Copy${_ctk_TARGET_NAME}PythonFiles ALL DEPENDS ${_copied})
  if(_ctk_NO_INSTALL_SUBDIR)
    string(APPEND _ctk_DESTINATION_DIR "/") # the content of the folder, not the folder
  endif()
  install(DIRECTORY ${_ctk_DESTINATION_DIR} DESTINATION ${_ctk_INSTALL_DIR}
    COMPONENT RuntimeLibraries USE_SOURCE_PERMISSIONS)
endmacro()

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(_module "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(_module_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule: unknown arguments ${_module_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT DEFINED _module_NAME)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule: NAME is mandatory")
  endif()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${_module_NAME}
    SCRIPTS "${_module_SCRIPTS}"
    RESOURCES "${_module_RESOURCES}"
    DESTINATION_DIR ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}
    INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}
    NO_INSTALL_SUBDIR
    )
endmacro()

# There is no Slicer to start: a test is imported as Slicer does it, with its folder first in the path.
macro(slicer_add_python_unittest)
  cmake_parse_arguments(_test "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  get_filename_component(_test_name ${_test_SCRIPT} NAME_WE)
  get_filename_component(_test_folder ${_test_SCRIPT} PATH)
  if("${_test_folder}" STREQUAL "")
    set(_test_folder ${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  if(NOT IS_ABSOLUTE ${_test_folder} OR NOT EXISTS ${_test_folder}/${_test_name}.py)
    message(FATAL_ERROR "slicer_add_python_unittest: there is no file ${_test_SCRIPT}")
  endif()
  add_test(NAME py_${_test_TESTNAME_PREFIX}${_test_name} COMMAND ${MEDGEN_PYTHON} -c
    "import sys; sys.path.insert(0, '${_test_folder}'); import support; import ${_test_name}")
endmacro()
