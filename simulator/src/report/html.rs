//! The report as one page without scripts, fonts or pictures from elsewhere.

use std::fmt::Write;

use super::chart::{Chart, Line};
use super::{Percentiles, Report};
use crate::series::Sample;

impl Report {
    /// The page.
    pub fn to_html(&self) -> String {
        let title = if self.scenario.is_empty() { "run" } else { self.scenario.as_str() };
        let title = escape(title);
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{}</p>\n",
            escape(&self.description)
        );
        self.write_verdicts(&mut page);
        self.write_figures(&mut page);
        for chart in self.charts() {
            page.push_str(&chart.to_svg());
        }
        page.push_str("</body>\n</html>\n");
        page
    }

    fn write_verdicts(&self, page: &mut String) {
        page.push_str("<table>\n<tr><th>expected</th><th>at most</th><th>measured</th><th></th></tr>\n");
        for verdict in &self.verdicts {
            let (class, word) = if verdict.is_met { ("met", "met") } else { ("missed", "not met") };
            let _ = writeln!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{:.2}</td><td class=\"{class}\">{word}</td></tr>",
                verdict.name, verdict.at_most, verdict.measured
            );
        }
        page.push_str("</table>\n");
    }

    fn write_figures(&self, page: &mut String) {
        page.push_str("<table>\n<tr><th>milliseconds</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th>of</th></tr>\n");
        for (name, measured) in self.timings().iter().filter(|(_, measured)| measured.count > 0) {
            let Percentiles { count, p50, p90, p99, p999, max } = measured;
            let _ = writeln!(
                page,
                "<tr><td>{name}</td><td>{p50:.2}</td><td>{p90:.2}</td><td>{p99:.2}</td><td>{p999:.2}</td><td>{max:.2}</td><td>{count}</td></tr>"
            );
        }
        let _ = writeln!(page, "</table>\n<pre>{}</pre>", escape(&self.to_string()));
    }

    fn charts(&self) -> Vec<Chart<'_>> {
        let of = |title, lines| Chart { title, course: &self.course, lines };
        let value = |name, of: fn(&Sample) -> f64| Line { name, of, is_total: false };
        let rate = |name, of: fn(&Sample) -> f64| Line { name, of, is_total: true };
        let all = vec![
            of("connected", vec![value("connected", |sample| sample.connected as f64)]),
            of(
                "connections a second",
                vec![
                    rate("made", |sample| sample.connects as f64),
                    rate("failed", |sample| sample.connect_failures as f64),
                    rate("dropped", |sample| sample.dropped as f64),
                ],
            ),
            of(
                "telemetry a second",
                vec![
                    rate("sent", |sample| sample.sent as f64),
                    rate("acknowledged", |sample| sample.acknowledged as f64),
                ],
            ),
            of(
                "publish, milliseconds",
                vec![
                    value("p50", |sample| sample.publish_p50_ms),
                    value("p99", |sample| sample.publish_p99_ms),
                    value("own lateness p99", |sample| sample.lateness_p99_ms),
                ],
            ),
            of("connect p99, milliseconds", vec![value("p99", |sample| sample.connect_p99_ms)]),
            of(
                "cloud to device a second",
                vec![
                    rate("sent", |sample| sample.c2d_sent as f64),
                    rate("received", |sample| sample.c2d_received as f64),
                ],
            ),
            of(
                "cloud to device round trip, milliseconds",
                vec![value("p50", |sample| sample.c2d_p50_ms), value("p99", |sample| sample.c2d_p99_ms)],
            ),
            of(
                "errors and hostile attempts a second",
                vec![
                    rate("unexpected errors", |sample| sample.unexpected as f64),
                    rate("hostile attempts", |sample| sample.hostile as f64),
                ],
            ),
            of(
                "memory of the simulator, MiB",
                vec![value("resident", |sample| sample.memory_bytes as f64 / f64::from(1 << 20))],
            ),
        ];
        all.into_iter().filter(|chart| !chart.is_flat()).collect()
    }
}

/// Escapes text for HTML.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222;\
background:#fff}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.15rem .8rem;text-align:right;\
border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}pre{background:#f6f6f6;padding:1rem;\
overflow:auto}svg{display:block;width:100%;height:auto;margin:1.5rem 0}.met{color:#176b2c}.missed{color:#a3001b;\
font-weight:bold}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::series::Series;
    use crate::tally::Tally;
    use std::time::Duration;

    #[test]
    fn a_page_needs_nothing_else_and_keeps_names_harmless() {
        let scenario = Scenario { name: "<script>alert(1)</script>".into(), ..Scenario::default() };
        let tally = Tally::default();
        tally.failed("connect", "<img src=x>");
        let page = Report::new(&scenario, Duration::from_secs(1), &tally, &Series::default()).to_html();
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        for word in ["<script", "<img", "http://", "https://", "<link", "@import", "url("] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("&lt;script&gt;"));
    }
}
