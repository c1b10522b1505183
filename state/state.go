// Package state is the durable truth of kbsync and its only queue.
package state

import (
	"context"
	"io"
	"iter"
	"time"
)

// A Store is an open state. Its methods may be called from several goroutines.
type Store struct{}

// Options of Open.
type Options struct {
	// Path of the SQLite database; its directory is made if need be.
	Path string
	// ReadOnly opens an existing state for reading alone, and an absent one as an empty one that leaves no file.
	ReadOnly bool
}

// Open opens or creates the state. Errors: ErrNewerSchema, ErrCorrupt.
func Open(ctx context.Context, opts Options) (*Store, error) { panic("later") }

// Close ends the store. Every other call must have returned.
func (s *Store) Close() error { panic("later") }

// --- syncs

// Sync returns a sync by name. Errors: ErrNotFound.
func (s *Store) Sync(ctx context.Context, name string) (Sync, error) { panic("later") }

// Syncs returns every sync that was not forgotten, by name.
func (s *Store) Syncs(ctx context.Context) ([]Sync, error) { panic("later") }

// EnsureSync finds or creates the sync of that name. A sync that belongs to another destination is a *DestinationError,
// unless confirmed: then its documents become pending at the new one, and what they had there is left behind.
func (s *Store) EnsureSync(ctx context.Context, name, root string, dest Destination, confirmed bool) (Sync, error) {
	panic("later")
}

// Forget drops a sync: its documents are removed, its sources left behind. The caller holds the sync's lock.
func (s *Store) Forget(ctx context.Context, syncID int64) error { panic("later") }

// SetTrouble notes why the sync's last pass was halted or stopped; empty clears it.
func (s *Store) SetTrouble(ctx context.Context, syncID int64, trouble string) error { panic("later") }

// Lock takes the sync's lock file, beside the state, waiting up to wait for it. It dies with the process.
// Errors: ErrLocked. Holding it, Recover may be called.
func (s *Store) Lock(ctx context.Context, name string, wait time.Duration) (*Lock, error) {
	panic("later")
}

// A Lock is a held lock file.
type Lock struct{}

// Unlock releases the lock.
func (l *Lock) Unlock() error { panic("later") }

// Recover gives back what an earlier holder of the sync's lock left: claims become pending, open batches are ended,
// sealed batches without an answer become uncertain. It returns how many batches became uncertain.
func (s *Store) Recover(ctx context.Context, syncID int64) (int, error) { panic("later") }

// --- watcher

// BeginScan starts a scan of the root below prefix.
func (s *Store) BeginScan(ctx context.Context, syncID int64, prefix string) (Scan, error) {
	panic("later")
}

// Known streams the documents that are on the root as far as is known, below prefix, in byte order of the key.
func (s *Store) Known(ctx context.Context, syncID int64, prefix string) iter.Seq2[Known, error] {
	panic("later")
}

// Record writes changes of a scan in one transaction: all or none. Vanish only marks until FinishScan.
func (s *Store) Record(ctx context.Context, scan Scan, changes []Change) error { panic("later") }

// A ScanCount is what the guards weigh.
type ScanCount struct {
	Known    int // documents on the root before this scan, below its prefix
	Vanished int // of these, not listed any more
	Renamed  int // of the vanished, those that seem to be listed under a new key: same inode or ETag, size and mtime
}

// CountScan counts what FinishScan would remove.
func (s *Store) CountScan(ctx context.Context, scan Scan) (ScanCount, error) { panic("later") }

// FinishScan ends a complete scan: the vanished documents are removed, and identity becomes the root's (if prefix is
// empty). A scan that broke off, or that a guard halted, is ended by DropScan.
func (s *Store) FinishScan(ctx context.Context, scan Scan, identity string) (removed int, err error) {
	panic("later")
}

// DropScan forgets the vanish marks of a scan.
func (s *Store) DropScan(ctx context.Context, scan Scan) error { panic("later") }

// --- ingest

// Claim takes up to limit due pending documents of the sync, oldest row first.
func (s *Store) Claim(ctx context.Context, syncID int64, limit int) ([]Claimed, error) {
	panic("later")
}

// ClaimSmallest takes the smallest due pending document, or the smallest uncertain one that is due to be sent again, for a probe; none is not an error.
func (s *Store) ClaimSmallest(ctx context.Context, syncID int64, resendAfter time.Duration) ([]Claimed, error) {
	panic("later")
}

