package hooks

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

// The events of hooks.
const (
	eventSuccess = "success"
	eventFailure = "failure"
	eventOrphan  = "orphan"
)

// maxListed bounds the lists of a message.
const maxListed = 1000

// Options are the options of a Notifier. The zero value has no hooks.
type Options struct {
	// Hooks are the commands and webhooks of the sync.
	Hooks config.Hooks
	// Environ is the environment of commands.
	Environ []string
	// UserAgent names the program to webhooks.
	UserAgent string
	Logger    *slog.Logger     // none if nil
	Now       func() time.Time // time.Now if nil
	// Room, if not nil, is called when Enqueue can enqueue news for which the outbox had no room. It must be quick.
	Room func()
}

// A Notifier calls the hooks of one sync. Its caller holds the lock of the sync. One goroutine may call Enqueue and another one Deliver.
type Notifier struct {
	store  *state.Store
	sync   state.Sync
	opts   Options
	logger *slog.Logger
	now    func() time.Time
	// inDoubt is set while a guard halts the sync: messages about sources left behind wait.
	inDoubt atomic.Bool
	// postponed is set while news wait for room in the outbox.
	postponed atomic.Bool
}

// NewNotifier returns the notifier of a sync.
func NewNotifier(store *state.Store, sync state.Sync, opts Options) *Notifier {
	n := &Notifier{store: store, sync: sync, opts: opts, logger: cmp.Or(opts.Logger, slog.New(slog.DiscardHandler)), now: opts.Now}
	if n.now == nil {
		n.now = time.Now
	}
	return n
}

// hook returns the command or webhook of an event, empty for none.
func (n *Notifier) hook(event string) []string {
	switch event {
	case eventSuccess:
		return n.opts.Hooks.OnSuccess
	case eventFailure:
		return n.opts.Hooks.OnFailure
	case eventOrphan:
		return n.opts.Hooks.OnOrphan
	}
	return nil
}

// Enqueue puts the news of the sync into the outbox: a problem (nil for none), documents that failed, sources that were left
// behind, and with complete that every known document is uploaded and trained. While a guard is in doubt, no source is called left
// behind: a person would remove it for good. For each hook at most state.MaxMessages messages wait. While so many do, the news stay
// unreported, and one later message has all that are still true.
func (n *Notifier) Enqueue(ctx context.Context, problem *Problem, complete bool) error {
	n.inDoubt.Store(problem != nil && problem.InDoubt)
	if len(n.hook(eventFailure)) > 0 {
		if err := n.enqueueFailures(ctx, problem); err != nil {
			return err
		}
	}
	if len(n.hook(eventOrphan)) > 0 && !n.inDoubt.Load() {
		if err := n.enqueueOrphans(ctx); err != nil {
			return err
		}
	}
	if len(n.hook(eventSuccess)) == 0 || !complete {
		return nil
	}
	token, err := n.store.Documents.ChangeToken(ctx, n.sync.ID)
	if err != nil {
		return err
	}
	return n.enqueue(ctx, eventSuccess, each([]string{token}), func(*message, string) {})
}

func (n *Notifier) enqueueFailures(ctx context.Context, problem *Problem) error {
	docs, err := n.store.Documents.NeedingAttention(ctx, n.sync.ID, maxListed)
	if err != nil {
		return err
	}
	for d, err := range n.store.Documents.Blocked(ctx, n.sync.ID) {
		if err != nil {
			return err
		}
		if len(docs) >= maxListed {
			break
		}
		docs = append(docs, d)
	}
	var items []string
	byItem := map[string]state.Document{}
	for _, d := range docs {
		item := fmt.Sprintf("document %d %s %d", d.ID, d.State, d.ChangedAt.UnixMilli())
		items = append(items, item)
		byItem[item] = d
	}
	if problem != nil {
		// By its kind, because the text of an outage differs each time.
		items = append(items, "trouble "+problem.Kind)
	}
	slices.Sort(items)
	return n.enqueue(ctx, eventFailure, each(items), func(m *message, item string) {
		if d, ok := byItem[item]; ok {
			m.Failures = append(m.Failures, failedDocument{d.Key, string(d.State), statuspage.Reason(d)})
			return
		}
		m.Trouble, m.ExitCode = problem.Text, problem.ExitCode
	})
}

func (n *Notifier) enqueueOrphans(ctx context.Context) error {
	superseded, orphaned, err := n.store.Inventory.CountLeftBehind(ctx, n.sync.ID)
	if err != nil {
		return err
	}
	var source state.Source // of the last item
	items := func(yield func(string, error) bool) {
		if superseded+orphaned == 0 {
			return
		}
		filter := state.SourceFilter{SyncID: n.sync.ID, Standings: []state.Standing{state.Superseded, state.Orphaned}, Answering: true}
		for s, err := range n.store.Inventory.Sources(ctx, filter) {
			source = s
			if !yield(sourceItem(s), err) {
				return
			}
		}
	}
	return n.enqueue(ctx, eventOrphan, items, func(m *message, _ string) {
		if len(m.Sources) == maxListed {
			m.Omitted++
			return
		}
		m.Sources = append(m.Sources, leftSource{source.ID, source.Name, source.Key, source.Standing})
	})
}

// sourceItem is the item of a source. The items are in the order of the inventory, in which adopted sources may have negative ids.
func sourceItem(s state.Source) string {
	item := binary.BigEndian.AppendUint64(nil, uint64(s.Destination.ID))
	return string(binary.BigEndian.AppendUint64(item, uint64(s.ID)^1<<63))
}

// each yields items that are in order.
func each(items []string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

// enqueue adds a message about those items that the outbox has not had before, if there are any. add adds an item to it.
func (n *Notifier) enqueue(ctx context.Context, event string, items iter.Seq2[string, error], add func(*message, string)) error {
	m := message{Event: event, Sync: n.sync.Name, Root: n.sync.Root, KnowledgeBase: n.sync.Destination.KnowledgeBase, At: n.now().UTC()}
	_, err := n.store.Outbox.Enqueue(ctx, n.sync.ID, event, items, func(item string) { add(&m, item) }, func() ([]byte, error) {
		// Counting reads all documents, so it waits until there is a message.
		counts, err := n.store.Documents.Counts(ctx, n.sync.ID)
		if err != nil {
			return nil, err
		}
		delete(counts, state.Removed)
		m.Documents = counts
		return json.Marshal(m)
	})
	if errors.Is(err, state.ErrOutboxFull) {
		n.postponed.Store(true)
		return nil
	}
	return err
}
