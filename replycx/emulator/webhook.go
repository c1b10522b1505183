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

// webhook is an account's subscription.
type webhook struct {
	Account int64           `json:"account"`
	URL     string          `json:"url"`
	Token   string          `json:"token"`
	Events  map[string]bool `json:"events"`
	Enabled bool            `json:"enabled"`
}

// post sends a JSON object with the token. An answer other than 2xx is an error.
func (d *deliveries) post(ctx context.Context, h webhook, body json.RawMessage) (status int, answer []byte, err error) {
	in := d.opts.TokenIn
	target := h.URL
	if in == "" || in == "body" {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(body, &members); err != nil {
			return 0, nil, err
		}
		if members["token"], err = json.Marshal(h.Token); err != nil {
			return 0, nil, err
		}
		if body, err = json.Marshal(members); err != nil {
			return 0, nil, err
		}
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
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
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
			_, answer, err := e.deliveries.post(e.life, h, json.RawMessage("{}"))
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
	if err := e.write(journalLine{Webhooks: []webhook{h}}); err != nil {
		return internal(err), nil
	}
	e.deliveries.set(h)
	return done(nil), nil
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
