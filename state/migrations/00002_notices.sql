-- +goose Up

-- What somebody outside is to be told of (hooks). A row is deleted when it was delivered.
CREATE TABLE notices (
    id           INTEGER PRIMARY KEY,
    sync_id      BIGINT  NOT NULL REFERENCES syncs (id),
    event        TEXT    NOT NULL,
    body         BLOB    NOT NULL,
    created_at   BIGINT  NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_attempt BIGINT  NOT NULL DEFAULT 0
);
CREATE INDEX notices_due ON notices (sync_id, next_attempt);

-- What is the case and was put into a notice, so that it is told once.
CREATE TABLE told (
    sync_id BIGINT NOT NULL REFERENCES syncs (id),
    event   TEXT   NOT NULL,
    item    TEXT   NOT NULL,
    PRIMARY KEY (sync_id, event, item)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE told;
DROP TABLE notices;
