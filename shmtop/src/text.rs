//! Text from strangers made harmless, and numbers with their units, for sentences and tables.
//!
//! Used by the model (names), the hints (sentences) and the reports. A number never appears without its unit.

use unicode_width::UnicodeWidthStr;

/// Longest name that is kept.
const MAX_CHARS: usize = 80;
/// Longest path of a socket: sockaddr_un holds no more.
const MAX_PATH_CHARS: usize = 108;

/// `text` as one word for a shell: as it stands if it has nothing but letters, digits and `_./:@%+=,-`, else in single quotes. All text
/// that somebody else chose (a page, a process, a group) goes through here on its way into a command that shmtop tells to type.
pub(crate) fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+=,-".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", harmless(text).replace('\'', r"'\''"))
}

/// `text` without what could steer a terminal, whatever its length.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if is_harmless(c) { c } else { '·' })
        .collect()
}

/// `text` without control, escape, bidi and other invisible characters (each becomes `·`), cut after 80 characters.
pub fn clean(text: &str) -> String {
    cut(text, MAX_CHARS)
}

/// The same for the path of a socket, which may be longer and is of no use when cut.
pub fn path(text: &str) -> String {
    cut(text, MAX_PATH_CHARS)
}

fn cut(text: &str, most: usize) -> String {
    // Nearly all names: nothing to look up character by character.
    if text.len() <= most && text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return text.to_owned();
    }
    text.chars()
        .take(most)
        .map(|c| if is_harmless(c) { c } else { '·' })
        .collect()
}

/// True for what may reach a terminal, a JSON value or a metric label as it stands.
fn is_harmless(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}'))
}

/// Whether every character of the text takes one cell by itself: ASCII and the shapes that views draw. Such text can be
/// written without looking for graphemes, which is most of the cost of a frame.
pub(crate) fn is_plain(text: &str) -> bool {
    text.chars().all(|c| {
        matches!(c,
            ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}' | '\u{2010}'..='\u{2027}'
            | '\u{2190}'..='\u{21ff}' | '\u{2200}'..='\u{22ff}' | '\u{2500}'..='\u{25fc}' | '\u{2713}' | '\u{2716}')
    })
}

/// Width of a text in cells.
pub(crate) fn width(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else if is_plain(text) {
        text.chars().count()
    } else {
        text.width()
    }
}

/// The longest start of a text that takes at most so many cells.
pub(crate) fn start(text: &str, cells: usize) -> &str {
    let mut left = cells;
    let too_much = text.char_indices().find(|(_, c)| !takes(&mut left, *c));
    too_much.map_or(text, |(i, _)| &text[..i])
}

/// The longest end of a text that takes at most so many cells.
pub(crate) fn end(text: &str, cells: usize) -> &str {
    let mut left = cells;
    let mut from_the_end = text.char_indices().rev();
    let too_much = from_the_end.find(|(_, c)| !takes(&mut left, *c));
    too_much.map_or(text, |(i, c)| &text[i + c.len_utf8()..])
}

/// Takes the cells of a character out of `left`, if there are as many.
fn takes(left: &mut usize, c: char) -> bool {
    let rest = left.checked_sub(width(c.encode_utf8(&mut [0; 4])));
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

/// The name that `word` was probably meant to be: a typo or two away, whatever the case.
pub(crate) fn nearest<'n>(names: impl Iterator<Item = &'n str>, word: &str) -> Option<&'n str> {
    let word = word.to_lowercase();
    names
        .map(|name| (distance(name, &word), name))
        .min()
        .filter(|(d, _)| *d <= (1 + word.chars().count() / 4).min(3))
        .map(|(_, name)| name)
}

/// Letters to change, add or leave out to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A duration in ns: `840 ns`, `1.2 µs`, `31 ms`, `4.2 s`, `3 m 12 s`.
pub fn ns(value: u64) -> String {
    let v = value as f64;
    match value {
        0..1_000 => format!("{value} ns"),
        // What would round to a thousand is one of the next unit.
        1_000..999_500 => format!("{} µs", short(v / 1e3)),
        999_500..999_500_000 => format!("{} ms", short(v / 1e6)),
        999_500_000..120_000_000_000 => format!("{} s", short(v / 1e9)),
        _ => {
            let s = value / 1_000_000_000;
            let (h, m) = (s / 3600, s / 60 % 60);
            if h > 0 {
                format!("{h} h {m} m")
            } else {
                format!("{m} m {} s", s % 60)
            }
        }
    }
}

/// Bytes: `512 B`, `34 MiB`, `1.1 GiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut v = value as f64;
    let mut unit = 0;
    while v >= 1023.5 && unit + 1 < UNITS.len() {
        v /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{value} B")
    } else {
        format!("{} {}", short(v), UNITS[unit])
    }
}

