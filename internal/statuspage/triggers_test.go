package statuspage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/state"
)

func TestTriggers(t *testing.T) {
	var got []string
	note := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
	var result error
	p := newFixture(t).page(Options{
		Sync: func(_ context.Context, sync string) error { note("sync %q", sync); return result },
		Reindex: func(_ context.Context, w Reindex) (int, error) {
			note("reindex %+v", w)
			return 12, result
		},
		Reload: func(context.Context) error { note("reload"); return result },
	})
	for _, c := range []struct {
		target, body string
		err          error
		status       int
		called       string
		answer       string // a part of the response
	}{
		{"/-/sync", "", nil, 202, `sync ""`, `{"ok":true}`},
		{"/-/sync?sync=handbook", "", nil, 202, `sync "handbook"`, `{"ok":true}`},
		{"/-/sync", "sync=handbook", nil, 202, `sync "handbook"`, `{"ok":true}`},
		{"/-/sync?name=handbook", "", nil, 400, "", "unknown parameter"},
		{"/-/sync?sync=x", "", fmt.Errorf("sync x: %w", state.ErrNotFound), 404, `sync "x"`, `"error":"sync x: not in the state"`},
		{"/-/sync", "", errors.New("the disk is full"), 500, `sync ""`, "the disk is full"},
		{"/-/sync?sync=%zz", "", nil, 400, "", "cannot parse"},
		{"/-/reload", "", nil, 200, "reload", `{"ok":true}`},
		{"/-/reload", "", errors.New("kbsync.yaml:3:1: no"), 500, "reload", "kbsync.yaml:3:1"},
		{"/-/reload?x=1", "", nil, 400, "", "unknown parameter"},

		// An upload is permanent, so a reindex of all documents must be explicit.
		{"/-/reindex", "", nil, 400, "", "choose the documents"},
		{"/-/reindex", "sync=handbook", nil, 400, "", "choose the documents"},
		{"/-/reindex", "all=false", nil, 400, "", "choose the documents"},
		{"/-/reindex", "all=true&glob=*", nil, 400, "", "choose the documents"},
		{"/-/reindex", "glob=", nil, 400, "", "glob is empty"},
		{"/-/reindex", "all=maybe", nil, 400, "", "must be true or false"},
		{"/-/reindex", "older_than=30", nil, 400, "", "must be an age"},
		{"/-/reindex", "older_than=-1h", nil, 400, "", "must be an age"},
		{"/-/reindex", "failed=1&globs=x", nil, 400, "", "unknown parameter"},
		{"/-/reindex", "glob=" + strings.Repeat("x", maxForm), nil, 400, "", "too large"},
		{"/-/reindex", "sync=handbook&all=true", nil, 400, "", "add confirm=duplicates"},
		{"/-/reindex", "all=true&confirm=true", nil, 400, "", "confirm must be duplicates"},
		{"/-/reindex", "all=true&confirm=", nil, 400, "", "confirm must be duplicates"},
		{"/-/reindex", "confirm=duplicates", nil, 400, "", "choose the documents"},
		{"/-/reindex", "glob=**", ErrUnconfirmed, 400, "reindex {Sync: Globs:[**] Key: Failed:false Stuck:false OlderThan:0s All:false Retry:false Confirmed:false}", "add confirm=duplicates"},
		{"/-/reindex", "sync=handbook&all=true&confirm=duplicates", nil, 202, "reindex {Sync:handbook Globs:[] Key: Failed:false Stuck:false OlderThan:0s All:true Retry:false Confirmed:true}", `"documents":12`},
		{"/-/reindex?failed=true", "glob=a/**&glob=b&stuck=true&older_than=720h", nil, 202, "reindex {Sync: Globs:[a/** b] Key: Failed:true Stuck:true OlderThan:720h0m0s All:false Retry:false Confirmed:false}", `"ok":true`},
	} {
		t.Run(fmt.Sprintf("%.40s %.40s", c.target, c.body), func(t *testing.T) {
			got, result = nil, c.err
			w := do(p, local("POST", c.target, c.body))
			if w.Code != c.status || strings.Join(got, ";") != c.called || !strings.Contains(w.Body.String(), c.answer) {
				t.Errorf("%d %s, called %v; want %d %s, called %s", w.Code, w.Body, got, c.status, c.answer, c.called)
			}
			var a struct{ OK *bool }
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || a.OK == nil || *a.OK != (w.Code < 300) {
				t.Errorf("%d with %s", w.Code, w.Body)
			}
		})
	}

	q := local("POST", "/-/reindex", `{"all": true}`)
	q.Header.Set("Content-Type", "application/json")
	if w := do(p, q); w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("JSON: %d", w.Code)
	}
	q = local("POST", "/-/sync", "sync=handbook")
	q.Header.Set("Accept", "text/html,*/*")
	if w := do(p, q); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Errorf("a button: %d %v", w.Code, w.Header())
	}
	p = newFixture(t).page(Options{})
	for target := range map[string]bool{"/-/sync": true, "/-/reload": true, "/-/reindex?failed=1": true} {
		if w := do(p, local("POST", target, "")); w.Code != http.StatusNotImplemented {
			t.Errorf("%s without a function: %d", target, w.Code)
		}
	}
}
