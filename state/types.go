package state

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// A DocumentState is where a document stands, as the state picture in docs/design.md has it. Its text is what is printed.
type DocumentState string

// The states of a document. Uploading covers the time from the claim to the answer.
const (
	Pending   DocumentState = "pending"
	Uploading DocumentState = "uploading"
	Training  DocumentState = "training"
	Completed DocumentState = "completed"
	Failed    DocumentState = "failed"
	Stuck     DocumentState = "stuck"
	Uncertain DocumentState = "uncertain"
	Skipped   DocumentState = "skipped"
	Removed   DocumentState = "removed"
)

// A Destination is what an inventory belongs to. Nothing is shared across destinations.
type Destination struct {
	ID            int64
	Origin        string // scheme://host[:port] of the API
	Account       string // empty while not known; two destinations that differ only by an unknown account are one
	KnowledgeBase int64
}

func (d Destination) String() string {
	account := d.Account
	if account == "" {
		account = "?"
	}
	return fmt.Sprintf("knowledge base %d of account %s at %s", d.KnowledgeBase, account, d.Origin)
}

// A Sync is a named pair of a root and a destination.
type Sync struct {
	ID           int64
	Name         string
	Root         string
	RootIdentity string // of the last complete scan; empty before the first
	Destination  Destination
	ScannedAt    time.Time // zero before the first complete scan
	LastError    string    // why its last pass was halted or stopped; empty if it was not
}

// A Fingerprint is what a listing shows of a version. Two equal fingerprints mean that nothing is hashed.
// Where a root does not have a part it is zero.
type Fingerprint struct {
	Size  int64
	MTime int64 // nanoseconds since 1970
	CTime int64 // nanoseconds since 1970
	Inode uint64
	ETag  string
}

// A SHA256 is the hash of a document's bytes: the identity of a version.
type SHA256 [32]byte

// Known is what the state holds of one document that is on the root, as far as a scan needs it.
type KnownDocument struct {
	Key         string
	Fingerprint Fingerprint
	Skip        string // why it is skipped; empty if it is not
}

// An Op is what a Change does to a document.
type Op uint8

// The operations of a Change.
const (
	Put    Op = iota // new, or its fingerprint changed: it becomes pending
	Skip             // on the root, but not uploaded; Reason says why
	Vanish           // not listed any more; takes effect when the scan is finished
)

// A Change is one difference between a listing and what is known.
type Change struct {
	Op          Op
	Key         string
	Fingerprint Fingerprint // of Put and Skip
	Reason      string      // of Skip
}

// A Scan is one comparison of a root, or of the part of it below Prefix, with the state.
type Scan struct {
	SyncID int64
	ID     int64
	Prefix string
	// Rest holds a changed document back until its last version was uploaded that long ago: every version is permanent. It is the
	// caller's to set; zero holds nothing back.
	Rest time.Duration
}

// A Claimed is a document that the caller works on until it gives it back by Resolve, Seal, Release or an outcome.
type ClaimedDocument struct {
	DocumentID  int64
	Claim       int64 // proves the claim; a change of the document in between takes it away
	Key         string
	Fingerprint Fingerprint
	Attempts    int  // failed attempts so far
	Forced      bool // a person asked for the upload, whatever the content
	// Of a document to be sent again after an uncertain batch: that batch and the content that it had. Zero otherwise.
	ResendOf int64
	SHA256   SHA256

	content int64 // that it had when it was claimed; 0 for none
}

// A Hashed is a claimed document with its content's hash.
type HashedDocument struct {
	ClaimedDocument
	SHA256 SHA256
	Size   int64
	// Verified says that the caller has just seen every source of an earlier Verdict's Verify list in a status answer.
	Verified bool
}

// A Verdict says what is to be done with a hashed document.
type Verdict struct {
	Action Action
	Verify []int64 // source ids, of ActionVerify
}

// An Action is the outcome of Resolve for one document.
type Action uint8

// The actions of a Verdict.
const (
	ActionUpload Action = iota // the content is not there: send it
	ActionShare                // the content is known or on its way: the document was given to it, and is no longer claimed
	ActionVerify               // the content was left behind: ask for these sources, then Resolve again with Verified, or Forsake them
	ActionLost                 // the claim was lost: the document changed, or was removed
)

// Sharing says when documents get a source of their own although the content is there.
type Sharing struct {
	Each          bool // duplicates: each
	UploadRenamed bool // on_rename: upload
}

