// Package ingest uploads the due documents of a sync and records the sources that ReplyCX created for them.
//
// An [Ingest] claims pending documents from the state, decides which of them need an upload, sends those in batches, and
// records the outcome of each batch. It keeps nothing between runs: the state holds everything that the next run needs.
//
// # The path of a document
//
// A planner claims the document. It hashes a document of up to a mebibyte before the upload, and a larger one only if
// another content has the same size. If the state already has the content, the document shares its source and nothing is
// sent. If another batch of this process is sending the content, the document waits for that batch. The planner groups the
// other documents into batches. Each batch has a row in the journal before its first byte, is sealed with all hashes before
// its last byte, and ends as accepted, refused or uncertain. Only an uncertain batch can lead to a duplicate, and the state
// lists each possible duplicate.
//
// # When not to use it
//
// Use package replycx directly to upload a few files once. Package ingest needs the state, which makes sure that each
// content is uploaded once.
package ingest
