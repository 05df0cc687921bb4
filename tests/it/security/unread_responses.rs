//! Callers that do not read their responses. Others are served meanwhile, and the responses end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use lineshaft::proto::v1::{self, watch_tasks_response::Kind};
use prost::Message;
use rustix::net::{AddressFamily, SocketType};

use super::connection_limits::post_to;
use super::{Caller, Tokens};
use crate::health_endpoints::{health_address, samples};
use crate::http2_client::{
    ArrivedFrames, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame,
};
use crate::support::{Server, check, eventually, noop, task};

pub const LIST: &str = "/lineshaft.v1.TaskService/ListTasks";
pub const WATCH: &str = "/lineshaft.v1.TaskService/WatchTasks";
const CONNECTIONS: usize = 3;
pub const STREAMS: u32 = 250;
/// A page of these tasks has about 3 MiB.
const TASKS: usize = 800;
const CONFIG: &str = "
[server]
health_listen = \"127.0.0.1:0\"
send_timeout = \"5s\"
[limits]
response_bytes = \"16MiB\"
";

/// A server with tasks that have long labels, the token of a caller that does not read, and another caller.
async fn start() -> (Server, String, Caller) {
    let tokens = Tokens::new();
    let greedy = tokens.create("greedy", "viewer", "*", &[]);
    let other = tokens.create("other", "submitter", "*", &[]);
    let server = tokens.serve(CONFIG);
    let other = Caller::new(&server, &other);
    let labels = (0..16).map(|n| (format!("label-{n}"), "x".repeat(250))).collect();
    let task = v1::SubmitTaskRequest { labels, ..noop() };
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![task; TASKS], ..Default::default() };
    other.tasks().batch_submit_tasks(batch).await.unwrap();
    (server, greedy, other)
}

async fn list(caller: &Caller) -> Result<usize, String> {
    let request = v1::ListTasksRequest { page_size: 1_000, ..Default::default() };
    let page = caller.tasks().list_tasks(request).await.map_err(|status| status.to_string())?;
    Ok(page.into_inner().tasks.len())
}

fn used(server: &Server) -> u64 {
    used_for("responses", server)
}

fn used_for(part: &str, server: &Server) -> u64 {
    let name = format!("lineshaft_memory_used_bytes{{part=\"{part}\"}}");
    samples(&health_address(server))[&name].parse().unwrap()
}

/// A connection whose receive window is `window` bytes for each stream.
fn connect(server: &Server, window: u32) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(PREFACE).unwrap();
    let window = [&[0, 4][..], &window.to_be_bytes()].concat();
    stream.write_all(&frame(SETTINGS, 0, 0, &window)).unwrap();
    stream
}

pub fn call(stream: u32, path: &str, token: &str, message: &impl Message) -> Vec<u8> {
    let authorization = format!("Bearer {token}");
    let head = frame(HEADERS, END_HEADERS, stream, &post_to(path, &[("authorization", &authorization)]));
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [head, frame(DATA, END_STREAM, stream, &[&[0], &length[..], &message].concat())].concat()
}

/// Calls whose responses are not read.
pub struct Unread {
    frames: ArrivedFrames,
    /// Responses that have begun.
    pub begun: usize,
    /// Responses that are an error and nothing else.
    pub refused: usize,
    /// Streams that the server has reset.
    reset: usize,
}

impl Unread {
    pub fn open(server: &Server, window: u32, path: &str, token: &str, message: &impl Message) -> Self {
        let mut connection = connect(server, window);
        for number in 0..STREAMS {
            connection.write_all(&call(2 * number + 1, path, token, message)).unwrap();
        }
        Self { frames: ArrivedFrames::of(connection), begun: 0, refused: 0, reset: 0 }
    }

    pub fn count(&mut self) {
        for (kind, flags) in self.frames.take() {
            match kind {
                HEADERS if flags & END_STREAM != 0 => self.refused += 1,
                HEADERS => self.begun += 1,
                RST_STREAM => self.reset += 1,
                _ => {}
            }
        }
    }
}

