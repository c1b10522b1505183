package engine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
	"github.com/kbsync/kbsync/state"
)

// A year is the life of a handbook: people edit, rename, save again, copy, revert and delete its documents, kbsync syncs it every
// night, and once a month a person works through the worksheet.
type year struct {
	*testing.T
	dir      string
	config   *config.Config
	emulator *emulator.Emulator
	client   *replycx.Client
	store    *state.Store
	rand     *rand.Rand
	versions int
	past     map[string][]string // the contents of each key
	forms    map[string]*form
}

const simulatedDays = 365

// The worksheet lists exactly the sources that still answer although no document has their content, acknowledging empties it, and
// the inventory and the knowledge base agree on every source.
func TestYearOfAHandbook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := newYear(t)
		for day := range simulatedDays {
			for range y.rand.IntN(4) {
				y.change()
			}
			marks := 0
			if day%30 == 20 {
				marks = 2 // a reindex
			}
			y.sync(marks)
			y.compare(day)
			if day%30 == 29 {
				y.tidy(day%60 == 29)
			}
			time.Sleep(24 * time.Hour)
		}
		if y.versions < simulatedDays/2 {
			t.Errorf("only %d versions in a year", y.versions)
		}
		y.tidy(true)
		if left := y.worksheet(); len(left) > 0 {
			t.Errorf("after the last removal the worksheet lists %v", left)
		}
		y.compareInventories()
		y.wantNoUpload("an unchanged handbook")
		y.saveAllAgain()
		y.wantNoUpload("documents that were saved again")
		y.compare(simulatedDays)
		y.lose()
	})
}

// newYear copies the example handbook, and connects to an emulator over pipes: the clock of a bubble stands still while a socket
// waits.
func newYear(t *testing.T) *year {
	y := &year{T: t, dir: t.TempDir(), rand: rand.New(rand.NewPCG(2026, 1)), past: map[string][]string{}, forms: map[string]*form{}}
	if err := os.CopyFS(y.dir, os.DirFS(filepath.FromSlash("../../examples/handbook"))); err != nil {
		t.Fatal(err)
	}
	y.check(os.Remove(filepath.Join(y.dir, ".kbsyncignore"))) // the model of this test knows no rules
	var err error
	if y.emulator, err = emulator.New(emulator.Options{Train: 90 * time.Second}); err != nil {
		t.Fatal(err)
	}
	pipe := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: y.emulator}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(pipe)
	}()
	y.client, err = replycx.New(y.emulator.Token(51), replycx.Options{
		BaseURL:    "http://127.0.0.1",
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: pipe.dial}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// Some documents fail in training, which a look at them would prevent.
	y.config, err = config.Parse(config.Input{
		Dir: t.TempDir(), Path: "kbsync.yaml",
		File: fmt.Appendf(nil, "syncs:\n  - {name: handbook, root: %q, knowledge_base: 876, settle: 0s, preflight: off}\n", y.dir),
	})
	if err != nil {
		t.Fatal(err)
	}
	y.store = y.open()
	t.Cleanup(func() {
		y.client.CloseIdleConnections()
		y.check(server.Close())
		<-done
		y.check(y.emulator.Close())
	})
	return y
}

// A pipeListener connects a client with a server in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	close(l.closed)
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// open opens an empty state until the test ends.
func (y *year) open() *state.Store {
	store, err := state.Open(y.Context(), state.Options{Path: filepath.Join(y.TempDir(), "kbsync.db")})
	y.check(err)
	y.Cleanup(func() { y.check(store.Close()) })
	return store
}

func (y *year) check(err error) {
	y.Helper()
	if err != nil {
		y.Fatal(err)
	}
}

func (y *year) options() Options {
	return Options{
		Config: y.config, Store: y.store, Logger: slog.New(slog.DiscardHandler), Now: time.Now, Cut: y.Context(),
		API: &API{Client: y.client, Origin: "http://127.0.0.1", Account: "51", Local: true, Embedded: true, Close: func() error { return nil }},
	}
}

// sync makes a pass, which uploads that many documents once more although they have not changed.
func (y *year) sync(marks int) {
	y.Helper()
	run := RunOptions{Options: y.options(), Began: time.Now(), Wait: true}
	var keys []string
	if marks > 0 {
		keys = slices.Collect(maps.Keys(y.contents()))
		y.rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		run.Mark = func(ctx context.Context, store *state.Store, sync state.Sync) (int, error) {
			return store.Queue.Mark(ctx, sync.ID, state.Selection{Match: func(key string) bool { return slices.Contains(keys[:marks], key) }})
		}
	}
	y.linkForms(keys[:marks])
	result := RunOnce(y.Context(), run)
	for _, p := range result.Passes {
		y.check(p.Err)
		y.check(p.TrainingErr)
	}
}

