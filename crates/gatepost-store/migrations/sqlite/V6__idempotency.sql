-- What was answered under an Idempotency-Key. Every row lives equally long, so that the lowest numbers
-- are those that end first.
CREATE TABLE idempotency(
    number INTEGER PRIMARY KEY,
    -- Keyed hash of tenant, method, path and key.
    scope BLOB NOT NULL,
    -- Keyed hash of the request.
    fingerprint BLOB NOT NULL,
    started_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Null while the request is under way, or after a crash.
    answer BLOB
);
CREATE UNIQUE INDEX idempotency_by_scope ON idempotency(scope);

-- What one tenant publishes, and what it declared itself. `counters` has, as 'published_types', the
-- first event whose type is not noted here yet.
CREATE TABLE tenant_types(
    tenant INTEGER NOT NULL,
    name TEXT NOT NULL,
    definition TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_published INTEGER,
    PRIMARY KEY(tenant, name)
) WITHOUT ROWID;
CREATE INDEX tenant_types_declared ON tenant_types(tenant, name) WHERE definition IS NOT NULL;
