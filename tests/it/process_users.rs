//! Programs of handlers as the user of the server, and as users of their own: what they can reach of the server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lineshaft::proto::v1::{self, SubmitTaskRequest, TaskState};

use crate::support::{BINARY, Server, bytes, check, children, eventually, is_running, run, without_root};

/// Prints the files of its own process and of the server's processes that it can open, and those of these processes that
/// it can send signals to.
const LOOK_AROUND: &str = r#"
read _ _ _ supervisor _ < /proc/$PPID/stat
read _ _ _ server _ < /proc/$supervisor/stat
for process in self:$$ shim:$PPID supervisor:$supervisor server:$server; do
    for file in environ maps mem fd/0; do
        { : < "/proc/${process#*:}/$file"; } 2>/dev/null && echo "${process%:*} $file"
    done
    kill -0 "${process#*:}" 2>/dev/null && echo "${process%:*} signals"
done
exit 0
"#;

/// Starts a program as user 1000 of a new user namespace, who has the capabilities named first and no others. There are
/// two more users: 2000 and 2001. Only root can do this.
const IN_USER_NAMESPACE: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result != 0: raise OSError(ctypes.get_errno(), 'failed')
BITS = {'chown': 0, 'kill': 5, 'setgid': 6, 'setuid': 7}
bits = [BITS[name] for name in sys.argv[1].split(',')]
server, (reader, writer) = os.getpid(), os.pipe()
mapper = os.fork()
if mapper == 0:
    os.read(reader, 1)
    for file in 'uid_map', 'gid_map':
        with open(f'/proc/{server}/{file}', 'w') as ids: ids.write('1000 0 1\\n2000 64000 2\\n')
    os._exit(0)
check(libc.unshare(0x10000000))
os.write(writer, b'x')
check(os.waitpid(mapper, 0)[1])
mask = sum(1 << bit for bit in bits)
check(libc.capset(struct.pack('=Ii', 0x20080522, 0), struct.pack('=6I', mask, mask, mask, 0, 0, 0)))
for bit in bits: check(libc.prctl(47, 2, bit, 0, 0))
os.execv(sys.argv[2], sys.argv[2:])
";

const NEEDED: &str = "chown,kill,setgid,setuid";

fn in_user_namespace(capabilities: &str) -> [&str; 4] {
    ["python3", "-c", IN_USER_NAMESPACE, capabilities]
}

/// How to start servers that may run programs as other users: as root, and as a user with the capabilities for it. Without
/// root there is none of both: then each test of them checks that the server refuses to start.
#[expect(clippy::print_stderr, reason = "shows what is not tested")]
fn privileged() -> Vec<Vec<&'static str>> {
    if rustix::process::geteuid().is_root() {
        return vec![vec![], in_user_namespace(NEEDED).to_vec()];
    }
    eprintln!("without root, this test checks only that the server does not start");
    assert_not_started(
        &[],
        &[("user", "2000"), ("group", "2000")],
        "lacks CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID;",
    );
    Vec::new()
}

fn assert_not_started(wrapper: &[&str], settings: &[(&str, &str)], text: &str) {
    let log = Server::fail_to_start_under(wrapper, &handler("sh", "true", settings), &[]);
    assert!(log.contains(text), "{settings:?}: {text:?} is not in {log}");
}

/// A handler that runs a script.
fn handler(name: &str, script: &str, settings: &[(&str, &str)]) -> String {
    let settings = settings.iter().map(|(name, value)| format!("{name} = {value:?}\n")).collect::<Vec<_>>().concat();
    let argv = format!("argv = [\"/bin/bash\", \"-c\", {script:?}, \"sh\"]\narg_pattern = '(?s).*'\n");
    let rest = "grace = \"300ms\"\nretry = { attempts = 1 }\n";
    format!("[[handler]]\nname = \"{name}\"\nrunner = \"process\"\n{argv}{rest}{settings}")
}

