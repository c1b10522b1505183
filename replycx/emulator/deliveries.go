package emulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	deliveryAttempts = 4
	// keptDeliveries is how many finished deliveries an emulator keeps.
	keptDeliveries = 1000
)

// Delivery is the finished delivery of an event to a webhook, successful or not.
type Delivery struct {
	// ID counts the deliveries from 1.
	ID      int64 `json:"id"`
	Account int64 `json:"account"`
	// Conversation is the conversation's id, empty if the event has none.
	Conversation string `json:"conversation"`
	Type         string `json:"type"`
	URL          string `json:"url"`
	Attempts     int    `json:"attempts"`
	// Status is the status of the last answer, 0 if there was none.
	Status int `json:"status"`
	// Err is the error of the last attempt, empty if it succeeded.
	Err string `json:"error"`
	// Finished is the time after the last attempt, by the emulator's clock.
	Finished time.Time `json:"finished"`
	// ReplayOf is the ID of the delivery whose event Replay sent again, 0 for others.
	ReplayOf int64 `json:"replay_of"`
	// Body is the body of the request, without the token.
	Body json.RawMessage `json:"body"`
}

// ErrNoDelivery means that an emulator has no finished delivery with an id. It keeps
// the last 1,000.
var ErrNoDelivery = errors.New("no finished delivery has this id")

// deliveries sends events in order, each with up to deliveryAttempts attempts.
type deliveries struct {
	opts   WebhookOptions
	client *http.Client

	mu      sync.Mutex
	hooks   map[int64]webhook
	queue   []outgoing
	busy    bool // a delivery is in progress
	running bool
	wake    chan struct{}
	made    int64 // how many deliveries were queued
	resets  int
	done    []Delivery
}

// outgoing is a delivery that is not finished.
type outgoing struct {
	Delivery
	hook   webhook
	resets int // the resets before it was queued
}

func (d *deliveries) prepare(opts WebhookOptions) {
	if opts.Retry <= 0 {
		opts.Retry = time.Second
	}
	d.opts = opts
	d.hooks = make(map[int64]webhook)
	d.wake = make(chan struct{}, 1)
	d.client = &http.Client{
		Timeout:       10 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (d *deliveries) set(h webhook) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hooks[h.Account] = h
}

// unset removes all webhooks.
func (d *deliveries) unset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.hooks)
}

// forget drops the queued and the finished deliveries. The outcome of a delivery in
// progress will not be recorded.
func (d *deliveries) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue, d.done, d.made = nil, nil, 0
	d.resets++
}

// Deliveries returns the finished deliveries, at most the last 1,000, in the order in
// which they finished.
func (e *Emulator) Deliveries() []Delivery {
	e.deliveries.mu.Lock()
	defer e.deliveries.mu.Unlock()
	return slices.Clone(e.deliveries.done)
}

// Delivered waits until all deliveries are finished.
func (e *Emulator) Delivered(ctx context.Context) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		e.deliveries.mu.Lock()
		idle := len(e.deliveries.queue) == 0 && !e.deliveries.busy
		e.deliveries.mu.Unlock()
		if idle {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.life.Done():
			return errors.New("the emulator was closed")
		}
	}
}

// Replay sends the event of a finished delivery again, as a new delivery to the
// account's present webhook, whether or not that subscribes to the event. It does not
// wait for the delivery: see Delivered. It fails with ErrNoDelivery for an unknown id,
// and if the account's webhook is not set or is disabled.
func (e *Emulator) Replay(id int64) error {
	d := &e.deliveries
	d.mu.Lock()
	defer d.mu.Unlock()
	at := slices.IndexFunc(d.done, func(done Delivery) bool { return done.ID == id })
	if at < 0 {
		return fmt.Errorf("delivery %d: %w", id, ErrNoDelivery)
	}
	old := d.done[at]
	hook := d.hooks[old.Account]
	if !hook.Enabled {
		return fmt.Errorf("delivery %d: the webhook of account %d is not set or is disabled", id, old.Account)
	}
	e.enqueue(hook, Delivery{Account: old.Account, Conversation: old.Conversation, Type: old.Type, ReplayOf: id, Body: old.Body})
	return nil
}

