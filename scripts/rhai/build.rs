//! Gives the interpreter the stack that nested scripts need: the 64 KiB of other jumpscripts hold a few calls only.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-cdylib=-zstack-size=1048576");
}