/// A handler whose tasks run their argument as a script, as user 2000.
fn shell() -> String {
    handler("sh", "eval \"$1\"", &[("user", "2000"), ("group", "2000")])
}

fn script(script: &str) -> SubmitTaskRequest {
    SubmitTaskRequest { handler: "sh".into(), args: vec![script.to_owned()], ..Default::default() }
}

async fn result(server: &Server, request: SubmitTaskRequest) -> String {
    let ended = server.wait_finished(&server.submit(request).await).await;
    assert!(ended.result.is_some(), "{ended:?}");
    bytes(ended.result.as_ref())
}

/// A directory in which every user can create files.
fn shared(server: &Server) -> std::path::PathBuf {
    let path = server.path("shared");
    fs::create_dir(&path).unwrap();
    run("chmod", ["777", path.to_str().unwrap()]);
    path
}

async fn wait_for(path: &Path) {
    eventually(async || check(path.exists(), || format!("{} is missing", path.display()))).await;
}

#[tokio::test]
async fn a_program_of_the_same_user_cannot_read_environment_memory_or_files_of_the_server() {
    let server = Server::start_under(without_root(), &handler("look", LOOK_AROUND, &[]));
    let found = result(&server, SubmitTaskRequest { handler: "look".into(), ..Default::default() }).await;
    let files: Vec<_> = found.lines().filter(|line| !line.ends_with("signals")).collect();
    assert_eq!(files, ["self environ", "self maps", "self mem", "self fd/0"], "{found}");
}

#[tokio::test]
async fn a_program_of_another_user_reaches_neither_processes_nor_files_of_the_server() {
    for wrapper in privileged() {
        let server = Server::start_for_users(&wrapper, &shell());
        let found = result(&server, script(LOOK_AROUND)).await;
        assert_eq!(found, "self environ\nself maps\nself mem\nself fd/0\nself signals\n", "{wrapper:?}");
        // Its directory is two levels below the data directory. The files that it knows are readable for nobody.
        let steal = "cd ../..; cat journal.db projection.db runs.lock; ls . work; echo > new; mv work mine; echo tried";
        assert_eq!(result(&server, script(steal)).await, "tried\n", "{wrapper:?}");
    }
}

#[tokio::test]
async fn a_program_of_another_user_has_its_pipes_and_its_directory_and_no_privileges() {
    let look = "id -u; id -g; id -G; stat -c %a:%u:%g \"$PWD\"
        read -r payload < /dev/stdin; echo \"$payload\" > /dev/stdout; echo problem > /dev/stderr
        echo > \"$PWD/file\"; stat -c %u \"$PWD/file\"; pwd > /dev/stderr
        grep -E '^(CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs)' /proc/self/status";
    for wrapper in privileged() {
        let server = Server::start_for_users(&wrapper, &shell());
        let payload = v1::Payload { kind: Some(v1::payload::Kind::Data("payload\n".into())), ..Default::default() };
        // The second attempt gets a directory that was removed, the third one that was renamed.
        for script in [script(look), script("true"), script(look)] {
            let is_look = script.args[0] == look;
            let found = result(&server, SubmitTaskRequest { payload: Some(payload.clone()), ..script }).await;
            let capabilities = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| format!("{name}:\t{:016x}\n", 0));
            let expected =
                format!("2000\n2000\n2000\n700:2000:2000\npayload\n2000\n{}NoNewPrivs:\t1\n", capabilities.concat());
            assert_eq!(found, if is_look { expected } else { String::new() }, "{wrapper:?}");
        }
        let left = fs::read_dir(server.path("data/work")).unwrap().count();
        assert!(left <= 1, "{left} directories are left; {}", server.log());
    }
}

#[tokio::test]
async fn a_program_of_the_same_user_gets_no_capabilities_of_the_server_unless_that_is_root() {
    let look = "grep ^CapEff /proc/$$/status";
    for wrapper in privileged() {
        let server = Server::start_for_users(&wrapper, &handler("look", look, &[]));
        let found = result(&server, SubmitTaskRequest { handler: "look".into(), ..Default::default() }).await;
        let none = format!("CapEff:\t{:016x}\n", 0);
        assert_eq!(found == none, !wrapper.is_empty(), "{wrapper:?}: {found}");
    }
}

