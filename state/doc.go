// Package state is kbsync's durable truth and its only queue. It holds the documents, their uploads, and the inventory of
// every source that ReplyCX created for them. Losing the state costs duplicates, not time, because the API cannot list
// sources.
//
// The stages exchange their work through the tables. A scan records changes (Scans). ingest claims pending documents
// (Queue) and writes every request to the journal before its first byte (Journal: Begin, Seal, and then Accept, Refuse
// or MarkUncertain). The tracker asks for the sources in training (Inventory: DueSources, RecordPolls). A stage that dies
// leaves rows, and Recover gives them back.
//
// A document itself is pending, claimed, refused, skipped or removed. Once its content is reserved, the document is
// linked to the content, and the content's state is the document's. Several documents may share one content. So renames,
// copies, twins, reverted edits and touched files upload nothing, and need no rules.
//
// Do not keep a state on a network file system, and never copy its file while kbsync runs: Export is the backup.
package state
