package state

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// A DocumentState is a state of the picture in docs/design.md. Its text is printed as it is.
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

// A Destination owns an inventory. Destinations share nothing.
type Destination struct {
	ID            int64
	Origin        string // scheme://host[:port] of the API
	Account       string // empty while unknown; two destinations that differ only by an unknown account are one
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
	LastError    string    // why its last pass was halted or stopped; empty if it ended well
}

// A Fingerprint is the part of a version that a listing shows. A document whose fingerprint is unchanged is not hashed.
// Fields that a root does not have are zero.
type Fingerprint struct {
	Size  int64
	MTime int64 // nanoseconds since 1970
	CTime int64 // nanoseconds since 1970
	Inode uint64
	ETag  string
}

// A SHA256 is the hash of a document's bytes: the identity of a version.
type SHA256 [32]byte

// A KnownDocument is a document that the state knows to be on the root, as far as a scan needs it.
type KnownDocument struct {
	Key         string
	Fingerprint Fingerprint
	Skip        string // why it is skipped; empty if it is uploaded
	// NeverUploaded is true if a scan has recorded the document, and none of its versions was ever sent.
	NeverUploaded bool
}

// An Op is the operation of a Change.
type Op uint8

// The operations of a Change.
const (
	Put    Op = iota // new, or its fingerprint changed: it becomes pending
	Skip             // on the root, but not uploaded; Reason says why
	Vanish           // no longer listed; takes effect when the scan is finished
)

// A Change is one difference between a listing and the known documents.
type Change struct {
	Op          Op
	Key         string
	Fingerprint Fingerprint // of Vanish, the known one
	Reason      string      // of Skip
}

// A Scan is one comparison of a root, or of the part of it below Prefix, with the state.
type Scan struct {
	SyncID int64
	ID     int64
	Prefix string
	// Rest holds a changed document back until its last upload is that old, because every version is permanent. The
	// caller sets it; zero holds nothing back.
	Rest time.Duration
}

// A ClaimedDocument belongs to the caller until Resolve, Seal, Release or an outcome ends the claim.
type ClaimedDocument struct {
	DocumentID  int64
	Claim       int64 // proves the claim; a change of the document ends it
	Key         string
	Fingerprint Fingerprint
	Attempts    int  // failed attempts so far
	Forced      bool // a person asked for the upload, whatever the content
	// The uncertain batch of a document that is to be sent again, and the content that it had. Zero otherwise.
	ResendOf int64
	SHA256   SHA256

	content int64 // at the time of the claim; 0 for none
}

// A HashedDocument is a claimed document with its content's hash.
type HashedDocument struct {
	ClaimedDocument
	SHA256 SHA256
	Size   int64
	// Core is the digest of what a reader sees of the content; zero if it has none, or if that does not matter.
	Core SHA256
	// Verified: the caller has just seen every source of an earlier Verdict's Verify list in a status answer.
	Verified bool
}

// A Verdict is the decision on a hashed document.
type Verdict struct {
	Action Action
	Verify []int64 // source ids, of ActionVerify
	// Resaved: the content has the core of the one that the document had. With ActionShare the document was linked to that one.
	Resaved bool
}

// An Action is the outcome of Resolve for one document.
type Action uint8

// The actions of a Verdict.
const (
	ActionUpload Action = iota // the destination does not have the content: send it
	ActionShare                // the content is known or on its way: the document was linked to it, and is no longer claimed
	ActionVerify               // the content was left behind: ask for its sources, then Resolve with Verified, or MarkSourcesGone
	ActionLost                 // the claim was lost: the document changed, or was removed
)

// Sharing lists the cases in which a document gets its own source although the destination has the content.
type Sharing struct {
	Each          bool // duplicates: each
	UploadRenamed bool // on_rename: upload
	UploadResaved bool // resaved: warn
}

// A BatchSpec describes a batch before its first byte.
type BatchSpec struct {
	SyncID   int64
	ResendOf int64 // the uncertain batch whose documents it sends again; 0 for none
	Probe    bool  // the one batch that tests whether an open breaker may close
	Members  []ClaimedDocument
	Bytes    int64 // of contents
	Sharing  Sharing
}

// A Seal is a member's content, hashed while it was sent.
type Seal struct {
	SHA256 SHA256
	Size   int64
	Core   SHA256 // see HashedDocument
}

// A SourceAnswer is a source in an upload's answer.
type SourceAnswer struct {
	ID      int64
	Type    string
	Name    string
	Status  string
	Errors  string // empty for none
	Outcome Outcome
}

// An Outcome is the meaning of a training status.
type Outcome uint8

// The outcomes of training. An unknown status word is InTraining.
const (
	InTraining Outcome = iota
	TrainingCompleted
	TrainingFailed
	TrainingStuck // past the deadline; still polled, slowly
)

