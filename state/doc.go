// Package state is the durable truth of kbsync and its only queue: documents, what was uploaded of them, and the inventory of
// every source that ReplyCX ever created for them. Losing it costs duplicates, not time, for the API cannot list sources.
//
// The state table is the pipe. A scan records what changed (Known, Record, FinishScan); ingest claims what is pending, and
// journals every request before its first byte (Claim, Resolve, Begin, Seal, and one of Accept, Refuse and Uncertain); the
// tracker asks for what is in training (DueSources, RecordPolls). A stage that dies leaves rows, which Recover gives back.
//
// A document is pending, claimed, refused, skipped or removed by itself. Once its content is reserved it is settled, and
// its state is that of its content, which it may share with others: so renames, copies, twins, reverted edits and touched
// files upload nothing, and need no rule of their own.
//
// Do not keep a state on a network file system, and never copy its file while kbsync runs: Export is the backup.
package state