// ClaimResends takes documents whose content is uncertain for resendAfter and was not sent again yet, of one batch.
func (s *Store) ClaimResends(ctx context.Context, syncID int64, resendAfter time.Duration, limit int) ([]Claimed, error) {
	panic("later")
}

// NextDue says when the next document of the sync may be claimed (or sent again); zero for never.
func (s *Store) NextDue(ctx context.Context, syncID int64, resendAfter time.Duration) (time.Time, error) {
	panic("later")
}

// SizeTaken says whether a known, pending or in-flight content other than the document's own claim has this size: then it
// is to be hashed beforehand.
func (s *Store) SizeTaken(ctx context.Context, destinationID int64, size int64, documentID int64) (bool, error) {
	panic("later")
}

// Resolve says of each hashed document whether it is to be uploaded, in order of docs.
func (s *Store) Resolve(ctx context.Context, syncID int64, docs []Hashed, sharing Sharing) ([]Verdict, error) {
	panic("later")
}

// Forsake notes that sources are gone from the knowledge base, as a status answer without them (or a person) says; documents
// that have their content become pending.
func (s *Store) Forsake(ctx context.Context, destinationID int64, sourceIDs []int64) (pending int, err error) {
	panic("later")
}

// Begin writes the batch to the journal. Call it before the first byte. Errors: ErrBreakerOpen.
func (s *Store) Begin(ctx context.Context, spec BatchSpec) (batchID int64, err error) { panic("later") }

// Seal reserves the members' contents and marks the batch sealed, in one durable transaction; after it the request may be
// completed. Seals are by member position. Errors: *SealError, ErrBreakerOpen, ErrBatchEnded; then nothing was written.
func (s *Store) Seal(ctx context.Context, batchID int64, seals []Seal) error { panic("later") }

// Accept records a sealed batch's answer: its sources enter the inventory, durably, and the breaker closes.
func (s *Store) Accept(ctx context.Context, batchID int64, answer Answer) error { panic("later") }

// Refuse ends a batch, sealed or not, that left nothing behind.
func (s *Store) Refuse(ctx context.Context, batchID int64, refusal Refusal) error { panic("later") }

// Uncertain ends a sealed batch whose answer was lost: its documents are uncertain, and the breaker opens. It returns how
// many batches of the destination became uncertain since the last accepted one.
func (s *Store) Uncertain(ctx context.Context, batchID int64, statusCode int, reason string) (streak int, err error) {
	panic("later")
}

// Release gives claimed documents back as pending, to be claimed again at nextAttempt (zero: at once). failed counts an attempt.
func (s *Store) Release(ctx context.Context, docs []Claimed, nextAttempt time.Time, failed bool) error {
	panic("later")
}

// Unreadable ends the claim of a document that could not be read: one that has a version keeps it, a new one is skipped with
// the reason. Both are looked at again at the next scan.
func (s *Store) Unreadable(ctx context.Context, doc Claimed, reason string) error { panic("later") }

// Vanished ends the claim of a document that is not there any more: the next scan decides.
func (s *Store) Vanished(ctx context.Context, doc Claimed) error { panic("later") }

// Reopen makes documents pending again that were failed by a series of refusals which a quota explains better.
func (s *Store) Reopen(ctx context.Context, documentIDs []int64) error { panic("later") }

// Breaker returns how many batches of the destination became uncertain since the last accepted one (0: closed), and until when a
// Retry-After holds uploads back.
func (s *Store) Breaker(ctx context.Context, destinationID int64) (streak int, pausedUntil time.Time, err error) {
	panic("later")
}

// Pause holds the destination's uploads back until then.
func (s *Store) Pause(ctx context.Context, destinationID int64, until time.Time) error {
	panic("later")
}

// Limits returns the largest accepted and the smallest size refused as too large (413) of the destination's requests, in bytes; 0 if none was.
func (s *Store) Limits(ctx context.Context, destinationID int64) (largestAccepted, smallestRefused int64, err error) {
	panic("later")
}

// --- tracker

// DueSources returns up to limit sources to ask for: those due, and then those due soonest within slack, so that chunks are full.
// None is returned where nothing is due.
func (s *Store) DueSources(ctx context.Context, destinationID int64, slack time.Duration, limit int) ([]DueSource, error) {
	panic("later")
}

// NextPoll says when the next source is due; zero for never.
func (s *Store) NextPoll(ctx context.Context, destinationID int64) (time.Time, error) { panic("later") }

