//! Artifacts: who may list and download them.

use lineshaft::proto::v1::{self, TaskState};
use tonic::Code;

use super::{Caller, Tokens};
use crate::http1_client::{Connection, Response};
use crate::support::{Server, reason, seconds, task};

const CONFIG: &str = r#"
[[handler]]
name = "leave"
runner = "process"
argv = ["/bin/sh", "-c", "printf secret >$LINESHAFT_ARTIFACTS/file"]
artifacts = true
"#;

fn get(server: &Server, path: &str, token: Option<&str>) -> Response {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{token}\r\n");
    Connection::open(server).send(request.as_bytes())
}

#[tokio::test]
async fn artifacts_have_the_rights_of_their_task_and_links_need_none() {
    let tokens = Tokens::new();
    let own = tokens.create("own", "submitter", "team-a", &[]);
    let viewer = tokens.create("viewer", "viewer", "team-a", &[]);
    let foreign = tokens.create("foreign", "admin", "team-b", &[]);
    let server = tokens.serve(CONFIG);
    let caller = Caller::new(&server, &own);
    let request = v1::SubmitTaskRequest { task_id: "t".to_owned(), ..task("leave", "") };
    caller.tasks().submit_task(request).await.unwrap();
    let wait = v1::WaitTaskRequest { task_id: "t".to_owned(), timeout: seconds(60) };
    let done = caller.tasks().wait_task(wait).await.unwrap().into_inner().task.unwrap();
    assert_eq!(done.state(), TaskState::Completed, "{done:?}");
    let listed = |token: String| {
        let caller = Caller::new(&server, &token);
        async move {
            let request = v1::ListArtifactsRequest { task_id: "team-a/t".to_owned(), link_lifetime: None };
            caller.artifacts().list_artifacts(request).await.map(tonic::Response::into_inner)
        }
    };
    let link = listed(viewer.clone()).await.unwrap().artifacts[0].link.clone();
    let hidden = listed(foreign.clone()).await.unwrap_err();
    assert_eq!((hidden.code(), reason(&hidden)), (Code::NotFound, "TASK_NOT_FOUND".to_owned()));
    let read = v1::ReadArtifactRequest {
        task_id: "team-a/t".to_owned(),
        name: "file".to_owned(),
        ..v1::ReadArtifactRequest::default()
    };
    let hidden = Caller::new(&server, &foreign).artifacts().read_artifact(read).await.unwrap_err();
    assert_eq!(reason(&hidden), "TASK_NOT_FOUND");
    for (path, token, status) in [
        ("/artifacts/team-a/t/file", Some(&viewer), 200),
        ("/artifacts/t/file", Some(&own), 200),
        ("/artifacts/team-a/t/file", Some(&foreign), 404),
        ("/artifacts/t/file", Some(&foreign), 404),
        ("/artifacts/team-a/t/file", None, 401),
        (&link, None, 200),
        (&link.replace("signature=", "signature=x"), None, 403),
    ] {
        let response = get(&server, path, token.map(String::as_str));
        assert_eq!(response.status, status, "{path}: {response:?}");
        assert_eq!(response.body == b"secret", status == 200, "{path}");
    }
}