// final reports whether the outcome ends the polling.
func (o Outcome) final() bool { return o == TrainingCompleted || o == TrainingFailed }

// An Answer is the API's answer to a sealed batch.
type Answer struct {
	StatusCode    int
	KnowledgeBase int64 // that the answer names; 0 if it names none
	// Sources by member position. A position without sources makes that member's document uncertain.
	Sources [][]SourceAnswer
	// Unreadable are the positions whose field also has a source without a readable id. Their documents are uncertain.
	Unreadable []int
	// Unasked are sources under fields that were not sent.
	Unasked  []SourceAnswer
	NextPoll time.Time
}

// A Refusal is an answer, or a failure before sealing, after which the knowledge base has nothing of the batch.
type Refusal struct {
	StatusCode int // 0 where there was no answer
	Code       string
	Message    string
	// Disposition is the next state of the members.
	Disposition Disposition
	// NextAttempt is when the members may be claimed again after Retry.
	NextAttempt time.Time
}

// A Disposition is the next state of the documents of a refused batch.
type Disposition uint8

// The dispositions of a Refusal.
const (
	Retry   Disposition = iota // pending, one failed attempt more
	Requeue                    // pending as before: the documents did not cause the refusal
	Keep                       // still claimed by the caller
	Fail                       // failed for good, with the refusal's words
)

// A DueSource is a source whose status is due to be asked for.
type DueSource struct {
	ID        int64
	Polls     int
	Status    string // the last word of ReplyCX
	CreatedAt time.Time
	Stuck     bool
}

// A Poll is the result of one question for a source's status.
type Poll struct {
	SourceID int64
	// Polls is that of the DueSource. A status is recorded only if no other was since: an answer that a paused process brings
	// late must not replace a newer one.
	Polls int
	// KnowledgeBase is the one that the answer names, 0 if it names none. A status of another knowledge base's source is
	// not recorded: the source is polled again.
	KnowledgeBase int64
	Status        string // ReplyCX's word; empty keeps the last one
	Outcome       Outcome
	NextPoll      time.Time // of InTraining and TrainingStuck
	Errors        string
}

// Errors that callers decide on.
var (
	// ErrLocked: another process works on the sync. The error's text names the process if it is known.
	ErrLocked = errors.New("another kbsync works on this sync")
	// ErrLockLost: the lock file of the sync was removed or replaced while this process held it, so that another process may
	// take the lock. The process must not go on with that sync.
	ErrLockLost = errors.New("the lock file of the sync was removed or replaced while kbsync held it")
	// ErrLeaseLost: the lease of this process in a shared state ran out, so that other processes may have taken its work.
	ErrLeaseLost = errors.New("the lease of this process in the database ran out")
	// ErrUnavailable: the database cannot be reached, or takes no writes now.
	ErrUnavailable = errors.New("the database is not available")
	// ErrNoAccess: the database refuses the user, or does not exist.
	ErrNoAccess = errors.New("the database refuses the access")
	// ErrMoved: a file of the state was moved, removed or replaced while it was open, so that no other process reads what this
	// one writes.
	ErrMoved = errors.New("the state was moved, removed or replaced while kbsync used it")
	// ErrNewerSchema: the state was written by a newer kbsync.
	ErrNewerSchema = errors.New("the state was written by a newer kbsync")
	// ErrCorrupt: the state's file is damaged, or no database.
	ErrCorrupt = errors.New("the state is damaged")
	// ErrBreakerOpen: an upload's outcome is unknown, so that only one probe may be sealed for this destination.
	ErrBreakerOpen = errors.New("the destination's uploads are halted until one goes through")
	// ErrNotFound: the state has no such sync, document, batch or source.
	ErrNotFound = errors.New("not in the state")
	// ErrNotEmpty: an import would mix two inventories.
	ErrNotEmpty = errors.New("the state is not empty")
	// ErrChanged: the file is no longer the version that was listed. Roots return it, ingest decides on it.
	ErrChanged = errors.New("changed since it was listed")
	// ErrBatchEnded: the batch was sealed or ended before.
	ErrBatchEnded = errors.New("the batch was ended before")
)

// A DestinationError reports that a sync's inventory belongs to another destination than the configured one.
type DestinationError struct {
	Sync       string
	Have, Want Destination
}

func (e *DestinationError) Error() string {
	return fmt.Sprintf("sync %q was synced to %s, and is now configured for %s", e.Sync, e.Have, e.Want)
}

// A SealError lists the members that keep a batch from being sealed. Nothing was written; the batch is still open.
type SealError struct {
	Lost  []int // positions whose claim was lost: the document changed or was removed
	Known []int // positions whose content is known or on its way
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

// errHeld is tryLock's error for a lock that another process, or another Lock, holds.
var errHeld = errors.New("held")
