package engine

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/preflight"
	"github.com/kbsync/kbsync/state"
)

// A Candidate is a document that may have to be uploaded.
type Candidate struct {
	Key         string
	Fingerprint state.Fingerprint
}

// PendingDocuments streams the documents that the state holds as pending, and then the blocked ones, whose verdict may change with the
// policy.
func PendingDocuments(ctx context.Context, store *state.Store, syncID int64) iter.Seq2[Candidate, error] {
	return func(yield func(Candidate, error) bool) {
		for _, documents := range []iter.Seq2[state.Document, error]{
			store.Documents.All(ctx, syncID, state.Pending),
			store.Documents.Blocked(ctx, syncID),
		} {
			for d, err := range documents {
				if !yield(Candidate{d.Key, d.Fingerprint}, err) {
					return
				}
			}
		}
	}
}

// An Action is the treatment of a document by a sync.
type Action string

// The actions of an estimate.
const (
	ActionUpload     Action = "upload"
	ActionShare      Action = "share"      // its content is in the knowledge base
	ActionResaved    Action = "resaved"    // it was saved again with only its metadata changed
	ActionFail       Action = "fail"       // its content failed before
	ActionSkip       Action = "skip"       // the rules exclude it, or it is changing
	ActionRemove     Action = "remove"     // it is gone from the root
	ActionBlock      Action = "block"      // it can never train
	ActionUnreadable Action = "unreadable" // it cannot be read
)

// A PlanItem is the action for one document.
type PlanItem struct {
	Action Action
	Key    string
	Size   int64
	SHA256 state.SHA256 // zero if it was not hashed
	Reason string
	// Fingerprint is what the listing shows; of a document that is gone, what it showed last.
	Fingerprint state.Fingerprint
}

// An Estimate finds out which documents would be uploaded and which would share a content that is in the knowledge base.
type Estimate struct {
	Store       *state.Store
	Root        *CountingRoot
	Destination state.Destination
	// Checkers is the number of documents hashed at once, at least one.
	Checkers int
	// Policy decides which documents would not be sent.
	Policy preflight.Policy
	// SyncID is the sync, or 0 if the state does not have it. Resaved is its treatment of documents that were saved again with only
	// their metadata changed, as the config has it.
	SyncID  int64
	Resaved string
	// Report, if not nil, receives each item. It returns false to end the estimate.
	Report func(PlanItem) bool

	// The sums of the added documents.
	Uploads, Shares, SavedAgain, Failed, Blocked, Unreadable int
	Bytes                                                    int64 // of the uploads

	contents map[state.SHA256]bool // added before: documents of one content are uploaded once
	ended    bool
}

// Emit reports an item. It returns false once the estimate has ended.
func (e *Estimate) Emit(item PlanItem) bool {
	e.ended = e.ended || e.Report != nil && !e.Report(item)
	return !e.ended
}

// estimateChunk is how many documents are hashed and looked up at a time.
const estimateChunk = 256

// Add hashes documents and looks up their contents in the state.
func (e *Estimate) Add(ctx context.Context, documents iter.Seq2[Candidate, error]) error {
	var chunk []Candidate
	for c, err := range documents {
		if err != nil {
			return err
		}
		if chunk = append(chunk, c); len(chunk) == estimateChunk {
			if err := e.addChunk(ctx, chunk); err != nil || e.ended {
				return err
			}
			chunk = chunk[:0]
		}
	}
	return e.addChunk(ctx, chunk)
}

func (e *Estimate) addChunk(ctx context.Context, chunk []Candidate) error {
	r := reader{root: e.Root, look: e.Policy.Looks(), cores: e.Resaved != config.Upload}
	readings, err := r.readAll(ctx, e.Checkers, chunk)
	if err != nil {
		return err
	}
	hashes := make([]state.SHA256, len(chunk))
	for i := range readings {
		hashes[i] = readings[i].sum
	}
	known := make([]state.DocumentState, len(chunk))
	if e.Destination.ID != 0 && len(chunk) > 0 {
		if known, err = e.Store.Inventory.KnownContents(ctx, e.Destination, hashes); err != nil {
			return err
		}
	}
	for i, c := range chunk {
		resaved := false
		if known[i] == "" && e.SyncID != 0 {
			if resaved, err = e.Store.Documents.IsResaved(ctx, e.SyncID, c.Key, readings[i].core); err != nil {
				return err
			}
		}
		if !e.Emit(e.decide(c, readings[i], known[i], resaved)) {
			return nil
		}
	}
	return nil
}

// savedAgain is how a document is described that was saved again with only its metadata changed.
const savedAgain = "it was saved again with only its metadata changed"

// decide adds one document to the sums.
func (e *Estimate) decide(c Candidate, r reading, known state.DocumentState, resaved bool) PlanItem {
	sum, failure := r.sum, r.err
	item := PlanItem{Action: ActionUpload, Key: c.Key, Size: c.Fingerprint.Size, SHA256: sum, Fingerprint: c.Fingerprint}
	blocked, warnings := e.Policy.Judge(r.report)
	if resaved {
		warnings = append(warnings, savedAgain)
	}
	switch {
	case errors.Is(failure, fs.ErrNotExist), errors.Is(failure, state.ErrChanged):
		item.Action, item.SHA256, item.Reason = ActionSkip, state.SHA256{}, "the file is changing"
	case failure != nil:
		e.Unreadable++
		item.Action, item.SHA256, item.Reason = ActionUnreadable, state.SHA256{}, failure.Error()
	case known == state.Failed:
		e.Failed++
		item.Action, item.Reason = ActionFail, "this content failed before; kbsync retry sends it again"
	case known != "" || e.contents[sum]:
		e.Shares++
		item.Action = ActionShare
	case resaved && e.Resaved == config.Skip:
		e.SavedAgain++
		item.Action, item.Reason = ActionResaved, savedAgain
	case blocked != "":
		e.Blocked++
		item.Action, item.Reason = ActionBlock, blocked
	default:
		e.Uploads++
		e.Bytes += c.Fingerprint.Size
		item.Reason = strings.Join(warnings, "; ")
		if e.contents == nil {
			e.contents = map[state.SHA256]bool{}
		}
		e.contents[sum] = true
	}
	return item
}

// inParallel calls fn with each number below n, several at once. It returns the cause of the context's end.
func inParallel(ctx context.Context, limit, n int, fn func(i int)) error {
	var group errgroup.Group
	group.SetLimit(max(limit, 1))
	for i := range n {
		group.Go(func() error {
			fn(i)
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
