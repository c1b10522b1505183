package engine

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// hangingHook returns the URL of a webhook that does not respond before the end of the test, and a channel that receives its calls.
func hangingHook(t *testing.T) (url string, called chan struct{}) {
	called, end := make(chan struct{}, 10), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		called <- struct{}{}
		<-end
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(end) })
	return server.URL, called
}

func TestHookThatHangsDelaysNoStatusFile(t *testing.T) {
	t.Parallel()
	url, called := hangingHook(t)
	r := startDaemon(t, fmt.Sprintf("{error_file: errors.json, touch_file: touched, poll: {min: 20ms}, syncs: [{name: docs, root: docs, knowledge_base: 876, "+
		"settle: 0s, batch: {wait: 0s}, heartbeat_url: %q, hooks: {on_failure: %q, timeout: 1h}}]}", url, url), func(f *fixture) {
		f.must(os.WriteFile(filepath.Join(f.opts.Config.Syncs[0].Root.Dir, "bad.pdf"), []byte("not a PDF"), 0o600))
	})
	r.answerAll()
	exists := func(name string) func() bool {
		return func() bool {
			_, err := os.Stat(filepath.Join(r.dir(), name))
			return err == nil
		}
	}
	receive(t, called)
	until(t, exists("errors.json"))
	r.must(os.Remove(filepath.Join(r.opts.Config.Syncs[0].Root.Dir, "bad.pdf")))
	r.must(os.WriteFile(filepath.Join(r.opts.Config.Syncs[0].Root.Dir, "new.md"), []byte("new"), 0o600))
	until(t, func() bool { return !exists("errors.json")() })
	until(t, exists("touched"))
	receive(t, called) // the heartbeat
	select {
	case <-called:
		t.Error("the hook was called twice at a time")
	default:
	}
}

func TestHookThatHangsDelaysNoStart(t *testing.T) {
	t.Parallel()
	url, called := hangingHook(t)
	r := startDaemon(t, fmt.Sprintf("{syncs: [{name: docs, root: docs, knowledge_base: 876, hooks: {on_failure: %q, timeout: 1h}}]}", url), func(f *fixture) {
		_, err := f.opts.Store.Syncs.Ensure(t.Context(), "docs", "/docs", f.opts.API.Destination(877), false)
		f.must(err)
	})
	receive(t, called)
	until(t, func() bool { return r.log.has("msg=ready") })
}
