//! Callers that connect and say nothing, or not all of it: they keep nobody out and hold nothing up.

use std::net::TcpStream;

use rustix::process::Signal;

use crate::health_endpoints::{get, probes};
use crate::http1_client::Connection;
use crate::metrics::{PROMETHEUS, scraped};
use crate::support::Server;

/// More than the ports beside the server's own serve at a time.
const MANY: usize = 100;

fn start() -> Server {
    Server::start_with("[server]\nhealth_listen = \"127.0.0.1:0\"\n", &PROMETHEUS)
}

fn silent(address: &str) -> Vec<TcpStream> {
    (0..MANY).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[test]
fn probes_and_scrapes_are_answered_however_many_others_sit_there_in_silence() {
    let server = start();
    let _probes = silent(&probes(&server));
    let _scrapes: Vec<_> = scraped(&server).iter().map(|address| silent(address)).collect();
    // More than once: whoever is served does not take the place of the next one.
    for _ in 0..3 {
        assert_eq!(get(&probes(&server), "/health/live", "").status, 200);
        for address in scraped(&server) {
            assert_eq!(get(&address, "/metrics", "").status, 200);
        }
    }
}

#[test]
fn the_server_ends_although_others_sit_there_in_silence() {
    let mut server = start();
    let ports = [vec![server.address.clone(), probes(&server)], scraped(&server)].concat();
    let _silent: Vec<_> = ports.iter().map(|address| silent(address)).collect();
    // Nor does it wait for those who have had an answer and may ask again.
    let kept = |address: &String| {
        let mut kept = Connection::open_at(address);
        assert_eq!(kept.send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").status, 200);
        kept
    };
    let _kept: Vec<_> = ports.iter().map(kept).collect();
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    assert!(!server.log().contains("calls in flight"), "nobody had a call under way: {}", server.log());
}
