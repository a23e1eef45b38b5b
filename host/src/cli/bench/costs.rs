//! Where Redis's time goes: what each command costs it for a job, and what lies around the commands.

use std::collections::BTreeMap;

use serde::Serialize;

use super::drain::Drain;
use crate::cli::print;

/// Commands that are no part of a script: what a host sends by itself, and what measuring takes.
const OUTSIDE: [&str; 9] =
    ["evalsha", "eval", "script|load", "blmove", "blpop", "info", "ping", "config|set", "slowlog|reset"];
/// Commands that are printed; the file has all.
const SHOWN: usize = 8;

/// One sort of drains, by job.
#[derive(Debug, Serialize)]
pub(super) struct Costs {
    /// CPU time of the server.
    redis_us: f64,
    /// What of it was spent outside scripts: reading calls and writing answers, the append-only file, the kernel.
    outside_scripts_us: f64,
    /// What scripts took beside the commands in them: the language, and copying arguments and answers.
    in_lua_us: f64,
    /// What scripts asked of the server.
    commands: BTreeMap<String, Command>,
}

#[derive(Debug, Serialize)]
struct Command {
    calls: f64,
    us: f64,
}

impl Costs {
    /// The mean of all jobs of these drains.
    pub(super) fn of<'a>(drains: impl IntoIterator<Item = &'a Drain>) -> Self {
        let (mut n_jobs, mut redis_us, mut scripts_us) = (0.0, 0.0, 0.0);
        let mut commands: BTreeMap<String, Command> = BTreeMap::new();
        for drain in drains {
            let n = drain.n_done();
            n_jobs += n;
            redis_us += drain.redis_us * n;
            for (name, spent) in &drain.commands {
                let us = spent.time.as_secs_f64() * 1e6;
                if name == "evalsha" {
                    scripts_us += us;
                } else if !OUTSIDE.contains(&name.as_str()) {
                    let command = commands.entry(name.clone()).or_insert(Command { calls: 0.0, us: 0.0 });
                    command.calls += spent.calls;
                    command.us += us;
                }
            }
        }
        let per_job = |figure: f64| if n_jobs > 0.0 { figure / n_jobs } else { 0.0 };
        for command in commands.values_mut() {
            *command = Command { calls: per_job(command.calls), us: per_job(command.us) };
        }
        let in_commands: f64 = commands.values().map(|command| command.us).sum();
        Self {
            redis_us: per_job(redis_us),
            outside_scripts_us: per_job(redis_us - scripts_us),
            in_lua_us: per_job(scripts_us) - in_commands,
            commands,
        }
    }
}

/// Prints sorts of drains side by side.
pub(super) fn print(costs: &BTreeMap<&'static str, Costs>) {
    let mut by_name: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, command) in costs.values().flat_map(|costs| &costs.commands) {
        *by_name.entry(name).or_default() += command.us;
    }
    let mut names: Vec<(&str, f64)> = by_name.into_iter().collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1));
    print::line("where Redis's time goes, us/job (calls)");
    let row = |name: &str, figure: &dyn Fn(&Costs) -> String| {
        [vec![name.to_owned()], costs.values().map(figure).collect()].concat()
    };
    let mut rows = vec![
        row("in all", &|c| format!("{:.1}", c.redis_us)),
        row("around scripts, kernel, AOF", &|c| format!("{:.1}", c.outside_scripts_us)),
        row("in scripts, Lua itself", &|c| format!("{:.1}", c.in_lua_us)),
    ];
    for (name, _) in names.iter().take(SHOWN) {
        rows.push(row(&format!("in scripts, {name}"), &|c| {
            c.commands.get(*name).map_or_else(String::new, |one| format!("{:.2} ({:.2})", one.us, one.calls))
        }));
    }
    let head = [vec![String::new()], costs.keys().map(|name| name.to_uppercase()).collect()].concat();
    print::table_of(head, rows);
}