// keys returns the keys of the handbook in their order.
func (y *year) keys() (keys []string) {
	y.check(filepath.WalkDir(y.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(y.dir, path)
			keys = append(keys, filepath.ToSlash(rel))
		}
		return err
	}))
	return keys
}

func (y *year) path(key string) string { return filepath.Join(y.dir, filepath.FromSlash(key)) }

func (y *year) read(key string) string {
	data, err := os.ReadFile(y.path(key))
	y.check(err)
	return string(data)
}

func (y *year) write(key, content string) {
	y.check(os.MkdirAll(filepath.Dir(y.path(key)), 0o755))
	if old, err := os.ReadFile(y.path(key)); err == nil {
		y.past[key] = append(y.past[key], string(old))
	}
	y.check(os.WriteFile(y.path(key), []byte(content), 0o644))
}

// contents returns the contents that can be uploaded, by key.
func (y *year) contents() map[string][32]byte {
	contents := map[string][32]byte{}
	for key, f := range y.forms {
		contents[key] = sha256.Sum256(f.linked)
	}
	for _, key := range y.otherKeys() {
		if text := y.read(key); text != "" {
			contents[key] = sha256.Sum256([]byte(text))
		}
	}
	return contents
}

// change does what a person does to a handbook.
func (y *year) change() {
	keys := y.otherKeys()
	key, other := keys[y.rand.IntN(len(keys))], keys[y.rand.IntN(len(keys))]
	y.versions++
	fresh := fmt.Sprintf("# Version %d\n", y.versions)
	switch y.rand.IntN(16) {
	case 0, 1, 2:
		y.write(key, fresh)
	case 3:
		y.write(fmt.Sprintf("news/%d.md", y.versions), fresh)
	case 4: // saved again
		y.write(key, y.read(key))
	case 5:
		if old := y.past[key]; len(old) > 0 {
			y.write(key, old[y.rand.IntN(len(old))])
		}
	case 6:
		y.check(os.Rename(y.path(key), y.path(fmt.Sprintf("%s-%d%s", strings.TrimSuffix(key, filepath.Ext(key)), y.versions, filepath.Ext(key)))))
	case 7:
		if dir := filepath.Dir(y.path(key)); dir != y.dir {
			y.check(os.Rename(dir, fmt.Sprintf("%s-%d", dir, y.versions)))
		}
	case 8:
		y.write(fmt.Sprintf("copies/%d.md", y.versions), y.read(key))
	case 9:
		if len(keys) > 30 {
			y.check(os.Remove(y.path(key)))
		}
	case 10:
		text := y.read(key)
		y.write(key, y.read(other))
		y.write(other, text)
	case 11: // its training fails
		y.write(fmt.Sprintf("scans/%d.pdf", y.versions%5), fresh)
	case 12:
		y.edit(fmt.Sprintf("forms/%d.docx", y.versions%4), fresh)
	default:
		y.saveAgain()
	}
}

// worksheet returns the ids that a person would remove.
func (y *year) worksheet() (ids []int64) {
	y.Helper()
	filter := state.SourceFilter{Standings: []state.Standing{state.Superseded, state.Orphaned}, Answering: true}
	for row, err := range y.store.Inventory.Worksheet(y.Context(), filter) {
		y.check(err)
		ids = append(ids, row.ID)
		if row.LeftAt.IsZero() || len(row.Documents) > 0 && len(row.ReplacedBy) == 0 {
			y.Errorf("the worksheet has %+v", row)
		}
	}
	return ids
}

// compare compares the worksheet with the sources that answer wrongly: those of a content that no document has, and those of a
// content of which a newer source answers.
func (y *year) compare(day int) {
	y.Helper()
	has := map[[32]byte]bool{}
	for _, sum := range y.contents() {
		has[sum] = true
	}
	newest, failed := map[[32]byte]int64{}, map[[32]byte]bool{}
	accepted := y.emulator.Accepted()
	for _, a := range accepted {
		failed[a.SHA256] = failed[a.SHA256] || a.Status == "failed"
		if !a.Removed && a.Status == "completed" {
			newest[a.SHA256] = a.SourceID
		}
	}
	var wrong []int64
	removed := map[int64]bool{}
	for _, a := range accepted {
		removed[a.SourceID] = a.Removed
		if !a.Removed && a.Status == "completed" && (!has[a.SHA256] || newest[a.SHA256] != a.SourceID) {
			wrong = append(wrong, a.SourceID)
		}
	}
	// A source that was removed stays on the worksheet until it is acknowledged.
	listed := slices.DeleteFunc(y.worksheet(), func(id int64) bool { return removed[id] })
	if !slices.Equal(listed, wrong) {
		y.Fatalf("day %d: the worksheet lists %v, and %v answer wrongly", day, listed, wrong)
	}
	for key, sum := range y.contents() {
		if newest[sum] == 0 && !failed[sum] {
			y.Fatalf("day %d: nothing answers for %s", day, key)
		}
	}
}

