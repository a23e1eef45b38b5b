//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

use super::table::Metric;
use super::{BUCKETS_US, Histogram};

/// An exposition that is being written. The samples of a metric follow its head.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    metric: Option<Metric>,
}

impl Text {
    /// Begins a metric.
    pub fn begin(&mut self, metric: Metric) -> &mut Self {
        let _ = writeln!(self.out, "# HELP {} {}", metric.name, metric.what.replace('\\', "\\\\"));
        let _ = writeln!(self.out, "# TYPE {} {}", metric.name, metric.kind.as_str());
        self.metric = Some(metric);
        self
    }

    /// A sample of the metric: the values of its labels, in their order, and the number.
    pub fn sample(&mut self, labels: &[&str], value: impl std::fmt::Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// A metric without labels, with its one sample.
    pub fn single(&mut self, metric: Metric, value: impl std::fmt::Display) {
        self.begin(metric).sample(&[], value);
    }

    /// A histogram with these labels.
    pub fn histogram(&mut self, labels: &[&str], histogram: &Histogram) -> &mut Self {
        let (counts, sum_us) = histogram.read();
        let mut total = 0;
        for (most_us, count) in BUCKETS_US.iter().zip(&counts) {
            total += count;
            self.line("_bucket", labels, Some(&seconds(*most_us)), total);
        }
        total += counts[BUCKETS_US.len()];
        self.line("_bucket", labels, Some("+Inf"), total);
        self.line("_sum", labels, None, seconds(sum_us));
        self.line("_count", labels, None, total);
        self
    }

    /// Everything that was written.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    fn line(&mut self, suffix: &str, labels: &[&str], le: Option<&str>, value: impl std::fmt::Display) {
        let Some(metric) = self.metric else { return };
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let pairs = metric.labels.iter().copied().zip(labels.iter().copied());
        let pairs: Vec<String> = pairs
            .chain(le.map(|le| ("le", le)))
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let _ = if pairs.is_empty() {
            writeln!(self.out, "{}{suffix} {value}", metric.name)
        } else {
            writeln!(self.out, "{}{suffix}{{{}}} {value}", metric.name, pairs.join(","))
        };
    }
}

/// Microseconds as seconds, exactly.
#[must_use]
pub fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The value of a label, as the format wants it. Control characters become visible: a name of a queue may come from
/// anybody who can write to Redis.
fn escaped(value: &str) -> String {
    crate::job::visible(value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::{ATTEMPTS, TURNS};
    use super::*;

    #[test]
    fn a_label_cannot_end_its_own_quotes() {
        let mut text = Text::default();
        text.begin(ATTEMPTS).sample(&["a\"} 1\nx\\", "done"], 7);
        let text = text.finish();
        let line = text.lines().last().unwrap();
        assert_eq!(line, "wasmhost_attempts_total{queue=\"a\\\"} 1\\\\nx\\\\\",outcome=\"done\"} 7");
    }

    #[test]
    fn buckets_add_up_and_end_with_infinity() {
        let histogram = Histogram::default();
        histogram.observe_us(1_500);
        histogram.observe_us(7_200_000_000);
        let mut text = Text::default();
        text.begin(TURNS).histogram(&[], &histogram);
        let text = text.finish();
        assert!(text.contains("_bucket{le=\"0.001\"} 0\n") && text.contains("_bucket{le=\"0.0025\"} 1\n"), "{text}");
        assert!(text.contains("_bucket{le=\"3600\"} 1\n") && text.contains("_bucket{le=\"+Inf\"} 2\n"), "{text}");
        assert!(text.contains("_sum 7200.0015\n") && text.ends_with("_count 2\n"), "{text}");
    }
}
