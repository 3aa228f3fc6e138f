//! The list of hints: what is wrong and what to type, and below it what could not be checked and why.

use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::format::{age, plural};
use super::pen::{Pen, width, wrap};
use super::top::{sentence, subject};
use super::{Hits, Scene, severity_mark};
use crate::model::{Finding, Severity};
use crate::ui::{Action, rows};

/// Cells that the time since when takes at the right, and the gap before it.
const SINCE: u16 = 11;
/// Cells of a rule's id, or of whom a finding concerns, at most.
const LABEL: usize = 20;

/// Draws the list.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, hits: &mut Hits) {
    let theme = scene.theme();
    let model = scene.model;
    let area = pen.area();
    if area.height == 0 {
        return;
    }
    let findings = &model.findings;
    if findings.is_empty() {
        let quiet = plural(model.checked.len(), "check");
        let text = if model.endpoints.is_empty() && model.others > 0 {
            "What was asked for is not there, so there is nothing to check.".to_owned()
        } else if model.endpoints.is_empty() {
            "Nothing runs, so there is nothing to check.".to_owned()
        } else if let Some(lost) = &scene.status.lost {
            format!("{}; {quiet} of what is left are quiet.", lost.gone())
        } else {
            format!("Nothing is wrong: {quiet} are quiet.")
        };
        pen.put(area.x + 1, area.y, &text, theme.text);
        unknown(pen, scene, area.y + 2);
        return;
    }
    let place = Place::of(area, findings);
    let blocks: Vec<Block> = findings.iter().map(|f| place.block(f)).collect();
    // What could not be checked keeps some lines in sight.
    let rest = model.unknown.len().min(3) + usize::from(!model.unknown.is_empty());
    let room = usize::from(area.height).saturating_sub(rest).max(1);
    let selected = rows::selected_hint(scene.state, model).unwrap_or(0);
    // Whole sentences with what to type if they fit or are asked for; else a line for each note, else one for each but the selected.
    let heights = |full: &dyn Fn(usize) -> bool| -> Vec<usize> {
        let height = |(i, block): (usize, &Block)| if full(i) { block.height() } else { 1 };
        blocks.iter().enumerate().map(height).collect()
    };
    let all = heights(&|_| true);
    let loud = heights(&|i| findings[i].severity >= Severity::Warn);
    let (heights, gap) = [(&all, 1), (&all, 0), (&loud, 0)]
        .into_iter()
        .find(|(h, gap)| {
            scene.state.expanded || h.iter().sum::<usize>() + gap * (findings.len() - 1) <= room
        })
        .map_or_else(
            || (heights(&|i| i == selected), 0),
            |(h, gap)| (h.clone(), gap),
        );
    let total = heights.iter().sum::<usize>() + gap * (findings.len() - 1);
    // What doesn't fit is counted in a line of its own.
    let fits = total <= room || room < 4;
    let room = room - usize::from(!fits);
    let mut y = area.y;
    let end = area.y + room as u16;
    let first = first(&heights, gap, selected, room);
    let mut below = 0;
    for i in first..findings.len() {
        if y >= end {
            below = findings.len() - i;
            break;
        }
        let height = (heights[i] as u16).min(end - y);
        let lines = Rect::new(area.x, y, area.width, height);
        let mut part = pen.part(lines);
        if heights[i] == 1 {
            place.line(&mut part, scene, &findings[i]);
        } else {
            place.whole(&mut part, scene, &findings[i], &blocks[i]);
        }
        if i == selected {
            pen.put(area.x, y, "›", theme.accent);
            pen.tint(lines, theme.select);
        }
        hits.add(lines, Action::Select(i));
        y += height + gap as u16;
    }
    if !fits {
        let counted = Rect::new(area.x, end, area.width, 1);
        pen.part(counted).more(theme.dim, first, below);
        y = end + 1;
    }
    unknown(pen, scene, y + u16::from(gap == 0));
}

/// The first block to show so that the selected one is seen whole, as far as there is room.
fn first(heights: &[usize], gap: usize, selected: usize, room: usize) -> usize {
    let mut first = selected;
    let mut used = heights[selected];
    while first > 0 && used + gap + heights[first - 1] <= room {
        first -= 1;
        used += gap + heights[first];
    }
    first
}

/// The lines of a finding: the sentence, and what to type.
struct Block {
    says: Vec<String>,
    fix: Vec<String>,
}

impl Block {
    fn height(&self) -> usize {
        // The rule's id stands beside what to type, or where it would stand.
        self.says.len() + self.fix.len().max(1)
    }
}

/// So many lines of a text at most: the last one has the rest, to be cut where the line ends.
fn shortened(lines: &[String], most: usize) -> Vec<String> {
    if lines.len() <= most {
        return lines.to_vec();
    }
    let whole = most.saturating_sub(1);
    let mut out = lines[..whole].to_vec();
    out.push(lines[whole..].join(" "));
    out
}

/// Whom a finding concerns.
fn whom(finding: &Finding) -> String {
    let subject = subject(finding);
    if subject.is_empty() {
        "this host".to_owned()
    } else {
        subject
    }
}

