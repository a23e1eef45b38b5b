//! A WASI command: does what the first word on stdin says. Built for preview 1 and preview 2.

use std::io::{Read as _, Write as _};

fn main() {
    let mut payload = String::new();
    std::io::stdin().read_to_string(&mut payload).expect("stdin is text");
    let (word, number) = payload.split_once(' ').unwrap_or((&payload, "0"));
    match word {
        "exit" => {
            eprintln!("leaving with {number}");
            std::process::exit(number.parse().expect("a number"));
        }
        "environment" => {
            let mut names: Vec<_> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            names.sort();
            print!("{}", names.join("\n"));
        }
        "result" => {
            let bytes = vec![b'x'; number.parse().expect("a number")];
            let _ = std::io::stdout().write_all(&bytes);
        }
        "code" => {
            print!("so far");
            eprintln!("leaving with {number}");
            wasmhost_guest::exit(number.parse().expect("a number"));
        }
        #[cfg(target_env = "p2")]
        "state" => {
            let counter = wasmhost_guest::state::open(number).expect("a bucket");
            let sum = counter.increment("n", 1).expect("a number");
            let id = wasmhost_guest::jobs::enqueue("children", "echo", "hi").expect("a queue");
            print!("{sum} {}", id.len());
        }
        #[cfg(target_env = "p2")]
        "get" => match wasmhost_guest::http::get(number) {
            Ok(answer) => print!("{} {}", answer.status, answer.text()),
            Err(error) => print!("{error}"),
        },
        "panic" => panic!("the spring broke"),
        "loop" => loop {
            std::hint::black_box(());
        },
        _ => print!("{payload}"),
    }
}
