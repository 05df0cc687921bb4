;; Writes its arguments and its environment to stdout, each ended by a zero byte, and then what it can reach: the result of
;; opening the first directory, and whether the clock moves.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "no directory\00")
  (data (i32.const 96) "clock stands still\00")
  ;; 0: address and length to write; 8: bytes written; 16, 20: number and bytes; 32, 40: times; 1024: pointers; 65536: text.
  (func $print (param $address i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $address))
    (i32.store (i32.const 4) (local.get $length))
    (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable)))
  (func (export "_start")
    (local $turns i32)
    (drop (call $args_sizes (i32.const 16) (i32.const 20)))
    (drop (call $args (i32.const 1024) (i32.const 65536)))
    (call $print (i32.const 65536) (i32.load (i32.const 20)))
    (drop (call $environ_sizes (i32.const 16) (i32.const 20)))
    (drop (call $environ (i32.const 1024) (i32.const 65536)))
    (call $print (i32.const 65536) (i32.load (i32.const 20)))
    ;; 8 is "bad file number".
    (if (i32.eq (call $prestat (i32.const 3) (i32.const 1024)) (i32.const 8))
      (then (call $print (i32.const 64) (i32.const 13))))
    (drop (call $time (i32.const 1) (i64.const 0) (i32.const 32)))
    (loop $again
      (drop (call $time (i32.const 1) (i64.const 0) (i32.const 40)))
      (local.set $turns (i32.add (local.get $turns) (i32.const 1)))
      (br_if $again
        (i32.and
          (i64.eq (i64.load (i32.const 32)) (i64.load (i32.const 40)))
          (i32.lt_u (local.get $turns) (i32.const 100000)))))
    (if (i64.eq (i64.load (i32.const 32)) (i64.load (i32.const 40)))
      (then (call $print (i32.const 96) (i32.const 19))))))
