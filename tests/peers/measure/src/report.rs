//! Medians over the turns, as a table and as a file.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::contest::Turn;
use crate::{Error, Size};

/// Where the figures go, from the repository's root.
const FIGURES: &str = "target/bench/peers.json";

/// All turns of one name.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    turns: Vec<Turn>,
}

impl Row {
    /// Adds a turn to the row of `name`.
    pub fn add(rows: &mut Vec<Self>, name: &'static str, turn: Turn) {
        match rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.turns.push(turn),
            None => rows.push(Self { name, turns: vec![turn] }),
        }
    }

    fn median(&self, figure: fn(&Turn) -> f64) -> f64 {
        let mut values: Vec<f64> = self.turns.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        f64::midpoint(low, high)
    }

    fn drain(&self) -> f64 {
        self.median(|turn| turn.drain_per_s)
    }

    fn enqueue(&self) -> f64 {
        self.median(|turn| turn.enqueue_per_s)
    }

    fn figures(&self) -> Value {
        json!({
            "name": self.name,
            "enqueue_per_s": self.enqueue(),
            "drain_per_s": self.drain(),
            "host_us_per_job": self.median(|turn| turn.host_us_per_job),
            "redis_us_per_job": self.median(|turn| turn.redis_us_per_job),
            "latency_ms_p50": self.median(|turn| turn.latency_ms_p50),
            "latency_ms_p99": self.median(|turn| turn.latency_ms_p99),
        })
    }
}

/// Prints the table: ours first, then the peers by their rate, with how many times as fast ours drain and enqueue.
pub fn print(rows: &[Row], size: Size, busy: &Busy, notes: &[String]) {
    let is_ours = |row: &&Row| row.name.starts_with("wasmhost-");
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by(|a, b| is_ours(b).cmp(&is_ours(a)).then(b.drain().total_cmp(&a.drain())));
    let ratio = |ours: &str, row: &Row, figure: fn(&Row) -> f64| {
        rows.iter()
            .find(|row| row.name == ours)
            .map_or_else(String::new, |ours| format!("{:.2}", figure(ours) / figure(row)))
    };
    let head = [
        "",
        "jobs/s",
        "native x",
        "sandbox x",
        "host us/job",
        "redis us/job",
        "p50 ms",
        "p99 ms",
        "enqueue/s",
        "enqueue x",
        "turns",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(sorted.iter().map(|row| {
        [
            row.name.to_owned(),
            format!("{:.0}", row.drain()),
            ratio("wasmhost-native", row, Row::drain),
            ratio("wasmhost-sandbox", row, Row::drain),
            format!("{:.1}", row.median(|turn| turn.host_us_per_job)),
            format!("{:.1}", row.median(|turn| turn.redis_us_per_job)),
            format!("{:.3}", row.median(|turn| turn.latency_ms_p50)),
            format!("{:.3}", row.median(|turn| turn.latency_ms_p99)),
            format!("{:.0}", row.enqueue()),
            ratio("wasmhost-native", row, Row::enqueue),
            row.turns.len().to_string(),
        ]
    }));
    for line in &lines {
        let cells: Vec<String> = line
            .iter()
            .enumerate()
            .map(|(n, cell)| {
                let width = lines.iter().map(|line| line[n].len()).max().unwrap_or(0);
                if n == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            })
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
    println!();
    println!(
        "Medians of {} turns each, {} jobs a drain, 64 at once; latency at 500 jobs/s for {} s.",
        size.rounds, size.jobs, size.seconds
    );
    println!("\"native x\", \"sandbox x\", \"enqueue x\": how many times the row's rate ours is.");
    println!("\"enqueue/s\": one producer, 500 jobs a call, one call after the other.");
    println!("Others used {:.2} of this machine's {} cores meanwhile.", busy.others_cores(), cores());
    notes.iter().for_each(|note| println!("{note}"));
}

/// Writes the figures to their file.
pub fn write(rows: &[Row]) -> Result<(), Error> {
    let figures: Vec<Value> = rows.iter().map(Row::figures).collect();
    let path = Path::new(FIGURES);
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    std::fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")?;
    eprintln!("written to {FIGURES}");
    Ok(())
}

/// What else the machine did meanwhile.
#[derive(Debug)]
pub struct Busy {
    started: Instant,
    all_before: f64,
    own_before: f64,
}

impl Busy {
    /// From now on.
    pub fn start() -> Self {
        Self { started: Instant::now(), all_before: machine_seconds(), own_before: own_seconds() }
    }

    /// Cores that neither this program nor its children used, on average. To be asked when all children have ended.
    fn others_cores(&self) -> f64 {
        let others = (machine_seconds() - self.all_before) - (own_seconds() - self.own_before);
        (others / self.started.elapsed().as_secs_f64()).max(0.0)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Busy time of all cores since the machine started: user, nice, system, interrupts.
fn machine_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().filter_map(|n| fields.get(*n)).sum::<f64>() / 100.0
}

/// CPU time of this process and of its children that have ended.
fn own_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which ends with the last bracket, `utime` is the twelfth field; the next three follow it.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(4).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}
