//! What is shown of the figures: the same sections on a screen and as text. Pure but for the drawing.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::figures::{Figures, Latency};
use crate::output::bytes;

/// Figures of one kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) lines: Vec<Entry>,
}

/// A line of a section.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) value: String,
    /// Somebody should look at it.
    pub(super) is_bad: bool,
}

fn entry(name: impl Into<String>, value: impl Into<String>) -> Entry {
    Entry { name: name.into(), value: value.into(), is_bad: false }
}

/// The figures as sections, in the order in which they are shown.
pub(super) fn sections(figures: &Figures) -> Vec<Section> {
    vec![
        Section { title: "Throughput", lines: throughput(figures) },
        Section {
            title: "Latency: p50, p90, p99",
            lines: figures.latency.iter().map(latency).collect(),
        },
        Section { title: "Saturation", lines: saturation(figures) },
        Section { title: "Watch, views, network", lines: network(figures) },
        Section { title: "Writes by kind: /s, refused/s, p99", lines: commands(figures) },
        Section { title: "Errors", lines: errors(figures) },
        Section { title: "Jobs: since the last success", lines: jobs(figures) },
    ]
}

/// What is on the first line.
pub(super) fn headline(figures: &Figures) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut parts = vec![
        text(&figures.store),
        text(&figures.backend),
        text(&figures.state),
        format!("serial {}", whole(figures.serial)),
        format!("gwstore {}", text(&figures.version)),
    ];
    if !figures.failed_checks.is_empty() {
        parts.push(format!("failed: {}", figures.failed_checks.join(", ")));
    }
    parts
}

fn throughput(figures: &Figures) -> Vec<Entry> {
    vec![
        entry("writes/s", rate(figures.commands_per_second)),
        entry("refused/s", rate(figures.refused_per_second)),
        entry("commits/s", rate(figures.commits_per_second)),
        entry("writes a commit", rate(figures.batch_size)),
    ]
}

fn latency(latency: &Latency) -> Entry {
    let values =
        [latency.p50, latency.p90, latency.p99].map(|value| format!("{:>8}", duration(value)));
    entry(latency.of, values.join(" "))
}

fn saturation(figures: &Figures) -> Vec<Entry> {
    let share = figures.queue_size.zip(figures.queue_limit).map(|(size, limit)| size / limit);
    let queue = format!("{} of {}", whole(figures.queue_size), whole(figures.queue_limit));
    let rejected = figures.rejected_by_queue_per_second;
    vec![
        Entry { is_bad: share > Some(0.8), ..entry("queue", queue) },
        Entry { is_bad: rejected > Some(0.0), ..entry("turned away/s", rate(rejected)) },
        entry("rows to be flushed", whole(figures.backlog_rows)),
        entry("checkpoint", age(figures.checkpoint_age_seconds)),
        entry("file", size(figures.file_bytes)),
        entry("free on disk", size(figures.free_bytes)),
        entry("memory", size(figures.memory_bytes)),
    ]
}

fn network(figures: &Figures) -> Vec<Entry> {
    vec![
        entry("watchers", whole(figures.watchers)),
        entry("commits behind", whole(figures.watch_lag_commits)),
        entry("age of a view", age(figures.view_age_seconds)),
        entry(
            "nodes online",
            format!("{} of {}", whole(figures.nodes_online), whole(figures.nodes)),
        ),
    ]
}

fn commands(figures: &Figures) -> Vec<Entry> {
    let line = |of: &super::figures::CommandRate| {
        let [per_second, refused] = [of.per_second, of.refused_per_second].map(|it| rate(Some(it)));
        let value = format!("{per_second:>8} {refused:>8} {:>8}", duration(of.p99));
        entry(&of.command, value)
    };
    or_none(figures.commands.iter().map(line).collect())
}

fn errors(figures: &Figures) -> Vec<Entry> {
    let mut lines: Vec<_> = figures
        .errors_per_second
        .iter()
        .map(|(error, per_second)| entry(format!("{error}/s"), rate(Some(*per_second))))
        .collect();
    for (name, count) in
        [("unknown outcomes", figures.unknown_outcomes), ("recoveries", figures.recoveries)]
    {
        if count > Some(0.0) {
            lines.push(Entry { is_bad: true, ..entry(name, whole(count)) });
        }
    }
    or_none(lines)
}

fn jobs(figures: &Figures) -> Vec<Entry> {
    let line = |of: &super::figures::JobAge| {
        let failed = match of.failures {
            failures if failures > 0.0 => format!(", failed {} times", whole(Some(failures))),
            _ => String::new(),
        };
        let value = match of.success_age_seconds {
            Some(seconds) => age(Some(seconds)) + &failed,
            None => format!("never{failed}"),
        };
        Entry { is_bad: of.success_age_seconds.is_none(), ..entry(&of.job, value) }
    };
    or_none(figures.jobs.iter().map(line).collect())
}

fn or_none(lines: Vec<Entry>) -> Vec<Entry> {
    if lines.is_empty() { vec![entry("none", "")] } else { lines }
}

const UNKNOWN: &str = "-";

fn rate(value: Option<f64>) -> String {
    value.map_or_else(
        || UNKNOWN.to_owned(),
        |value| match value {
            value if value >= 100.0 || value == 0.0 => format!("{value:.0}"),
            value => format!("{value:.1}"),
        },
    )
}

fn whole(value: Option<f64>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| format!("{value:.0}"))
}

fn duration(seconds: Option<f64>) -> String {
    seconds.map_or_else(
        || UNKNOWN.to_owned(),
        |seconds| match seconds {
            seconds if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
            seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
            seconds => format!("{seconds:.1} s"),
        },
    )
}

