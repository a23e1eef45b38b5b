//! Values of the node's configuration, and secrets from where it says they are.

use super::World;
use crate::support::guests;
use crate::support::program::Invocation;

/// Runs a file once, with a configuration and whatever its manifest requests.
fn exec(file: &str, config: &str, payload: &str) -> Invocation {
    Invocation::new(["exec", file, "--allow-requested", "--config", config, "--payload", payload])
}

#[test]
fn of_each_key_the_most_specific_value_counts_as_far_as_it_is_granted() {
    let world = World::new();
    let file = world.file("ask", "config = ['url', 'limit.*']");
    let config = world.config(
        "[script_config.'*']\nurl = 'of all'\nother = 'x'\n'limit.a' = '1'\n\
         [script_config.'wasmhost/*']\nurl = 'of the organization'\n'limit.b' = '2'\n\
         [script_config.'wasmhost/ask']\nurl = 'its own'\n\
         [script_config.'acme/ask']\nurl = 'of another'\n",
    );
    let ask = |payload: &str| exec(file.to_str().unwrap(), &config, payload).run();
    assert_eq!(ask("config url").ok().trim(), "its own");
    assert_eq!(ask("config limit.c").ok().trim(), "nothing");
    assert_eq!(ask("configs").ok().trim(), "limit.a=1 limit.b=2 url=its own");
    let said = ask("config other").fails(1);
    assert!(said.contains("`other` denied") && said.contains("add \"other\" to `config`"), "{said}");
    // What nobody allows is not run at all.
    let said = Invocation::new(["exec", file.to_str().unwrap(), "--config", &config]).run().fails(1);
    assert!(said.contains("requests config `url`, config `limit.*`, which is not allowed here"), "{said}");
}

#[test]
fn a_running_host_takes_new_values_and_sources_on_sighup() {
    let world = World::new();
    let text = |url: &str| {
        format!(
            "concurrency = 2\nsecrets = {{ key = {{ env = '{url}_KEY' }} }}\n[script_config.'*']\nurl = '{url}'\n\
             [permissions.'*']\nconfig = ['*']\nsecrets = ['*']\n"
        )
    };
    let config = world.config(&text("FIRST"));
    world.file("ask", "config = ['url']\nsecrets = ['key']");
    let file = world.folder.path().join("ask.wasm");
    world.cli(&["publish", file.to_str().unwrap(), "--config", &config]).run().ok();
    let mut host = world.host(&["--config", &config]);
    assert_eq!(world.ask("ask", "config url").ok().trim(), "FIRST");
    assert!(world.ask("ask", "try key").ok().contains("the variable `FIRST_KEY` is not set"));
    world.config(&text("SECOND"));
    host.signal("HUP");
    let line = host.wait_for_line("configuration reloaded");
    assert!(line.contains("script_config") && line.contains("secrets"), "{line}");
    assert_eq!(world.ask("ask", "config url").ok().trim(), "SECOND");
    assert!(world.ask("ask", "try key").ok().contains("the variable `SECOND_KEY` is not set"));
}

#[test]
fn a_secret_comes_from_a_variable_a_file_or_the_folder_and_is_read_anew() {
    let world = World::new();
    let folder = world.folder.path().join("mounted");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("of-folder"), "12345678\n").unwrap();
    std::fs::write(folder.join("of-variable"), "hidden by the table").unwrap();
    std::fs::write(world.folder.path().join("single"), "1234567").unwrap();
    let config = world.config(&format!(
        "secrets_dir = '{}'\n[secrets]\nof-variable = {{ env = 'A_KEY' }}\nof-file = {{ file = '{}' }}\n",
        folder.display(),
        world.folder.path().join("single").display()
    ));
    let file = world.file("ask", "secrets = ['of-*', 'absent']");
    let ask = |payload: &str| exec(file.to_str().unwrap(), &config, payload).env("A_KEY", "123456").run();
    for (name, length) in [("of-variable", "6"), ("of-file", "7"), ("of-folder", "8")] {
        assert_eq!(ask(&format!("secret {name}")).ok().trim(), length, "{name}");
    }
    std::fs::write(folder.join("of-folder"), "123456789").unwrap();
    assert_eq!(ask("secret of-folder").ok().trim(), "9");
    let said = ask("secret absent").fails(1);
    assert!(said.contains("no secret `absent`") && said.contains("[secrets]"), "{said}");
    let said = ask("secret other").fails(1);
    assert!(said.contains("`other` denied") && said.contains("add \"other\" to `secrets`"), "{said}");
    // What the table says of one secret does not need a file.
    let said = exec(file.to_str().unwrap(), &config, "secret of-variable").run().fails(1);
    assert!(said.contains("the variable `A_KEY` is not set"), "{said}");
}

