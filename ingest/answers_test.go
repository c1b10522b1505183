package ingest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// A scriptedAPI answers each request with the same text.
type scriptedAPI struct {
	answer string // to an upload; the fields of its parts are d1, d2
	status string // to a status request
	early  bool   // answers an upload before it has read the body
}

func (s *scriptedAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		_, _ = io.WriteString(w, cmp.Or(s.status, `{"ok": true, "sources": []}`))
		return
	}
	if !s.early {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	_, _ = io.WriteString(w, s.answer)
}

// serve makes the real client of the API the one of the run.
func (fx *fixture) serve(t *testing.T, api *scriptedAPI) API {
	t.Helper()
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	client, err := replycx.New("token", replycx.Options{BaseURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// inventory lists the sources as id:key:standing, with the knowledge base of those elsewhere.
func (fx *fixture) inventory() string {
	fx.t.Helper()
	var all []string
	for s, err := range fx.store.Inventory.Sources(context.Background(), state.SourceFilter{}) {
		if err != nil {
			fx.t.Fatal(err)
		}
		text := fmt.Sprintf("%d:%s:%s", s.ID, s.Key, s.Standing)
		if s.Destination.KnowledgeBase != knowledgeBase {
			text += fmt.Sprintf("@%d", s.Destination.KnowledgeBase)
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// states lists the documents as key=state.
func (fx *fixture) states() string {
	fx.t.Helper()
	var all []string
	for d, err := range fx.store.Documents.All(context.Background(), fx.sync.ID) {
		if err != nil {
			fx.t.Fatal(err)
		}
		all = append(all, d.Key+"="+string(d.State))
	}
	return strings.Join(all, " ")
}

// The inventory has source 1 of old.md. a.md and b.md are sent in one request, and the API answers as no honest API would. No
// row of the inventory moves, every id that can be read is in it, and only a document with a new source of its own completes.
func TestLyingAnswersCompleteNothing(t *testing.T) {
	source := func(id string) string {
		return `{"id": ` + id + `, "type": "file", "name": "n", "status": "completed"}`
	}
	answer := func(fields ...string) string { return "{" + strings.Join(fields, ", ") + "}" }
	field := func(name string, ids ...string) string {
		sources := make([]string, len(ids))
		for i, id := range ids {
			sources[i] = source(id)
		}
		return `"` + name + `": [` + strings.Join(sources, ", ") + `]`
	}
	const ok = `"ok": true, "knowledge_base_id": 876`
	for _, c := range []struct {
		name, answer string
		states       string // of a.md and b.md
		inventory    string // beside source 1
		conflicts    int
	}{
		{"honest", answer(ok, field("d1", "10"), field("d2", "11")), "completed completed", "10:a.md:live 11:b.md:live", 0},
		{"no knowledge base", answer(field("d1", "10"), field("d2", "11")), "completed completed", "10:a.md:live 11:b.md:live", 0},
		{"id known", answer(ok, field("d1", "10"), field("d2", "1")), "completed uncertain", "10:a.md:live", 1},
		{"id known beside a new one", answer(ok, field("d1", "10"), field("d2", "11", "1")), "completed uncertain", "10:a.md:live 11:b.md:orphaned", 1},
		{"id twice", answer(ok, field("d1", "10"), field("d2", "10")), "uncertain uncertain", "10::orphaned", 2},
		{"other base", answer(`"knowledge_base_id": 5`, field("d1", "10"), field("d2", "11")), "uncertain uncertain", "10:a.md:orphaned@5 11:b.md:orphaned@5", 2},
		{"other base as a string", answer(`"knowledge_base_id": "5"`, field("d1", "10"), field("d2", "11")), "uncertain uncertain", "10:a.md:orphaned@5 11:b.md:orphaned@5", 2},
		{"missing field", answer(ok, field("d1", "10")), "completed uncertain", "10:a.md:live", 0},
		{"empty field", answer(ok, field("d1", "10"), field("d2")), "completed uncertain", "10:a.md:live", 0},
		{"field not asked for", answer(ok, field("d1", "10"), field("d2", "11"), field("d9", "12")), "completed completed", "10:a.md:live 11:b.md:live 12::orphaned", 0},
		{"known id under a field not asked for", answer(ok, field("d1", "10"), field("d2", "11"), field("d9", "1")), "completed completed", "10:a.md:live 11:b.md:live", 1},
		{"string id", answer(ok, field("d1", "10"), field("d2", `"11"`)), "completed uncertain", "10:a.md:live", 0},
		{"string id beside a readable one", answer(ok, field("d1", "10"), field("d2", "11", `"12"`)), "completed uncertain", "10:a.md:live 11:b.md:orphaned", 0},
		{"float id", answer(ok, field("d1", "10"), field("d2", "11.5")), "completed uncertain", "10:a.md:live", 0},
		{"float id beside a readable one", answer(ok, field("d1", "10"), field("d2", "11.0", "12")), "completed uncertain", "10:a.md:live 12:b.md:orphaned", 0},
		{"id above 2^53", answer(ok, field("d1", "10"), field("d2", "9007199254740993")), "completed uncertain", "10:a.md:live", 0},
		{"id above 2^53 beside a readable one", answer(ok, field("d1", "10"), field("d2", "11", "9007199254740993")), "completed uncertain", "10:a.md:live 11:b.md:orphaned", 0},
		{"negative id", answer(ok, field("d1", "10"), field("d2", "-11")), "completed uncertain", "10:a.md:live", 0},
		{"no readable id at all", answer(ok, field("d1", `"10"`), field("d2", "null")), "uncertain uncertain", "", 0},
		{"no source", answer(ok), "uncertain uncertain", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			fx := newFixture(t)
			fx.opts = Options{HoldUncertain: true, Patience: time.Millisecond, Logger: slog.New(slog.NewJSONHandler(&log, nil))}
			api := &scriptedAPI{answer: answer(ok, field("d1", "1"))}
			client := fx.serve(t, api)
			upload := func() {
				if _, err := New(fx.store, client, fx.tree, fx.sync, fx.opts).Run(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			fx.tree.put("old.md", "old")
			fx.scan()
			upload()
			log.Reset()
			api.answer = c.answer
			fx.tree.put("a.md", "a")
			fx.tree.put("b.md", "b")
			fx.scan()
			upload()
			a, b, _ := strings.Cut(c.states, " ")
			if got, want := fx.states(), "a.md="+a+" b.md="+b+" old.md=completed"; got != want {
				t.Errorf("documents %s, want %s", got, want)
			}
			if got, want := fx.inventory(), strings.TrimSpace("1:old.md:live "+c.inventory); got != strings.Join(sortedFields(want), " ") {
				t.Errorf("inventory %s, want %s", got, want)
			}
			if streak, _, err := fx.store.Journal.Breaker(t.Context(), fx.sync.Destination.ID); err != nil || (streak > 0) != (c.states == "uncertain uncertain") {
				t.Errorf("streak %d, %v", streak, err)
			}
			if n := warnings(t, &log, "the answer to an upload names a source"); n != c.conflicts {
				t.Errorf("%d conflicts logged, want %d", n, c.conflicts)
			}
			fx.check()
		})
	}
}

func sortedFields(text string) []string {
	fields := strings.Fields(text)
	slices.Sort(fields)
	return fields
}

// warnings counts the warnings of a log whose message begins with a text.
func warnings(t *testing.T, log io.Reader, text string) (n int) {
	t.Helper()
	for d := json.NewDecoder(log); d.More(); {
		var line struct{ Level, Msg string }
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if line.Level == "WARN" && strings.HasPrefix(line.Msg, text) {
			n++
		}
	}
	return n
}

// An API that claims success before it has the whole request has nothing of it: no document completes, none is uncertain.
func TestSuccessBeforeTheEndOfTheBodyCompletesNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.opts = Options{Patience: time.Millisecond}
	api := &scriptedAPI{early: true, answer: `{"ok": true, "d1": [{"id": 10, "status": "completed"}]}`}
	client := fx.serve(t, api)
	// So large that the client asks first, with Expect: 100-continue, and that no buffer takes all of it.
	fx.tree.put("a.md", strings.Repeat("a", 8<<20))
	fx.scan()
	res, err := New(fx.store, client, fx.tree, fx.sync, fx.opts).Run(t.Context())
	if err != nil || res.Uploaded+res.Uncertain > 0 || res.Deferred != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	fx.wantCounts(map[state.DocumentState]int{state.Pending: 1})
	if got := fx.inventory(); got != "" {
		t.Errorf("inventory %s", got)
	}
	fx.check()
}

// earlyAPI returns a result without sealing the request.
type earlyAPI struct{ API }

func (earlyAPI) UploadSources(context.Context, int64, []replycx.Part, *replycx.UploadOptions) (*replycx.UploadResult, error) {
	return &replycx.UploadResult{Sources: map[string][]replycx.Source{"d1": {{ID: 10, Status: replycx.StatusCompleted}}}}, nil
}

func TestSuccessOfARequestThatWasNotSealedCompletesNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.opts = Options{Patience: time.Millisecond}
	fx.tree.put("a.md", "a")
	fx.scan()
	res, err := New(fx.store, earlyAPI{fx.service}, fx.tree, fx.sync, fx.opts).Run(t.Context())
	if err != nil || res.Uploaded+res.Uncertain > 0 || !strings.Contains(res.Why, "claims success") {
		t.Errorf("%+v, %v", res, err)
	}
	fx.wantCounts(map[state.DocumentState]int{state.Pending: 1})
}

// A status of another knowledge base proves neither that a left-behind source exists nor that it is gone.
func TestStatusOfAnotherKnowledgeBaseSharesAndUploadsNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	api := &scriptedAPI{answer: `{"d1": [{"id": 1, "status": "completed"}]}`}
	client := fx.serve(t, api)
	fx.opts = Options{Patience: time.Millisecond}
	upload := func(content string, id int) Result {
		api.answer = fmt.Sprintf(`{"d1": [{"id": %d, "status": "completed"}]}`, id)
		fx.tree.put("a.md", content)
		fx.scan()
		res, err := New(fx.store, client, fx.tree, fx.sync, fx.opts).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	upload("old", 1)
	upload("new", 2)
	api.status = `{"ok": true, "sources": [{"id": 1, "status": "completed", "knowledge_base_id": 5}]}`
	if res := upload("old", 3); res.Shared+res.Uploaded > 0 || res.Deferred != 1 || !strings.Contains(res.Why, "knowledge base 5") {
		t.Errorf("%+v", res)
	}
	if got, want := fx.inventory(), "1:a.md:superseded 2:a.md:live"; got != want {
		t.Errorf("inventory %s, want %s", got, want)
	}
}
