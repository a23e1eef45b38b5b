//! Facts about the node: only the areas that were granted, bounded, and the jumpscripts that ship for them.

use redis::AsyncCommands as _;

use super::World;
use crate::support::guests;
use crate::support::program::Invocation;

#[test]
fn only_the_areas_that_are_granted_are_told() {
    let world = World::new();
    let file = world.file("ask", "facts = ['load', 'up*', 'processes']");
    let ask = |payload: &str| {
        Invocation::new(["exec", file.to_str().unwrap(), "--allow-requested", "--payload", payload]).run()
    };
    assert!(ask("facts load").ok().contains("cores: "));
    assert!(ask("facts uptime").ok().trim().parse::<u64>().unwrap() > 0);
    let counted = ask("facts processes wasmhost no-such-name").ok();
    let counts: Vec<u32> = serde_json::from_str(counted.trim()).unwrap();
    assert!(counts[0] >= 1 && counts[1] == 0, "{counted}");
    for area in ["disks", "memory", "health"] {
        let said = ask(&format!("facts {area}")).fails(1);
        assert!(said.contains(&format!("`{area}` denied")) && said.contains("to `facts`"), "{said}");
    }
    assert_eq!(ask("facts many 100").ok().trim(), "100");
    assert!(ask("facts many 101").ok().contains("at most 100 names, these are 101"));
}

#[tokio::test]
async fn the_health_hashes_are_told_whoever_wrote_them() {
    let world = World::new();
    let mut raw = world.redis.raw().await;
    let key = |part: &str| format!("{}:healthcheck:{part}", world.prefix);
    let () = raw.hset(key("status"), "of-others", "False").await.unwrap();
    let () = raw.hset(key("lastcheck"), "of-others", "1417000000.5").await.unwrap();
    let config = world.config("concurrency = 2\n[health]\ninterval = '100ms'\n[permissions.'*']\nfacts = ['health']\n");
    let file = world.file("ask", "facts = ['health']");
    world.cli(&["publish", file.to_str().unwrap(), "--config", &config]).run().ok();
    let _host = world.host(&["--config", &config]);
    let told = world.ask("ask", "facts health").ok();
    let of_others = "name: \"of-others\", is_well: false, checked_at_ms: 1417000000500";
    assert!(told.contains(of_others), "{told}");
    let said = Invocation::new(["exec", file.to_str().unwrap(), "--config", &config, "--payload", "facts health"])
        .run()
        .fails(1);
    assert!(said.contains("which this attempt has none of"), "{said}");
}

/// What a health jumpscript says of this machine, by state.
fn states(world: &World, name: &str, config: &str) -> Vec<String> {
    let file = guests::path(name);
    let config = world.config(config);
    let words = ["exec", file.to_str().unwrap(), "--allow-requested", "--config", &config];
    let told: serde_json::Value = serde_json::from_str(&Invocation::new(words).run().ok()).unwrap();
    let messages = told.as_array().unwrap();
    assert!(
        !messages.is_empty() && messages.iter().all(|one| one["message"].as_str().unwrap().contains("limits")),
        "{told}"
    );
    messages.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_health_jumpscripts_judge_this_machine_by_the_configured_limits() {
    let world = World::new();
    let all = |text: &str| format!("[script_config.'wasmhost/*']\n{text}\n");
    let strict = states(&world, "health-disk", &all("'disk.error_percent' = '0'"));
    assert!(strict.iter().all(|state| state == "ERROR" || state == "SKIPPED"), "{strict:?}");
    let lax = states(&world, "health-disk", &all("'disk.error_percent' = '101'\n'disk.warning_percent' = '101'"));
    assert!(lax.iter().all(|state| state == "OK" || state == "SKIPPED"), "{lax:?}");
    let strict = all("'load.error_per_core' = '0'\n'memory.error_percent' = '0'");
    assert_eq!(states(&world, "health-load", &strict), ["ERROR", "ERROR"]);
    let lax = "'load.error_per_core' = '1e9'\n'load.warning_per_core' = '1e9'\n'memory.error_percent' = '101'\n\
               'memory.warning_percent' = '101'";
    assert_eq!(states(&world, "health-load", &all(lax)), ["OK", "OK"]);
}