#[test]
fn a_secret_in_the_configuration_itself_is_refused_without_showing_it() {
    let world = World::new();
    let config = world.config("[secrets]\ndb = 'hunter22'\n");
    let said = Invocation::new(["doctor", "--config", &config]).run().fails(2);
    assert!(said.contains("{ env = \"VARIABLE\" }") && !said.contains("hunter22"), "{said}");
}

#[test]
fn a_command_finds_them_in_its_environment() {
    let world = World::new();
    let config =
        world.config("secrets = { db-key = { env = 'A_KEY' } }\n[script_config.'*']\n'limit.mib' = '7'\nother = 'x'\n");
    for guest in ["command", "command-preview1"] {
        let file = world.folder.path().join(format!("{guest}.wasm"));
        let manifest = "[permissions]\nconfig = ['limit.*']\nsecrets = ['db-key', 'absent', 'many-*']\n";
        std::fs::write(&file, wasmhost::jumpscript::embed_manifest(&guests::wasm(guest), manifest)).unwrap();
        let ended = exec(file.to_str().unwrap(), &config, "environment").env("A_KEY", "hunter22").run();
        let names: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with("JOB_CONFIG_")).collect();
        assert_eq!(names, ["JOB_CONFIG_LIMIT_MIB=7"], "{guest}: {ended:?}");
        assert!(ended.stdout.contains("JOB_SECRET_DB_KEY=hunter22"), "the result is its own: {ended:?}");
        assert!(ended.stderr.contains("no secret `absent`"), "{ended:?}");
        assert_eq!(ended.stdout.matches("JOB_SECRET").count(), 1, "{ended:?}");
    }
}

#[test]
fn a_script_as_text_has_them_by_its_own_manifest() {
    let world = World::new();
    let config = world.config("secrets = { key = { env = 'A_KEY' } }\n[script_config.'*']\nurl = 'here'\n");
    for (language, file, comment, text) in [
        ("rhai", "asking.rhai", "//", "log('info', secret('key')); `${config('url')} ${config('none') == ()}`"),
        ("javascript", "asking.js", "//", "log('info', secret('key')); `${config('url')} ${config('none') === null}`"),
        (
            "python",
            "asking.py",
            "#",
            "log('info', secret('key'))\nf'{config(\"url\")} {config(\"none\") is None}'.lower()",
        ),
    ] {
        let Ok(interpreter) = guests::interpreter(language) else {
            eprintln!("skipped {language}: it is not built here");
            continue;
        };
        let code = world.folder.path().join(format!("{language}.wasm"));
        std::fs::write(&code, interpreter).unwrap();
        let manifest = ["/// jumpscript", "[permissions]", "config = ['url', 'none']", "secrets = ['key']", "///"];
        let manifest = manifest.map(|line| format!("{comment} {line}\n")).concat();
        let file = world.folder.path().join(file);
        std::fs::write(&file, format!("{manifest}{}\n", text.replace('\'', "\""))).unwrap();
        let (file, code) = (file.to_str().unwrap(), code.to_str().unwrap());
        let arguments = ["exec", file, "--interpreter", code, "--allow-requested", "--config", &config];
        let ended = Invocation::new(arguments).env("A_KEY", "hunter22").run();
        assert_eq!(ended.stdout.trim(), "\"here true\"", "{language}: {ended:?}");
        assert!(ended.stderr.contains("***") && !ended.stderr.contains("hunter22"), "{language}: {ended:?}");
    }
}
