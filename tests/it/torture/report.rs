//! What a campaign found, and the table of all of them.

use std::time::Duration;

/// One campaign, as it went.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) campaign: &'static str,
    pub(super) jobs: usize,
    pub(super) faults: usize,
    /// Executions more than the jobs asked for.
    pub(super) duplicates: u64,
    /// From the silence of a host to the next start of each job that it was running.
    pub(super) recovery: Vec<Duration>,
    /// What else is worth telling.
    pub(super) note: String,
    pub(super) took: Duration,
}

impl Row {
    /// Takes another round of the same campaign in.
    pub(super) fn add(&mut self, other: Self) {
        self.campaign = other.campaign;
        self.jobs += other.jobs;
        self.faults += other.faults;
        self.duplicates += other.duplicates;
        self.recovery.extend(other.recovery);
        self.took += other.took;
        self.note = other.note;
    }

    fn cells(&self, result: &str) -> [String; 8] {
        let recovery =
            |share| percentile(&self.recovery, share).map_or("-".to_owned(), |t| format!("{:.2} s", t.as_secs_f64()));
        [
            self.campaign.to_owned(),
            self.jobs.to_string(),
            self.faults.to_string(),
            self.duplicates.to_string(),
            recovery(50),
            recovery(99),
            format!("{:.0} s", self.took.as_secs_f64()),
            if self.note.is_empty() { result.to_owned() } else { format!("{result}: {}", self.note) },
        ]
    }
}

/// The value below which so many of a hundred lie.
pub(super) fn percentile(values: &[Duration], share: usize) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1))).copied()
}

/// All campaigns, each with its row or the reason why it failed.
pub(super) fn table(rows: &[(&'static str, Result<Row, String>)]) -> String {
    let head = ["campaign", "jobs", "faults", "duplicates", "recovery p50", "p99", "took", "result"];
    let mut lines = vec![head.map(str::to_owned)];
    for (campaign, row) in rows {
        lines.push(match row {
            Ok(row) => row.cells("passed"),
            Err(why) => Row { campaign, note: why.lines().next().unwrap_or_default().to_owned(), ..Row::default() }
                .cells("FAILED"),
        });
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let show = |line: &[String; 8]| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("| {} |", cells.join(" | "))
    };
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join(" | ");
    let mut text = format!("{}\n| {rule} |\n", show(&lines[0]));
    lines[1..].iter().for_each(|line| text.push_str(&format!("{}\n", show(line))));
    text
}
