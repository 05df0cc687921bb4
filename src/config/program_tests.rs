//! Tests of the settings of programs and WebAssembly handlers.

use super::tests::{from_file, problems};

#[test]
fn the_settings_of_a_wasm_handler_are_checked() {
    let with = |settings: &str| {
        let result = from_file(&format!("[[handler]]\nname = \"a\"\nrunner = \"wasm\"\n{settings}\n"));
        problems(result).into_iter().map(|(field, _)| field).collect::<Vec<_>>()
    };
    assert_eq!(with(""), ["handler[0].module"]);
    assert_eq!(with("module = \"\""), ["handler[0].module"]);
    let module = "module = \"a.wasm\"\n";
    assert_eq!(
        with(&format!("{module}limits = {{ memory = \"5GiB\", cpu = \"1s\" }}")),
        ["handler[0].limits.cpu", "handler[0].limits.memory"]
    );
    assert_eq!(
        with(&format!("{module}env = {{ \"A=B\" = \"1\" }}\nuser = \"a\"")),
        ["handler[0].user", "handler[0].env"]
    );
    let in_async_pool =
        format!("{module}pool = \"web\"\n[[pool]]\nname = \"web\"\nkind = \"async\"\n[[pool]]\nname = \"p\"");
    assert_eq!(with(&in_async_pool), ["handler[0].pool"]);
    let of_process =
        "[[handler]]\nname = \"a\"\nrunner = \"process\"\nargv = [\"a\"]\nmodule = \"a.wasm\"\nclock = true\n";
    let fields: Vec<_> = problems(from_file(of_process)).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["handler[0].module", "handler[0].clock"]);
}

#[test]
fn the_files_and_the_niceness_of_a_program_are_checked() {
    let with = |settings: &str| {
        let program = "name = \"a\"\nrunner = \"process\"\nargv = [\"a\"]";
        from_file(&format!("[[handler]]\n{program}\n{settings}\n"))
    };
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a\\u0000b", &"x".repeat(256)] {
        let found = problems(with(&format!("payload_file = \"{name}\"\nresult_file = \"{name}\"")));
        let fields: Vec<_> = found.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["handler[0].payload_file", "handler[0].result_file"], "{name}");
    }
    for (settings, expected) in [
        ("payload_file = \"a\"\nworking_directory = \"/\"", "payload_file: is not allowed with `working_directory`"),
        (
            "result_file = \"a\"\nreports = true",
            "result_file: is not allowed with `reports`; let the program copy the file",
        ),
        ("nice = 20", "nice = 20"),
    ] {
        let error = with(settings).unwrap_err().to_string();
        assert!(error.contains(&format!("handler[0].{expected}")), "{settings}: {error}");
    }
    let module = "[[handler]]\nname = \"a\"\nrunner = \"wasm\"\nmodule = \"a.wasm\"\nnice = 1\nresult_file = \"a\"\n";
    let fields: Vec<_> = problems(from_file(module)).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["handler[0].nice", "handler[0].result_file"]);
}
