# Stands in for a Slicer build when the extension's packaging is tested: defines what the
# extension's CMakeLists.txt files use. Files are copied to the build tree and installed from
# there, nonexistent ones are an error, tests become CTest tests. Nothing is byte-compiled.

set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)
set(Slicer_USE_PYTHONQT ON)
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/ExtensionConfig.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/ExtensionPackage.cmake)
set(Slicer_FOUND TRUE)
