//! How much a frame may ask for, looked at before it is parsed: most fields of a sample have defaults, so three bytes, `{},`,
//! would become a process of a kilobyte and more, and a file of some megabytes would take all memory.

/// Members of lists that a frame may have whatever its length: the CPUs of a large machine, descriptors of many rings.
const MEMBERS: usize = 4_096;
/// And one more for each so many bytes. What shmtop records takes more: a slot some 3,000, a thread 1,000.
const BYTES_PER_MEMBER: usize = 512;
/// Names in one object; a sample's largest has some sixty.
const NAMES: usize = 1_024;
/// Objects and lists within each other; of a sample some ten.
const DEPTH: usize = 32;

/// Lists by these names have pairs of numbers in them, which become no more than they are: a histogram's buckets, and counters
/// without a name here.
const OF_PAIRS: [&[u8]; 2] = [b"buckets", b"unknown"];

/// Checks that what `json` becomes is no more than a few times as large as it is itself. What is no JSON passes, for the
/// parser to refuse.
pub(super) fn check(json: &[u8]) -> Result<(), &'static str> {
    let mut members_left = MEMBERS + json.len() / BYTES_PER_MEMBER;
    let mut open: Vec<Open> = Vec::new();
    // Of the last text, and whether its colon has made it the name of what follows.
    let (mut text, mut is_name) = (0..0, false);
    let (mut in_string, mut escaped) = (false, false);
    for (at, byte) in json.iter().enumerate() {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            text.end = at;
            continue;
        }
        match byte {
            b'"' => (in_string, text) = (true, at + 1..at + 1),
            b'[' | b'{' => {
                if open.len() == DEPTH {
                    return Err("it is nested too deeply");
                }
                // A struct may be written as a list of its fields, too, of which each may be missing.
                if matches!(open.last(), Some(Open::List)) {
                    members_left = members_left.checked_sub(1).ok_or("it has too many parts")?;
                }
                let of_pairs = is_name && OF_PAIRS.contains(&&json[text.clone()]);
                open.push(match byte {
                    b'{' => Open::Object { names_left: NAMES },
                    _ if of_pairs => Open::Pairs,
                    _ => Open::List,
                });
            }
            b']' | b'}' => drop(open.pop()),
            b':' => {
                if let Some(Open::Object { names_left }) = open.last_mut() {
                    *names_left = names_left
                        .checked_sub(1)
                        .ok_or("one part has too many names")?;
                }
            }
            _ => {}
        }
        is_name = *byte == b':' || is_name && byte.is_ascii_whitespace();
    }
    Ok(())
}

/// What is open around a byte.
enum Open {
    Object {
        names_left: usize,
    },
    List,
    /// A list of [`OF_PAIRS`].
    Pairs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_nothing_are_refused_and_lists_of_something_are_not() {
        let list = |member: &str, n: usize| format!("{{\"a\":[{}]}}", vec![member; n].join(","));
        assert_eq!(check(list("{}", 4_000).as_bytes()), Ok(()));
        assert!(check(list("{}", 5_000).as_bytes()).is_err());
        let full = format!("{{\"b\":\"{}\"}}", "x".repeat(600));
        assert_eq!(check(list(&full, 50_000).as_bytes()), Ok(()));
    }

    #[test]
    fn parts_that_are_written_as_lists_count_as_well_and_pairs_of_numbers_do_not() {
        let list = |name: &str, member: &str| {
            let members = vec![member; 50_000].join(",");
            check(format!("{{\"{name}\": [{members}]}}").as_bytes())
        };
        for part in ["[]", "[1,false]", "[7,[8]]"] {
            assert!(list("processes", part).is_err(), "{part}");
        }
        for name in ["buckets", "unknown"] {
            assert_eq!(list(name, "[7,8]"), Ok(()), "{name}");
            // Not within each other, and not by a text that is no name.
            let inner = vec!["[]"; 50_000].join(",");
            let inner = format!("{{\"{name}\":[[{inner}]]}}");
            assert!(check(inner.as_bytes()).is_err(), "{name}");
            let beside = vec!["[]"; 50_000].join(",");
            let beside = format!("{{\"a\":[\"{name}\",[{beside}]]}}");
            assert!(check(beside.as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn what_stands_in_a_text_is_not_counted() {
        let text = format!("[{{\"a\\\"\":\"{}\"}}]", "[{},{}]\\\\".repeat(100_000));
        assert_eq!(check(text.as_bytes()), Ok(()));
        assert!(check("[".repeat(33).as_bytes()).is_err());
        assert!(check(format!("{{{}", "\"a\":1,".repeat(2_000)).as_bytes()).is_err());
    }
}
