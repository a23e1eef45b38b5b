//! Figures as a table on stdout and as a file below `target/bench`.

use std::path::Path;

use serde::Serialize;

use super::drain::BULK;
use super::endless::Endless;
use super::http::{self, HttpFigures};
use super::limits::Limits;
use super::reload::{self, ReloadFigures};
use super::scale::{self, Case, ScaleFigures};
use super::{FIGURES, Figures, costs, idle, latency, limits};
use crate::cli::{Failure, Output, print};

pub(super) fn queue(output: Output, figures: &Figures) -> Result<(), Failure> {
    let f = figures;
    write(output, f, FIGURES, || {
        drains(f);
        print::line(&format!("enqueue, bulk of {BULK}    {:.0} jobs/s", f.enqueue_jobs_per_s));
        print::line(&format!(
            "latency at {}/s       p50 {:.3} ms, p99 {:.3} ms to the start of a native handler",
            latency::RATE,
            f.latency_ms_p50,
            f.latency_ms_p99
        ));
        print::line(&format!(
            "                       p50 {:.3} ms, p99 {:.3} ms to the end of a sandbox",
            f.wasm_latency_ms_p50, f.wasm_latency_ms_p99
        ));
        if let Some(bytes) = f.bytes_per_waiting_job {
            print::line(&format!("memory                 {bytes:.0} bytes of Redis per waiting job"));
        }
        if let Some(l) = &f.limits {
            print::line(&format!(
                "limits, {} keys     {:.0} % of the native rate without limits, {:.1} Redis us/job",
                limits::KEYS,
                l.limited_rate_ratio * 100.0,
                l.limited_redis_us_per_job
            ));
            flooded(l);
        }
        if let Some(adopted) = &f.adopted {
            let (low, high) = adopted.adopted_rate_ratio_span;
            print::line(&format!(
                "taken over from Hero   {:.0} jobs/s in sandboxes, {:.0} % of the rate of ours (pairs of drains: {:.0} to {:.0} %), {:.1} Redis us/job",
                adopted.adopted_jobs_per_s,
                adopted.adopted_rate_ratio * 100.0,
                low * 100.0,
                high * 100.0,
                adopted.adopted_redis_us_per_job
            ));
        }
        if let Some(idle) = &f.idle {
            print::line(&format!(
                "idle, {} queues         {:.2} commands/s, {:.2} % CPU, {:.1} MB PSS",
                idle::QUEUES,
                idle.commands_per_s,
                idle.cpu_percent,
                idle.pss_mb
            ));
        }
        costs::print(&f.redis_costs);
        print::line(&format!("others on this machine  {:.2} cores", f.others_cores));
    })
}

fn flooded(limits: &Limits) {
    let (Some(ratio), Some((low, high))) = (limits.hot_key_others_rate_ratio, limits.hot_key_others_rate_ratio_span)
    else {
        return;
    };
    print::line(&format!(
        "one key flooded        others keep {:.0} % of their rate (pairs of drains: {:.0} to {:.0} %)",
        ratio * 100.0,
        low * 100.0,
        high * 100.0
    ));
    if let (Some(from_start), Some(first_ms)) =
        (limits.hot_key_others_rate_ratio_from_start, limits.hot_key_others_first_ms)
    {
        print::line(&format!(
            "                       their first starts after {first_ms:.0} ms; with this wait they keep {:.0} %",
            from_start * 100.0
        ));
    }
}

fn drains(f: &Figures) {
    let row = |name: &str, native: f64, sandbox: f64, digits: usize| {
        [name.to_owned(), format!("{native:.digits$}"), format!("{sandbox:.digits$}")]
    };
    let mut rows = vec![
        row("jobs/s", f.native_jobs_per_s, f.wasm_jobs_per_s, 0),
        row("host us/job", f.native_host_us_per_job, f.host_us_per_job, 1),
        row("Redis us/job", f.native_redis_us_per_job, f.redis_us_per_job, 1),
    ];
    if let Some(aof) = &f.append_only_drains {
        rows.push(row("jobs/s, AOF", aof.native_jobs_per_s_aof, aof.wasm_jobs_per_s_aof, 0));
        rows.push(row("Redis us/job, AOF", aof.native_redis_us_per_job_aof, aof.redis_us_per_job_aof, 1));
    }
    print::table(["", "NATIVE", "SANDBOX"], rows);
}

