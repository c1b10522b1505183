package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// WebhookOptions configure the delivery of webhooks. The API's document leaves open
// where a request carries the token. The zero value works.
type WebhookOptions struct {
	// TokenIn is the place of the token: "body" (a member "token"), "header" (a header
	// "token"), "authorization" (as a bearer token) or "query"; body and header if empty.
	TokenIn string
	// NoHandshake skips the first request, which the receiver must answer with the
	// token before the emulator accepts its URL.
	NoHandshake bool
	// Retry is the time before the second attempt, doubled for each further one: 1 s
	// if 0. There are four attempts.
	Retry time.Duration
}

const deliveryAttempts = 4

// webhook is an account's subscription.
type webhook struct {
	Account int64           `json:"account"`
	URL     string          `json:"url"`
	Token   string          `json:"token"`
	Events  map[string]bool `json:"events"`
	Enabled bool            `json:"enabled"`
}

// Delivery is the finished delivery of an event to a webhook, successful or not.
type Delivery struct {
	Account  int64
	Type     string
	URL      string
	Attempts int
	// Status is the status of the last answer, 0 if there was none.
	Status int
	// Err is the error of the last attempt, empty if it succeeded.
	Err string
}

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
	done    []Delivery
}

type outgoing struct {
	hook webhook
	kind string
	body any
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

// Deliveries returns the finished deliveries.
func (e *Emulator) Deliveries() []Delivery {
	e.deliveries.mu.Lock()
	defer e.deliveries.mu.Unlock()
	return append([]Delivery(nil), e.deliveries.done...)
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

// publish queues an event for the account's webhook if it subscribes to the event.
// The real API's payload is known only for conversation_create; the emulator marks
// all other payloads as invented.
func (e *Emulator) publish(account int64, conversation, kind string, payload map[string]any) {
	d := &e.deliveries
	d.mu.Lock()
	defer d.mu.Unlock()
	hook, ok := d.hooks[account]
	if !ok || !hook.Enabled || !hook.Events[kind] {
		return
	}
	if kind != "conversation_create" {
		payload["invented_by_emulator"] = true
	}
	d.queue = append(d.queue, outgoing{hook, kind, map[string]any{
		"events": []any{map[string]any{
			"event":        map[string]any{"type": kind, "payload": payload},
			"conversation": map[string]any{"key": conversation},
		}},
	}})
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
		done := Delivery{Account: next.hook.Account, Type: next.kind, URL: next.hook.URL}
		pause := d.opts.Retry
		for done.Attempts < deliveryAttempts {
			done.Attempts++
			var err error
			if done.Status, _, err = d.post(e.life, next.hook, next.body); err == nil {
				done.Err = ""
				break
			}
			done.Err = err.Error()
			if done.Attempts == deliveryAttempts {
				break
			}
			select {
			case <-time.After(pause):
			case <-e.life.Done():
				return
			}
			pause *= 2
		}
		d.mu.Lock()
		d.done = append(d.done, done)
		d.mu.Unlock()
	}
}

// post sends a body with the token. An answer other than 2xx is an error.
func (d *deliveries) post(ctx context.Context, h webhook, body any) (status int, answer []byte, err error) {
	in := d.opts.TokenIn
	target := h.URL
	if m, ok := body.(map[string]any); ok && (in == "" || in == "body") {
		withToken := map[string]any{"token": h.Token}
		for k, v := range m {
			withToken[k] = v
		}
		body = withToken
	}
	if in == "query" {
		u, err := url.Parse(target)
		if err != nil {
			return 0, nil, err
		}
		q := u.Query()
		q.Set("token", h.Token)
		u.RawQuery = q.Encode()
		target = u.String()
	}
	data, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(data))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	switch in {
	case "", "header":
		req.Header.Set("token", h.Token)
	case "authorization":
		req.Header.Set("Authorization", "Bearer "+h.Token)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("the receiver answered %s", resp.Status)
	}
	return resp.StatusCode, answer, err
}

func (e *Emulator) setWebhook(r *http.Request, _ *Fault) (reply, error) {
	account, refusal, ok := e.pathAccount(r)
	if !ok {
		return refusal, nil
	}
	var body struct {
		URL    string `json:"webhook_url"`
		Events []struct {
			Key        string `json:"key"`
			Subscribed bool   `json:"is_subscribed"`
		} `json:"subscribed_events"`
		Enabled bool   `json:"is_enabled"`
		Token   string `json:"token"`
	}
	if err := readJSON(r, &body); err != nil {
		return badRequest(err.Error()), nil
	}
	h := webhook{Account: account.ID, URL: body.URL, Token: body.Token, Enabled: body.Enabled, Events: make(map[string]bool)}
	for _, s := range body.Events {
		h.Events[s.Key] = s.Subscribed
	}
	if h.Enabled {
		if u, err := url.Parse(h.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fieldErrors(map[string][]string{"webhook_url": {"Not a valid URL."}}), nil
		}
		if !e.deliveries.opts.NoHandshake {
			_, answer, err := e.deliveries.post(e.life, h, map[string]any{})
			if err == nil && !strings.Contains(string(answer), h.Token) {
				err = errors.New("the receiver did not return the token")
			}
			if err != nil {
				return fail(http.StatusBadRequest, "WEBHOOK_NOT_VERIFIED", "The webhook's URL was not verified: "+err.Error()), nil
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.write(journalLine{Webhook: &h}); err != nil {
		return internal(err), nil
	}
	e.deliveries.set(h)
	return encode(http.StatusOK, map[string]any{"ok": true}), nil
}

// createdPayload returns a payload of conversation_create in its publicly known form.
func (e *Emulator) createdPayload(c *conversation) map[string]any {
	created := time.Unix(0, c.CreatedAt).UTC()
	assignee := map[string]any{"email": c.Assignee, "id": "", "type": "agent"}
	if c.Assignee == "" || c.Assignee == BotAssignee {
		assignee = map[string]any{"email": "bot@example.com", "id": "", "type": "bot"}
	}
	return map[string]any{
		"assigned_to_user": assignee,
		"created_at":       naive(created),
		"title":            c.Contact.Name,
		"bot_id":           0,
		"channel":          map[string]any{"name": 1, "provider": 0},
		"is_new_visitor":   true,
		"is_closed":        0,
		"external_key":     c.ID,
		"browser":          "",
		"variables": []any{
			map[string]any{"type": "text", "name": "global_channel_name", "value": c.Channel},
			map[string]any{"type": "date", "name": "conversation_created_at", "value": created.Format("2006-01-02T15:04:05.000000+00:00")},
			map[string]any{"type": "text", "name": "contact_id", "value": c.Contact.ID},
		},
	}
}
