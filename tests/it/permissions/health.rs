//! The node says which published jumpscripts wait for a grant.

use super::World;

#[test]
fn the_nodes_health_shows_needs_against_grants() {
    let world = World::new();
    let file = world.file("ask", "env = ['PATH']");
    let file = file.to_str().unwrap();
    world.cli(&["grants", "allow", file, "--requested"]).run().ok();
    world.cli(&["publish", file]).run().ok();
    let config = world.config("[health]\ninterval = '100ms'\n");
    let mut host = world.host(&["--config", &config]);
    world.cli(&["grants", "revoke", "ask"]).run().ok();
    let amber = host.wait_for_line("permissions: 1 jumpscripts without a grant");
    assert!(amber.contains("env `PATH`") && amber.contains("wasmhost grants allow"), "{amber}");
    world.cli(&["grants", "allow", "ask", "--requested"]).run().ok();
    host.wait_for_line_after(&amber, "permissions: 0 jumpscripts without a grant");
}