pub(super) fn scale(output: Output, figures: &ScaleFigures) -> Result<(), Failure> {
    let f = figures;
    write(output, f, scale::FIGURES, || {
        let row = |name: &str, case: &Case| {
            [
                name.to_owned(),
                format!("{:.0}", case.jobs_per_s),
                format!("{:.0}", case.small_jobs_per_s),
                format!("{:.2}", case.rate_ratio),
                format!("{:.1}", case.redis_us_per_job),
                format!("{:.1}", case.small_redis_us_per_job),
                format!("{:.2}", case.redis_us_ratio),
            ]
        };
        print::line(&format!("rates beside {} rows, and beside {}", f.rows, f.small_rows));
        print::table(
            ["", "JOBS/S", "SMALL", "RATIO", "REDIS US/JOB", "SMALL", "RATIO"],
            [row("due at once", &f.due), row("scheduled", &f.scheduled), row("dead", &f.dead)],
        );
        for (what, longest) in &f.longest_script_ms {
            let over = f.scripts_over_5_ms_by_script.get(what).copied().unwrap_or(0);
            print::line(&format!("longest {what:<14} {longest:.2} ms, {over} calls over 5 ms"));
        }
        print::line(&format!("scripts over 5 ms      {} of {}", f.scripts_over_5_ms, f.scripts));
        print::line(&format!(
            "all scripts            p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
            f.script_ms_p50, f.script_ms_p99, f.script_ms_p999
        ));
        print::line(&format!(
            "in these times         {:.0} ms in which Redis got no core, and its part of {:.0} ms of the cores stolen",
            f.redis_waited_ms, f.stolen_ms
        ));
        for (what, ms) in &f.first_page_ms {
            print::line(&format!("first page, {what:<10} {ms:.2} ms"));
        }
        print::line(&format!("memory                 {:.0} MB of Redis", f.redis_memory_mb));
        print::line(&format!("others on this machine {:.2} cores", f.others_cores));
    })
}

pub(super) fn http(output: Output, figures: &HttpFigures) -> Result<(), Failure> {
    let f = figures;
    write(output, f, http::FIGURES, || {
        print::line(&format!(
            "bulk of {BULK}            {:.0} jobs/s by one client, {:.0} by four, {:.1} us of the host's CPU a job",
            f.bulk_jobs_per_s, f.bulk_jobs_per_s_4_clients, f.bulk_host_us_per_job
        ));
        print::line(&format!("single                 p50 {:.3} ms, p99 {:.3} ms", f.single_ms_p50, f.single_ms_p99));
        print::line(&format!("others on this machine {:.2} cores", f.others_cores));
    })
}

/// Milliseconds from a new file to the first answer of its code: Rust, JavaScript.
const RELOAD_MS_TARGETS: (f64, f64) = (150.0, 500.0);
/// Milliseconds of a warm start.
const WARM_START_MS_TARGET: f64 = 100.0;
/// Megabytes that ten thousand time-outs may leave behind: what an allocator keeps.
const TIME_OUTS_MEMORY_MB_TARGET: f64 = 8.0;

pub(super) fn reload(output: Output, figures: &ReloadFigures) -> Result<(), Failure> {
    let f = figures;
    let e = &f.endless;
    let row = |what: String, measured: f64, target: f64, unit: &str, digits: usize| {
        let is_met = if measured <= target { "met" } else { "missed" };
        [what, format!("{measured:.digits$} {unit}"), format!("{target:.0} {unit}"), is_met.to_owned()]
    };
    write(output, f, reload::FIGURES, || {
        let reloaded = |name: &str| format!("new file to first answer, {name}, median");
        let mut rows = vec![row(reloaded("Rust"), f.rust_ms_p50, RELOAD_MS_TARGETS.0, "ms", 0)];
        rows.extend(f.javascript_ms_p50.map(|ms| row(reloaded("JavaScript"), ms, RELOAD_MS_TARGETS.1, "ms", 0)));
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        rows.extend([
            row(
                format!("failed of {} jobs, {} swaps", f.swap_jobs, f.swaps),
                f.swap_jobs_failed as f64,
                0.0,
                "jobs",
                0,
            ),
            row(
                format!("warm start with {} jumpscripts", f.warm_start_scripts),
                f.warm_start_ms_p50,
                WARM_START_MS_TARGET,
                "ms",
                1,
            ),
            row(
                "guest without end, past its deadline, worst".to_owned(),
                e.overrun_ms_max,
                Endless::overrun_ms_target(),
                "ms",
                1,
            ),
            row(
                format!("memory left by {} time-outs", e.time_outs),
                e.time_outs_memory_mb,
                TIME_OUTS_MEMORY_MB_TARGET,
                "MB",
                1,
            ),
            row("descriptors left by them".to_owned(), e.time_outs_descriptors as f64, 0.0, "files", 0),
        ]);
        print::table(["", "MEASURED", "AT MOST", ""], rows);
        print::line(&format!("slowest new file       {:.0} ms", f.rust_ms_max));
        print::line(&format!("others on this machine {:.2} cores", f.others_cores));
    })
}

fn write(output: Output, figures: &impl Serialize, path: &str, tell: impl FnOnce()) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(figures).map_err(|error| Failure::new(error.to_string()))?;
    if output == Output::Json {
        print::line(&text);
    } else {
        tell();
    }
    let file = Path::new(path);
    if Path::new("Cargo.toml").is_file() {
        std::fs::create_dir_all(file.parent().unwrap_or(file))?;
        std::fs::write(file, text + "\n")?;
        print::note(&format!("written to {path}"));
    }
    Ok(())
}