fn age(seconds: Option<f64>) -> String {
    seconds.map_or_else(
        || UNKNOWN.to_owned(),
        |seconds| match seconds {
            seconds if seconds < 120.0 => format!("{seconds:.0} s"),
            seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
            seconds => format!("{:.0} h", seconds / 3600.0),
        },
    )
}

fn size(value: Option<f64>) -> String {
    // A negative one would be a mistake of whoever counts; the cast makes it 0.
    value.map_or_else(|| UNKNOWN.to_owned(), |value| bytes(value as u64))
}

/// What is on the screen beside the figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Why there are no newer figures.
    pub(super) trouble: Option<String>,
    pub(super) is_paused: bool,
    pub(super) interval_seconds: u64,
}

/// Draws everything. On a small screen sections are cut off, the first ones last.
pub(super) fn draw(frame: &mut Frame<'_>, figures: Option<&Figures>, status: &Status) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(head_line(figures), head);
    if let Some(figures) = figures {
        draw_sections(frame, body, &sections(figures));
    }
    frame.render_widget(foot_line(status), foot);
}

fn head_line(figures: Option<&Figures>) -> Line<'static> {
    let Some(figures) = figures else { return Line::from("waiting for two looks at the store") };
    let is_ready = figures.state.as_deref() == Some("ready") && figures.failed_checks.is_empty();
    let colour = if is_ready { Color::Green } else { Color::Red };
    let style = Style::new().fg(colour).add_modifier(Modifier::BOLD);
    Line::from(Span::styled(headline(figures).join(" · "), style))
}

fn foot_line(status: &Status) -> Line<'static> {
    if let Some(trouble) = &status.trouble {
        return Line::from(Span::styled(trouble.clone(), Style::new().fg(Color::Red)));
    }
    let paused = if status.is_paused { "paused · " } else { "" };
    let keys = "q ends · p pauses · + and - change the interval";
    Line::from(format!("{paused}every {} s · {keys}", status.interval_seconds))
}

/// Two columns where there is room for them.
fn draw_sections(frame: &mut Frame<'_>, area: Rect, sections: &[Section]) {
    const NARROW: u16 = 84;
    let columns = if area.width < NARROW { 1 } else { 2 };
    let areas = Layout::horizontal(vec![Constraint::Fill(1); columns]).split(area);
    for (column, area) in areas.iter().enumerate() {
        let own: Vec<_> = sections.iter().skip(column).step_by(columns).collect();
        let mut rest = *area;
        for section in own {
            // Its lines and its border. What does not fit is left out.
            let wanted = u16::try_from(section.lines.len() + 2).unwrap_or(u16::MAX);
            let place = Rect { height: wanted.min(rest.height), ..rest };
            if place.height > 2 {
                frame.render_widget(paragraph(section), place);
            }
            rest.y += place.height;
            rest.height -= place.height;
        }
    }
}

fn paragraph(section: &Section) -> Paragraph<'static> {
    let width = section.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let line = |line: &Entry| {
        let text = format!("{:width$}  {}", line.name, line.value);
        let style = if line.is_bad { Style::new().fg(Color::Red) } else { Style::new() };
        Line::from(Span::styled(text, style))
    };
    let lines: Vec<_> = section.lines.iter().map(line).collect();
    Paragraph::new(lines).block(Block::bordered().title(section.title))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::sample;
    use super::*;

    /// What is on a screen of this size.
    fn screen(size: (u16, u16), figures: Option<&Figures>, status: &Status) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| draw(frame, figures, status)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content().chunks(usize::from(size.0));
        let text = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect();
        rows.map(text).map(|row: String| row.trim_end().to_owned()).collect()
    }

    const EVERY_2: Status = Status { trouble: None, is_paused: false, interval_seconds: 2 };

    #[test]
    fn a_screen_has_it_all() {
        let found = screen((100, 34), Some(&sample::figures()), &EVERY_2);
        assert_eq!(found.join("\n"), include_str!("screen.txt").trim_end_matches('\n'));
    }

    #[test]
    fn a_narrow_screen_has_one_column_and_the_first_sections() {
        let found = screen((50, 14), Some(&sample::figures()), &EVERY_2);
        assert!(found.iter().any(|line| line.contains("writes/s         105")), "{found:#?}");
        assert!(found.iter().any(|line| line.contains("Latency")), "{found:#?}");
        assert!(found.last().unwrap().starts_with("every 2 s"), "{found:#?}");
    }

    #[test]
    fn no_screen_is_too_small() {
        for size in [(1, 1), (3, 2), (200, 3), (2, 100)] {
            screen(size, Some(&sample::figures()), &EVERY_2);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let trouble = Some("nobody serves the store".to_owned());
        let found = screen((60, 5), None, &Status { trouble, ..EVERY_2 });
        assert_eq!(found.first().unwrap(), "waiting for two looks at the store");
        assert_eq!(found.last().unwrap(), "nobody serves the store");
        let paused = screen((60, 5), None, &Status { is_paused: true, ..EVERY_2 });
        assert!(paused.last().unwrap().starts_with("paused · every 2 s"), "{paused:?}");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.25, 99.94, 100.0, 123_456.7].map(|value| rate(Some(value)));
        assert_eq!(shown, ["0", "0.2", "99.9", "100", "123457"]);
        let shown = [0.000_31, 0.012, 3.0].map(|value| duration(Some(value)));
        assert_eq!(shown, ["310 us", "12.0 ms", "3.0 s"]);
        let shown = [5.0, 600.0, 90_000.0].map(|value| age(Some(value)));
        assert_eq!(shown, ["5 s", "10 min", "25 h"]);
    }
}
