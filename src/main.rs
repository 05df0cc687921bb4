//! The `lineshaft` binary.

use std::ffi::c_long;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time in milliseconds after which freed memory returns to the system. mimalloc's default of a second keeps about 100 MiB
/// more under requests of 1 MiB, which no budget counts. At 10 ms, batches of submissions cost 15 % more CPU.
const PURGE_DELAY: c_long = 100;

/// `mi_option_purge_delay` of mimalloc's C header, which the bindings do not name.
const PURGE_DELAY_OPTION: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // An operator's own MIMALLOC_PURGE_DELAY wins.
    #[expect(unsafe_code, reason = "the bindings have no safe function")]
    // SAFETY: no other thread exists yet that could read or set options.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY_OPTION, PURGE_DELAY);
    }
    lineshaft::run()
}
