-- +goose Up

-- Times are Unix milliseconds, 0 for never. The numbers of states are named in codes.go.

-- The one row names this inventory, so that a marker elsewhere can tell it from another one.
CREATE TABLE inventory (id TEXT NOT NULL);
INSERT INTO inventory (id) VALUES (lower(hex(randomblob(16))));

-- A destination is the owner of an inventory. account is '' while it is unknown. The breaker is open while
-- uncertain_streak is above zero; then only the batch probe_batch may be sealed.
CREATE TABLE destinations (
    id               INTEGER PRIMARY KEY,
    origin           TEXT    NOT NULL,
    account          TEXT    NOT NULL,
    knowledge_base   BIGINT  NOT NULL,
    uncertain_streak INTEGER NOT NULL DEFAULT 0,
    probe_batch      BIGINT  NOT NULL DEFAULT 0,
    paused_until     BIGINT  NOT NULL DEFAULT 0,
    largest_accepted BIGINT  NOT NULL DEFAULT 0,
    smallest_refused BIGINT  NOT NULL DEFAULT 0,
    UNIQUE (origin, account, knowledge_base)
);

-- gate is 1 while no document of the sync may be claimed: a scan records changes, and its guards have not passed them.
CREATE TABLE syncs (
    id             INTEGER PRIMARY KEY,
    name           TEXT    NOT NULL,
    destination_id BIGINT  NOT NULL REFERENCES destinations (id),
    root           TEXT    NOT NULL,
    root_identity  TEXT    NOT NULL DEFAULT '',
    scan           BIGINT  NOT NULL DEFAULT 0,
    scanned_at     BIGINT  NOT NULL DEFAULT 0,
    gate           BIGINT  NOT NULL DEFAULT 0,
    last_error     TEXT    NOT NULL DEFAULT '',
    created_at     BIGINT  NOT NULL,
    forgotten_at   BIGINT  NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX syncs_name ON syncs (name) WHERE forgotten_at = 0;

-- States of contents: 0 open (free to be sent), 1 reserved by a sealed batch, 2 uncertain, 3 training, 4 stuck, 5 completed, 6 failed.
-- A content belongs to one destination. Reservations, outcomes and sources refer to it. scope is empty where documents
-- share a content, and names the document where they do not. batch_id is the last batch that sent it, for document_id.
-- source_id is the one source of that batch, if everything about it follows from the content; else it is not positive, and
-- the table sources has the batch's sources. A reserved content has a source_id and a next_poll of their usual lengths, so
-- that the answer does not move the row to another page. next_poll is 0 once the outcome is final. prior_* is the state before the reservation; a
-- refused upload restores it. The index has half of the hash; a lookup compares the rest.
CREATE TABLE contents (
    id             INTEGER PRIMARY KEY,
    destination_id BIGINT  NOT NULL REFERENCES destinations (id),
    sha256         BLOB    NOT NULL,
    scope          BLOB    NOT NULL,
    size           BIGINT  NOT NULL,
    state          INTEGER NOT NULL,
    batch_id       BIGINT  NOT NULL,
    document_id    BIGINT  NOT NULL,
    since          BIGINT  NOT NULL,
    source_id      BIGINT  NOT NULL DEFAULT 0,
    polls          INTEGER NOT NULL DEFAULT 0,
    next_poll      BIGINT  NOT NULL DEFAULT 0,
    prior_state    INTEGER NOT NULL DEFAULT 0,
    prior_batch    BIGINT  NOT NULL DEFAULT 0,
    resends        INTEGER NOT NULL DEFAULT 0,
    reason         TEXT    NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX contents_address ON contents (destination_id, substr(sha256, 1, 16), scope);
CREATE UNIQUE INDEX contents_source ON contents (destination_id, source_id) WHERE state > 2 AND source_id > 0;
CREATE INDEX contents_large ON contents (destination_id, size) WHERE size > 1048576;
CREATE INDEX contents_unfinished ON contents (destination_id, state) WHERE state <> 5;
CREATE INDEX contents_due ON contents (destination_id, next_poll) WHERE next_poll <> 0 AND state > 2;
CREATE INDEX contents_again ON contents (destination_id) WHERE prior_batch <> 0;

-- The endings of names under which a content failed. A document with another ending is tried once.
CREATE TABLE failed_endings (
    content_id BIGINT NOT NULL REFERENCES contents (id),
    ending     BLOB   NOT NULL,
    PRIMARY KEY (content_id, ending)
) WITHOUT ROWID;

-- The core of a content, the digest of what a reader sees of it, if it has one: of office documents and PDFs.
CREATE TABLE cores (
    content_id BIGINT NOT NULL PRIMARY KEY REFERENCES contents (id),
    core       BLOB  NOT NULL
) WITHOUT ROWID;

-- ctime_offset is ctime - mtime, which is small. claim is 0 unless the document is claimed.
-- States of documents: 0 pending, 1 claimed, 2 refused, 3 linked (the content's state is the document's), 4 skipped, 5 removed.
CREATE TABLE documents (
    id           INTEGER PRIMARY KEY,
    sync_id      BIGINT  NOT NULL REFERENCES syncs (id),
    key          BLOB    NOT NULL,
    size         BIGINT  NOT NULL,
    mtime        BIGINT  NOT NULL,
    ctime_offset BIGINT  NOT NULL,
    inode        BIGINT  NOT NULL,
    etag         TEXT    NOT NULL DEFAULT '',
    state        INTEGER NOT NULL,
    content_id   BIGINT,
    forced       INTEGER NOT NULL DEFAULT 0,
    claim        BIGINT  NOT NULL DEFAULT 0,
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_attempt BIGINT  NOT NULL DEFAULT 0,
    vanished     BIGINT  NOT NULL DEFAULT 0,
    changed_at   BIGINT  NOT NULL,
    reason       TEXT    NOT NULL DEFAULT '',
    UNIQUE (sync_id, key)
);
CREATE INDEX documents_content ON documents (content_id) WHERE content_id IS NOT NULL;
CREATE INDEX documents_open ON documents (sync_id, state, next_attempt) WHERE state < 3;
CREATE INDEX documents_large ON documents (size) WHERE state < 2 AND size > 1048576;
CREATE INDEX documents_skipped ON documents (sync_id, key) WHERE state = 4;
CREATE INDEX documents_vanished ON documents (sync_id, vanished, size, inode) WHERE vanished <> 0;

-- The contents that a document had before its current one.
CREATE TABLE past_contents (
    content_id  BIGINT NOT NULL REFERENCES contents (id),
    document_id BIGINT NOT NULL REFERENCES documents (id),
    until       BIGINT NOT NULL,
    PRIMARY KEY (content_id, document_id)
);
CREATE INDEX past_contents_document ON past_contents (document_id);

-- The bytes that a document has while it is linked to a content with the same core: it was saved again, and nothing was uploaded.
-- A row counts only as long as the document is linked to that content.
CREATE TABLE resaves (
    document_id BIGINT NOT NULL PRIMARY KEY REFERENCES documents (id),
    content_id  BIGINT NOT NULL REFERENCES contents (id),
    sha256      BLOB  NOT NULL,
    since       BIGINT NOT NULL
) WITHOUT ROWID;

-- The journal has every POST from its seal: an earlier row would prove nothing, because the API cannot have a whole
-- request before. A probe of the breaker has its row from the start. States: 0 open, 1 sealed, 2 answered, 3 refused,
-- 4 abandoned (ended before it was sealed), 5 uncertain. owner is the process that sends it.
CREATE TABLE batches (
    id             INTEGER PRIMARY KEY,
    sync_id        BIGINT  NOT NULL REFERENCES syncs (id),
    destination_id BIGINT  NOT NULL REFERENCES destinations (id),
    state          INTEGER NOT NULL,
    owner          BIGINT  NOT NULL,
    resend_of      BIGINT  NOT NULL DEFAULT 0,
    documents      INTEGER NOT NULL,
    bytes          BIGINT  NOT NULL,
    created_at     BIGINT  NOT NULL,
    sealed_at      BIGINT  NOT NULL DEFAULT 0,
    ended_at       BIGINT  NOT NULL DEFAULT 0,
    status_code    INTEGER NOT NULL DEFAULT 0,
    code           TEXT    NOT NULL DEFAULT '',
    message        TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX batches_open ON batches (sync_id) WHERE state < 2;
CREATE INDEX batches_accepted ON batches (sync_id) WHERE state = 2;
CREATE INDEX batches_unanswered ON batches (sync_id) WHERE state IN (3, 5);
CREATE INDEX batches_resends ON batches (resend_of) WHERE resend_of <> 0;
CREATE INDEX batches_too_large ON batches (destination_id) WHERE status_code = 413;

-- The members that a sealed batch's answer did not accept: refused, uncertain. The accepted ones are the contents with the
-- batch's number.
CREATE TABLE members (
    batch_id    BIGINT NOT NULL REFERENCES batches (id),
    document_id BIGINT NOT NULL REFERENCES documents (id),
    content_id  BIGINT NOT NULL REFERENCES contents (id),
    PRIMARY KEY (batch_id, document_id)
) WITHOUT ROWID;
CREATE INDEX members_document ON members (document_id);

-- The inventory has every source that an answer of ReplyCX named: in the content, or here with everything that the
-- content does not give. Rows are never deleted. content_id and document_id are 0 for a source that is no member's.
CREATE TABLE sources (
    destination_id BIGINT  NOT NULL REFERENCES destinations (id),
    source_id      BIGINT  NOT NULL,
    content_id     BIGINT  NOT NULL,
    batch_id       BIGINT  NOT NULL,
    document_id    BIGINT  NOT NULL,
    name           TEXT    NOT NULL,
    type           TEXT    NOT NULL,
    status         TEXT    NOT NULL,
    outcome        INTEGER NOT NULL,
    errors         TEXT    NOT NULL DEFAULT '',
    created_at     BIGINT  NOT NULL,
    outcome_at     BIGINT  NOT NULL DEFAULT 0,
    polls          INTEGER NOT NULL DEFAULT 0,
    next_poll      BIGINT  NOT NULL DEFAULT 0,
    acked_at       BIGINT  NOT NULL DEFAULT 0,
    PRIMARY KEY (destination_id, source_id)
) WITHOUT ROWID;
CREATE INDEX sources_content ON sources (content_id);
CREATE INDEX sources_due ON sources (destination_id, next_poll) WHERE next_poll <> 0;

-- Messages to hooks. A delivery deletes the row.
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY,
    sync_id      BIGINT  NOT NULL REFERENCES syncs (id),
    event        TEXT    NOT NULL,
    body         BLOB    NOT NULL,
    created_at   BIGINT  NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_attempt BIGINT  NOT NULL DEFAULT 0
);
CREATE INDEX outbox_due ON outbox (sync_id, next_attempt);

-- The items that are true now and were put into a message, so that each is reported once.
CREATE TABLE reported (
    sync_id BIGINT NOT NULL REFERENCES syncs (id),
    event   TEXT   NOT NULL,
    item    BLOB   NOT NULL,
    PRIMARY KEY (sync_id, event, item)
) WITHOUT ROWID;

-- The processes that work on a shared state. A claim, an open or sealed batch and a lease belong to an owner; after its
-- expires_at, by the database's clock, any process may take them. A file has no rows here: the lock files of its syncs say who
-- owns them.
CREATE TABLE owners (
    id         BIGINT PRIMARY KEY,
    name       TEXT   NOT NULL,
    since      BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- The syncs whose root a process scans, by name.
CREATE TABLE leases (
    name     TEXT   PRIMARY KEY,
    owner_id BIGINT NOT NULL,
    since    BIGINT NOT NULL
);

-- When the next request to an account may be sent, so that all processes share its rate.
CREATE TABLE rates (
    account TEXT   PRIMARY KEY,
    next_at BIGINT NOT NULL
);

-- +goose Down
DROP TABLE rates;
DROP TABLE leases;
DROP TABLE owners;
DROP TABLE reported;
DROP TABLE outbox;
DROP TABLE sources;
DROP TABLE members;
DROP TABLE batches;
DROP TABLE resaves;
DROP TABLE past_contents;
DROP TABLE documents;
DROP TABLE failed_endings;
DROP TABLE cores;
DROP TABLE contents;
DROP TABLE syncs;
DROP TABLE destinations;
DROP TABLE inventory;