#[tokio::test]
async fn no_process_of_another_user_outlives_its_attempt_its_shim_or_the_server() {
    for wrapper in privileged() {
        let mut server = Server::start_for_users(&wrapper, &shell());
        let shared = shared(&server);
        let path = |name: &str| shared.join(name);
        let escape = |name: &str| {
            let ready = path(name);
            // Only the processes have the whole number in their command lines.
            let child = "trap \"\" TERM HUP; n=$((7719 + 1)); (sleep $n.20 &); sleep $n.20";
            format!(
                "setsid bash -c '{child}' & until pgrep -f '^sleep 7720[.]20'; do :; done; echo > {}",
                ready.display()
            )
        };
        let id = server.submit(script(&format!("{}; wait", escape("cancelled")))).await;
        wait_for(&path("cancelled")).await;
        server.tasks().cancel_task(v1::CancelTaskRequest { task_id: id.clone(), ..Default::default() }).await.unwrap();
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Cancelled);
        assert!(!is_running("sleep 7720.20"), "{wrapper:?}");

        let id = server.submit(script(&format!("{}; wait", escape("orphaned")))).await;
        wait_for(&path("orphaned")).await;
        let supervisor = children(server.pid()).first().unwrap().0;
        for (shim, _) in children(supervisor) {
            run("kill", ["-9", &shim.to_string()]);
        }
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Failed);
        assert!(!is_running("sleep 7720.20"), "{wrapper:?}");

        let again = path("again");
        let id =
            server.submit(script(&format!("[ -e {} ] || {{ {}; wait; }}", again.display(), escape("again")))).await;
        wait_for(&again).await;
        server.kill9();
        server.start_again();
        assert!(!is_running("sleep 7720.20"), "{wrapper:?}");
        assert_eq!(server.wait_finished(&id).await.state(), TaskState::Completed);
    }
}

#[tokio::test]
async fn what_another_user_leaves_in_its_directory_is_removed() {
    let fill = "mkdir -p a/b/c; echo > a/b/file; chmod 555 a/b; chmod 000 a; chmod 500 .";
    for wrapper in privileged() {
        let mut server = Server::start_for_users(&wrapper, &shell());
        let directory = result(&server, script(&format!("{fill}; pwd"))).await;
        assert!(directory.starts_with('/') && !Path::new(directory.trim()).exists(), "{directory} {}", server.log());

        let ready = shared(&server).join("ready");
        let first = format!("[ -e {0} ] || {{ {fill}; echo > {0}; sleep 1000; }}", ready.display());
        let id = server.submit(script(&first)).await;
        wait_for(&ready).await;
        server.kill9();
        server.start_again();
        server.wait_finished(&id).await;
        eventually(async || {
            let names = fs::read_dir(server.path("data")).unwrap().map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = names.filter(|name| name.to_str().unwrap().starts_with("work.")).collect();
            check(left.is_empty(), || format!("{wrapper:?}: {left:?} {}", server.log()))
        })
        .await;
    }
}

/// Forks until that fails; prints how many processes there were.
const FORK: &str = "
import os, time
count = 1
try:
    while count < 100:
        if os.fork() == 0: time.sleep(1000)
        count += 1
except BlockingIOError: pass
print(count)
";