// RecordPolls writes what a status answer said. It returns, by source, nothing but an error.
func (s *Store) RecordPolls(ctx context.Context, destinationID int64, polls []Poll) error {
	panic("later")
}

// AnySource returns a source id of the destination to probe the API with; 0 if there is none.
func (s *Store) AnySource(ctx context.Context, destinationID int64) (int64, error) { panic("later") }

// --- people

// A Selection names documents of a sync for Mark.
type Selection struct {
	States    []DocumentState       // any if empty (removed and skipped never)
	Globs     func(key string) bool // nil: all
	OlderThan time.Time             // uploaded before; zero: any
}

// Mark makes the selected documents pending, to be uploaded once more whatever their content. It needs no lock.
func (s *Store) Mark(ctx context.Context, syncID int64, sel Selection) (int, error) { panic("later") }

// Counts returns the number of the sync's documents by state.
func (s *Store) Counts(ctx context.Context, syncID int64) (map[DocumentState]int, error) {
	panic("later")
}

// Outstanding returns the number of documents by state of those that are neither completed nor removed. Its cost grows with their number alone.
func (s *Store) Outstanding(ctx context.Context, syncID int64) (map[DocumentState]int, error) {
	panic("later")
}

// A Document is a document as a person sees it.
type Document struct {
	ID          int64
	Sync        string
	Key         string
	State       DocumentState
	Reason      string
	Fingerprint Fingerprint
	SHA256      SHA256 // zero while unknown
	ChangedAt   time.Time
	Attempts    int
	NextAttempt time.Time
	Held        bool // uncertain, and not to be sent again unasked
}

// Documents streams the sync's documents in the given states (all if none) in byte order of the key.
func (s *Store) Documents(ctx context.Context, syncID int64, states ...DocumentState) iter.Seq2[Document, error] {
	panic("later")
}

// Document returns one document. Errors: ErrNotFound.
func (s *Store) Document(ctx context.Context, syncID int64, key string) (Document, error) {
	panic("later")
}

// An Event is a line of a document's history.
type Event struct {
	At     time.Time
	What   string
	Batch  int64
	Source int64
	SHA256 SHA256
}

// History returns what happened to a document, oldest first.
func (s *Store) History(ctx context.Context, documentID int64) ([]Event, error) { panic("later") }

// A Standing says whether documents still have a source's content.
type Standing string

// The standings of a source.
const (
	Live       Standing = "live"
	Superseded Standing = "superseded"
	Orphaned   Standing = "orphaned"
	Gone       Standing = "gone" // removed by hand, as a person or a status answer said
)

// A Source is a row of the inventory.
type Source struct {
	ID          int64
	Sync        string
	Key         string // of the document it was uploaded for
	Destination Destination
	Name        string
	Type        string
	Status      string
	Outcome     Outcome
	Errors      string
	Standing    Standing
	SHA256      SHA256
	Batch       int64
	CreatedAt   time.Time
	SettledAt   time.Time
	AckedAt     time.Time
}

// A SourceFilter selects rows of the inventory; its zero value selects all.
type SourceFilter struct {
	SyncID    int64
	Standings []Standing
}

// Sources streams the inventory by destination and id.
func (s *Store) Sources(ctx context.Context, f SourceFilter) iter.Seq2[Source, error] { panic("later") }

// Left returns how many sources of the sync are superseded and orphaned.
func (s *Store) Left(ctx context.Context, syncID int64) (superseded, orphaned int, err error) {
	panic("later")
}

// A PossibleDuplicate is a document of a batch whose outcome is unknown, or that was sent again after a refusal.
type PossibleDuplicate struct {
	Sync       string
	Key        string
	Batch      int64
	ResentAs   int64  // batch; 0 if it was not sent again
	Class      string // uncertain, refused
	SHA256     SHA256
	At         time.Time
	LeftBehind bool // the document has another content by now
}

// PossibleDuplicates streams them by batch; syncID 0 for all.
func (s *Store) PossibleDuplicates(ctx context.Context, syncID int64) iter.Seq2[PossibleDuplicate, error] {
	panic("later")
}

// --- backup

// Export writes the state as JSON lines, from one moment.
func (s *Store) Export(ctx context.Context, w io.Writer) error { panic("later") }

// Import reads an export into an empty state: all or nothing. Errors: ErrNotEmpty.
func (s *Store) Import(ctx context.Context, r io.Reader) error { panic("later") }

// Check verifies the database and the invariants that kbsync relies on; each finding is a sentence.
func (s *Store) Check(ctx context.Context) ([]string, error) { panic("later") }