/// A count or a rate: `40`, `412 k`, `2.1 M`.
pub fn count(value: f64) -> String {
    match value {
        v if v >= 999.5e6 => format!("{} G", short(v / 1e9)),
        v if v >= 999.5e3 => format!("{} M", short(v / 1e6)),
        v if v >= 9_999.5 => format!("{} k", short(v / 1e3)),
        v if v >= 99.5 || v == v.trunc() => format!("{v:.0}"),
        v => short(v),
    }
}

/// The layouts of a page that a viewer of layout `viewer` (major, minor) reads: `1.x to 2.x`.
pub(crate) fn layouts(viewer: (u32, u32)) -> String {
    let (oldest, newest) = (transport::stats::schema::OLDEST_MAJOR, viewer.0);
    if oldest < newest {
        format!("{oldest}.x to {newest}.x")
    } else {
        format!("{newest}.x")
    }
}

/// A share (0..=1) in per cent: `0.4 %`, `14 %`. 0 and 100 are nothing and all.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 0.05 => "<0.1 %".to_owned(),
        p if (99.5..100.0).contains(&p) => format!("{:.1} %", p.min(99.9)),
        p => format!("{} %", short(p)),
    }
}

/// Two or three significant digits.
fn short(v: f64) -> String {
    if v == 0.0 {
        "0".into()
    } else if v < 9.95 {
        format!("{v:.1}")
    } else {
        format!("{v:.0}")
    }
}

/// That so many processes could not be searched for stats pages: those of others, unless the viewer is root, who may be kept out of any.
pub fn unsearched(processes: u32, by_root: bool) -> String {
    let noun = if processes == 1 {
        "process"
    } else {
        "processes"
    };
    let whose = if by_root { "" } else { " of other users" };
    format!("{processes} {noun}{whose} could not be searched")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_stranger_wrote_can_move_the_cursor_or_turn_the_text_around() {
        let evil = "a\u{1b}[2Jb\u{202e}c\nd\u{200d}e\u{9b}f\u{e0041}";
        let shown = clean(evil);
        assert_eq!(shown, "a·[2Jb·c·d·e·f·");
        assert_eq!(clean(&"x".repeat(10_000)).chars().count(), MAX_CHARS);
        assert_eq!(clean("Grüße 日本"), "Grüße 日本");
    }

    #[test]
    fn what_is_measured_in_cells_is_cut_in_cells() {
        let name = "日本証券取引所";
        assert_eq!((width(name), width("exchange"), width("µs ✖")), (14, 8, 4));
        assert_eq!(start(name, 5), "日本");
        assert_eq!(end(name, 5), "引所");
        assert_eq!((start(name, 14), end(name, 14)), (name, name));
        assert_eq!((start(name, 1), end(name, 0)), ("", ""));
        // A mark goes with its letter.
        assert_eq!(start("e\u{301}e", 1), "e\u{301}");
    }

    #[test]
    fn a_strangers_text_is_one_word_of_a_command() {
        assert_eq!(shell("/run/x/exchange-1.sock"), "/run/x/exchange-1.sock");
        let evil = [
            "",
            "-e",
            "/tmp/a;id",
            "/tmp/$(id)",
            "`id`",
            "a'b;id #",
            "~",
            "a b\nc",
            "$HOME",
            "!!",
            "*",
            "ü",
        ];
        for text in evil {
            let echo = format!("printf %s {}", shell(text));
            let mut sh = std::process::Command::new("sh");
            let out = sh.args(["-c", &echo]).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), harmless(text));
            assert!(shell(text).starts_with('\''), "{text}");
        }
    }

    #[test]
    fn numbers_carry_their_unit() {
        assert_eq!(ns(840), "840 ns");
        assert_eq!(ns(1_240), "1.2 µs");
        assert_eq!(ns(31_000_000), "31 ms");
        assert_eq!(ns(4_200_000_000), "4.2 s");
        assert_eq!(ns(192_000_000_000), "3 m 12 s");
        assert_eq!(bytes(67_108_864), "64 MiB");
        assert_eq!(bytes(1_181_116_006), "1.1 GiB");
        assert_eq!(count(412_345.0), "412 k");
        assert_eq!(count(40.0), "40");
        assert_eq!(percent(0.004), "0.4 %");
        assert_eq!(percent(0.14), "14 %");
    }

    #[test]
    fn what_is_rounded_does_not_look_like_something_else() {
        assert_eq!(ns(999_499), "999 µs");
        assert_eq!(ns(999_960), "1.0 ms");
        assert_eq!(ns(999_960_000), "1.0 s");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.0004), "<0.1 %");
        assert_eq!(percent(0.9949), "99 %");
        assert_eq!(percent(0.9962), "99.6 %");
        assert_eq!(percent(0.999_96), "99.9 %");
        assert_eq!(percent(1.0), "100 %");
    }
}
