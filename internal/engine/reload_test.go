package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// TestSettingRestartsWhatItTouches changes every setting, one at a time, in a config with two syncs.
func TestSettingRestartsWhatItTouches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	parse := func(key, value string) *config.Config {
		t.Helper()
		values := map[string]any{"syncs[].name": "docs", "syncs[].root": "docs", "syncs[].knowledge_base": "876"}
		if key != "" {
			values[key] = value
		}
		root, one := map[string]any{}, map[string]any{}
		for key, value := range values {
			at := root
			if rest, ok := strings.CutPrefix(key, "syncs[]."); ok {
				at, key = one, rest
			}
			if block, name, nested := strings.Cut(key, "."); nested {
				if at[block] == nil {
					at[block] = map[string]any{}
				}
				at, key = at[block].(map[string]any), name
			}
			at[key] = value
		}
		file := flow(root)
		file = strings.TrimSuffix(file, "}") + ", syncs: [" + flow(one) + ", {name: other, root: other, knowledge_base: 877}]}"
		cfg, err := config.Parse(config.Input{Path: "kbsync.yaml", Dir: dir, File: []byte(strings.Replace(file, "{, ", "{", 1))})
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		return cfg
	}
	const (
		nothing    = "nothing"
		trackers   = "trackers"
		sync       = "sync"
		syncs      = "syncs"
		everything = "connection trackers syncs"
		refused    = "refused"
	)
	for _, s := range config.Settings() {
		test, ok := map[string]struct{ value, restarts string }{
			"api.url":            {"https://other.example", everything},
			"api.token_file":     {"token", everything},
			"api.token_command":  {"[pass, show]", everything},
			"api.account_id":     {"51", everything},
			"api.rate":           {"9", everything},
			"api.ca_cert":        {"ca.pem", everything},
			"api.allow_insecure": {"true", everything},
			"state":              {"other.db", refused},
			"log.level":          {"debug", nothing},
			"log.format":         {"json", nothing},
			"listen":             {"127.0.0.1:9090", refused},
			"listen_token_file":  {"listen-token", refused},
			"listen_read":        {"loopback", refused},
			"period":             {"30s", syncs},
			"touch_file":         {"touched", nothing},
			"error_file":         {"docs/errors.json", sync}, // it is no document
			"metrics_file":       {"kbsync.prom", nothing},
			"shutdown_grace":     {"5s", nothing},
			"lock_timeout":       {"5s", nothing},
			"transfers":          {"9", syncs},
			"checkers":           {"9", syncs},
			"bwlimit":            {"1MiB", syncs},
			"max_transfer":       {"1MiB", nothing},
			"max_duration":       {"1h", nothing},
			"poll.min":           {"1s", "trackers syncs"},
			"poll.max":           {"90s", trackers},
			"train_timeout":      {"1h", trackers},
			"syncs[].name":       {"third", sync},

			"syncs[].root":                  {"third", sync},
			"syncs[].knowledge_base":        {"878", sync},
			"syncs[].include":               {"['**/*.md']", sync},
			"syncs[].exclude":               {"['**/*.md']", sync},
			"syncs[].filter_from":           {"filters.txt", sync},
			"syncs[].max_size":              {"1MiB", sync},
			"syncs[].batch.documents":       {"9", sync},
			"syncs[].batch.bytes":           {"1MiB", sync},
			"syncs[].batch.wait":            {"9s", sync},
			"syncs[].rescan":                {"9m", sync},
			"syncs[].settle":                {"9s", sync},
			"syncs[].min_reupload_interval": {"9m", sync},
			"syncs[].on_uncertain":          {"hold", sync},
			"syncs[].on_refused":            {"hold", sync},
			"syncs[].duplicates":            {"each", sync},
			"syncs[].on_rename":             {"upload", sync},
			"syncs[].upload_name":           {"base", sync},
			"syncs[].send_as":               {"text", sync},
			"syncs[].preflight":             {"off", sync},
			"syncs[].resaved":               {"upload", sync},
			"syncs[].secrets":               {"off", sync},
			"syncs[].transcode":             {"on", sync},
			"syncs[].max_delete":            {"9", sync},
			"syncs[].max_change":            {"9", sync},
			"syncs[].max_uploads":           {"9", sync},
			"syncs[].allow_empty":           {"true", sync},
			"syncs[].copy_links":            {"true", sync},
			"syncs[].notifications":         {"", ""}, // of a bucket
			"syncs[].heartbeat_url":         {"https://hc.example", sync},
			"syncs[].hooks.on_success":      {"[notify]", sync},
			"syncs[].hooks.on_failure":      {"[notify]", sync},
			"syncs[].hooks.on_orphan":       {"[notify]", sync},
			"syncs[].hooks.timeout":         {"9s", sync},
		}[s.Key]
		if !ok {
			t.Errorf("what does %s restart?", s.Key)
			continue
		}
		if test.restarts == "" {
			continue
		}
		old, is := parse("", ""), parse(s.Key, test.value)
		if got := restarts(old, is); got != test.restarts {
			t.Errorf("%s restarts %s, want %s", s.Key, got, test.restarts)
		}
	}
	if got := restarts(parse("", ""), parse("", "")); got != nothing {
		t.Errorf("no change restarts %s", got)
	}
}

