# The runner of text scripts, shared by every folder with a vocabulary.
if(NOT TARGET kv_script)
  add_library(kv_script STATIC ${CMAKE_CURRENT_LIST_DIR}/script.cc)
  target_include_directories(kv_script PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_definitions(kv_script PRIVATE KVD_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(kv_script PRIVATE kv_flags)
endif()
