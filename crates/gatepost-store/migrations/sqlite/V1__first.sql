-- Times are microseconds since the Unix epoch. Numbers of events and deliveries are given out by
-- the writer in commit order and never twice (see `counters`).

CREATE TABLE meta(
    name TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- The next number of a kind, written whenever rows that hold the highest ones are removed.
CREATE TABLE counters(
    name TEXT PRIMARY KEY NOT NULL,
    next INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE tenants(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    name TEXT,
    environment TEXT NOT NULL,
    settings TEXT NOT NULL,
    registry_version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
);
CREATE UNIQUE INDEX tenants_live ON tenants(id) WHERE deleted_at IS NULL;
CREATE INDEX tenants_deleted ON tenants(key) WHERE deleted_at IS NOT NULL;

CREATE TABLE webhooks(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    deleted_at INTEGER,
    -- Whether the cancellation of a deleted webhook's deliveries is written down everywhere.
    swept INTEGER NOT NULL DEFAULT 0,
    paused_until INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    disabled_reason TEXT,
    config TEXT NOT NULL,
    sealed_secrets BLOB NOT NULL,
    last_test BLOB
);
CREATE INDEX webhooks_by_tenant ON webhooks(tenant);
CREATE INDEX webhooks_unswept ON webhooks(key) WHERE deleted_at IS NOT NULL AND swept = 0;

-- What a webhook was from a registry version on; without a config: deleted from then on.
CREATE TABLE webhook_revisions(
    webhook INTEGER NOT NULL,
    from_version INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    config TEXT,
    PRIMARY KEY(webhook, from_version)
) WITHOUT ROWID;
CREATE UNIQUE INDEX webhook_revisions_by_number ON webhook_revisions(webhook, revision);

-- Large columns come last, so that reading the others does not touch overflow pages.
CREATE TABLE events(
    seq INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    -- The caller's id; without one the id is made of accepted_at and seq.
    ext_id TEXT,
    fingerprint BLOB NOT NULL,
    type TEXT NOT NULL,
    subject_type TEXT,
    subject_id TEXT,
    ts INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    urgency INTEGER NOT NULL,
    registry_version INTEGER NOT NULL,
    -- Its own deliveries have the numbers first_delivery .. first_delivery + delivery_count.
    first_delivery INTEGER NOT NULL,
    delivery_count INTEGER NOT NULL,
    -- How attributes and data are stored: 0 = as given.
    format INTEGER NOT NULL,
    attributes BLOB,
    data BLOB NOT NULL
);
-- An index ends in the row's number by itself.
CREATE INDEX events_by_tenant ON events(tenant);
CREATE UNIQUE INDEX events_by_ext_id ON events(tenant, ext_id) WHERE ext_id IS NOT NULL;
CREATE INDEX events_by_subject ON events(tenant, subject_id) WHERE subject_id IS NOT NULL;

CREATE TABLE deliveries(
    seq INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    webhook INTEGER NOT NULL,
    event_seq INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reason INTEGER,
    urgency INTEGER NOT NULL,
    due INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    budget_start INTEGER NOT NULL,
    manual INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- Null until it changes for the first time.
    updated_at INTEGER,
    first_attempt BLOB
);
CREATE INDEX deliveries_by_tenant ON deliveries(tenant);
CREATE INDEX deliveries_due ON deliveries(webhook, urgency, due) WHERE state = 0;

-- Deliveries made for an event after its acceptance.
CREATE TABLE delivery_links(
    event_seq INTEGER NOT NULL,
    delivery_seq INTEGER NOT NULL,
    PRIMARY KEY(event_seq, delivery_seq)
) WITHOUT ROWID;

-- Attempts; a first one that is small is folded into its delivery instead.
CREATE TABLE attempts(
    delivery_seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY(delivery_seq, number)
) WITHOUT ROWID;

-- Bodies as sent, once an attempt has failed.
CREATE TABLE bodies(
    delivery_seq INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);

CREATE TABLE event_types(
    name TEXT PRIMARY KEY NOT NULL,
    definition TEXT,
    -- Whether it was published while it was not declared.
    seen INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE keys(
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    hash BLOB NOT NULL,
    -- One bit per scope.
    scopes INTEGER NOT NULL,
    tenant TEXT,
    expires_at INTEGER,
    created_at INTEGER NOT NULL
);
CREATE INDEX keys_by_tenant ON keys(tenant) WHERE tenant IS NOT NULL;
