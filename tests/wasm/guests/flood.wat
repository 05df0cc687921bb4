;; Writes without end to the file whose number is the first byte of stdin.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (local $file i32)
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 1))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (local.set $file (i32.sub (i32.load8_u (i32.const 1024)) (i32.const 48)))
    (i32.store (i32.const 4) (i32.const 65536))
    (loop $for_ever
      (drop (call $write (local.get $file) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $for_ever))))
