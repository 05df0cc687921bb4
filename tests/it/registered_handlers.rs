//! Handlers that workers register when they connect.

use lineshaft::proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use crate::support::{Server, fields, reason, task};

/// An introduction with these handlers and descriptions.
pub fn offer(handlers: &[(&str, &str)]) -> v1::WorkRequest {
    let handler = |(name, description): &(&str, &str)| {
        let (name, description) = ((*name).to_owned(), (*description).to_owned());
        v1::WorkerHandler { name, description }
    };
    let handlers = handlers.iter().map(handler).collect();
    let hello = v1::WorkerHello { worker_id: "w".to_owned(), handlers, slots: 1, ..v1::WorkerHello::default() };
    v1::WorkRequest { hello: Some(hello), messages: Vec::new() }
}

/// Connects a worker, until it is welcome, and disconnects it.
pub async fn connect(server: &Server, first: v1::WorkRequest) -> Result<(), Status> {
    let (requests, sent) = mpsc::unbounded_channel();
    requests.send(first).unwrap();
    let mut responses = server.workers().work(UnboundedReceiverStream::new(sent)).await?.into_inner();
    responses.message().await?.expect("a response").welcome.expect("a welcome");
    Ok(())
}

pub async fn handler(server: &Server, name: &str) -> Result<v1::Handler, Status> {
    let found = server.handlers().get_handler(v1::GetHandlerRequest { name: name.to_owned() }).await?;
    Ok(found.into_inner().handler.unwrap())
}

#[tokio::test]
async fn a_handler_that_a_worker_has_offered_is_known_for_good() {
    let mut server = Server::start("");
    let unknown = server.tasks().submit_task(task("resize", "")).await.unwrap_err();
    assert_eq!(reason(&unknown), "UNKNOWN_HANDLER");
    assert!(unknown.message().contains("start a worker that offers it"), "{unknown:?}");
    connect(&server, offer(&[("resize", "shrinks pictures")])).await.unwrap();
    connect(&server, offer(&[("resize", "enlarges pictures"), ("thumb", "")])).await.unwrap();
    for restarted in [false, true] {
        let found = handler(&server, "resize").await.unwrap();
        assert_eq!((found.runner.as_str(), found.pool.as_str()), ("remote", "remote"), "{restarted}");
        assert_eq!(found.description, "shrinks pictures", "the first one counts");
        let all = server.handlers().list_handlers(v1::ListHandlersRequest {}).await.unwrap().into_inner().handlers;
        let names: Vec<_> = all.iter().map(|handler| handler.name.as_str()).collect();
        assert_eq!(names, ["compute", "expression", "heavy", "io", "resize", "thumb"]);
        let id = server.submit(task("resize", "")).await;
        assert_eq!(server.get(&id).await.pool, "remote");
        if !restarted {
            server.kill9();
            server.start_again();
        }
    }
}

#[tokio::test]
async fn a_worker_without_a_remote_pool_learns_what_to_add_to_the_configuration() {
    let server = Server::start("[[pool]]\nname = \"default\"\n");
    let refused = connect(&server, offer(&[("greet", "")])).await.unwrap_err();
    assert_eq!(reason(&refused), "UNKNOWN_POOL");
    assert!(refused.message().contains("add [[pool]] with name = \"remote\" and kind = \"remote\""), "{refused}");
}

#[tokio::test]
async fn a_worker_cannot_offer_what_the_server_runs() {
    let server = Server::start("");
    let refused = connect(&server, offer(&[("resize", ""), ("compute", "")])).await.unwrap_err();
    assert_eq!(
        (reason(&refused).as_str(), fields(&refused)),
        ("INVALID_FIELD", vec!["hello.handlers[1].name".to_owned()])
    );
    assert!(refused.message().contains("runner `builtin`"), "{refused:?}");
    assert_eq!(reason(&handler(&server, "resize").await.unwrap_err()), "UNKNOWN_HANDLER");
}