// publish queues an event for the account's webhook if it subscribes to the event.
// The real API's payload is known only for conversation_create; the emulator marks
// all other payloads as invented.
func (e *Emulator) publish(account int64, conversation, kind string, payload map[string]any) {
	d := &e.deliveries
	d.mu.Lock()
	defer d.mu.Unlock()
	hook := d.hooks[account]
	if !hook.Enabled || !hook.Events[kind] {
		return
	}
	if kind != "conversation_create" {
		payload["invented_by_emulator"] = true
	}
	body, err := json.Marshal(map[string]any{
		"events": []any{map[string]any{
			"event":        map[string]any{"type": kind, "payload": payload},
			"conversation": map[string]any{"key": conversation},
		}},
	})
	if err != nil {
		e.log.Error("webhook event not encoded", "type", kind, "error", err)
		return
	}
	e.enqueue(hook, Delivery{Account: account, Conversation: conversation, Type: kind, Body: body})
}

// enqueue queues a delivery. The caller holds the lock of the deliveries.
func (e *Emulator) enqueue(hook webhook, one Delivery) {
	d := &e.deliveries
	d.made++
	one.ID, one.URL = d.made, hook.URL
	d.queue = append(d.queue, outgoing{one, hook, d.resets})
	if !d.running {
		d.running = true
		e.serving.Go(e.deliver)
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// deliver sends the queued events until the emulator is closed.
func (e *Emulator) deliver() {
	d := &e.deliveries
	for {
		d.mu.Lock()
		var next outgoing
		if d.busy = len(d.queue) > 0; d.busy {
			next, d.queue = d.queue[0], d.queue[1:]
		}
		busy := d.busy
		d.mu.Unlock()
		if !busy {
			select {
			case <-d.wake:
				continue
			case <-e.life.Done():
				return
			}
		}
		if !e.attempt(&next) {
			return
		}
		next.Finished = e.now().UTC()
		d.mu.Lock()
		if next.resets == d.resets {
			d.done = append(d.done[max(0, len(d.done)+1-keptDeliveries):], next.Delivery)
		}
		d.mu.Unlock()
	}
}

// attempt makes the attempts of a delivery. It reports false if the emulator was
// closed meanwhile.
func (e *Emulator) attempt(o *outgoing) bool {
	d := &e.deliveries
	for pause := d.opts.Retry; ; pause *= 2 {
		o.Attempts++
		var err error
		if o.Status, _, err = d.post(e.life, o.hook, o.Body); err == nil {
			o.Err = ""
			return true
		}
		o.Err = err.Error()
		if o.Attempts == deliveryAttempts {
			return true
		}
		select {
		case <-time.After(pause):
		case <-e.life.Done():
			return false
		}
	}
}

// subscription is a webhook without its token, for the control routes and the page.
type subscription struct {
	Account int64    `json:"account"`
	URL     string   `json:"url"`
	Enabled bool     `json:"enabled"`
	Events  []string `json:"events"`
}

// subscriptions returns the webhooks in order of their accounts.
func (e *Emulator) subscriptions() []subscription {
	d := &e.deliveries
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]subscription, 0, len(d.hooks))
	for _, account := range slices.Sorted(maps.Keys(d.hooks)) {
		h := d.hooks[account]
		s := subscription{Account: account, URL: h.URL, Enabled: h.Enabled, Events: []string{}}
		for _, kind := range slices.Sorted(maps.Keys(h.Events)) {
			if h.Events[kind] {
				s.Events = append(s.Events, kind)
			}
		}
		list = append(list, s)
	}
	return list
}

func (e *Emulator) getWebhooks(w http.ResponseWriter, _ *http.Request) {
	list := e.Deliveries()
	if list == nil {
		list = []Delivery{}
	}
	encode(http.StatusOK, map[string]any{"ok": true, "webhooks": e.subscriptions(), "deliveries": list}).write(w)
}

// postReplay replays a delivery. A browser, which sends the form of the page, gets the
// page again.
func (e *Emulator) postReplay(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.URL.Query().Get("id"), 10, 64)
	if err != nil {
		badRequest("id must be the id of a delivery: GET /_emulator/webhooks lists them").write(w)
		return
	}
	err = e.Replay(id)
	switch {
	case errors.Is(err, ErrNoDelivery):
		fail(http.StatusNotFound, "DELIVERY_NOT_FOUND", err.Error()).write(w)
	case err != nil:
		badRequest(err.Error()).write(w)
	case strings.Contains(r.Header.Get("Accept"), "text/html"):
		http.Redirect(w, r, "/#deliveries", http.StatusSeeOther)
	default:
		done(nil).write(w)
	}
}
