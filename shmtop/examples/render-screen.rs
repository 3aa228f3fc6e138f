//! Turns a captured terminal screen into an SVG, for the README.
//!
//! Reads text with SGR escape sequences on stdin (what `tmux capture-pane -e -p` prints) and writes the picture to
//! stdout; with `--light` as a terminal with a light background shows it. Nothing else is understood: other escape
//! sequences are skipped.
//!
//! ```text
//! tmux capture-pane -e -p | cargo run -p shmtop --example render-screen > screen.svg
//! ```
//!
//! `docs/screens/overview.sh` makes the README's picture with it.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};

/// Width of a cell.
const CELL_X: f64 = 8.4;
/// Height of a cell.
const CELL_Y: f64 = 17.0;
/// Room around the screen.
const MARGIN: f64 = 14.0;

/// The terminal's own colours: its window, and text without a colour.
struct Terminal {
    background: &'static str,
    foreground: &'static str,
    /// The sixteen basic colours.
    basic: [&'static str; 16],
}

const DARK: Terminal = Terminal {
    background: "#101216",
    foreground: "#d6dae0",
    basic: [
        "#1c1c1c", "#cd3131", "#0dbc79", "#e5e510", "#2472c8", "#bc3fbc", "#11a8cd", "#e5e5e5",
        "#666666", "#f14c4c", "#23d18b", "#f5f543", "#3b8eea", "#d670d6", "#29b8db", "#ffffff",
    ],
};

const LIGHT: Terminal = Terminal {
    background: "#fbfbf8",
    foreground: "#24292f",
    basic: [
        "#24292f", "#cf222e", "#116329", "#7d4e00", "#0969da", "#8250df", "#1b7c83", "#6e7781",
        "#57606a", "#a40e26", "#1a7f37", "#633c01", "#218bff", "#a475f9", "#3192aa", "#8c959f",
    ],
};

/// How a cell looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    fg: Option<String>,
    bg: Option<String>,
    bold: bool,
    dim: bool,
    underlined: bool,
    reverse: bool,
}

impl Look {
    fn foreground<'a>(&'a self, terminal: &Terminal) -> &'a str {
        let (own, other) = if self.reverse {
            (&self.bg, terminal.background)
        } else {
            (&self.fg, terminal.foreground)
        };
        own.as_deref().unwrap_or(other)
    }

    fn background(&self, terminal: &Terminal) -> Option<&str> {
        if self.reverse {
            Some(self.fg.as_deref().unwrap_or(terminal.foreground))
        } else {
            self.bg.as_deref()
        }
    }

    /// Applies one SGR sequence.
    fn apply(&mut self, codes: &[u16], terminal: &Terminal) {
        let palette = |index| palette(index, terminal);
        let mut codes = codes.iter().copied();
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                4 => self.underlined = true,
                7 => self.reverse = true,
                22 => (self.bold, self.dim) = (false, false),
                24 => self.underlined = false,
                27 => self.reverse = false,
                30..=37 => self.fg = Some(palette(code - 30)),
                90..=97 => self.fg = Some(palette(code - 82)),
                40..=47 => self.bg = Some(palette(code - 40)),
                100..=107 => self.bg = Some(palette(code - 92)),
                39 => self.fg = None,
                49 => self.bg = None,
                38 | 48 => {
                    let colour = match codes.next() {
                        Some(5) => codes.next().map(palette),
                        Some(2) => match (codes.next(), codes.next(), codes.next()) {
                            (Some(r), Some(g), Some(b)) => Some(format!("#{r:02x}{g:02x}{b:02x}")),
                            _ => None,
                        },
                        _ => None,
                    };
                    if code == 38 {
                        self.fg = colour;
                    } else {
                        self.bg = colour;
                    }
                }
                _ => {}
            }
        }
    }
}

/// Colour of an entry of the 256-colour palette.
fn palette(index: u16, terminal: &Terminal) -> String {
    if let Some(basic) = terminal.basic.get(usize::from(index)) {
        return (*basic).to_owned();
    }
    if index >= 232 {
        let level = 8 + 10 * (index.min(255) - 232);
        return format!("#{level:02x}{level:02x}{level:02x}");
    }
    let cube = index - 16;
    let level = |n: u16| if n == 0 { 0 } else { 55 + 40 * n };
    let (r, g, b) = (level(cube / 36), level(cube / 6 % 6), level(cube % 6));
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// One line as cells.
fn cells(line: &str, look: &mut Look, terminal: &Terminal) -> Vec<(char, Look)> {
    let mut out = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            out.push((c, look.clone()));
            continue;
        }
        if chars.next() != Some('[') {
            continue;
        }
        let mut parameters = String::new();
        for c in chars.by_ref() {
            if c.is_ascii_alphabetic() {
                if c == 'm' {
                    let codes: Vec<u16> = parameters
                        .split([';', ':'])
                        .map(|n| n.parse().unwrap_or(0))
                        .collect();
                    look.apply(&codes, terminal);
                }
                break;
            }
            parameters.push(c);
        }
    }
    out
}

