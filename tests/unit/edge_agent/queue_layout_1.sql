CREATE TABLE campaign (
    campaign_id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sample (
    id INTEGER PRIMARY KEY,
    campaign_id BLOB NOT NULL,
    candidate_id BLOB NOT NULL UNIQUE,
    source TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    scored_version INTEGER NOT NULL DEFAULT 0,
    content BLOB,
    view_policy TEXT NOT NULL DEFAULT '',
    view BLOB,
    held_reason TEXT NOT NULL DEFAULT '',
    score BLOB
) STRICT;
CREATE INDEX sample_waiting ON sample (campaign_id, state, id);
CREATE TABLE pool (
    campaign_id BLOB PRIMARY KEY,
    model_version INTEGER NOT NULL,
    replaces INTEGER NOT NULL,
    class_counts BLOB NOT NULL,
    top_probability_sum INTEGER NOT NULL,
    top_probability_square_sum INTEGER NOT NULL,
    next_sequence INTEGER NOT NULL,
    report_number INTEGER NOT NULL,
    reported TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    campaign_id BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    model_version INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    body BLOB NOT NULL,
    refused TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (campaign_id, sequence)
) STRICT;
CREATE TABLE grant_book (
    grant_id BLOB PRIMARY KEY,
    ledger_sequence INTEGER NOT NULL,
    body BLOB NOT NULL,
    stage INTEGER NOT NULL DEFAULT 0,
    outcome INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX grant_stage ON grant_book (stage, ledger_sequence);
CREATE TABLE cursor (source TEXT PRIMARY KEY, position BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE seen_file (
    file_id BLOB PRIMARY KEY, source TEXT NOT NULL, stamp BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE refusal (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, source TEXT NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, location BLOB NOT NULL
) STRICT;
CREATE TABLE installed (
    campaign_id BLOB PRIMARY KEY,
    current INTEGER NOT NULL, previous INTEGER NOT NULL,
    refused INTEGER NOT NULL, refused_text TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL, unreported BLOB, report_number INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE key_check (one INTEGER PRIMARY KEY CHECK (one = 1), sealed BLOB NOT NULL) STRICT;
CREATE TABLE condition (name TEXT PRIMARY KEY, at REAL NOT NULL, text TEXT NOT NULL)
    STRICT, WITHOUT ROWID;
