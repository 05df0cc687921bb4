//! The tables of `journal.db`.

use crate::store::sqlite::Schema;

pub const SCHEMA: Schema = Schema {
    application_id: 0x4c53_4a31,
    migrations: &[
        "CREATE TABLE commits(
            first INTEGER PRIMARY KEY,
            count INTEGER NOT NULL,
            checksum INTEGER NOT NULL,
            body BLOB NOT NULL
        );
        CREATE TABLE meta(
            id INTEGER PRIMARY KEY,
            trimmed INTEGER NOT NULL,
            end INTEGER NOT NULL,
            checksum INTEGER NOT NULL
        );
        INSERT INTO meta VALUES (1, 0, 0, 0);",
        "CREATE TABLE pools(
            name TEXT PRIMARY KEY,
            configured_size INTEGER NOT NULL,
            configured_queue_limit INTEGER NOT NULL,
            configured_paused INTEGER NOT NULL,
            size INTEGER NOT NULL,
            queue_limit INTEGER NOT NULL,
            paused INTEGER NOT NULL,
            checksum INTEGER NOT NULL
        );",
    ],
};
