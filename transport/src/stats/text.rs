//! Text from other processes, made safe to show.
//!
//! Used on every string that leaves a page, and by viewers on whatever else another process may have chosen
//! (comm, paths).

/// `text` as UTF-8 in which nothing can steer a terminal, reorder a line or hide: control characters
/// (ESC among them), bidirectional marks and overrides, line and paragraph separators, zero-width and tag characters
/// and invalid bytes become U+FFFD.
pub fn sanitise(text: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(text.as_ref())
        .chars()
        .map(|c| {
            if harmful(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

fn harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}'                  // soft hyphen: invisible
            | '\u{034f}'                // combining grapheme joiner
            | '\u{061c}'                // Arabic letter mark
            | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // Hangul fillers: blank letters
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'   // zero width, LRM, RLM
            | '\u{2028}'..='\u{202e}'   // separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}'   // word joiner, invisible operators, isolates, deprecated controls
            | '\u{fe00}'..='\u{fe0f}'   // variation selectors
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'   // interlinear annotation
            | '\u{e0000}'..='\u{e0fff}' // tags, more variation selectors
        )
}

#[cfg(test)]
mod tests {
    use super::sanitise;

    #[test]
    fn names_cannot_steer_a_terminal_or_reorder_a_line() {
        assert_eq!(
            sanitise("\x1b[2Jx\x07\u{9b}31m\r\n\t"),
            "\u{fffd}[2Jx\u{fffd}\u{fffd}31m\u{fffd}\u{fffd}\u{fffd}"
        );
        assert_eq!(
            sanitise("a\u{202e}gpj.exe\u{2066}"),
            "a\u{fffd}gpj.exe\u{fffd}"
        );
        assert_eq!(
            sanitise("a\u{200b}b\u{e0041}\u{feff}"),
            "a\u{fffd}b\u{fffd}\u{fffd}"
        );
        assert_eq!(sanitise(b"ok\xff\xfe"), "ok\u{fffd}\u{fffd}");
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        for text in ["exchange", "börse-1 (Zürich)", "取引所", "مرحبا", "a/b_c.d"] {
            assert_eq!(sanitise(text), text);
        }
    }
}
