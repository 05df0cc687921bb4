//! Exports of a SQLite database.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use rustix::process::getpriority_process;
use serde_json::{Value, json};

use super::attempt::{self, Summary};
use super::error::ExportError;
use super::input::Export;
use super::pdf::Fonts;
use super::request::Request;
use super::writer::Shortened;
use super::{Database, ExportOptions, ExportRunner, Source};
use crate::model::{Failure, FailureReason, StopMethod};
use crate::runners::fixtures::{artifacts, run};
use crate::runners::{Outcome, Run, Runner, StopCause, StopSignal};

const PARK: &str = r#"
CREATE TABLE lease (id INTEGER PRIMARY KEY, tenant TEXT, rent DECIMAL(10,2), starts DATE, signed TIMESTAMP,
  active BOOLEAN, terms JSON, plan BLOB, note);
INSERT INTO lease VALUES
  (1, 'Müller, "Söhne"', 1250.5, '2026-02-28', '2026-01-31 23:30:00+02:00', 1, '{"pets":
false}', x'00ff', 7),
  (2, '=1+1', 'none', 'soon', '2026-01-31 23:30', 2, 'none', NULL, 1.5),
  (3, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"#;

/// A database in a directory.
struct Park(tempfile::TempDir);

impl Park {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Connection::open(directory.path().join("park.db")).unwrap().execute_batch(PARK).unwrap();
        Self(directory)
    }

    fn options(&self, source: Source) -> ExportOptions {
        let database = Database::Sqlite(self.0.path().join("park.db"));
        ExportOptions { database, source, columns: Vec::new(), filters: vec!["id".to_owned()], fonts: Vec::new() }
    }

    fn table(&self) -> ExportOptions {
        self.options(Source::Table("lease".to_owned()))
    }

    fn query(&self, query: &str) -> ExportOptions {
        ExportOptions { filters: Vec::new(), ..self.options(Source::Query(query.to_owned())) }
    }
}

/// Returns what the file contains, and the last report of progress.
async fn export(options: &ExportOptions, payload: Value) -> Result<(Summary, Vec<u8>, (f32, String)), ExportError> {
    let request = Request::parse(payload.to_string().as_bytes())?;
    let (fonts, stop, reported) = (Fonts::default(), Arc::new(StopSignal::default()), Mutex::default());
    let progress = |fraction: f32, note: &str| *reported.lock() = (fraction, note.to_owned());
    let (request, fonts) = (&request, &fonts);
    let export = Export { options, request, fonts, title: "leases", stop: &stop, progress: &progress };
    let mut file = Vec::new();
    let summary = attempt::run(&export, &mut file).await?;
    let reported = reported.lock().clone();
    Ok((summary, file, reported))
}

async fn text_of(options: &ExportOptions, payload: Value) -> String {
    String::from_utf8(export(options, payload).await.unwrap().1).unwrap()
}

async fn failure(options: ExportOptions, payload: &str) -> Failure {
    let directory = tempfile::tempdir().unwrap();
    let run = Run { artifacts: artifacts(directory.path()), ..run(payload.to_owned()) };
    match ExportRunner::new(options).unwrap().run(run).await.outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn values_have_the_declared_types_of_their_columns_if_they_suit_them() {
    let park = Park::new();
    let csv = text_of(&park.table(), json!({"format": "csv"})).await;
    let expected = [
        "id,tenant,rent,starts,signed,active,terms,plan,note",
        "1,\"Müller, \"\"Söhne\"\"\",1250.5,2026-02-28,2026-01-31T21:30:00Z,true,\"{\"\"pets\"\": false}\",AP8=,7",
        "2,\"'=1+1\",none,soon,2026-01-31T23:30:00,2,none,,1.5",
        "3,\"\",,,,,,,",
        "",
    ];
    assert_eq!(csv, expected.join("\r\n"));
    let lines = text_of(&park.table(), json!({"format": "jsonl", "limit": 1})).await;
    let row: Value = serde_json::from_str(&lines).unwrap();
    let expected = json!({"id": 1, "tenant": "Müller, \"Söhne\"", "rent": 1250.5, "starts": "2026-02-28", "note": 7,
        "signed": "2026-01-31T21:30:00Z", "active": true, "terms": {"pets": false}, "plan": "AP8="});
    assert_eq!(row, expected);
}

#[tokio::test]
async fn a_payload_chooses_rows_columns_and_their_order() {
    let park = Park::new();
    let payload = json!({"columns": ["note", "id"], "filters": {"id": {"from": 2}}, "order": ["-id"]});
    assert_eq!(text_of(&park.table(), payload).await, "note,id\r\n,3\r\n1.5,2\r\n");
    let payload = json!({"columns": ["id"], "filters": {"id": [1, 3]}, "order": ["id"], "limit": 1});
    assert_eq!(text_of(&park.table(), payload).await, "id\r\n1\r\n");
    let source = "SELECT tenant AS id, 1 AS \"one or two\" FROM lease WHERE id < 3 -- named";
    let query = park.options(Source::Query(source.to_owned()));
    let payload = json!({"columns": ["one or two"], "filters": {"id": "=1+1"}});
    assert_eq!(text_of(&query, payload).await, "one or two\r\n1\r\n");
}

#[tokio::test]
async fn a_pdf_has_10000_rows_and_the_result_says_that_there_are_more() {
    let park = Park::new();
    let query =
        park.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10002) SELECT i FROM n");
    let (summary, file, _) = export(&query, json!({"format": "pdf"})).await.unwrap();
    assert_eq!(summary, Summary { rows: 10_000, shortened: Shortened { rows: true, cells: 0 } });
    assert!(file.starts_with(b"%PDF-"));
    let (summary, ..) = export(&query, json!({"format": "pdf", "limit": 10_000})).await.unwrap();
    assert_eq!(summary, Summary { rows: 10_000, shortened: Shortened::default() });
}

