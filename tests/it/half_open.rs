//! Clients that disappear without closing their connection: no FIN and no RST is sent.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lineshaft::proto::v1;

use crate::http2_client::{ACK, PING, connect, frame, read_frame};
use crate::support::{Server, check, eventually, isolated, noop, run};

/// The number of sockets that the server's process has open, in every state.
fn sockets(server: &Server) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Switches the loopback interface on or off, like `ip link set lo up`.
fn set_network(up: bool) {
    const SWITCH: &str = "import fcntl, socket, struct, sys\n\
        flags = struct.pack('16sh14x', b'lo', int(sys.argv[1]))\n\
        fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, flags)";
    let (success, output) = run("python3", ["-c", SWITCH, if up { "1" } else { "0" }]);
    assert!(success, "{output}");
}

/// Reads pings of the server and acknowledges them.
fn answer_pings(client: &mut TcpStream, count: usize) {
    let mut answered = 0;
    while answered < count {
        let ping = read_frame(client).expect("the connection stays open");
        if ping.kind == PING && ping.flags & ACK == 0 {
            client.write_all(&frame(PING, ACK, 0, &ping.content)).unwrap();
            answered += 1;
        }
    }
}

#[tokio::test]
async fn a_vanished_client_is_disconnected_after_the_keepalive_timeout() {
    if !isolated("half_open::a_vanished_client_is_disconnected_after_the_keepalive_timeout", &["net"]) {
        return;
    }
    set_network(true);
    let mut server = Server::start("[server]\nkeepalive_interval = \"1s\"\nkeepalive_timeout = \"1s\"\n");
    let before = sockets(&server);
    // One connection per client. The clients send no pings of their own.
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut tasks = server.tasks();
        watches.push(tasks.watch_tasks(v1::WatchTasksRequest::default()).await.unwrap().into_inner());
    }
    let mut idle = connect(&server);
    // Idle clients that answer pings stay connected. A client that answers none is disconnected after the interval and
    // the timeout, so it gets no third ping.
    let idle = tokio::task::spawn_blocking(move || {
        answer_pings(&mut idle, 3);
        idle
    });
    let idle = idle.await.unwrap();
    assert_eq!(sockets(&server), before + 6, "{}", server.log());

    // Everything that either side sends from here on is lost.
    set_network(false);
    let cut = Instant::now();
    eventually(async || {
        let open = sockets(&server);
        check(open <= before, || format!("{open} sockets are still open"))
    })
    .await;
    let took = cut.elapsed();
    assert!(took < Duration::from_secs(10), "disconnected after {took:?}");

    set_network(true);
    server.tasks().submit_task(noop()).await.expect("new clients are served");
    // The watch ended with its connection, so the drain does not wait for it.
    let started = Instant::now();
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
    assert!(started.elapsed() < Duration::from_secs(5), "the drain took {:?}", started.elapsed());
    drop((watches, idle));
}
