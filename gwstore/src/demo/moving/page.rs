//! The move as one page that needs nothing else.

use std::fmt::{self, Write};

use super::timeline::{BUCKET_MS, Moved, seconds, shown};

/// The drawing, in its own units.
const WIDTH: u64 = 960;
const HEIGHT: u64 = 240;

impl Moved {
    /// The page.
    pub(super) fn to_html(&self) -> String {
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = write_page(&mut page, self);
        page
    }
}

fn write_page(page: &mut String, moved: &Moved) -> fmt::Result {
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>A network that moves</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>From libsql to zqlite while it is served</h1>\n"
    )?;
    write_drawing(page, moved)?;
    page.push_str(
        "<table>\n<thead><tr><th>time<th>event<th>stage<th>served<th>lag<th>written\
         <th>longest wait</tr></thead>\n<tbody>\n",
    );
    for event in &moved.timeline {
        let lag = event.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string());
        writeln!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{lag}<td>{}<td>{}</tr>",
            seconds(event.at_ms),
            Escaped(&event.what),
            Escaped(event.stage),
            Escaped(&event.backend),
            event.acknowledged,
            shown(event.longest_wait_micros)
        )?;
    }
    page.push_str("</tbody>\n</table>\n<dl>\n");
    for (name, value) in moved.facts() {
        writeln!(page, "<dt>{}</dt><dd>{}</dd>", Escaped(name), Escaped(&value))?;
    }
    page.push_str("</dl>\n</body>\n</html>\n");
    Ok(())
}

/// The longest wait in each tenth of a second, before the stages.
fn write_drawing(page: &mut String, moved: &Moved) -> fmt::Result {
    let all = moved.millis.max(1);
    let longest = moved.longest_wait_micros.max(1);
    let x = |millis: u64| millis.min(all).saturating_mul(WIDTH) / all;
    writeln!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Waits and stages\">",
        HEIGHT + 20
    )?;
    let ends = moved.timeline.iter().skip(1).map(|event| event.at_ms).chain([all]);
    for (event, end) in moved.timeline.iter().zip(ends) {
        let (left, right) = (x(event.at_ms), x(end));
        writeln!(
            page,
            "<rect class=\"{}\" x=\"{left}\" y=\"0\" width=\"{}\" height=\"{HEIGHT}\"><title>{}: {}, {}</title></rect>",
            Escaped(event.stage),
            right.saturating_sub(left),
            Escaped(event.stage),
            Escaped(&event.what),
            seconds(event.at_ms)
        )?;
    }
    let width = x(BUCKET_MS).max(1);
    for (at, wait) in (0_u64..).zip(&moved.longest_waits_per_100_ms_micros) {
        if *wait == 0 {
            continue;
        }
        let height = (wait.saturating_mul(HEIGHT) / longest).max(1);
        let at = at.saturating_mul(BUCKET_MS);
        writeln!(
            page,
            "<rect class=\"wait\" x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\"><title>{}: {}</title></rect>",
            x(at),
            HEIGHT.saturating_sub(height),
            seconds(at),
            shown(*wait)
        )?;
    }
    writeln!(
        page,
        "<text x=\"0\" y=\"{y}\">0 s</text><text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{}</text>\n</svg>\n\
         <p>Bars: the longest wait of the writes that were answered in each {BUCKET_MS} ms; the highest is {}. \
         Behind them: <span class=\"source-only\">source only</span> <span class=\"filling\">filling</span> \
         <span class=\"mirror\">mirror</span> <span class=\"target-reads\">target reads</span> \
         <span class=\"target-only\">target only</span>.</p>",
        seconds(all),
        shown(longest),
        y = HEIGHT + 16
    )
}

/// Text of a page, and the value of an attribute.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                other => f.write_char(other),
            }?;
        }
        Ok(())
    }
}

const STYLE: &str = "\
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
svg { width: 100%; }
text { font-size: 12px; fill: CanvasText; }
table { border-collapse: collapse; }
td, th { padding: 0.15rem 0.5rem; text-align: left; border-bottom: 1px solid #8884; }
dd { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
.wait { fill: CanvasText; }
.source-only { fill: #8883; background: #8883; } .filling { fill: #d9a50055; background: #d9a50055; }
.mirror { fill: #3b82c455; background: #3b82c455; } .between { fill: #c22a2a55; }
.target-reads { fill: #7a4fc255; background: #7a4fc255; }
.target-only { fill: #2a7d3c55; background: #2a7d3c55; }
";

#[cfg(test)]
mod tests {
    use crate::demo::moving::timeline::example;

    #[test]
    fn the_page_escapes_what_it_shows_and_needs_nothing_else() {
        let page = example().to_html();
        assert!(page.contains("opened &lt;&quot;&amp;'&gt; again"), "{page}");
        assert!(!page.contains("opened <"), "{page}");
        for foreign in ["http", "src=", "href", "<script", "url("] {
            assert!(!page.contains(foreign), "{foreign}: {page}");
        }
        for once in ["<svg ", "</svg>", "class=\"wait\"", "</html>"] {
            assert_eq!(page.matches(once).count(), 1, "{once}: {page}");
        }
    }
}