// tidy removes the sources on the worksheet, as a person does in ReplyCX, and acknowledges it unless the person forgets to.
func (y *year) tidy(acknowledge bool) {
	y.Helper()
	ids := y.worksheet()
	y.check(y.emulator.Remove(ids...))
	if !acknowledge {
		return
	}
	sync, err := y.store.Syncs.Get(y.Context(), "handbook")
	y.check(err)
	pending, err := y.store.Inventory.MarkSourcesGone(y.Context(), sync.Destination.ID, ids)
	y.check(err)
	if left := y.worksheet(); len(left) > 0 || pending > 0 {
		y.Errorf("after the acknowledgement the worksheet lists %v, and %d documents are pending", left, pending)
	}
}

// compareInventories compares every source of the inventory with the emulator's.
func (y *year) compareInventories() {
	y.Helper()
	theirs := map[int64]emulator.AcceptedSource{}
	for _, a := range y.emulator.Accepted() {
		theirs[a.SourceID] = a
	}
	ours := 0
	for s, err := range y.store.Inventory.Sources(y.Context(), state.SourceFilter{}) {
		y.check(err)
		ours++
		a, ok := theirs[s.ID]
		if !ok || a.SHA256 != s.SHA256 || a.Name != s.Name || a.Status != s.Status || a.KnowledgeBase != s.Destination.KnowledgeBase ||
			a.Removed != (s.Standing == state.Gone) {
			y.Errorf("the inventory has %+v, the knowledge base %+v", s, a)
		}
	}
	if ours != len(theirs) {
		y.Errorf("the inventory has %d sources, and the knowledge base %d", ours, len(theirs))
	}
	findings, err := y.store.Check(y.Context())
	y.check(err)
	if len(findings) > 0 {
		y.Errorf("the state is unsound: %v", findings)
	}
	y.Logf("%d versions, %d sources in %d uploads", y.versions, ours, y.emulator.Counts().AcceptedUploads)
}

func (y *year) wantNoUpload(of string) {
	y.Helper()
	before := y.emulator.Counts().Uploads
	y.sync(0)
	if n := y.emulator.Counts().Uploads - before; n > 0 {
		y.Errorf("%d uploads of %s", n, of)
	}
}

// lose loses the state, and gets it back in each of the three ways without an upload.
func (y *year) lose() {
	y.Helper()
	var export strings.Builder
	y.check(y.store.Export(y.Context(), &export))
	y.store = y.open()
	y.check(y.store.Import(y.Context(), strings.NewReader(export.String())))
	y.wantNoUpload("an imported inventory")
	y.saveAllAgain()
	y.wantNoUpload("documents that were saved again after an import")
	y.compareInventories()

	handbook := y.config.Syncs[0]
	documents := len(y.contents())
	y.store = y.open()
	result, err := Adopt(y.Context(), AdoptOptions{Options: y.options()}, handbook)
	y.check(err)
	if result.Adopted != documents {
		y.Errorf("adopted %d of %d documents: %+v", result.Adopted, documents, result)
	}
	y.wantNoUpload("adopted documents")
	y.saveAllAgain()
	y.wantNoUpload("documents that were saved again after their adoption")
	// The listing has the contents that were uploaded.
	for key, f := range y.forms {
		y.check(os.WriteFile(y.path(key), f.linked, 0o644))
	}

	var listed []ListedSource
	for _, a := range y.emulator.Accepted() {
		if !a.Removed {
			listed = append(listed, ListedSource{ID: a.SourceID, SHA256: a.SHA256})
		}
	}
	y.store = y.open()
	result, err = Adopt(y.Context(), AdoptOptions{Options: y.options(), Listing: NewListing(listed), Strays: true}, handbook)
	y.check(err)
	if result.Adopted != documents || result.Identified != documents || len(result.Missing) > 0 {
		y.Errorf("adopted %+v of %d documents", result, documents)
	}
	y.wantNoUpload("documents that were adopted with their ids")
	y.compare(simulatedDays)
}
