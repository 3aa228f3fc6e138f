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

/// Checks that what `json` becomes is no more than a few times as large as it is itself. What is no JSON passes, for the
/// parser to refuse.
pub(super) fn check(json: &[u8]) -> Result<(), &'static str> {
    let mut members_left = MEMBERS + json.len() / BYTES_PER_MEMBER;
    // For each object the names that it may still have; for a list nothing.
    let mut open: Vec<Option<usize>> = Vec::new();
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                if open.len() == DEPTH {
                    return Err("it is nested too deeply");
                }
                if *byte == b'{' && open.last() == Some(&None) {
                    members_left = members_left.checked_sub(1).ok_or("it has too many parts")?;
                }
                open.push((*byte == b'{').then_some(NAMES));
            }
            b']' | b'}' => drop(open.pop()),
            b':' => {
                if let Some(Some(names_left)) = open.last_mut() {
                    *names_left = names_left
                        .checked_sub(1)
                        .ok_or("one part has too many names")?;
                }
            }
            _ => {}
        }
    }
    Ok(())
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
        assert_eq!(check(list("[7,8]", 50_000).as_bytes()), Ok(()));
    }

    #[test]
    fn what_stands_in_a_text_is_not_counted() {
        let text = format!("[{{\"a\\\"\":\"{}\"}}]", "[{},{}]\\\\".repeat(100_000));
        assert_eq!(check(text.as_bytes()), Ok(()));
        assert!(check("[".repeat(33).as_bytes()).is_err());
        assert!(check(format!("{{{}", "\"a\":1,".repeat(2_000)).as_bytes()).is_err());
    }
}