/// Block elements as rectangles: fonts leave seams between them. (x, y, width, height) as shares of a cell, opacity.
fn block(c: char) -> Option<(f64, f64, f64, f64, f64)> {
    let n = c as u32;
    Some(match c {
        '\u{2581}'..='\u{2588}' => {
            let h = f64::from(n - 0x2580) / 8.0;
            (0.0, 1.0 - h, 1.0, h, 1.0)
        }
        '\u{2589}'..='\u{258f}' => (0.0, 0.0, f64::from(0x2590 - n) / 8.0, 1.0, 1.0),
        '\u{2591}'..='\u{2593}' => (0.0, 0.0, 1.0, 1.0, f64::from(n - 0x2590) / 4.0),
        _ => return None,
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The picture.
fn svg(screen: &str, terminal: &Terminal) -> String {
    let mut look = Look::default();
    let lines: Vec<Vec<(char, Look)>> = screen
        .lines()
        .map(|l| cells(l, &mut look, terminal))
        .collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = columns as f64 * CELL_X + 2.0 * MARGIN;
    let height = lines.len() as f64 * CELL_Y + 2.0 * MARGIN;
    let mut boxes = String::new();
    let mut texts = String::new();
    for (row, line) in lines.iter().enumerate() {
        let y = MARGIN + row as f64 * CELL_Y;
        let mut start = 0;
        while start < line.len() {
            let (first, look) = &line[start];
            let kind = block(*first);
            let run = line[start..]
                .iter()
                .take_while(|(c, l)| l == look && block(*c) == kind)
                .count();
            let x = MARGIN + start as f64 * CELL_X;
            let wide = run as f64 * CELL_X;
            if let Some(background) = look.background(terminal) {
                rectangle(&mut boxes, (x, y, wide, CELL_Y), background, 1.0);
            }
            match kind {
                Some((bx, by, bw, bh, opacity)) => {
                    // Full cells of a run join; eighths of a cell stand one by one.
                    let (n, w) = if bw < 1.0 {
                        (run, bw * CELL_X)
                    } else {
                        (1, wide)
                    };
                    for i in 0..n {
                        let left = x + (i as f64 + bx) * CELL_X;
                        let place = (left, y + by * CELL_Y, w, bh * CELL_Y);
                        rectangle(&mut texts, place, look.foreground(terminal), opacity);
                    }
                }
                None => {
                    let colour = look.foreground(terminal);
                    text(&mut texts, (x, y), &line[start..start + run], look, colour);
                }
            }
            start += run;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         font-family=\"'DejaVu Sans Mono','JetBrains Mono',Menlo,Consolas,monospace\" font-size=\"14\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{}\"/>\n\
         {boxes}{texts}</svg>\n",
        terminal.background
    )
}

fn rectangle(out: &mut String, (x, y, w, h): (f64, f64, f64, f64), fill: &str, opacity: f64) {
    let opacity = if opacity < 1.0 {
        format!(" opacity=\"{opacity}\"")
    } else {
        String::new()
    };
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"{fill}\"{opacity}/>"
    );
}

/// Words stand one by one, each where its first cell is, so that columns hold whatever font the reader has.
fn text(out: &mut String, (x, y): (f64, f64), run: &[(char, Look)], look: &Look, colour: &str) {
    let bold = if look.bold {
        " font-weight=\"bold\""
    } else {
        ""
    };
    let dim = if look.dim { " opacity=\"0.6\"" } else { "" };
    let line = if look.underlined {
        " text-decoration=\"underline\""
    } else {
        ""
    };
    let mut column = 0;
    for word in run.split(|(c, _)| *c == ' ') {
        if !word.is_empty() {
            let shown: String = word.iter().map(|(c, _)| *c).collect();
            // Writing to a String can't fail.
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" textLength=\"{:.1}\" fill=\"{}\"{bold}{dim}{line}>{}</text>",
                x + column as f64 * CELL_X,
                y + CELL_Y * 0.76,
                word.len() as f64 * CELL_X,
                colour,
                escape(&shown)
            );
        }
        column += word.len() + 1;
    }
}

fn main() -> io::Result<()> {
    let mut screen = String::new();
    io::stdin().read_to_string(&mut screen)?;
    let terminal = match std::env::args().nth(1).as_deref() {
        None => DARK,
        Some("--light") => LIGHT,
        Some(other) => return Err(io::Error::other(format!("unknown argument: {other}"))),
    };
    io::stdout().write_all(svg(&screen, &terminal).as_bytes())
}
