//! `--ascii`: replaces every symbol of a drawn frame by one that any terminal and font has.
//!
//! Works on the finished buffer, so no view needs to know and none can forget; what it doesn't know becomes `?`.

use ratatui::buffer::Buffer;

/// The ASCII stand-in of a symbol, one cell wide as the original.
fn stand_in(symbol: &str) -> &'static str {
    match symbol {
        "●" => "o",
        "▲" => "!",
        "■" => "#",
        "✖" => "X",
        "○" => ".",
        "•" => "*",
        "✓" => "+",
        "▶" => ">",
        "◀" => "<",
        "▸" | "›" => ">",
        "▴" => "^",
        "▾" => "v",
        "→" => ">",
        "←" => "<",
        "↑" => "^",
        "↓" => "v",
        "↵" => "~",
        "×" => "x",
        "⇄" | "–" | "—" | "−" | "─" | "┄" => "-",
        "│" | "▏" | "▎" | "╎" => "|",
        "┌" | "┐" | "└" | "┘" | "├" | "┤" | "┬" | "┴" | "┼" | "╭" | "╮" | "╰" | "╯" => {
            "+"
        }
        "·" => ".",
        "…" => "~",
        "µ" => "u",
        "█" | "▉" | "▊" | "▋" => "#",
        "▌" | "▍" => "=",
        "▁" => "_",
        "▂" => ".",
        "▃" => ":",
        "▄" => "-",
        "▅" => "=",
        "▆" => "+",
        "▇" => "*",
        "░" => ".",
        "▒" => ":",
        "▓" => "%",
        "≥" => ">",
        "≤" => "<",
        "≈" => "~",
        "␣" => "_",
        "❚" => "|",
        "Σ" => "S",
        "“" | "”" => "\"",
        "’" => "'",
        _ => "?",
    }
}

/// The same for text that goes to no screen: tables and reports.
pub(crate) fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => out.push_str(stand_in(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

/// Makes the whole buffer ASCII.
pub(super) fn fold(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            let plain = stand_in(cell.symbol());
            cell.set_symbol(plain);
        }
    }
}
