//! Clients that vanish without a word: no FIN, no RST, nothing.

use std::time::{Duration, Instant};

use lineshaft::proto::v1;

use crate::support::{PATIENCE, Server, isolated, noop, run};

/// Connections that the server's process holds open, in every state.
fn sockets(server: &Server) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Switches the loopback device, as `ip link set lo up` does.
fn network(up: bool) {
    const SWITCH: &str = "import fcntl, socket, struct, sys\n\
        flags = struct.pack('16sh14x', b'lo', int(sys.argv[1]))\n\
        fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, flags)";
    let (done, said) = run("python3", ["-c", SWITCH, if up { "1" } else { "0" }]);
    assert!(done, "{said}");
}

#[tokio::test]
async fn a_client_that_vanishes_is_dropped_after_the_keepalive_and_its_watch_ends() {
    if !isolated("half_open::a_client_that_vanishes_is_dropped_after_the_keepalive_and_its_watch_ends", &["net"]) {
        return;
    }
    network(true);
    let mut server = Server::start("[server]\nkeepalive_interval = \"1s\"\nkeepalive_timeout = \"1s\"\n");
    let before = sockets(&server);
    // Clients of one connection each, that never ask whether the server is there.
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut tasks = server.tasks();
        watches.push(tasks.watch_tasks(v1::WatchTasksRequest::default()).await.unwrap().into_inner());
    }
    assert_eq!(sockets(&server), before + 5);
    // A quiet client that answers stays, however long.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sockets(&server), before + 5, "{}", server.log());

    // All the ways are cut at once: whatever either side sends is lost.
    network(false);
    let cut = Instant::now();
    while sockets(&server) > before {
        assert!(cut.elapsed() < PATIENCE, "{} sockets are still open", sockets(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = cut.elapsed();
    assert!(took < Duration::from_secs(10), "dropped after {took:?}");

    network(true);
    server.tasks().submit_task(noop()).await.expect("new clients are served");
    // The body of a watch is dropped with its connection: a drain has nobody to wait for.
    let began = Instant::now();
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(5), "the drain took {:?}", began.elapsed());
    drop(watches);
}
