-- +goose Up

-- How a sync stood at a minute, for plots. The rows are thinned to one an hour after a day, and the oldest are deleted. waiting are pending and
-- uploading documents; troubled failed, stuck and uncertain ones. lag is the age of the earliest change of a document that was not
-- completed, and training_time the sum for the trained sources since the last row, both in milliseconds. They are not part of
-- an export: no decision rests on them.
CREATE TABLE samples (
    sync_id       BIGINT NOT NULL REFERENCES syncs (id),
    at            BIGINT NOT NULL,
    completed     BIGINT NOT NULL,
    waiting       BIGINT NOT NULL,
    training      BIGINT NOT NULL,
    troubled      BIGINT NOT NULL,
    skipped       BIGINT NOT NULL,
    lag           BIGINT NOT NULL,
    trained       BIGINT NOT NULL,
    training_time BIGINT NOT NULL,
    PRIMARY KEY (sync_id, at)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE samples;
