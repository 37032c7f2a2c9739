//! Small charts, drawn by the server as SVG: one line over the last hour, and bars that compare.
//!
//! Sizes and positions are attributes of the drawing, and the style sheet has its colours, so a page with charts needs
//! no style of its own. Text says the same as a chart, for people who do not see it.

use maud::{Markup, html};

use super::text::grouped;

/// One value at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Seconds before now.
    pub(super) ago: f64,
    pub(super) value: f64,
}

/// A line over the last hour, with its title and its present value.
pub(super) fn line(title: &str, now: &str, unit: &str, points: &[Point]) -> Markup {
    let highest = points.iter().map(|point| point.value).fold(0.0, f64::max);
    let top = round_up(highest);
    let label = format!("{title} in the last hour: {now} {unit} now, {} at most", number(highest));
    html! {
        figure.chart {
            figcaption { span.what { (title) } " " strong { (now) } " " span.unit { (unit) } }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(label) {
                @for part in 1..4 {
                    @let x = WIDTH * f64::from(part) / 4.0;
                    line.grid x1=(x) x2=(x) y1="0" y2=(HEIGHT) vector-effect="non-scaling-stroke" {}
                }
                line.base x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) vector-effect="non-scaling-stroke" {}
                @if let Some(path) = path(points, top) {
                    path.area d=(format!("{}V{HEIGHT}H{}Z", path.drawn, path.begin)) {}
                    path.line d=(path.drawn) vector-effect="non-scaling-stroke" {}
                }
            }
            p.scale aria-hidden="true" { span { "1 h ago" } span { "highest " (number(highest)) } span { "now" } }
        }
    }
}

/// Bars with names, the longest first. The length of each is its share of the longest.
pub(super) fn bars(rows: &[(String, usize)]) -> Markup {
    let longest = rows.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    html! {
        table.bars {
            tbody {
                @for (name, count) in rows {
                    @let width = 100.0 * (*count as f64) / (longest as f64);
                    tr {
                        th scope="row" { (name) }
                        td.number { (grouped(*count)) }
                        td.share aria-hidden="true" {
                            svg viewBox="0 0 100 8" preserveAspectRatio="none" {
                                rect x="0" y="0" height="8" width=(format!("{width:.1}")) {}
                            }
                        }
                    }
                }
            }
        }
    }
}

struct Curve {
    drawn: String,
    /// Its left end.
    begin: f64,
}

/// The line through the points of the last hour; none for fewer than two points.
fn path(points: &[Point], top: f64) -> Option<Curve> {
    let mut points = points.iter().filter(|point| point.ago <= HOUR).peekable();
    let begin = across(points.peek()?.ago);
    let mut drawn = String::new();
    let mut count = 0;
    for point in points {
        let y = HEIGHT - (HEIGHT - MARGIN) * (point.value / top).clamp(0.0, 1.0);
        drawn += &format!("{}{:.1} {y:.1}", if count == 0 { "M" } else { "L" }, across(point.ago));
        count += 1;
    }
    (count > 1).then_some(Curve { drawn, begin })
}

fn across(ago: f64) -> f64 {
    (WIDTH * (1.0 - ago / HOUR) * 10.0).round() / 10.0
}

/// The next of 1, 2, 5, 10, 20 ... from `value` on; at least 1.
fn round_up(value: f64) -> f64 {
    let mut step = 1.0;
    loop {
        for factor in [1.0, 2.0, 5.0] {
            if value <= step * factor || !value.is_finite() {
                return step * factor;
            }
        }
        step *= 10.0;
    }
}

/// A value for a scale: whole, or with one digit if it is small.
pub(super) fn number(value: f64) -> String {
    match value < 10.0 && value.fract() > 0.05 {
        true => format!("{value:.1}"),
        false => grouped(value.round() as usize),
    }
}

const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 56.0;
/// Room for the width of the line at the top.
const MARGIN: f64 = 2.0;
/// Seconds.
const HOUR: f64 = 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ago: f64, value: f64) -> Point {
        Point { ago, value }
    }

    #[test]
    fn a_line_goes_from_left_to_now_and_no_higher_than_its_top() {
        let path = path(&[point(3600.0, 0.0), point(1800.0, 5.0), point(0.0, 10.0)], 10.0).unwrap();
        assert_eq!((path.drawn.as_str(), path.begin), ("M0.0 56.0L120.0 29.0L240.0 2.0", 0.0));
    }

    #[test]
    fn one_value_is_no_line_and_what_is_older_than_an_hour_is_left_out() {
        assert!(path(&[], 1.0).is_none());
        assert!(path(&[point(0.0, 3.0)], 5.0).is_none());
        assert!(path(&[point(4000.0, 1.0), point(0.0, 3.0)], 5.0).is_none());
    }

    #[test]
    fn a_scale_ends_at_a_round_number() {
        for (highest, top) in [(0.0, 1.0), (1.0, 1.0), (1.5, 2.0), (7.0, 10.0), (201.0, 500.0), (1e6, 1e6)] {
            assert_eq!(round_up(highest), top, "{highest}");
        }
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!((number(0.0), number(0.25), number(12.6)), ("0".into(), "0.2".into(), "13".into()));
    }

    #[test]
    fn t713_what_a_chart_is_named_stays_text() {
        let drawn =
            bars(&[("<script>".into(), 1)]).into_string() + &line("<b>", "0", "\"", &[]).into_string();
        assert!(!drawn.contains("<script>") && !drawn.contains("<b>"), "{drawn}");
    }
}
