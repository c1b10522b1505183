package engine

import (
	"context"
	"errors"
	"time"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
)

// AdoptOptions are the options of Adopt.
type AdoptOptions struct {
	Options
	// Listing, if not nil, has the sources in the knowledge base as far as a person knows them. Without it each document is
	// adopted with a source whose id is unknown.
	Listing *Listing
	// Strays records the listed sources that no document has as orphaned.
	Strays bool
}

// An AdoptResult counts what Adopt did. Its lists have ids.
type AdoptResult struct {
	Sync       state.Sync
	Adopted    int // documents
	Identified int // those of them with the ids of their sources
	Former     int // older sources of adopted documents, which are superseded now
	// Unlisted documents are not in the listing, and Changed ones are listed with another content. They are pending.
	Unlisted, Changed int
	// Unread documents could not be read, or changed meanwhile. They are pending.
	Unread int
	// Missing ids are listed, and the API does not know them in this knowledge base.
	Missing []int64
	// Strays are the listed sources that no document has and the inventory does not have. Recorded reports that it has them now.
	Strays   []int64
	Recorded bool
}

// adoptAtOnce is how many documents are hashed and recorded together.
const adoptAtOnce = 200

// Adopt takes the documents of a sync as uploaded, and sends none. It scans the root as a pass does, with its guards.
func Adopt(ctx context.Context, opts AdoptOptions, s config.Sync) (result AdoptResult, err error) {
	w := newWorker(opts.Options, s)
	w.adopting = true
	if err := w.takeLock(ctx, opts.Config.LockTimeout); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.unlock()) }()
	if err := w.open(ctx); err != nil {
		return result, err
	}
	result.Sync = w.sync
	if err := w.openRoot(ctx); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.root.Close()) }()
	if opts.Listing != nil {
		if result.Missing, err = opts.Listing.verify(ctx, opts.API.Client.SourceStatus, s.KnowledgeBase); err != nil {
			return result, err
		}
	}
	// The gate stays shut until the next scan, so that no process that shares the state uploads what is adopted.
	if err := w.setGate(ctx, true); err != nil {
		return result, err
	}
	p := &pass{worker: w, run: &RunOptions{Options: opts.Options}, soft: ctx}
	if err := p.scan(ctx); err != nil {
		return result, err
	}
	a := adopter{worker: w, listing: opts.Listing, options: ingestOptions(opts.Config, s), result: &result}
	if err := a.adoptAll(ctx); err != nil {
		return result, err
	}
	if opts.Listing != nil {
		if err := a.strays(ctx, opts.Strays); err != nil {
			return result, err
		}
	}
	// Not before: after an adoption that broke off, the next sync must halt.
	w.mark(ctx)
	return result, nil
}

// An adopter adopts the pending documents of a sync.
type adopter struct {
	*worker
	listing *Listing
	options ingest.Options
	result  *AdoptResult
}

func (a *adopter) adoptAll(ctx context.Context) error {
	for last := int64(0); ; {
		docs, err := a.opts.Store.Queue.ClaimAll(ctx, a.sync.ID, last, adoptAtOnce)
		if err != nil || len(docs) == 0 {
			return err
		}
		last = docs[len(docs)-1].DocumentID
		if err := a.adopt(ctx, docs); err != nil {
			// Recovery would give them back, too, but only when the sync is opened again.
			return errors.Join(err, a.opts.Store.Queue.Release(context.WithoutCancel(ctx), docs, time.Time{}, false))
		}
	}
}

func (a *adopter) adopt(ctx context.Context, docs []state.ClaimedDocument) error {
	candidates := make([]Candidate, len(docs))
	for i, d := range docs {
		candidates[i] = Candidate{d.Key, d.Fingerprint}
	}
	r := reader{root: a.root, cores: a.options.Cores}
	readings, err := r.readAll(ctx, a.opts.Config.Checkers, candidates)
	if err != nil {
		return err
	}
	var adoptions []state.Adoption
	var rest []state.ClaimedDocument
	for i, d := range docs {
		if err := readings[i].err; err != nil {
			a.logger.Warn("cannot read a document, so it is not adopted", "key", d.Key, "error", err)
			a.result.Unread++
			rest = append(rest, d)
			continue
		}
		adoption := state.Adoption{
			HashedDocument: state.HashedDocument{ClaimedDocument: d, SHA256: readings[i].sum, Size: d.Fingerprint.Size, Core: readings[i].core},
			Name:           ingest.SourceName(d.Key, a.options.Names),
		}
		if a.listing != nil && !a.identify(&adoption) {
			rest = append(rest, d)
			continue
		}
		adoptions = append(adoptions, adoption)
	}
	if err := a.opts.Store.Queue.Release(ctx, rest, time.Time{}, false); err != nil || len(adoptions) == 0 {
		return err
	}
	adopted, err := a.opts.Store.Journal.Adopt(ctx, a.sync.ID, adoptions, a.options.Sharing)
	if err != nil {
		return err
	}
	for i, ok := range adopted {
		a.count(adoptions[i], ok)
	}
	return nil
}

// identify finds the sources of a document in the listing. It returns false if the listing has none with its content.
func (a *adopter) identify(d *state.Adoption) bool {
	m := a.listing.match(d.Key, d.Name, d.SHA256)
	switch {
	case m.changed:
		a.result.Changed++
	case !m.found:
		a.result.Unlisted++
	}
	d.Sources, d.Former = m.sources, m.former
	return m.found
}

func (a *adopter) count(d state.Adoption, adopted bool) {
	if !adopted {
		a.result.Changed++ // or it changed meanwhile
		return
	}
	a.result.Adopted++
	a.result.Former += len(d.Former)
	if len(d.Sources) > 0 {
		a.result.Identified++
	}
	if a.listing != nil {
		a.listing.use(d)
	}
}

// strays finds the listed sources that no document has, and records them if record is set.
func (a *adopter) strays(ctx context.Context, record bool) (err error) {
	strays := a.listing.unused()
	if len(strays) == 0 {
		return nil
	}
	ids := make([]int64, len(strays))
	for i, src := range strays {
		ids[i] = src.ID
	}
	if a.result.Strays, err = a.opts.Store.Inventory.Missing(ctx, a.sync.Destination.ID, ids); err != nil || !record {
		return err
	}
	a.result.Recorded = true
	_, err = a.opts.Store.Journal.AdoptStrays(ctx, a.sync.ID, strays)
	return err
}
