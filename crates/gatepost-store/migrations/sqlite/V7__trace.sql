-- The publisher's trace context (25 bytes), where it gave one.
ALTER TABLE events ADD COLUMN trace BLOB;
