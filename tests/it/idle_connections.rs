//! Clients that connect and send nothing or only part of a request.

use std::net::TcpStream;

use rustix::process::Signal;

use crate::health_endpoints::{get, health_address};
use crate::http1_client::Connection;
use crate::metrics::{PROMETHEUS, prometheus_addresses};
use crate::support::Server;

/// More than the connection limit of the admin ports.
const MANY: usize = 100;

fn start() -> Server {
    Server::start_with("[server]\nhealth_listen = \"127.0.0.1:0\"\n", &PROMETHEUS)
}

fn idle(address: &str) -> Vec<TcpStream> {
    (0..MANY).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[test]
fn idle_connections_do_not_block_probes_and_scrapes() {
    let server = start();
    let _probes = idle(&health_address(&server));
    let _scrapes: Vec<_> = prometheus_addresses(&server).iter().map(|address| idle(address)).collect();
    // Repeated: a served connection must free its slot.
    for _ in 0..3 {
        assert_eq!(get(&health_address(&server), "/health/live", "").status, 200);
        for address in prometheus_addresses(&server) {
            assert_eq!(get(&address, "/metrics", "").status, 200);
        }
    }
}

#[test]
fn idle_connections_do_not_delay_the_shutdown() {
    let mut server = start();
    let ports = [vec![server.address.clone(), health_address(&server)], prometheus_addresses(&server)].concat();
    let _idle: Vec<_> = ports.iter().map(|address| idle(address)).collect();
    // Kept-alive connections without a call under way do not delay it either.
    let keep_alive = |address: &String| {
        let mut connection = Connection::open_at(address);
        assert_eq!(connection.send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").status, 200);
        connection
    };
    let _kept_alive: Vec<_> = ports.iter().map(keep_alive).collect();
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    assert!(!server.log().contains("calls in flight"), "no call was under way: {}", server.log());
}
