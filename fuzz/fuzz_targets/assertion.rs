//! Any text as an assertion of `shmtop check`: a tree or an error that points into the text. What a tree says does not change when it is read again, and
//! figures that are missing, infinite or no numbers are an answer too. Never a panic, never a deep recursion.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmtop::Why;
use shmtop::check::Expr;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let expr = match Expr::parse(text) {
        Ok(expr) => expr,
        Err(e) => {
            let said = e.to_string();
            assert!(!said.is_empty());
            return;
        }
    };
    assert_eq!(Expr::parse(text).as_ref(), Ok(&expr));
    let _ = expr.figures();
    for value in [
        0.0,
        1.0,
        -1.0,
        f64::MAX,
        f64::INFINITY,
        f64::NAN,
        f64::MIN_POSITIVE,
    ] {
        // Nothing is missing, so only a division can be without an answer.
        if let Err(why) = expr.holds(&|_| Ok(value)) {
            assert!(text.contains('/'), "{why}");
        }
    }
    // Each figure in turn is missing: an answer, or the reason.
    for missing in expr.figures() {
        let _ = expr.holds(&|name| {
            if name == missing {
                Err(Why::not_yet("one look"))
            } else {
                Ok(2.0)
            }
        });
    }
});
