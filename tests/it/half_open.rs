//! Clients that disappear without closing their connection: no FIN and no RST is sent.

use std::time::{Duration, Instant};

use lineshaft::proto::v1;

use crate::support::{Server, TIMEOUT, isolated, noop, run};

/// Connections that the server's process holds open, in every state.
fn sockets(server: &Server) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Switches the loopback interface on or off, like `ip link set lo up`.
fn network(up: bool) {
    const SWITCH: &str = "import fcntl, socket, struct, sys\n\
        flags = struct.pack('16sh14x', b'lo', int(sys.argv[1]))\n\
        fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, flags)";
    let (success, output) = run("python3", ["-c", SWITCH, if up { "1" } else { "0" }]);
    assert!(success, "{output}");
}

#[tokio::test]
async fn a_vanished_client_is_disconnected_after_the_keepalive_timeout() {
    if !isolated("half_open::a_vanished_client_is_disconnected_after_the_keepalive_timeout", &["net"]) {
        return;
    }
    network(true);
    let mut server = Server::start("[server]\nkeepalive_interval = \"1s\"\nkeepalive_timeout = \"1s\"\n");
    let before = sockets(&server);
    // One connection per client; none of them sends keepalive pings itself.
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut tasks = server.tasks();
        watches.push(tasks.watch_tasks(v1::WatchTasksRequest::default()).await.unwrap().into_inner());
    }
    assert_eq!(sockets(&server), before + 5);
    // An idle client that answers pings stays connected.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sockets(&server), before + 5, "{}", server.log());

    // Everything that either side sends from here on is lost.
    network(false);
    let cut = Instant::now();
    while sockets(&server) > before {
        assert!(cut.elapsed() < TIMEOUT, "{} sockets are still open", sockets(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = cut.elapsed();
    assert!(took < Duration::from_secs(10), "disconnected after {took:?}");

    network(true);
    server.tasks().submit_task(noop()).await.expect("new clients are served");
    // The watch ended with its connection, so the drain does not wait for it.
    let started = Instant::now();
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    assert!(started.elapsed() < Duration::from_secs(5), "the drain took {:?}", started.elapsed());
    drop(watches);
}
