//! The user's code that answers requests, and what becomes of its panics: an error reply, and nothing else, on whatever thread it runs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::reply::Reply;
use crate::thread;

/// What answers requests. Shared by all threads of a server.
pub(crate) type Handler = dyn Fn(&[u8], &mut Reply<'_>) + Send + Sync;

/// Has the handler answer; false if it panicked, which the reply says then.
#[inline(always)]
pub(crate) fn answer(handler: &Handler, request: &[u8], reply: &mut Reply<'_>) -> bool {
    // AssertUnwindSafe: of what the handler could leave half done, only `reply` is ours, and `fail` starts it over.
    match catch_unwind(AssertUnwindSafe(|| handler(request, reply))) {
        Ok(()) => true,
        Err(panic) => {
            thread::forget_panic(panic);
            reply.fail("the handler panicked");
            false
        }
    }
}
