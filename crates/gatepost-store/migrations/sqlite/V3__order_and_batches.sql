-- What a delivery is, as bits: 1 = it stands in a queue, 2 = it is a batch. A batch's event_seq is the
-- first of its events; the others point to it in delivery_links. So a number between an event's
-- first_delivery and first_delivery + delivery_count is its own delivery only if event_seq says so.
ALTER TABLE deliveries ADD COLUMN grouping INTEGER NOT NULL DEFAULT 0;

-- Deliveries that go out one after the other, as long as they are owed. Only the first of a queue has
-- a due time; the others have the last moment there is. The first is as urgent (in its own row) as the
-- most urgent that waits behind it; here is how urgent each is by itself.
CREATE TABLE queue_places(
    webhook INTEGER NOT NULL,
    queue BLOB NOT NULL,
    place INTEGER NOT NULL,
    delivery_seq INTEGER NOT NULL,
    urgency INTEGER NOT NULL,
    PRIMARY KEY(webhook, queue, place)
) WITHOUT ROWID;
CREATE UNIQUE INDEX queue_places_by_delivery ON queue_places(delivery_seq);
CREATE INDEX queue_places_by_urgency ON queue_places(webhook, queue, urgency);

-- The batch of a webhook that still takes events; once it is closed the row is gone.
CREATE TABLE open_batches(
    webhook INTEGER PRIMARY KEY,
    delivery_seq INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    closes_at INTEGER NOT NULL,
    events INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);

-- The events of each batch, in order.
CREATE TABLE batch_events(
    delivery_seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    event_seq INTEGER NOT NULL,
    PRIMARY KEY(delivery_seq, position)
) WITHOUT ROWID;

-- Deliveries found by whom they are about, where they are not among the event's own (delivery_links).
-- The subject's id is hashed: what is erased about a person leaves nothing here.
CREATE TABLE subject_links(
    tenant INTEGER NOT NULL,
    subject BLOB NOT NULL,
    delivery_seq INTEGER NOT NULL,
    PRIMARY KEY(tenant, subject, delivery_seq)
) WITHOUT ROWID;
CREATE INDEX subject_links_by_delivery ON subject_links(delivery_seq);
