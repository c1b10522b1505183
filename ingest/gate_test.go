package ingest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx"
)

// A blockingAPI calls before at each upload.
type blockingAPI struct {
	*service
	posts  atomic.Int32
	before func(post int32)
}

func (a *blockingAPI) UploadSources(ctx context.Context, knowledgeBase int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	a.before(a.posts.Add(1))
	return a.service.UploadSources(ctx, knowledgeBase, parts, opts)
}

// A shut gate keeps a run from claiming documents, including those that a scan records during the run. Requests in flight go
// on.
func TestShutGateKeepsDocumentsFromBeingClaimed(t *testing.T) {
	fx := newFixture(t)
	gate, wake := &Gate{}, make(chan struct{}, 1)
	api := &blockingAPI{service: fx.service}
	// A scan during the first request: it shuts the gate, records, and only then opens it.
	api.before = func(post int32) {
		if post > 1 {
			return
		}
		gate.Shut()
		for i := range 30 {
			fx.tree.put(fmt.Sprintf("new%d.md", i), fmt.Sprint("new ", i))
		}
		fx.scan()
		wake <- struct{}{}
		time.Sleep(100 * time.Millisecond) // no request may begin meanwhile
		if n := api.posts.Load(); n != 1 {
			t.Errorf("%d requests while the gate was shut", n)
		}
		gate.Open()
		wake <- struct{}{}
	}
	in := New(fx.store, api, fx.tree, fx.sync, Options{Gate: gate, Wake: wake})
	fx.tree.put("a.md", "one")
	fx.scan()
	gate.Shut()
	began := time.Now()
	if res, err := in.Run(t.Context()); err != nil || res.Requests != 0 || res.Deferred != 1 {
		t.Fatalf("with the gate shut: %+v, %v", res, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a run with a shut gate took %v", took)
	}
	gate.Open()
	if res, err := in.Run(t.Context()); err != nil || res.Uploaded != 31 || res.Deferred != 0 {
		t.Fatalf("with the gate open: %+v, %v", res, err)
	}
	fx.wantOnce()
}

func TestWokenRunClaimsNewDocumentsDuringALongRequest(t *testing.T) {
	fx := newFixture(t)
	wake, second := make(chan struct{}, 1), make(chan struct{})
	api := &blockingAPI{service: fx.service}
	api.before = func(post int32) {
		if post > 1 {
			close(second)
			return
		}
		fx.tree.put("b.md", "small")
		fx.scan()
		wake <- struct{}{}
		select {
		case <-second:
		case <-time.After(10 * time.Second):
			t.Error("the new document waited for the first request")
		}
	}
	fx.tree.put("a.md", "large")
	fx.scan()
	if res, err := New(fx.store, api, fx.tree, fx.sync, Options{Wake: wake}).Run(t.Context()); err != nil || res.Uploaded != 2 {
		t.Fatalf("got %+v, %v", res, err)
	}
}
