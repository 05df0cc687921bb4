//! Tests of the built-in handlers: results, invalid payloads, and the limits of expressions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::{Compute, Expression, Heavy, Io};
use crate::model::{FailureReason, StopMethod};
use crate::runners::fixtures::{Attempt, TIMEOUT};
use crate::runners::{Outcome, Runner, StopCause, StopSignal};

fn builtin(name: &str) -> Arc<dyn Runner> {
    match name {
        "compute" => Arc::new(Compute),
        "io" => Arc::new(Io),
        "expression" => Arc::new(Expression::default()),
        "heavy" => Arc::new(Heavy::new(None)),
        other => panic!("no built-in handler {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_handlers_return_json() {
    let cases = [
        ("compute", "0", json!({"op": "sum", "n": 0, "value": 0})),
        ("compute", "100001", json!({"op": "sum", "n": 100_001, "value": 5_000_050_000_u64})),
        ("compute", r#"{"op":"primes","n":1}"#, json!({"op": "primes", "n": 1, "value": 0})),
        ("compute", r#"{"op":"primes","n":2}"#, json!({"op": "primes", "n": 2, "value": 1})),
        ("compute", r#"{"op":"primes","n":9}"#, json!({"op": "primes", "n": 9, "value": 4})),
        ("compute", r#"{"op":"primes","n":1000003}"#, json!({"op": "primes", "n": 1_000_003, "value": 78_499})),
        ("io", "0.001", json!({"waited_seconds": 0.001})),
        ("io", r#"{"seconds": 0}"#, json!({"waited_seconds": 0})),
        ("expression", r#"{"expression": "1 + 2"}"#, json!(3)),
        (
            "expression",
            r#"{"expression": "a.b.filter(x, x > 1).map(x, x * k) + [size(s)]", "variables": {"a": {"b": [1, 2, 3]}, "k": 10, "s": "äö"}}"#,
            json!([20, 30, 2]),
        ),
        (
            "expression",
            r#"{"expression": "l.all(x, x > 0) && !l.exists(x, x > 3)", "variables": {"l": [1, 2, 3]}}"#,
            json!(true),
        ),
        (
            "expression",
            r#"{"expression": "{'a': [1.5, null], 'b': duration('90s')}"}"#,
            json!({"a": [1.5, null], "b": "90s"}),
        ),
        ("expression", r#"{"expression": "base64.encode(b'hi')"}"#, json!("aGk=")),
        (
            "expression",
            r#"{"expression": "l.map(x, x.matches(r'^[\\w.]+@\\w+$'))", "variables": {"l": ["ä.b@c", "a b@c", "", "a@b\n"]}}"#,
            json!([true, false, false, false]),
        ),
        (
            "expression",
            r#"{"expression": "matches('one two', r'\\btwo') && 'é x'.matches(r'(?-u:\\b)x')"}"#,
            json!(true),
        ),
    ];
    for (name, payload, expected) in cases {
        let result = Attempt::start(&builtin(name), payload).result().await;
        let result: Json = serde_json::from_slice(&result).unwrap();
        assert!(same_json(&result, &expected), "{name} {payload}: got {result}, expected {expected}");
    }
}

/// Compares two values, treating 0 and 0.0 as the same number.
fn same_json(left: &Json, right: &Json) -> bool {
    left == right || left.to_string().replace(".0", "") == right.to_string().replace(".0", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_returns_the_same_checksum_for_the_same_payload() {
    let runner = builtin("heavy");
    let payload = r#"{"megabytes": 1, "rounds": 2}"#;
    let first = Attempt::start(&runner, payload).result().await;
    assert_eq!(first, Attempt::start(&runner, payload).result().await);
    assert_ne!(first, Attempt::start(&runner, r#"{"megabytes": 1, "rounds": 3}"#).result().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_running_work_reports_progress() {
    let attempt = Attempt::start(&builtin("compute"), "1000000000000");
    let progress = Arc::clone(&attempt.progress);
    let reported = timeout(TIMEOUT, async {
        while progress.lock().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    reported.await.expect("two reports in time");
    attempt.stop.request(StopCause::Cancel, Duration::ZERO);
    attempt.outcome().await;
    assert!(progress.lock().is_sorted() && progress.lock().iter().all(|fraction| (0.0..1.0).contains(fraction)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_payload_fails_with_field_and_limit() {
    let deep = format!(r#"{{"expression": "{}1{}"}}"#, "[".repeat(150), "]".repeat(150));
    let chain = format!(r#"{{"expression": "1{}"}}"#, "+1".repeat(2_000));
    let long = format!(r#"{{"expression": "{}"}}"#, " ".repeat(4_097));
    let many = json!({"expression": "1", "variables": {"l": vec![0; 10_001]}}).to_string();
    let cases = [
        ("compute", "x", "payload: "),
        ("compute", "1000000000001", "`n` is 1000000000001, must be 0 to 1000000000000"),
        ("compute", r#"{"op":"primes","n":1000000001}"#, "`n` is 1000000001, must be 0 to 1000000000"),
        ("io", "-1", "`seconds` is -1, must be 0 to 86400"),
        ("io", r#"{"minutes":1}"#, "`minutes`"),
        ("heavy", r#"{"megabytes":65}"#, "`megabytes` is 65, must be 1 to 64"),
        ("heavy", r#"{"megabytes":1,"rounds":0}"#, "`rounds` is 0, must be 1 to 100000"),
        ("heavy", "", "payload: EOF"),
        ("expression", "{}", "`expression`"),
        ("expression", r#"{"expression": "1 +"}"#, "`expression`"),
        ("expression", r#"{"expression": "1", "variables": {"a b": 1}}"#, "\"a b\""),
        ("expression", &long, "4097 bytes, at most 4096"),
        ("expression", &many, "more than 10000 elements"),
        ("expression", &chain, "nested deeper"),
        ("expression", &deep, "`expression`"),
    ];
    for (name, payload, expected) in cases {
        let failure = Attempt::start(&builtin(name), payload.to_owned()).failure().await;
        assert_eq!(failure.reason, FailureReason::InvalidPayload, "{name} {payload}: {failure:?}");
        assert!(failure.message.contains(expected), "{name} {payload}: {}", failure.message);
        assert!(!failure.retryable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_is_limited_in_steps() {
    let list = vec![1; 4_900];
    let numbers: Vec<_> = (0..4_900).collect();
    let doubling = format!("['0123456789abcdef']{}", ".map(x, x + x)".repeat(60));
    let cases = [
        "l.all(a, l.all(b, a == b))",
        "l.map(a, size(l.map(b, 1)))",
        "l.all(a, size(l.filter(b, true)) > 0)",
        "l.exists_one(a, l.exists_one(b, l.exists_one(c, c == 0)))",
        "l.map(a, l)",
        "l.exists(a, l.all(b, l.all(c, true)) || a > 5)",
        "l.all(x, l == l)",
        "{'a': [l, l, l, l, l, l, l, l, l, l, l, l, l, l, l, l]}.a.map(m, [m, m, m, m, m, m, m, m])",
        &doubling,
        // Functions that read a whole text.
        "l.all(x, size(text) > 0)",
        "l.all(x, text.startsWith(text))",
        "l.all(x, text.endsWith(text))",
        "l.all(x, !text.contains('b'))",
        "l.all(x, text <= text)",
        "l.all(x, text.matches('b') || true)",
        "n.all(x, !'x'.matches(r'a' + string(x)) || true)",
    ];
    let text = "a".repeat(100_000);
    for expression in cases {
        let payload =
            json!({"expression": expression, "variables": {"l": list, "n": numbers, "text": text}}).to_string();
        let failure = Attempt::start(&builtin("expression"), payload).failure().await;
        assert_eq!(failure.reason, FailureReason::InvalidPayload, "{expression}: {failure:?}");
        assert!(failure.message.contains("more than 1000000 steps"), "{expression}: {}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_error_is_not_retryable() {
    let long_pattern = format!("'a'.matches('{}')", "a".repeat(1_025));
    for (expression, expected) in [
        ("1 / 0", "ivision by zero"),
        ("missing", "missing"),
        ("b'x'", "base64.encode"),
        ("1.0 / 0.0", "JSON"),
        ("'a'.matches('(')", "unclosed group"),
        ("'a'.matches(r'\\pL{1000}')", "524288"),
        ("'é'.matches(r'\\ba')", "(?-u:"),
        (&long_pattern, "1025 bytes, at most 1024"),
    ] {
        let payload = json!({"expression": expression}).to_string();
        let failure = Attempt::start(&builtin("expression"), payload).failure().await;
        assert_eq!((failure.reason, failure.retryable), (FailureReason::HandlerError, false), "{failure:?}");
        assert!(failure.message.contains(expected), "{expression}: {}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_can_be_stopped() {
    let stop = Arc::<StopSignal>::default();
    stop.request(StopCause::Cancel, Duration::ZERO);
    let payload = json!({"expression": "l.all(a, l.all(b, true))", "variables": {"l": vec![1; 9_000]}}).to_string();
    let outcome = Attempt::start_with(&builtin("expression"), payload, &[], stop).outcome().await;
    assert!(matches!(outcome, Outcome::Stopped(StopMethod::Token)), "{outcome:?}");
}
