package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/state"
)

// The events that hooks are told of.
const (
	eventSuccess = "success"
	eventFailure = "failure"
	eventOrphan  = "orphan"
)

// A herald tells a sync's hooks how it stands. What is to be told is put into the state first, and taken out of it when a hook
// has taken it: at least once, whenever the process ends. It is used by the holder of the sync's lock.
type herald struct {
	app    *app
	store  *state.Store
	sync   state.Sync
	config config.Sync
}

// A notice is the JSON body that a hook gets.
type notice struct {
	Event         string                      `json:"event"`
	Sync          string                      `json:"sync"`
	Root          string                      `json:"root"`
	KnowledgeBase int64                       `json:"knowledge_base"`
	At            time.Time                   `json:"at"`
	Documents     map[state.DocumentState]int `json:"documents"`

	// Of a failure: why the sync cannot go on, if it cannot, and the documents that failed since the last notice.
	Trouble  string         `json:"trouble,omitempty"`
	ExitCode int            `json:"exit_code,omitempty"`
	Failures []troubledView `json:"failures,omitempty"`
	// Of an orphan: the sources that were left behind since the last notice, to be removed by hand.
	Sources []leftView `json:"sources,omitempty"`
	// Omitted are failures or sources that are not listed, for there are very many.
	Omitted int `json:"omitted,omitempty"`
}

type leftView struct {
	ID       int64          `json:"id"`
	Name     string         `json:"name"`
	Document string         `json:"document,omitempty"`
	Standing state.Standing `json:"standing"`
}

// mostListed bounds the lists of a notice.
const mostListed = 1000

func (h *herald) hooks() map[string][]string {
	return map[string][]string{
		eventSuccess: h.config.Hooks.OnSuccess,
		eventFailure: h.config.Hooks.OnFailure,
		eventOrphan:  h.config.Hooks.OnOrphan,
	}
}

// observe puts what is new to tell into the state. well says that all that is known of the root is in the knowledge base,
// trained.
func (h *herald) observe(ctx context.Context, trouble error, well bool) error {
	hooks := h.hooks()
	if len(hooks[eventFailure]) > 0 {
		if err := h.observeFailures(ctx, trouble); err != nil {
			return err
		}
	}
	if len(hooks[eventOrphan]) > 0 {
		if err := h.observeOrphans(ctx); err != nil {
			return err
		}
	}
	if len(hooks[eventSuccess]) == 0 || !well {
		return nil
	}
	milestone, err := h.store.Documents.ChangeToken(ctx, h.sync.ID)
	if err != nil {
		return err
	}
	_, err = h.tell(ctx, eventSuccess, []string{milestone}, func(*notice, string) {})
	return err
}

func (h *herald) observeFailures(ctx context.Context, trouble error) error {
	docs, err := h.store.Documents.NeedingAttention(ctx, h.sync.ID, mostListed)
	if err != nil {
		return err
	}
	var items []string
	byItem := map[string]state.Document{}
	for _, d := range docs {
		item := fmt.Sprintf("document %d %s %d", d.ID, d.State, d.ChangedAt.UnixMilli())
		items = append(items, item)
		byItem[item] = d
	}
	if trouble != nil {
		// By its kind: what an outage says is another thing each time.
		items = append(items, fmt.Sprintf("trouble %d", exitCode(trouble)))
	}
	_, err = h.tell(ctx, eventFailure, items, func(n *notice, item string) {
		if d, ok := byItem[item]; ok {
			n.Failures = append(n.Failures, troubledView{d.Key, string(d.State), reasonOf(d)})
			return
		}
		n.Trouble, n.ExitCode = trouble.Error(), exitCode(trouble)
	})
	return err
}

func (h *herald) observeOrphans(ctx context.Context) error {
	superseded, orphaned, err := h.store.Inventory.CountLeftBehind(ctx, h.sync.ID)
	if err != nil {
		return err
	}
	var items []string
	byItem := map[string]state.Source{}
	if superseded+orphaned > 0 {
		for s, err := range h.store.Inventory.Sources(ctx, state.SourceFilter{SyncID: h.sync.ID, Standings: []state.Standing{state.Superseded, state.Orphaned}}) {
			if err != nil {
				return err
			}
			item := strconv.FormatInt(s.ID, 10)
			items = append(items, item)
			byItem[item] = s
		}
	}
	_, err = h.tell(ctx, eventOrphan, items, func(n *notice, item string) {
		if len(n.Sources) == mostListed {
			n.Omitted++
			return
		}
		s := byItem[item]
		n.Sources = append(n.Sources, leftView{s.ID, s.Name, s.Key, s.Standing})
	})
	return err
}

