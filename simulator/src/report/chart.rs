//! One chart over the time of a run, as SVG: a few lines, the phases as bands behind them, and round axis numbers.

use std::fmt::Write;

use super::html::escape;
use crate::series::{Course, Sample};

/// A chart and its lines.
pub(super) struct Chart<'a> {
    pub(super) title: &'static str,
    pub(super) course: &'a Course,
    pub(super) lines: Vec<Line>,
}

/// A line of a chart.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) of: fn(&Sample) -> f64,
    /// Whether the samples hold totals. The chart then shows the change per second.
    pub(super) is_total: bool,
}

impl Chart<'_> {
    /// Whether all values are zero.
    pub(super) fn is_flat(&self) -> bool {
        self.points().iter().flatten().all(|(_, value)| *value == 0.0)
    }

    pub(super) fn to_svg(&self) -> String {
        let points = self.points();
        let end = self.course.samples.last().map_or(1.0, |sample| sample.seconds).max(1.0);
        let top = round_up(points.iter().flatten().map(|(_, value)| *value).fold(0.0, f64::max));
        let x = |seconds: f64| LEFT + seconds / end * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" font-size=\"12\" \
             font-family=\"system-ui,sans-serif\">\n<text x=\"{LEFT}\" y=\"16\" font-weight=\"bold\">{title}</text>\n",
            title = self.title
        );
        self.write_phases(&mut svg, end, &x);
        for step in 0..=STEPS {
            let value = top * f64::from(step) / f64::from(STEPS);
            let at = y(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                shown(value)
            );
            let seconds = end * f64::from(step) / f64::from(STEPS);
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} s</text>",
                x(seconds),
                HEIGHT - 6.0,
                shown(seconds)
            );
        }
        for ((line, points), colour) in self.lines.iter().zip(&points).zip(COLOURS) {
            let path: Vec<String> = points
                .iter()
                .map(|(seconds, value)| format!("{:.1},{:.1}", x(*seconds), y(*value)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"><title>{}</title></polyline>",
                path.join(" "),
                line.name
            );
        }
        self.write_legend(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn write_phases(&self, svg: &mut String, end: f64, x: &impl Fn(f64) -> f64) {
        let ends = self.course.phases.iter().skip(1).map(|phase| phase.seconds).chain([end]);
        for (place, (phase, until)) in self.course.phases.iter().zip(ends).enumerate() {
            let (left, right) = (x(phase.seconds.min(end)), x(until.min(end)));
            let fill = if place % 2 == 0 { "#f4f6f8" } else { "#fff" };
            let name = escape(&phase.name);
            let _ = writeln!(
                svg,
                "<rect x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>",
                right - left,
                HEIGHT - TOP - BOTTOM
            );
            // Without enough room the name would cover the next one.
            if right - left > 7.0 * phase.name.chars().count() as f64 {
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#888\">{name}</text>",
                    left + 4.0,
                    TOP + 12.0
                );
            }
        }
    }

    fn write_legend(&self, svg: &mut String) {
        let mut at = WIDTH - RIGHT;
        for (line, colour) in self.lines.iter().zip(COLOURS).rev() {
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"16\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
                line.name
            );
            at -= 7.0 * line.name.len() as f64 + 16.0;
        }
    }

    /// The points of each line: seconds and value.
    fn points(&self) -> Vec<Vec<(f64, f64)>> {
        // Before the first sample all values are zero.
        let samples: Vec<Sample> =
            [Sample::default()].into_iter().chain(self.course.samples.iter().copied()).collect();
        let points = |line: &Line| match line.is_total {
            false => samples.iter().map(|sample| (sample.seconds, (line.of)(sample))).collect(),
            true => samples
                .windows(2)
                .map(|two| {
                    let change = (line.of)(&two[1]) - (line.of)(&two[0]);
                    (two[1].seconds, change / (two[1].seconds - two[0].seconds).max(SECONDS_MIN))
                })
                .collect(),
        };
        self.lines.iter().map(points).collect()
    }
}

/// The next number of the form 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    round.into_iter().find(|round| *round >= value).unwrap_or(value)
}

fn shown(value: f64) -> String {
    if value >= 100.0 || value == value.round() { format!("{value:.0}") } else { format!("{value:.2}") }
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 24.0;
const STEPS: u32 = 5;
/// The last sample may come right after the one before, which would show a false peak.
const SECONDS_MIN: f64 = 0.5;
const COLOURS: [&str; 3] = ["#0b62a4", "#d1495b", "#5a8f29"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::PhaseMark;

    fn course() -> Course {
        let sample =
            |seconds: u64| Sample { seconds: seconds as f64, sent: seconds * 40, ..Sample::default() };
        let mut course = Course::default();
        course.samples = (1..=10).map(sample).collect();
        course.phases = vec![PhaseMark { name: "a <b>".into(), seconds: 2.0 }];
        course
    }

    #[test]
    fn axes_end_on_round_numbers() {
        for (value, round) in [(0.0, 1.0), (0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (37.0, 50.0), (501.0, 1000.0)]
        {
            assert!((round_up(value) - round).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn totals_are_shown_as_rates_and_what_never_happened_is_left_out() {
        let course = course();
        let line = |of| Line { name: "x", of, is_total: true };
        let chart = Chart { title: "t", course: &course, lines: vec![line(|sample| sample.sent as f64)] };
        assert!(chart.points()[0].iter().all(|(_, rate)| *rate == 40.0));
        assert!(!chart.is_flat());
        let svg = chart.to_svg();
        assert!(svg.starts_with("<svg") && svg.contains("a &lt;b&gt;") && !svg.contains("NaN"), "{svg}");
        assert!(Chart { lines: vec![line(|sample| sample.dropped as f64)], ..chart }.is_flat());
    }
}
