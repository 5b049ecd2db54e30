-- Work that outlives its request: replays and erasures. Each step is one transaction that moves
-- `position` too, so that a job goes on where it was. Times are microseconds since the Unix epoch.
CREATE TABLE jobs(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    tenant INTEGER NOT NULL,
    -- 0: queued, 1: running, 2: done, 3: failed.
    state INTEGER NOT NULL,
    -- Which of its kind's stages it is in.
    stage INTEGER NOT NULL,
    -- The last event it has looked at in this stage, and the last one it will look at; null: not begun.
    position INTEGER,
    upto INTEGER,
    total INTEGER NOT NULL,
    done INTEGER NOT NULL,
    error TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    task TEXT NOT NULL
);
CREATE INDEX jobs_by_tenant ON jobs(tenant);
CREATE INDEX jobs_open ON jobs(tenant) WHERE state < 2;

-- Events a replay has chosen and not yet made deliveries of.
CREATE TABLE job_items(
    job INTEGER NOT NULL,
    event_seq INTEGER NOT NULL,
    PRIMARY KEY(job, event_seq)
) WITHOUT ROWID;

-- The delivery this one repeats, and the job that made it; null for deliveries made otherwise.
ALTER TABLE delivery_links ADD COLUMN replay_of INTEGER;
ALTER TABLE delivery_links ADD COLUMN job INTEGER;

-- How far retention has come with a tenant. 0: the highest event removed; others: the last delivery
-- whose attempts were looked at for the first time, the second time, and so on.
CREATE TABLE retention_marks(
    tenant INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY(tenant, mark)
) WITHOUT ROWID;
