-- Verification, health, Gatepost's own events.

-- Whether the endpoint, as registered, is verified; whether the webhook itself asks for that.
ALTER TABLE webhooks ADD COLUMN verified INTEGER NOT NULL DEFAULT 0;
ALTER TABLE webhooks ADD COLUMN must_verify INTEGER NOT NULL DEFAULT 0;
ALTER TABLE webhooks ADD COLUMN verification_error TEXT;
-- The delivery that tells a deleted webhook of its own deletion: owed in spite of it.
ALTER TABLE webhooks ADD COLUMN farewell INTEGER;

-- Whether all of the tenant's webhooks must be verified, and from which registry version on.
ALTER TABLE tenants ADD COLUMN must_verify INTEGER NOT NULL DEFAULT 0;
CREATE TABLE tenant_revisions(
    tenant INTEGER NOT NULL,
    from_version INTEGER NOT NULL,
    must_verify INTEGER NOT NULL,
    PRIMARY KEY(tenant, from_version)
) WITHOUT ROWID;

CREATE TABLE webhook_health(
    webhook INTEGER PRIMARY KEY,
    -- 0 = well, 1 = failing, 2 = disabled by Gatepost.
    state INTEGER NOT NULL,
    -- The last call that was folded in.
    token INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX webhook_health_ill ON webhook_health(state) WHERE state > 0;

-- Own events noted with the change they tell of, until they are published.
CREATE TABLE own_events(
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    type TEXT NOT NULL,
    at INTEGER NOT NULL,
    -- About a webhook at a revision, ...
    webhook INTEGER,
    revision INTEGER,
    -- ... or about a delivery, ...
    delivery INTEGER,
    -- ... and why.
    reason TEXT,
    -- Or given: what was to be said is here.
    event_id TEXT,
    subject_type TEXT,
    subject_id TEXT,
    data BLOB
);
CREATE INDEX own_events_by_tenant ON own_events(tenant);
