-- Blocking hooks. Times are microseconds since the Unix epoch.

-- Grows with every change to the tenant's hooks and points.
ALTER TABLE tenants ADD COLUMN hooks_version INTEGER NOT NULL DEFAULT 0;

CREATE TABLE hooks(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    -- When it passed a probe as it is registered now.
    verified_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    point TEXT NOT NULL,
    counters TEXT,
    last_test TEXT,
    config TEXT NOT NULL,
    sealed_secrets BLOB NOT NULL
);
CREATE INDEX hooks_by_tenant ON hooks(tenant);

-- Points a tenant defined (with a definition) or has set (without).
CREATE TABLE points(
    tenant INTEGER NOT NULL,
    name TEXT NOT NULL,
    definition TEXT,
    settings TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY(tenant, name)
) WITHOUT ROWID;

-- One row per question asked. What it was asked with and about is in invocation_bodies.
CREATE TABLE invocations(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    point TEXT NOT NULL,
    subject_id TEXT,
    denied INTEGER NOT NULL,
    cause TEXT NOT NULL,
    -- 0: none is expected, 1: awaited, 2: unknown, 3: told, its events are owed, 4: told, its events are out.
    outcome_state INTEGER NOT NULL,
    outcome_at INTEGER,
    outcome TEXT,
    record TEXT NOT NULL
);
CREATE INDEX invocations_by_tenant ON invocations(tenant);
CREATE INDEX invocations_by_subject ON invocations(tenant, subject_id) WHERE subject_id IS NOT NULL;
CREATE INDEX invocations_awaited ON invocations(at) WHERE outcome_state = 1;
CREATE INDEX invocations_owed ON invocations(seq) WHERE outcome_state = 3;

-- What hooks on trial would have done.
CREATE TABLE invocation_trials(
    invocation BLOB NOT NULL,
    hook BLOB NOT NULL,
    trial TEXT NOT NULL,
    PRIMARY KEY(invocation, hook)
) WITHOUT ROWID;

-- Questions and final objects, without their secret members, for as long as they are needed.
CREATE TABLE invocation_bodies(
    invocation BLOB PRIMARY KEY NOT NULL,
    expires_at INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX invocation_bodies_expiring ON invocation_bodies(expires_at);

-- Secret notifications that failed and may be tried again: encrypted under the data key.
CREATE TABLE kept_secrets(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    hook BLOB NOT NULL,
    invocation BLOB NOT NULL,
    attempts INTEGER NOT NULL,
    due INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    UNIQUE(invocation, hook)
);
CREATE INDEX kept_secrets_due ON kept_secrets(due);
CREATE INDEX kept_secrets_by_tenant ON kept_secrets(tenant);