/// The sum over all connections, as they are now.
pub fn total(unread: &mut [Unread], count: fn(&Unread) -> usize) -> usize {
    unread.iter_mut().for_each(Unread::count);
    unread.iter().map(count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_that_are_not_read_are_bounded_and_end() {
    let (server, token, other) = start().await;
    let before = server.peak_memory();
    let page = v1::ListTasksRequest { page_size: 1_000, ..Default::default() };
    // The second window lets all but the last byte through to the connection.
    for window in [0, 1] {
        let mut unread: Vec<_> = (0..CONNECTIONS).map(|_| Unread::open(&server, window, LIST, &token, &page)).collect();
        let calls = CONNECTIONS * STREAMS as usize;
        eventually(async || {
            let responses = total(&mut unread, |calls| calls.begun + calls.refused);
            check(responses == calls, || format!("{responses} responses to {calls} calls"))
        })
        .await;
        let (held, used_then) = (total(&mut unread, |calls| calls.begun), used(&server));
        println!("{held} responses are held, {} MiB, peak {} MiB", used_then >> 20, server.peak_memory() >> 20);
        assert!(list(&other).await.unwrap() > 500, "the other half of the memory is for other callers");
        eventually(async || {
            let ended = total(&mut unread, |calls| calls.reset);
            check(ended == held && used(&server) == 0, || format!("{ended} of {held} responses have ended"))
        })
        .await;
    }
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for responses that were not read");
}

/// Reads a watch of all events until it has caught up. Returns the number of events.
async fn read_all_events(caller: &Caller, resume_token: &str, last: u64) -> usize {
    let request = v1::WatchTasksRequest { resume_token: resume_token.to_owned(), ..Default::default() };
    let mut watch = caller.tasks().watch_tasks(request).await.unwrap().into_inner();
    let mut seen = 0;
    loop {
        if let Some(Kind::Event(event)) = watch.message().await.unwrap().expect("the watch ended").kind {
            seen += 1;
            assert_eq!(event.revision, seen as u64);
            if event.revision == last {
                return seen;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_old_events_that_are_not_read_are_bounded_and_others_read_all_events() {
    let tokens = Tokens::new();
    let greedy = tokens.create("greedy", "viewer", "*", &[]);
    let other = tokens.create("other", "submitter", "*", &[]);
    let server = tokens.serve(CONFIG);
    let other = Caller::new(&server, &other);
    let batch = v1::BatchSubmitTasksRequest { tasks: vec![noop(); 10_000], ..Default::default() };
    other.tasks().batch_submit_tasks(batch).await.unwrap();
    // More than the events that are kept in memory, so that watches from the beginning read the journal.
    let large = || task("compute", &format!("\"{}\"", "x".repeat(1_000_000)));
    for _ in 0..20 {
        other.tasks().submit_task(large()).await.unwrap();
    }
    let last = eventually(async || {
        let filter = v1::TaskFilter {
            states: vec![v1::TaskState::Queued.into(), v1::TaskState::Running.into()],
            ..Default::default()
        };
        let request = v1::ListTasksRequest { page_size: 1, filter: Some(filter), ..Default::default() };
        let page = other.tasks().list_tasks(request).await.unwrap().into_inner();
        check(page.tasks.is_empty(), || "tasks are unfinished".to_owned())?;
        Ok(page.revision)
    })
    .await;
    let info = other.system().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    let before = server.peak_memory();
    let request = v1::WatchTasksRequest { resume_token: info.oldest_resume_token.clone(), ..Default::default() };
    let mut unread: Vec<_> = (0..2).map(|_| Unread::open(&server, 0, WATCH, &greedy, &request)).collect();
    let calls = unread.len() * STREAMS as usize;
    eventually(async || {
        let begun = total(&mut unread, |calls| calls.begun);
        check(begun == calls, || format!("{begun} of {calls} watches have begun"))
    })
    .await;
    assert_eq!(read_all_events(&other, &info.oldest_resume_token, last).await as u64, last);
    other.tasks().submit_task(noop()).await.unwrap();
    let reads = used_for("stream_reads", &server);
    eventually(async || {
        let ended = total(&mut unread, |calls| calls.reset);
        let used = (used(&server), used_for("stream_reads", &server));
        check(ended == calls && used == (0, 0), || format!("{ended} of {calls} watches have ended, {used:?} bytes"))
    })
    .await;
    let grown = server.peak_memory().saturating_sub(before);
    println!("{} MiB of reads, {} MiB more", reads >> 20, grown >> 20);
    assert!(reads <= 16 << 20, "{reads} bytes");
    assert!(grown < 96 << 20, "{grown} bytes for {calls} watches");
}

/// Connects with a small receive buffer.
fn connect_http1(server: &Server) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 10).unwrap();
    rustix::net::connect(&socket, &server.address.parse::<SocketAddr>().unwrap()).unwrap();
    socket.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_connections_whose_responses_are_not_read_are_closed() {
    let (server, token, other) = start().await;
    let before = server.peak_memory();
    let body = "{\"pageSize\":1000}";
    let request = format!(
        "POST {LIST} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let unread: Vec<_> = (0..32)
        .map(|_| {
            let mut connection = connect_http1(&server);
            // More than the buffers of the operating system have room for.
            connection.write_all(request.repeat(4).as_bytes()).unwrap();
            connection
        })
        .collect();
    eventually(async || check(used(&server) > 4 << 20, || format!("{} bytes", used(&server)))).await;
    assert!(list(&other).await.unwrap() > 500);
    eventually(async || check(used(&server) == 0, || format!("{} bytes are still held", used(&server)))).await;
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 96 << 20, "{grown} bytes for responses that were not read");
    // Not one of them has received all four responses.
    for mut connection in unread {
        let mut received = Vec::new();
        // Ends with a reset if the server had more to send.
        let _ = connection.read_to_end(&mut received);
        assert!(received.len() < 4 * (3 << 20), "{} bytes", received.len());
    }
}