#[tokio::test]
async fn a_long_cell_of_a_workbook_is_cut_and_counted() {
    let park = Park::new();
    let query = park.query("SELECT hex(zeroblob(500000)) AS a UNION ALL SELECT 'short'");
    let (summary, file, _) = export(&query, json!({"format": "xlsx"})).await.unwrap();
    assert_eq!(summary, Summary { rows: 2, shortened: Shortened { rows: false, cells: 1 } });
    assert!(file.starts_with(b"PK"));
}

#[tokio::test]
async fn progress_is_the_part_of_the_rows_as_far_as_their_number_is_known() {
    let park = Park::new();
    let (_, _, (fraction, note)) = export(&park.table(), json!({})).await.unwrap();
    assert!(fraction > 0.9 && note == "3 rows", "{fraction} {note}");
    let (_, _, (fraction, _)) = export(&park.query("SELECT * FROM lease"), json!({})).await.unwrap();
    assert!(fraction < f32::EPSILON, "{fraction}");
}

#[tokio::test]
async fn the_database_cannot_be_changed() {
    let park = Park::new();
    let error = failure(park.query("DELETE FROM lease RETURNING id"), "").await;
    assert!(!error.retryable, "{error:?}");
    assert_eq!(export(&park.table(), json!({})).await.unwrap().0.rows, 3);
}

#[tokio::test]
async fn a_missing_database_is_tried_again_and_a_wrong_query_or_payload_is_not() {
    let park = Park::new();
    let missing = ExportOptions { database: Database::Sqlite(park.0.path().join("none.db")), ..park.table() };
    for (options, payload, reason, retryable, message) in [
        (missing, "", FailureReason::HandlerError, true, "the connection failed: `"),
        (park.query("SELECT * FROM tenant"), "", FailureReason::HandlerError, false, "no such table: tenant"),
        (
            park.query("SELECT abs(-9223372036854775807 - 1) AS a"),
            "",
            FailureReason::HandlerError,
            false,
            "integer overflow",
        ),
        (park.table(), "{\"limit\": -1}", FailureReason::InvalidPayload, false, "the payload is invalid"),
        (park.table(), "{\"columns\": [\"rent2\"]}", FailureReason::InvalidPayload, false, "`columns[0]` is `rent2`"),
    ] {
        let failure = failure(options, payload).await;
        assert_eq!((failure.reason, failure.retryable), (reason, retryable), "{failure:?}");
        assert!(failure.message.contains(message), "{failure:?}");
    }
}

#[tokio::test]
async fn an_export_that_becomes_too_large_is_not_tried_again() {
    let park = Park::new();
    // Random, because a workbook is compressed.
    let query =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT hex(randomblob(5000)) AS a FROM n";
    for format in ["csv", "xlsx"] {
        let payload = json!({"format": format, "limit": 500});
        let failure = failure(park.query(query), &payload.to_string()).await;
        assert_eq!((failure.reason, failure.retryable), (FailureReason::ResultTooLarge, false), "{failure:?}");
    }
}

#[tokio::test]
async fn an_export_lowers_the_priority_of_a_thread_of_its_own() {
    let (park, directory, seen) = (Park::new(), tempfile::tempdir().unwrap(), Arc::new(Mutex::new(None)));
    let here = || getpriority_process(None).unwrap();
    let (before, reported) = (here(), Arc::clone(&seen));
    let progress = Arc::new(move |_: f32, _: &str| *reported.lock() = Some(here()));
    let run = Run { artifacts: artifacts(directory.path()), progress, ..run("") };
    let outcome = ExportRunner::new(park.table()).unwrap().run(run).await.outcome;
    assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    let seen = seen.lock().unwrap();
    assert!(seen > before || before == 19, "{seen} in the export, {before} here");
    assert_eq!(here(), before, "the thread of the worker serves other tasks, too");
}

#[tokio::test]
async fn an_export_that_was_stopped_before_it_began_is_not_begun() {
    let park = Park::new();
    let stop = StopSignal::default();
    stop.request(StopCause::Cancel, std::time::Duration::ZERO);
    let run = Run { stop: Arc::new(stop), ..run("") };
    let outcome = ExportRunner::new(park.table()).unwrap().run(run).await.outcome;
    assert!(matches!(outcome, Outcome::Stopped(StopMethod::Token)), "{outcome:?}");
}
