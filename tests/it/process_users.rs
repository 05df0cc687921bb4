//! What a program of a handler can reach of the server.

use lineshaft::proto::v1::SubmitTaskRequest;

use crate::support::{Server, bytes, without_root};

/// Prints the files of its own process and of the server's processes that it can open.
const OPEN_FILES_OF_PROC: &str = r#"
read _ _ _ supervisor _ < /proc/$PPID/stat
read _ _ _ server _ < /proc/$supervisor/stat
for process in self:$$ shim:$PPID supervisor:$supervisor server:$server; do
    for file in environ maps mem fd/0; do
        { : < "/proc/${process#*:}/$file"; } 2>/dev/null && echo "${process%:*} $file"
    done
done
exit 0
"#;

/// A handler that runs a script.
fn handler(name: &str, script: &str) -> String {
    format!("[[handler]]\nname = \"{name}\"\nrunner = \"process\"\nargv = [\"/bin/bash\", \"-c\", {script:?}]\n")
}

async fn result(server: &Server, name: &str) -> String {
    let id = server.submit(SubmitTaskRequest { handler: name.into(), ..Default::default() }).await;
    let ended = server.wait_finished(&id).await;
    assert!(ended.result.is_some(), "{ended:?}");
    bytes(ended.result.as_ref())
}

#[tokio::test]
async fn a_program_of_the_same_user_cannot_read_environment_memory_or_files_of_the_server() {
    let server = Server::start_under(without_root(), &handler("look", OPEN_FILES_OF_PROC));
    assert_eq!(result(&server, "look").await, "self environ\nself maps\nself mem\nself fd/0\n");
}
