package ingest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx"
)

// A waiting API does something before each upload.
type waiting struct {
	*service
	posts  atomic.Int32
	before func(post int32)
}

func (a *waiting) UploadSources(ctx context.Context, knowledgeBase int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	a.before(a.posts.Add(1))
	return a.service.UploadSources(ctx, knowledgeBase, parts, opts)
}

// A gate that is shut keeps everything from being taken up, what is recorded while a run goes on among it; what is on its way goes on.
func TestGate(t *testing.T) {
	w := newWorld(t)
	gate, wake := &Gate{}, make(chan struct{}, 1)
	api := &waiting{service: w.service}
	// A scan while the first request is on its way: shut, record, and only then open.
	api.before = func(post int32) {
		if post > 1 {
			return
		}
		gate.Shut()
		for i := range 30 {
			w.tree.put(fmt.Sprintf("new%d.md", i), fmt.Sprint("new ", i))
		}
		w.scan()
		wake <- struct{}{}
		time.Sleep(100 * time.Millisecond) // in which nothing may happen
		if n := api.posts.Load(); n != 1 {
			t.Errorf("%d requests while the gate was shut", n)
		}
		gate.Open()
		wake <- struct{}{}
	}
	in := New(w.store, api, w.tree, w.sync, Options{Gate: gate, Wake: wake})
	w.tree.put("a.md", "one")
	w.scan()
	gate.Shut()
	began := time.Now()
	if res, err := in.Run(t.Context()); err != nil || res.Requests != 0 || res.Deferred != 1 {
		t.Fatalf("with the gate shut: %+v, %v", res, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a run that may do nothing took %v", took)
	}
	gate.Open()
	if res, err := in.Run(t.Context()); err != nil || res.Uploaded != 31 || res.Deferred != 0 {
		t.Fatalf("with the gate open: %+v, %v", res, err)
	}
	w.wantOnce()
}

// A run whose only request takes long takes up what is recorded meanwhile when it is woken.
func TestWake(t *testing.T) {
	w := newWorld(t)
	wake, second := make(chan struct{}, 1), make(chan struct{})
	api := &waiting{service: w.service}
	api.before = func(post int32) {
		if post > 1 {
			close(second)
			return
		}
		w.tree.put("b.md", "small")
		w.scan()
		wake <- struct{}{}
		select {
		case <-second:
		case <-time.After(10 * time.Second):
			t.Error("what was recorded waited for the first request")
		}
	}
	w.tree.put("a.md", "large")
	w.scan()
	if res, err := New(w.store, api, w.tree, w.sync, Options{Wake: wake}).Run(t.Context()); err != nil || res.Uploaded != 2 {
		t.Fatalf("got %+v, %v", res, err)
	}
}
