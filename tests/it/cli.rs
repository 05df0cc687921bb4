//! The command line, as a script uses it.

use std::process::{Command, Output};

use crate::support::{BINARY, Server};

fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    #[expect(clippy::disallowed_methods, reason = "the command line itself")]
    let output: Output =
        Command::new(BINARY).args(arguments).env("LINESHAFT_SERVER", &server.address).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_script_learns_from_exit_codes_what_became_of_a_task() {
    let mut server = Server::start(
        "[[handler]]\nname = \"fails\"\nrunner = \"process\"\nargv = [\"/bin/false\"]\n[handler.retry]\nattempts = 1\n",
    );
    let (code, out, talk) = run(&server, &["task", "run", "compute", "--json", "10"]);
    assert_eq!((code, out.as_str()), (Some(0), "{\"op\":\"sum\",\"n\":10,\"value\":45}\n"), "{talk}");
    assert_eq!(run(&server, &["task", "run", "fails"]).0, Some(1));
    let (code, _, said) = run(&server, &["task", "submit", "nobody"]);
    assert_eq!(code, Some(3));
    assert!(said.contains("reason: UNKNOWN_HANDLER"), "{said}");
    let (code, out, _) = run(&server, &["task", "submit", "io", "--json", "60", "--id", "long"]);
    assert_eq!((code, out.as_str()), (Some(0), "long\n"));
    assert_eq!(run(&server, &["task", "wait", "long", "--timeout", "50ms"]).0, Some(6));
    assert_eq!(run(&server, &["task", "cancel", "long"]).0, Some(0));
    assert_eq!(run(&server, &["task", "wait", "long"]).0, Some(5));
    assert_eq!(run(&server, &["task", "submit"]).0, Some(2));
    server.kill9();
    let (code, _, said) = run(&server, &["task", "list"]);
    assert_eq!(code, Some(4));
    assert!(said.contains("lineshaft serve"), "{said}");
}

#[test]
fn answers_are_json_where_that_is_wanted() {
    let server = Server::start("");
    for arguments in [
        &["task", "submit", "compute", "--json", "0", "--wait"][..],
        &["task", "list"],
        &["pool", "list"],
        &["pool", "top", "--once", "--workers"],
        &["handler", "list"],
        &["system", "info"],
        &["system", "health"],
    ] {
        let (code, out, said) = run(&server, &[arguments, &["-o", "json"]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(parsed.is_object(), "{arguments:?}: {out}");
        let (code, out, _) = run(&server, arguments);
        assert!(code == Some(0) && !out.is_empty(), "{arguments:?}");
    }
}