// flow returns a mapping in YAML. The values are YAML already.
func flow(values map[string]any) string {
	var items []string
	for key, value := range values {
		if block, ok := value.(map[string]any); ok {
			value = flow(block)
		}
		items = append(items, fmt.Sprintf("%s: %v", key, value))
	}
	return "{" + strings.Join(items, ", ") + "}"
}

// restarts names what a reload from one config to another restarts.
func restarts(old, cfg *config.Config) string {
	if fixed(old, cfg) != nil {
		return "refused"
	}
	var parts []string
	if changed(connectionSettings, old, cfg) {
		parts = append(parts, "connection")
	}
	if changed(trackerSettings, old, cfg) {
		parts = append(parts, "trackers")
	}
	same := 0
	for i := range old.Syncs {
		if sameLoops(old, old.Syncs[i], cfg, cfg.Syncs[i]) {
			same++
		}
	}
	switch same {
	case 0:
		parts = append(parts, "syncs")
	case 1:
		parts = append(parts, "sync")
	}
	if parts == nil {
		return "nothing"
	}
	return strings.Join(parts, " ")
}

// A slowClient holds back the answers to uploads. A context that ends loses them.
type slowClient struct {
	Client
	sealed, answer chan struct{}
	lost           chan error
}

func (c *slowClient) UploadSources(ctx context.Context, kb int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	result, err := c.Client.UploadSources(ctx, kb, parts, opts)
	if err != nil {
		return nil, err
	}
	c.sealed <- struct{}{}
	select {
	case <-c.answer:
		return result, nil
	case <-ctx.Done():
		c.lost <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	}
}

// A running daemon works on the syncs of the fixture, with a client that holds the answers back.
type running struct {
	*fixture
	client *slowClient
	reload chan os.Signal
	loaded chan *config.Config
	load   func() (*config.Config, error) // for the next reload
	token  error                          // of the command that gives it
	used   chan struct{}                  // receives when a new token is used
	log    *logged
	end    context.CancelFunc
	ended  chan error
}

// logged is a log in memory.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(text string) bool { return l.count(text) > 0 }

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

const oneSync = "{name: docs, root: docs, knowledge_base: 876, settle: 0s, batch: {wait: 0s}}"

// startDaemon starts a daemon, after the preparations.
func startDaemon(t *testing.T, file string, prepare ...func(*fixture)) *running {
	f := newFixture(t)
	for _, do := range prepare {
		do(f)
	}
	r := &running{
		fixture: f, reload: make(chan os.Signal, 1), loaded: make(chan *config.Config, 1), log: &logged{}, ended: make(chan error, 1),
		used:   make(chan struct{}, 10),
		client: &slowClient{Client: f.opts.API.Client, sealed: make(chan struct{}, 10), answer: make(chan struct{}, 10), lost: make(chan error, 10)},
	}
	f.opts.Config = r.config(file)
	f.opts.API.Client = r.client
	f.opts.API.RenewToken = func(context.Context) (func(), error) { return func() { r.used <- struct{}{} }, r.token }
	f.opts.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), r.log), nil))
	var ctx context.Context
	ctx, r.end = context.WithCancel(t.Context())
	options := DaemonOptions{
		Options: f.opts, Load: func() (*config.Config, error) { return r.load() }, Loaded: func(cfg *config.Config) { r.loaded <- cfg },
		TokenChanged: func(*config.Config) bool { return false }, Reload: r.reload,
		Connect: func(context.Context, *config.Config) (*API, error) {
			api := *f.opts.API
			return &api, nil
		},
	}
	go func() { r.ended <- RunDaemon(ctx, options) }()
	t.Cleanup(func() {
		r.end()
		r.answerAll()
		if r.ended != nil {
			_ = receive(t, r.ended) // Cut has ended with the test
		}
	})
	return r
}

// dir returns the directory of the roots.
func (r *running) dir() string { return filepath.Dir(r.opts.Config.Syncs[0].Root.Dir) }

func (r *running) config(file string) *config.Config {
	r.Helper()
	cfg, err := config.Parse(config.Input{Path: "kbsync.yaml", Dir: r.dir(), File: []byte(file)})
	r.must(err)
	return cfg
}

func (r *running) answerAll() {
	for range cap(r.client.answer) {
		select {
		case r.client.answer <- struct{}{}:
		default:
		}
	}
}

// reloadTo reloads a config and waits until it is in effect.
func (r *running) reloadTo(file string) {
	r.Helper()
	cfg := r.config(file)
	r.load = func() (*config.Config, error) { return cfg, nil }
	r.reload <- os.Interrupt
	receive(r.T, r.loaded)
	if cfg.API.Rate == r.opts.Config.API.Rate {
		receive(r.T, r.used)
	}
}

// receive receives a value within 20 seconds.
func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("timeout")
	}
	return v
}

