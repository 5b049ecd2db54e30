-- Pauses.

-- Whether what the webhook takes is kept for it instead of sent.
ALTER TABLE webhooks ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
