//! The document that is made from the table: `docs/configuration.md`.

use std::fmt::Write as _;

use super::keys::{KEYS, OTHER_VARIABLES};

/// The text of `docs/configuration.md`.
#[must_use]
pub fn configuration_markdown() -> String {
    let mut text = String::from(CONFIGURATION_HEAD);
    let cell = |text: &str| text.replace('|', "\\|");
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    for spec in KEYS {
        let live = if spec.is_live { "yes" } else { "" };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {live} |",
            spec.key,
            code(spec.variable),
            code(spec.flag),
            cell(spec.default),
            cell(spec.rule),
            cell(spec.what),
        );
    }
    text.push_str("\n## Other variables\n\n| variable | meaning |\n| --- | --- |\n");
    for (name, what) in OTHER_VARIABLES {
        let _ = writeln!(text, "| `{name}` | {} |", cell(what));
    }
    text.push_str(CONFIGURATION_TAIL);
    text
}

const CONFIGURATION_HEAD: &str = "# Configuration

This page is made from the program's own table; a test compares them.

A value is looked for in the flags, then in the environment, then in the file, and is the default when nobody names it.
`wasmhost doctor` shows every value in force and where it came from.

The file is TOML. It is read when `--config FILE` or `WASMHOST_CONFIG` names it; no file is read unasked, so that what a
command does never depends on the folder it runs in. An unknown key is refused with the nearest known one. An empty
variable counts as not set. Durations are a number and a unit: `500ms`, `30s`, `5m`, `1h30m`.

On SIGHUP a running host reads the file again. A broken file changes nothing: the old values stay in force and the log
says what is wrong. Keys marked *live* take effect at once, others are named in the log and wait for a restart.

| key | variable | flag | default | accepted | meaning | live |
| --- | --- | --- | --- | --- | --- | --- |
";

const CONFIGURATION_TAIL: &str = "
## The password of Redis

It is taken from the highest source that gives one: flags (`--redis-password-file`, else the URL), environment
(`WASMHOST_REDIS_PASSWORD` or `WASMHOST_REDIS_PASSWORD_FILE`, else the URL), file (`redis.password` or
`redis.password_file`, else the URL). A password and a password file in one source are refused. A password in a flag and
a file that every user of the machine can read are warned of. No log line, error or report shows it.

The token of the HTTP server (`http.token`, `http.token_file`) is taken in the same way.

## Example

```toml
prefix = \"wasmhost\"
concurrency = 16
lease = \"30s\"
scripts = \"/srv/jumpscripts\"

[redis]
url = \"redis://10.0.0.7:6379\"
password_file = \"/etc/wasmhost/redis-password\"

[http]
listen = \"0.0.0.0:8080\"
token_file = \"/etc/wasmhost/http-token\"

[queues]
mail = 3
default = 1

[health]
disk_mib = 1024
```
";
