//! Bars, drawn as inline SVG.

use super::figures::shown;
use super::html::escaped;
use crate::Spread;

const NAMES: f64 = 190.0;
const BARS: f64 = 560.0;
const FIGURES: f64 = 190.0;
const ROW: f64 = 22.0;

/// Horizontal bars on a logarithmic scale, the range as a line on each. Figures that are not
/// positive have none.
pub(super) fn bars(rows: &[(String, Spread)]) -> String {
    let positive = || rows.iter().filter(|(_, spread)| spread.least > 0.0);
    let least = positive().map(|(_, spread)| spread.least).fold(f64::INFINITY, f64::min);
    let most = positive().map(|(_, spread)| spread.most).fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    // From the power of ten below the least to the one above the most.
    let (from, to) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
    let at = |figure: f64| NAMES + BARS * (figure.log10() - from) / (to - from);
    let height = ROW * rows.len() as f64 + 24.0;
    let width = NAMES + BARS + FIGURES;
    let mut svg = format!(r#"<svg viewBox="0 0 {width} {height:.0}" role="img">"#);
    let mut power = from;
    while power <= to {
        let x = at(10_f64.powf(power));
        svg.push_str(&format!(
            r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="0" y2="{:.1}"/><text class="axis" x="{x:.1}" y="{:.1}">{}</text>"#,
            height - 18.0,
            height - 5.0,
            shown(10_f64.powf(power)),
        ));
        power += 1.0;
    }
    for (index, (name, spread)) in rows.iter().enumerate() {
        let y = ROW * index as f64;
        svg.push_str(&format!(
            r#"<text class="name" x="{:.1}" y="{:.1}">{}</text>"#,
            NAMES - 8.0,
            y + 15.0,
            escaped(name)
        ));
        if spread.least <= 0.0 {
            continue;
        }
        let (least, median, most) = (at(spread.least), at(spread.median), at(spread.most));
        let middle = y + 11.0;
        svg.push_str(&format!(
            r#"<rect x="{NAMES}" y="{:.1}" width="{:.1}" height="14"/><line class="range" x1="{least:.1}" x2="{most:.1}" y1="{middle:.1}" y2="{middle:.1}"/><text class="figure" x="{:.1}" y="{:.1}">{}</text>"#,
            y + 4.0,
            (median - NAMES).max(1.0),
            most + 6.0,
            y + 15.0,
            shown(spread.median),
        ));
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_figure_has_a_longer_bar() {
        let of = |figure: f64| Spread { least: figure, median: figure, most: figure };
        let svg = bars(&[("a <b>".to_owned(), of(10.0)), ("c".to_owned(), of(100.0))]);
        assert!(svg.contains("a &lt;b&gt;"));
        let widths: Vec<f64> = svg
            .split("<rect ")
            .skip(1)
            .filter_map(|rect| rect.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert!(matches!(widths.as_slice(), [short, long] if short < long), "{widths:?}");
        assert_eq!(bars(&[("none".to_owned(), of(0.0))]), "");
    }
}
