-- Deliveries that are owed and not made yet. An event that goes to very many webhooks is committed with
-- what it matched; its deliveries, whose numbers are set aside by that commit, are made in small steps
-- after it. One row for each event and line; removed with the last of its deliveries.
CREATE TABLE unmade(
    tenant INTEGER NOT NULL,
    -- 0 to 2: deliveries that wait for nobody, by the event's urgency. 3: those of queues and batches,
    -- which are made strictly in the order of acceptance.
    line INTEGER NOT NULL,
    event_seq INTEGER NOT NULL,
    -- To whom, and the part of it that comes next.
    match_set INTEGER NOT NULL,
    part INTEGER NOT NULL,
    -- The number of the next delivery, and how many are left.
    next INTEGER NOT NULL,
    owed INTEGER NOT NULL,
    -- When they are due, those that wait for nothing.
    due INTEGER NOT NULL,
    PRIMARY KEY(tenant, line, event_seq)
) WITHOUT ROWID;
CREATE INDEX unmade_by_set ON unmade(match_set);

-- What events matched, in parts that are made at once; shared by events of one call that match the same.
-- A part goes with the last delivery made of it.
CREATE TABLE match_sets(
    match_set INTEGER NOT NULL,
    part INTEGER NOT NULL,
    matches BLOB NOT NULL,
    PRIMARY KEY(match_set, part)
) WITHOUT ROWID;
