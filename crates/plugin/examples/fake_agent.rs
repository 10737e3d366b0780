//! An agent for tests, which answers and does nothing else: `fake_agent agent --on-demand --socket
//! PATH …`.
//!
//! Writes a line with its process id to `PATH.started`, so that tests can count agents, and ends
//! when that file is gone.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::Path,
    time::Duration,
};

use ratchet_protocol::{Attached, Prepared, Reply, Request, parse_request};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let at = args
        .iter()
        .position(|arg| arg == "--socket")
        .expect("--socket is missing");
    let socket = args[at + 1].clone();
    let started = format!("{socket}.started");
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&started)
        .expect("cannot write");
    writeln!(file, "{} {}", std::process::id(), args[1..].join(" ")).expect("cannot write");
    drop(file);
    // Long enough for other plugins to call and find no agent.
    std::thread::sleep(Duration::from_millis(200));
    let listener = UnixListener::bind(&socket).expect("cannot listen");
    std::thread::spawn(move || {
        while Path::new(&started).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::process::exit(0);
    });
    for stream in listener.incoming().flatten() {
        let mut line = Vec::new();
        let mut stream = BufReader::new(stream);
        if stream.read_until(b'\n', &mut line).is_err() || line.is_empty() {
            continue;
        }
        let (protocol, request) = parse_request(&line).expect("not a request");
        let reply = match request {
            Request::Prepare(_) => Reply::Prepared(Prepared { ours: true }),
            Request::Attach(_) => Reply::Attached(Attached::default()),
            _ => Reply::Done,
        };
        let _ = stream.get_mut().write_all(&reply.to_line(protocol));
    }
}
