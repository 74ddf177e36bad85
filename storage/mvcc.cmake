# The versioned map over a Database; included by CMakeLists.txt here.
kv_module(mvcc
  SRCS keys.cc key_record.cc record_cache.cc counts.cc walk.cc batch.cc view.cc mvcc.cc compactor.cc
       refound.cc
  DEPS kv_storage absl::status absl::statusor fmt::fmt)
