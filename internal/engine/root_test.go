package engine

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"testing"

	"github.com/kbsync/kbsync/watcher"
)

// A growingRoot lists n documents, and an error after them.
type growingRoot struct {
	Root
	n int
}

func (r *growingRoot) List(context.Context, string) iter.Seq2[watcher.Entry, error] {
	return func(yield func(watcher.Entry, error) bool) {
		for i := range r.n {
			if !yield(watcher.Entry{Key: strconv.Itoa(i)}, nil) {
				return
			}
		}
		yield(watcher.Entry{}, errors.New("broke off"))
	}
}

func (r *growingRoot) Survey(ctx context.Context, _ *watcher.LeftOut) iter.Seq2[watcher.Entry, error] {
	return r.List(ctx, "")
}

// A pass lists its root again while files have not settled. The progress counts each document once.
func TestDocumentsThatAreListedTwiceCountOnce(t *testing.T) {
	listing := &growingRoot{n: 20}
	counted := 0
	root := &CountingRoot{Root: listing, Listed: func() { counted++ }}
	list := func(entries iter.Seq2[watcher.Entry, error]) {
		for range entries {
		}
	}
	list(root.Survey(t.Context(), nil))
	list(root.List(t.Context(), ""))
	list(root.List(t.Context(), "a/")) // a part of the root
	if counted != 20 {
		t.Errorf("counted %d documents of 20", counted)
	}
	listing.n = 23
	list(root.List(t.Context(), ""))
	if counted != 23 {
		t.Errorf("counted %d documents of 23", counted)
	}
}