// until waits until done returns true.
func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("timeout")
		}
	}
}

// A request is sealed and waits for its answer. A reload may need its sync's place, but not at the price of the answer.
func TestReloadWaitsForTheAnswersOfSealedUploads(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file     string
		restarts bool
	}{
		"only the level of the log": {"{log: {level: debug}, poll: {min: 20ms}, shutdown_grace: 1ms, syncs: [" + oneSync + "]}", false},
		"an edit of the sync":       {"{poll: {min: 20ms}, shutdown_grace: 1ms, syncs: [" + strings.Replace(oneSync, "settle: 0s", "settle: 1ms", 1) + "]}", true},
		"another connection":        {"{poll: {min: 20ms}, shutdown_grace: 1ms, api: {rate: 7}, syncs: [" + oneSync + "]}", true},
		"a removal":                 {"{poll: {min: 20ms}, shutdown_grace: 1ms, syncs: [{name: rest, root: rest, knowledge_base: 876}]}", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startDaemon(t, "{poll: {min: 20ms}, shutdown_grace: 1ms, syncs: ["+oneSync+"]}")
			receive(t, r.client.sealed)
			r.reloadTo(test.file)
			select {
			case err := <-r.client.lost:
				t.Fatalf("the request was cut: %v", err)
			case <-time.After(150 * time.Millisecond): // more than the grace
			}
			want := "unchanged=1 started=0 stopped=0"
			if test.restarts {
				want = "unchanged=0 started=1 stopped=1"
			}
			until(t, func() bool { return r.log.has(want) })
			r.answerAll()
			until(t, func() bool {
				s, err := r.opts.Store.Syncs.Get(t.Context(), "docs")
				r.must(err)
				counts, err := r.opts.Store.Documents.Counts(t.Context(), s.ID)
				r.must(err)
				return counts[state.Completed] == 2
			})
			r.end()
			r.must(receive(t, r.ended))
			r.ended = nil
			if got := len(r.emulator.Accepted()); got != 2 {
				t.Errorf("the emulator has %d sources of two documents", got)
			}
		})
	}
}

// While the requests from before a reload are open, the next reload and the other syncs go on, and the grace bounds the end of the process.
func TestOpenRequestsHoldUpNeitherReloadsNorTheEnd(t *testing.T) {
	t.Parallel()
	edited := strings.Replace(oneSync, "settle: 0s", "settle: 1ms", 1)
	r := startDaemon(t, "{poll: {min: 20ms}, shutdown_grace: 1h, syncs: ["+oneSync+"]}")
	receive(t, r.client.sealed)
	r.reloadTo("{poll: {min: 20ms}, shutdown_grace: 1h, syncs: [" + edited + "]}")
	r.must(os.Mkdir(filepath.Join(r.dir(), "rest"), 0o700))
	r.must(os.WriteFile(filepath.Join(r.dir(), "rest", "new.md"), []byte("new"), 0o600))
	const rest = "{name: rest, root: rest, knowledge_base: 876, settle: 0s, batch: {wait: 0s}}"
	r.reloadTo("{poll: {min: 20ms}, shutdown_grace: 1h, syncs: [" + rest + "]}")
	receive(t, r.client.sealed) // of the other sync
	r.reloadTo("{poll: {min: 20ms}, shutdown_grace: 10ms, syncs: [" + edited + ", " + rest + "]}")
	r.end()
	r.must(receive(t, r.ended))
	r.ended = nil
	if got := len(r.client.lost); got != 2 {
		t.Errorf("the end of the process has cut %d requests, want 2", got)
	}
}

func TestRefusedReloadChangesNothing(t *testing.T) {
	t.Parallel()
	r := startDaemon(t, "{poll: {min: 20ms}, shutdown_grace: 1ms, syncs: ["+oneSync+"]}")
	receive(t, r.client.sealed)
	for name, load := range map[string]func() (*config.Config, error){
		"unreadable": func() (*config.Config, error) { return nil, errors.New("unreadable") },
		"other state": func() (*config.Config, error) {
			return r.config("{state: x.db, log: {level: debug}, syncs: [" + oneSync + "]}"), nil
		},
		"no rule file": func() (*config.Config, error) {
			return r.config("{log: {level: debug}, syncs: [" + oneSync + ", {name: rest, root: rest, knowledge_base: 876, filter_from: [missing.txt]}]}"), nil
		},
		"no token": func() (*config.Config, error) {
			r.token = errors.New("no token")
			return r.config("{log: {level: debug}, syncs: [" + oneSync + "]}"), nil
		},
	} {
		const refused = "keeping the previous one"
		before := r.log.count(refused)
		r.load, r.token = load, nil
		r.reload <- os.Interrupt
		until(t, func() bool { return r.log.count(refused) > before })
		select {
		case <-r.loaded:
			t.Errorf("%s: the config is in effect", name)
		case <-r.used:
			t.Errorf("%s: the new token is used", name)
		case err := <-r.client.lost:
			t.Errorf("%s: the request was cut: %v", name, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
