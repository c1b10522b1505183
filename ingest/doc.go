// Package ingest uploads what is due of a sync and records the sources that
// came back.
//
// An [Ingest] takes pending documents from the state, finds out which of them
// need an upload at all, sends those in batches, and writes what came of each
// batch. It keeps no truth of its own: whatever it was doing when it ended is
// told by the state, and the next run goes on from there.
//
// # The way of a document
//
// Claim gives it to this process. Up to a mebibyte, or where another content of
// its size is about, it is hashed beforehand, and the state says whether its
// content is there already: then it shares that source and nothing is sent. A
// document whose content another open batch of this process carries waits for
// that batch. What is left is put into batches; each is a row of the journal
// before its first byte, is sealed with the complete hashes before its last one,
// and ends in exactly one of three ways: accepted, refused or uncertain. Only the
// last can ever lead to a duplicate, and it is listed where it may have.
//
// # When not to use it
//
// To upload a few files once, use package replycx directly. Ingest is for what
// must be uploaded once and never twice, and needs the state for it.
package ingest
