//! The key table. The help screen is printed from it and a key press is looked up in it, so they can't disagree.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::action::Action;
use super::state::View;

/// Sections of the help screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Moving about.
    Move,
    /// What the table shows.
    Table,
    /// Time.
    Time,
    /// Views and looks.
    Views,
}

impl Group {
    /// All, in the order of the help screen.
    pub const ALL: [Self; 4] = [Self::Move, Self::Table, Self::Time, Self::Views];

    /// Caption.
    pub fn title(self) -> &'static str {
        match self {
            Self::Move => "Move",
            Self::Table => "Table",
            Self::Time => "Time",
            Self::Views => "Views",
        }
    }
}

/// A key that is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Without Ctrl or Alt; Shift is in the letter.
    Plain(KeyCode),
    /// With Ctrl.
    Ctrl(char),
}

impl Key {
    /// As printed; with `ascii`, keys whose signs a terminal may not have by their names.
    pub fn label(self, ascii: bool) -> String {
        match self {
            Self::Ctrl(c) => format!("Ctrl-{}", c.to_ascii_uppercase()),
            Self::Plain(code) => match code {
                KeyCode::Char(' ') => "Space".to_owned(),
                KeyCode::Char(c) => c.to_string(),
                KeyCode::F(n) => format!("F{n}"),
                // Folded one by one they would be letters that are keys as well.
                KeyCode::Up | KeyCode::Down | KeyCode::Left | KeyCode::Right if ascii => {
                    code.to_string()
                }
                KeyCode::Up => "↑".to_owned(),
                KeyCode::Down => "↓".to_owned(),
                KeyCode::Left => "←".to_owned(),
                KeyCode::Right => "→".to_owned(),
                KeyCode::PageUp => "PgUp".to_owned(),
                KeyCode::PageDown => "PgDn".to_owned(),
                KeyCode::BackTab => "Shift-Tab".to_owned(),
                other => other.to_string(),
            },
        }
    }

    fn matches(self, event: &KeyEvent) -> bool {
        let held = event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT);
        match self {
            Self::Plain(code) => held.is_empty() && event.code == code,
            Self::Ctrl(c) => held == KeyModifiers::CONTROL && event.code == KeyCode::Char(c),
        }
    }
}

/// One line of the help.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Any of these.
    pub keys: &'static [Key],
    /// What they do.
    pub action: Action,
    /// Where it stands in the help.
    pub group: Group,
    /// What the help says.
    pub help: &'static str,
}

const fn ch(c: char) -> Key {
    Key::Plain(KeyCode::Char(c))
}

const fn bind(keys: &'static [Key], action: Action, group: Group, help: &'static str) -> Binding {
    Binding {
        keys,
        action,
        group,
        help,
    }
}

/// The table.
pub const BINDINGS: &[Binding] = &[
    bind(
        &[Key::Plain(KeyCode::Up), ch('k')],
        Action::Up,
        Group::Move,
        "up",
    ),
    bind(
        &[Key::Plain(KeyCode::Down), ch('j')],
        Action::Down,
        Group::Move,
        "down",
    ),
    bind(
        &[Key::Plain(KeyCode::Left), ch('h')],
        Action::Left,
        Group::Move,
        "previous column or client",
    ),
    bind(
        &[Key::Plain(KeyCode::Right), ch('l')],
        Action::Right,
        Group::Move,
        "next column or client",
    ),
    bind(
        &[ch('g'), Key::Plain(KeyCode::Home)],
        Action::First,
        Group::Move,
        "first row",
    ),
    bind(
        &[ch('G'), Key::Plain(KeyCode::End)],
        Action::Last,
        Group::Move,
        "last row",
    ),
    bind(
        &[Key::Plain(KeyCode::PageUp)],
        Action::PageUp,
        Group::Move,
        "a screen up",
    ),
    bind(
        &[Key::Plain(KeyCode::PageDown)],
        Action::PageDown,
        Group::Move,
        "a screen down",
    ),
    bind(
        &[Key::Plain(KeyCode::Enter)],
        Action::Open,
        Group::Move,
        "open client or hint",
    ),
    bind(
        &[Key::Plain(KeyCode::Esc)],
        Action::Back,
        Group::Move,
        "back; never quits",
    ),
    bind(&[ch('/')], Action::Filter, Group::Table, "filter by words"),
    bind(
        &[ch('s')],
        Action::Sort,
        Group::Table,
        "sort by the next column",
    ),
    bind(&[ch('i')], Action::Invert, Group::Table, "invert the order"),
    bind(
        &[ch('e')],
        Action::Expand,
        Group::Table,
        "say more about each row",
    ),
    bind(&[ch(' ')], Action::Freeze, Group::Time, "freeze, go on"),
    bind(&[ch(',')], Action::StepBack, Group::Time, "one step back"),
    bind(
        &[ch('.')],
        Action::StepForward,
        Group::Time,
        "one step forward",
    ),
    bind(
        &[ch('[')],
        Action::JumpBack,
        Group::Time,
        "ten seconds back",
    ),
    bind(
        &[ch(']')],
        Action::JumpForward,
        Group::Time,
        "ten seconds forward",
    ),
    bind(&[ch('@')], Action::Jump, Group::Time, "go to a time"),
    bind(
        &[ch('+'), ch('=')],
        Action::Faster,
        Group::Time,
        "refresh, replay faster",
    ),
    bind(
        &[ch('-')],
        Action::Slower,
        Group::Time,
        "refresh, replay slower",
    ),
    bind(
        &[Key::Plain(KeyCode::Tab)],
        Action::NextView,
        Group::Views,
        "next view",
    ),
    bind(
        &[Key::Plain(KeyCode::BackTab)],
        Action::PreviousView,
        Group::Views,
        "previous view",
    ),
    bind(
        &[ch('1')],
        Action::Show(View::Overview),
        Group::Views,
        "overview",
    ),
    bind(
        &[ch('2')],
        Action::Show(View::Hints),
        Group::Views,
        "what is wrong, the fix",
    ),
    bind(
        &[ch('3')],
        Action::Show(View::Limits),
        Group::Views,
        "limits: room for more?",
    ),
    bind(
        &[ch('4')],
        Action::Show(View::Perf),
        Group::Views,
        "threads and counters",
    ),
    bind(
        &[ch('5')],
        Action::Show(View::Host),
        Group::Views,
        "host: CPUs, memory",
    ),
    bind(
        &[ch('t')],
        Action::Theme,
        Group::Views,
        "theme: dark, light, …",
    ),
    bind(
        &[ch('?'), Key::Plain(KeyCode::F(1))],
        Action::Help,
        Group::Views,
        "this help",
    ),
    bind(&[Key::Ctrl('z')], Action::Suspend, Group::Views, "suspend"),
    bind(
        &[ch('q'), Key::Ctrl('c')],
        Action::Quit,
        Group::Views,
        "quit",
    ),
];