func (h *herald) tell(ctx context.Context, event string, items []string, add func(*notice, string)) (int, error) {
	return h.store.Outbox.Enqueue(ctx, h.sync.ID, event, items, func(fresh []string) ([]byte, error) {
		// It reads all documents, so not before there is something to tell.
		counts, err := h.store.Documents.Counts(ctx, h.sync.ID)
		if err != nil {
			return nil, err
		}
		delete(counts, state.Removed)
		n := notice{
			Event: event, Sync: h.sync.Name, Root: h.sync.Root, KnowledgeBase: h.sync.Destination.KnowledgeBase, At: h.app.now().UTC(), Documents: counts,
		}
		for _, item := range fresh {
			add(&n, item)
		}
		return json.Marshal(n)
	})
}

// deliver calls the hooks for what is to be told now. It returns when to try again; zero for not until there is more.
func (h *herald) deliver(ctx context.Context) (time.Time, error) {
	for {
		due, err := h.store.Outbox.Due(ctx, h.sync.ID, 20)
		if err != nil {
			return time.Time{}, err
		}
		if len(due) == 0 {
			return h.store.Outbox.NextDue(ctx, h.sync.ID)
		}
		for _, n := range due {
			hook := h.hooks()[n.Event]
			err := error(nil)
			if len(hook) > 0 {
				err = h.call(ctx, hook, n)
			}
			if ctx.Err() != nil {
				return time.Time{}, context.Cause(ctx)
			}
			if err != nil {
				wait := pause(n.Attempts+1, leastPause, hookPause)
				h.app.out.log.Warn("a hook failed; it is called again", "sync", h.sync.Name, "event", n.Event, "notice", n.ID, "error", err, "wait", wait)
				if err := h.store.Outbox.Retry(ctx, n.ID, h.app.now().Add(wait)); err != nil {
					return time.Time{}, err
				}
				continue
			}
			if err := h.store.Outbox.Ack(ctx, n.ID); err != nil {
				return time.Time{}, err
			}
		}
	}
}

// hookPause is the longest time between two calls of a hook that fails.
const hookPause = 15 * time.Minute

// call calls a hook once.
func (h *herald) call(ctx context.Context, hook []string, n state.Message) error {
	ctx, cancel := context.WithTimeoutCause(ctx, h.config.Hooks.Timeout, fmt.Errorf("it took longer than %s", h.config.Hooks.Timeout))
	defer cancel()
	var err error
	if url := config.WebhookURL(hook); url != "" {
		err = post(ctx, url, n)
	} else {
		err = h.runHook(ctx, hook, n)
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// runHook runs a command. Its variables do not begin with KBSYNC_: it may call kbsync, to which those are settings.
func (h *herald) runHook(ctx context.Context, hook []string, n state.Message) error {
	cmd := exec.CommandContext(ctx, hook[0], hook[1:]...)
	cmd.Env = append(h.app.env[:len(h.app.env):len(h.app.env)],
		"KBHOOK_EVENT="+n.Event, "KBHOOK_SYNC="+h.sync.Name, "KBHOOK_ID="+strconv.FormatInt(n.ID, 10))
	cmd.Stdin = bytes.NewReader(n.Body)
	var said limited
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			return fmt.Errorf("run %s: %w: %s", printable(hook[0]), err, printable(text))
		}
		return fmt.Errorf("run %s: %w", printable(hook[0]), err)
	}
	return nil
}

// A limited buffer keeps the first kilobyte of what a command says.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	const most = 1 << 10
	if left := most - l.Len(); left > 0 {
		_, _ = l.Buffer.Write(p[:min(left, len(p))]) // it never fails
	}
	return len(p), nil
}

// webClient follows no redirects: a POST would become a GET of something else.
func webClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func post(ctx context.Context, url string, n state.Message) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(n.Body))
	if err != nil {
		return errors.New("post to webhook: its URL cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Kbsync-Event", n.Event)
	req.Header.Set("Kbsync-Notice", strconv.FormatInt(n.ID, 10))
	return ask(req, "post to webhook")
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return errors.New("heartbeat: its URL cannot be used")
	}
	return ask(req, "heartbeat")
}

// ask makes a request whose answer is its status. The URL is in no error: those of webhooks are secrets.
func ask(req *http.Request, what string) error {
	req.Header.Set("User-Agent", "kbsync/"+buildVersion())
	resp, err := webClient().Do(req)
	if err != nil {
		return fmt.Errorf("%s at %s: %w", what, req.URL.Host, errors.Unwrap(err))
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // only the status counts
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("%s at %s: HTTP status %d", what, req.URL.Host, resp.StatusCode)
	}
	return nil
}
