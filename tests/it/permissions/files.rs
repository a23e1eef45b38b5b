//! Directories: for reading, where the node allows them, and not a step further.

use super::World;
use crate::support::program::Invocation;

#[test]
fn a_granted_directory_is_read_and_never_written() {
    let world = World::new();
    let shared = world.folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("rate"), "1.17").unwrap();
    std::fs::write(world.folder.path().join("beside"), "secret").unwrap();
    std::os::unix::fs::symlink("../beside", shared.join("way-out")).unwrap();
    let shared = shared.to_str().unwrap();
    let file = world.file("ask", &format!("files = ['{shared}']"));
    let ask = |payload: &str| {
        Invocation::new(["exec", file.to_str().unwrap(), "--allow-requested", "--payload", payload]).run().ok()
    };
    assert_eq!(ask(&format!("read {shared}/rate")).trim(), "1.17");
    for payload in ["way-out", "../beside"] {
        let said = ask(&format!("read {shared}/{payload}"));
        assert!(said.contains("error") && !said.contains("secret"), "{payload}: {said}");
    }
    assert!(ask(&format!("write {shared}/rate")).contains("error"));
    assert!(ask(&format!("write {shared}/new")).contains("error"));
    assert_eq!(std::fs::read_to_string(format!("{shared}/rate")).unwrap(), "1.17");
    assert!(ask("read /etc/passwd").contains("error"));
}

#[test]
fn a_link_that_leads_out_of_what_is_allowed_is_not_opened() {
    let world = World::new();
    let root = world.folder.path().canonicalize().unwrap();
    for name in ["allowed", "elsewhere"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    std::fs::write(root.join("elsewhere/rate"), "1.17").unwrap();
    std::os::unix::fs::symlink(root.join("elsewhere"), root.join("allowed/link")).unwrap();
    let link = root.join("allowed/link").display().to_string();
    let file = world.file("ask", &format!("files = ['{link}']"));
    let config = world.config(&format!("[permissions.'*']\nfiles = ['{}']\n", root.join("allowed").display()));
    let payload = format!("read {link}/rate");
    let ended = Invocation::new(["exec", file.to_str().unwrap(), "--config", &config, "--payload", &payload]).run();
    assert!(ended.stdout.contains("error"), "{ended:?}");
    assert!(ended.stderr.contains("leads out of"), "{ended:?}");
}