#[tokio::test]
async fn a_program_of_another_user_starts_only_as_many_processes_as_allowed() {
    for wrapper in privileged() {
        let program = format!("exec python3 -c {}", shell_quoted(FORK));
        let settings = [("user", "2001"), ("group", "2001")];
        let config = handler("fork", &program, &settings) + "limits = { processes = 20 }\n";
        let server = Server::start_for_users(&wrapper, &config);
        for _ in 0..2 {
            let request = SubmitTaskRequest { handler: "fork".into(), ..Default::default() };
            assert_eq!(result(&server, request).await, "20\n", "{wrapper:?}");
        }
    }
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn a_server_that_cannot_run_programs_as_the_user_of_a_handler_does_not_start() {
    let other = &[("user", "2000"), ("group", "2000")][..];
    assert_not_started(
        without_root(),
        other,
        "handler `sh`: `user` is set, but the server lacks CAP_CHOWN, CAP_KILL, ",
    );
    if privileged().is_empty() {
        return;
    }
    for (settings, text) in [
        (&[("user", "no-such-user")][..], "`user` is \"no-such-user\", which `/etc/passwd` does not contain"),
        (&[("user", "2000"), ("group", "no-such-group")], "`group` is \"no-such-group\", which `/etc/group`"),
        (&[("user", "70000")], "set `group`"),
        (&[("user", "root")], "`user` is root"),
        (&[("user", "0"), ("group", "2000")], "`user` is root"),
        // The directory of the server is closed to other users.
        (other, "the server cannot give the user a working directory: `"),
    ] {
        assert_not_started(&[], settings, text);
    }
    assert_not_started(&in_user_namespace("chown,setgid,setuid"), other, "lacks CAP_KILL;");
    let unmapped = &[("user", "3000"), ("group", "2000")];
    assert_not_started(&in_user_namespace(NEEDED), unmapped, "cannot switch to the user: Invalid argument");
}

#[test]
fn the_doctor_reports_that_the_server_could_not_run_programs_as_the_user_of_a_handler() {
    let directory = tempfile::tempdir().unwrap();
    let (config, data) = (directory.path().join("config.toml"), directory.path().join("data"));
    let settings = [("user", "2000"), ("group", "2000")];
    fs::write(&config, format!("[server]\nlisten = \"127.0.0.1:0\"\n{}", handler("sh", "true", &settings))).unwrap();
    run("chmod", ["-R", "a+rX", directory.path().to_str().unwrap()]);
    let doctor = [BINARY, "doctor", "--config", config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let command = [without_root(), &doctor].concat();
    let (ok, printed) = run(command[0], command[1..].to_vec());
    assert!(!ok && printed.contains("FAIL  handlers"), "{printed}");
    assert!(printed.contains("`user` is set, but the server lacks CAP_CHOWN, CAP_KILL, "), "{printed}");
}

#[tokio::test]
async fn a_program_of_another_user_can_report_and_write_its_result() {
    for wrapper in privileged() {
        let script = "echo content-type text/csv >$LINESHAFT_REPORT; id -u >$LINESHAFT_RESULT; echo printed";
        let config = handler("sh", script, &[("user", "2000"), ("group", "2000")]) + "reports = true\n";
        let server = Server::start_for_users(&wrapper, &config);
        let ended = server.wait_finished(&server.submit(self::script("x")).await).await;
        let result = ended.result.as_ref().unwrap_or_else(|| panic!("{ended:?}"));
        assert_eq!((bytes(Some(result)), &*result.content_type), ("2000\n".to_owned(), "text/csv"));
    }
}

#[tokio::test]
async fn the_payload_and_the_result_as_files_give_a_user_nothing_of_the_server() {
    for wrapper in privileged() {
        let server = Server::start_for_users(&wrapper, &(shell() + "payload_file = \"in\"\nresult_file = \"out\"\n"));
        let payload = v1::Payload { kind: Some(v1::payload::Kind::Data("payload".into())), ..Default::default() };
        let request = SubmitTaskRequest { payload: Some(payload), ..script("stat -c '%u %a' in >out; cat in >>out") };
        assert_eq!(result(&server, request).await, "2000 600\npayload");
        let secret = server.path("data/secret");
        fs::write(&secret, "secret").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        for link in ["ln -s", "ln"] {
            let request = script(&format!("{link} '{}' out", secret.display()));
            let ended = server.wait_finished(&server.submit(request).await).await;
            assert_eq!(ended.state(), TaskState::Failed, "{ended:?}");
        }
    }
}