/// What this key press means; `typing` while a filter or a moment is typed, when letters are letters.
pub fn action(event: &KeyEvent, typing: bool) -> Option<Action> {
    if typing {
        let plain = !event
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        match event.code {
            KeyCode::Char(c) if plain => return Some(Action::Type(c)),
            KeyCode::Backspace => return Some(Action::Erase),
            KeyCode::Char('h') if !plain => return Some(Action::Erase),
            _ => {}
        }
    }
    BINDINGS
        .iter()
        .find(|b| b.keys.iter().any(|k| k.matches(event)))
        .map(|b| b.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn no_key_means_two_things() {
        let keys: Vec<Key> = BINDINGS.iter().flat_map(|b| b.keys).copied().collect();
        for (i, key) in keys.iter().enumerate() {
            assert!(
                !keys[..i].contains(key),
                "{} is bound twice",
                key.label(false)
            );
        }
    }

    #[test]
    fn the_keys_that_the_documentation_promises_do_what_it_says() {
        let letters = [
            ('q', Action::Quit),
            ('?', Action::Help),
            ('h', Action::Left),
            ('j', Action::Down),
            ('k', Action::Up),
            ('l', Action::Right),
            ('g', Action::First),
            ('G', Action::Last),
            ('/', Action::Filter),
            ('s', Action::Sort),
            ('i', Action::Invert),
            (' ', Action::Freeze),
            (',', Action::StepBack),
            ('.', Action::StepForward),
            ('[', Action::JumpBack),
            (']', Action::JumpForward),
            ('@', Action::Jump),
            ('+', Action::Faster),
            ('-', Action::Slower),
            ('1', Action::Show(View::Overview)),
            ('2', Action::Show(View::Hints)),
            ('3', Action::Show(View::Limits)),
            ('4', Action::Show(View::Perf)),
            ('5', Action::Show(View::Host)),
            ('e', Action::Expand),
            ('t', Action::Theme),
        ];
        let letters = letters.map(|(c, does)| (KeyCode::Char(c), does));
        let others = [
            (KeyCode::F(1), Action::Help),
            (KeyCode::Up, Action::Up),
            (KeyCode::Down, Action::Down),
            (KeyCode::Left, Action::Left),
            (KeyCode::Right, Action::Right),
            (KeyCode::PageUp, Action::PageUp),
            (KeyCode::PageDown, Action::PageDown),
            (KeyCode::Enter, Action::Open),
            (KeyCode::Esc, Action::Back),
            (KeyCode::Tab, Action::NextView),
        ];
        for (code, does) in letters.into_iter().chain(others) {
            assert_eq!(action(&press(code), false), Some(does), "{code}");
        }
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(&ctrl_c, false), Some(Action::Quit));
        assert_eq!(action(&ctrl_c, true), Some(Action::Quit));
    }

    #[test]
    fn letters_typed_into_the_filter_do_nothing_else() {
        for c in "qhjk/si ,.[]+-12e?".chars() {
            assert_eq!(
                action(&press(KeyCode::Char(c)), true),
                Some(Action::Type(c))
            );
        }
        assert_eq!(action(&press(KeyCode::Esc), true), Some(Action::Back));
        assert_eq!(action(&press(KeyCode::Enter), true), Some(Action::Open));
    }

    #[test]
    fn shifted_letters_come_with_or_without_the_shift_flag() {
        let shifted = KeyEvent::new(KeyCode::Char('G'), KeyModifiers::SHIFT);
        assert_eq!(action(&shifted, false), Some(Action::Last));
        assert_eq!(
            action(&press(KeyCode::Char('G')), false),
            Some(Action::Last)
        );
    }
}
