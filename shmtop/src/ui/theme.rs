//! Colours by role. Views name a role, never a colour; four themes say what a role looks like.
//!
//! The hues are those of Okabe and Ito, which people with any common colour blindness can tell apart, as the nearest
//! entries of the 256-colour palette (every terminal and multiplexer of today has it; true colour isn't needed for
//! flat text). No theme sets the terminal's own background or plain text. A state never depends on colour alone: it
//! has a shape too.

use ratatui::style::{Color, Modifier, Style};

/// Which theme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThemeName {
    /// For dark backgrounds.
    #[default]
    Dark,
    /// For light backgrounds.
    Light,
    /// The sixteen basic colours at full strength.
    Contrast,
    /// No colour at all (`NO_COLOR`, `--no-color`): bold, dim, reverse.
    Mono,
}

impl ThemeName {
    /// All, in the order in which `t` walks through them.
    pub const ALL: [Self; 4] = [Self::Dark, Self::Light, Self::Contrast, Self::Mono];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Light => "light",
            Self::Contrast => "contrast",
            Self::Mono => "mono",
        }
    }

    /// The theme of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The next one.
    pub fn next(self) -> Self {
        match self {
            Self::Dark => Self::Light,
            Self::Light => Self::Contrast,
            Self::Contrast => Self::Mono,
            Self::Mono => Self::Dark,
        }
    }
}

/// A style per role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Numbers and sentences.
    pub text: Style,
    /// Labels, units, what is there to be looked up.
    pub dim: Style,
    /// Tracks of bars, frames, rules.
    pub faint: Style,
    /// Column titles and captions.
    pub title: Style,
    /// Names and what can be acted on.
    pub accent: Style,
    /// Fine.
    pub good: Style,
    /// Costs something.
    pub warn: Style,
    /// Broken, or about to be.
    pub crit: Style,
    /// Worth knowing.
    pub info: Style,
    /// Laid over the selected row.
    pub select: Style,
    /// Laid under the header line.
    pub head: Style,
    /// The request direction.
    pub request: Style,
    /// Below the edge of a chart of it.
    pub request_fill: Style,
    /// The reply direction.
    pub reply: Style,
    /// Below the edge of a chart of it.
    pub reply_fill: Style,
    /// Useful time.
    pub useful: Style,
    /// Spinning.
    pub spin: Style,
    /// Yielding.
    pub yielding: Style,
    /// Asleep or parked.
    pub park: Style,
    /// Blocked on a full ring, or without a core.
    pub blocked: Style,
}

const fn fg(index: u8) -> Style {
    Style::new().fg(Color::Indexed(index))
}

const DARK: Theme = Theme {
    text: Style::new(),
    dim: fg(246),
    faint: fg(239),
    title: fg(250).add_modifier(Modifier::BOLD),
    accent: fg(117),
    good: fg(36),
    warn: fg(214),
    crit: fg(203).add_modifier(Modifier::BOLD),
    info: fg(74),
    select: Style::new().bg(Color::Indexed(236)),
    head: Style::new().bg(Color::Indexed(235)),
    request: fg(74),
    request_fill: fg(24),
    reply: fg(73),
    reply_fill: fg(23),
    useful: fg(36),
    spin: fg(178),
    yielding: fg(175),
    park: fg(241),
    blocked: fg(203),
};

const LIGHT: Theme = Theme {
    text: Style::new(),
    dim: fg(241),
    faint: fg(248),
    title: fg(236).add_modifier(Modifier::BOLD),
    accent: fg(25),
    good: fg(29),
    warn: fg(130),
    crit: fg(160).add_modifier(Modifier::BOLD),
    info: fg(25),
    select: Style::new().bg(Color::Indexed(253)),
    head: Style::new().bg(Color::Indexed(254)),
    request: fg(25),
    request_fill: fg(153),
    reply: fg(30),
    reply_fill: fg(152),
    useful: fg(29),
    spin: fg(136),
    yielding: fg(132),
    park: fg(247),
    blocked: fg(160),
};

const CONTRAST: Theme = Theme {
    text: Style::new().add_modifier(Modifier::BOLD),
    dim: Style::new(),
    faint: Style::new(),
    title: Style::new().add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED)),
    accent: Style::new()
        .fg(Color::LightCyan)
        .add_modifier(Modifier::BOLD),
    good: Style::new()
        .fg(Color::LightGreen)
        .add_modifier(Modifier::BOLD),
    warn: Style::new()
        .fg(Color::LightYellow)
        .add_modifier(Modifier::BOLD),
    crit: Style::new()
        .fg(Color::LightRed)
        .add_modifier(Modifier::BOLD.union(Modifier::REVERSED)),
    info: Style::new().fg(Color::LightCyan),
    select: Style::new().add_modifier(Modifier::REVERSED),
    head: Style::new().add_modifier(Modifier::BOLD),
    request: Style::new().fg(Color::LightCyan),
    request_fill: Style::new().fg(Color::Cyan),
    reply: Style::new().fg(Color::LightBlue),
    reply_fill: Style::new().fg(Color::Blue),
    useful: Style::new().fg(Color::LightGreen),
    spin: Style::new().fg(Color::LightYellow),
    yielding: Style::new().fg(Color::LightMagenta),
    park: Style::new(),
    blocked: Style::new().fg(Color::LightRed),
};

const MONO: Theme = Theme {
    text: Style::new(),
    dim: Style::new(),
    faint: Style::new().add_modifier(Modifier::DIM),
    title: Style::new().add_modifier(Modifier::BOLD),
    accent: Style::new().add_modifier(Modifier::BOLD),
    good: Style::new(),
    warn: Style::new().add_modifier(Modifier::BOLD),
    crit: Style::new().add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED)),
    info: Style::new(),
    select: Style::new().add_modifier(Modifier::REVERSED),
    head: Style::new().add_modifier(Modifier::BOLD),
    request: Style::new(),
    request_fill: Style::new().add_modifier(Modifier::DIM),
    reply: Style::new(),
    reply_fill: Style::new().add_modifier(Modifier::DIM),
    useful: Style::new(),
    spin: Style::new(),
    yielding: Style::new(),
    park: Style::new().add_modifier(Modifier::DIM),
    blocked: Style::new().add_modifier(Modifier::BOLD),
};

impl Theme {
    /// The theme of this name.
    pub const fn of(name: ThemeName) -> &'static Self {
        match name {
            ThemeName::Dark => &DARK,
            ThemeName::Light => &LIGHT,
            ThemeName::Contrast => &CONTRAST,
            ThemeName::Mono => &MONO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_means_no_colour() {
        let all = format!("{MONO:?}");
        assert!(!all.contains("Indexed") && !all.contains("Light"), "{all}");
    }

    #[test]
    fn the_theme_key_walks_through_all_themes_and_returns() {
        let mut seen = vec![ThemeName::Dark];
        while seen.last().unwrap().next() != ThemeName::Dark {
            seen.push(seen.last().unwrap().next());
        }
        assert_eq!(seen, ThemeName::ALL);
    }
}