// A BatchSpec describes a batch before its first byte.
type BatchSpec struct {
	SyncID   int64
	ResendOf int64 // the uncertain batch of which every member is sent again; 0 for none
	Probe    bool  // the one batch that tries whether an open breaker may close
	Members  []ClaimedDocument
	Bytes    int64 // of contents
	Sharing  Sharing
}

// A Seal is a member's content as it was hashed while it was sent.
type Seal struct {
	SHA256 SHA256
	Size   int64
}

// A SourceAnswer is a source as an upload's answer has it.
type SourceAnswer struct {
	ID      int64
	Type    string
	Name    string
	Status  string
	Errors  string // empty for none
	Outcome Outcome
}

// An Outcome is what a training status means to us.
type Outcome uint8

// The outcomes of training. An unknown status word is InTraining.
const (
	InTraining Outcome = iota
	TrainingCompleted
	TrainingFailed
	TrainingStuck // past the deadline; still polled, slowly
)

// An Answer is what came back for a sealed batch.
type Answer struct {
	StatusCode int
	// Sources by member position. A position without sources makes that member's document uncertain.
	Sources [][]SourceAnswer
	// Unasked are sources under fields that were not sent.
	Unasked  []SourceAnswer
	NextPoll time.Time
}

// A Refusal is an answer, or a failure before sealing, that leaves nothing behind in the knowledge base.
type Refusal struct {
	StatusCode int // 0 where there was no answer
	Code       string
	Message    string
	// Disposition says what becomes of the members.
	Disposition Disposition
	// NextAttempt is when members may be claimed again, of Retry.
	NextAttempt time.Time
}

// A Disposition says what becomes of the documents of a batch that left nothing behind.
type Disposition uint8

// The dispositions of a Refusal.
const (
	Retry   Disposition = iota // pending, one failed attempt more
	Requeue                    // pending as before: the documents are not to blame
	Keep                       // still claimed by the caller, who goes on with them
	Fail                       // failed for good, with the refusal's words
)

// A DueSource is a source whose status is to be asked for.
type DueSource struct {
	ID        int64
	Polls     int
	Status    string // the last word of ReplyCX
	CreatedAt time.Time
	Stuck     bool
}

// A Poll is what a status answer, or its absence, says of one source.
type Poll struct {
	SourceID int64
	Status   string // ReplyCX's word; empty keeps the last one
	Outcome  Outcome
	NextPoll time.Time // of InTraining and TrainingStuck
	Seen     bool      // the answer had the source
	Errors   string
}

// Errors that callers decide on.
var (
	// ErrLocked: another process works on the sync. The error's text names it where known.
	ErrLocked = errors.New("another kbsync works on this sync")
	// ErrNewerSchema: the state was written by a newer kbsync.
	ErrNewerSchema = errors.New("the state was written by a newer kbsync")
	// ErrCorrupt: the state's file is no sound database.
	ErrCorrupt = errors.New("the state is damaged")
	// ErrBreakerOpen: an upload's outcome is unknown, so nothing else may be sealed for this destination, but one probe.
	ErrBreakerOpen = errors.New("the destination's uploads are halted until one goes through")
	// ErrNotFound: there is no such sync, document, batch or source.
	ErrNotFound = errors.New("not in the state")
	// ErrNotEmpty: an import would mix two inventories.
	ErrNotEmpty = errors.New("the state is not empty")
	// ErrChanged: what is on the root is no longer the version that was listed. Roots return it, ingest decides on it.
	ErrChanged = errors.New("changed since it was listed")
	// ErrBatchEnded: the batch was sealed or ended before.
	ErrBatchEnded = errors.New("the batch was ended before")
)

// A DestinationError says that a sync's inventory belongs to another destination than the one it is to be used with.
type DestinationError struct {
	Sync       string
	Have, Want Destination
}

func (e *DestinationError) Error() string {
	return fmt.Sprintf("sync %q was synced to %s, and is now configured for %s", e.Sync, e.Have, e.Want)
}

// A SealError says which members keep a batch from being sealed. Nothing was written; the batch is still open.
type SealError struct {
	Lost  []int // positions whose claim was lost: changed or removed meanwhile
	Known []int // positions whose content turned out to be known or on its way
}

func (e *SealError) Error() string {
	var parts []string
	if len(e.Lost) > 0 {
		parts = append(parts, fmt.Sprintf("%d changed meanwhile", len(e.Lost)))
	}
	if len(e.Known) > 0 {
		parts = append(parts, fmt.Sprintf("the content of %d is known already", len(e.Known)))
	}
	return "the batch cannot be sealed: " + strings.Join(parts, ", ")
}
