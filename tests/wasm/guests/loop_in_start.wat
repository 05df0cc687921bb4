;; Its start function, which runs before `_start`, does not end.
(module
  (memory (export "memory") 1)
  (func $initialize (loop $for_ever (br $for_ever)))
  (start $initialize)
  (func (export "_start")))