/// Where the parts of a finding stand.
struct Place {
    /// Column of whom it concerns and of the rule's id.
    label: u16,
    /// Column of the sentence and the command.
    text: u16,
    /// Cells for those.
    room: usize,
    /// Whether there is room for the time since when.
    dated: bool,
}

impl Place {
    fn of(area: Rect, findings: &[Finding]) -> Self {
        let label = area.x + 3;
        let dated = area.width >= 60;
        let right = area
            .right()
            .saturating_sub(if dated { SINCE + 1 } else { 1 });
        let widest = findings.iter().map(|f| width(&whom(f)).max(width(f.id)));
        let wide = widest.max().unwrap_or(0).min(LABEL) as u16;
        let text = if dated { label + wide + 2 } else { label };
        Self {
            label,
            text,
            room: usize::from(right.saturating_sub(text)).max(1),
            dated,
        }
    }

    /// The lines of a finding.
    fn block(&self, finding: &Finding) -> Block {
        let says = if self.dated {
            sentence(finding)
        } else {
            finding.says.as_str().into()
        };
        let room = if self.dated {
            self.room
        } else {
            self.room.saturating_sub(width(finding.id) + 1)
        };
        Block {
            says: wrap(&says, self.room),
            fix: wrap(&finding.fix, room.saturating_sub(2)),
        }
    }

    /// What a finding and its line have in common: shape, whom it concerns, since when.
    fn head(&self, pen: &mut Pen<'_>, scene: &Scene<'_>, finding: &Finding) {
        let theme = scene.theme();
        let area = pen.area();
        let (mark, style) = severity_mark(theme, finding.severity);
        pen.put(area.x + 1, area.y, mark, style);
        if self.dated {
            let since = age(scene.model.at_ns.saturating_sub(finding.since_ns));
            pen.put_right(area.right().saturating_sub(1), area.y, &since, theme.dim);
        }
    }

    /// A finding in as many lines as it takes.
    fn whole(&self, pen: &mut Pen<'_>, scene: &Scene<'_>, finding: &Finding, block: &Block) {
        let theme = scene.theme();
        let area = pen.area();
        self.head(pen, scene, finding);
        let loud = if finding.severity >= Severity::Warn {
            theme.text.add_modifier(Modifier::BOLD)
        } else {
            theme.text
        };
        let mut y = area.y;
        if self.dated {
            pen.put_max(self.label, y, &whom(finding), LABEL, theme.accent);
        }
        // With less room than it takes, the end of the sentence is what is missed least.
        let fix = block.fix.len().min(usize::from(area.height) / 2);
        let says = usize::from(area.height).saturating_sub(fix.max(1));
        for line in shortened(&block.says, says) {
            pen.put_max(self.text, y, &line, self.room, loud);
            y += 1;
        }
        let mut x = self.text;
        if self.dated {
            pen.put_max(self.label, y, finding.id, LABEL, theme.dim);
        } else {
            x = pen.put(x, y, finding.id, theme.dim) + 1;
        }
        let room = usize::from(area.bottom() - y);
        for (i, line) in shortened(&block.fix, room).iter().enumerate() {
            if i == 0 {
                pen.put(x, y, "→", theme.dim);
            }
            pen.put(x + 2, y + i as u16, line, theme.accent);
        }
    }

    /// A finding in one line.
    fn line(&self, pen: &mut Pen<'_>, scene: &Scene<'_>, finding: &Finding) {
        let theme = scene.theme();
        let y = pen.area().y;
        self.head(pen, scene, finding);
        if self.dated {
            pen.put_max(self.label, y, &whom(finding), LABEL, theme.accent);
            pen.put_max(self.text, y, &sentence(finding), self.room, theme.text);
        } else {
            pen.put_max(self.label, y, &finding.says, self.room, theme.text);
        }
    }
}

/// What could not be checked, and why.
fn unknown(pen: &mut Pen<'_>, scene: &Scene<'_>, mut y: u16) {
    let theme = scene.theme();
    let model = scene.model;
    let area = pen.area();
    if model.unknown.is_empty() || y >= area.bottom() {
        return;
    }
    pen.put(area.x + 1, y, "Could not be checked", theme.title);
    y += 1;
    let room = usize::from(area.bottom().saturating_sub(y));
    let cut = model.unknown.len() > room;
    let shown = if cut {
        room.saturating_sub(1)
    } else {
        model.unknown.len()
    };
    for rule in model.unknown.iter().take(shown) {
        pen.put(area.x + 1, y, "–", theme.faint);
        pen.put_max(area.x + 3, y, rule.id, LABEL, theme.dim);
        let indent = if area.width >= 60 {
            24
        } else {
            3 + width(rule.id) as u16 + 1
        };
        pen.put(area.x + indent, y, &rule.why.text, theme.text);
        y += 1;
    }
    if cut {
        let more = model.unknown.len() - shown;
        pen.put(
            area.x + 3,
            y,
            &format!("and {more} more: shmtop doctor lists all"),
            theme.dim,
        );
    }
}
