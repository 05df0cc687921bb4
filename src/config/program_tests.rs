//! Tests of the settings of WebAssembly handlers.

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
