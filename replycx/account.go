package replycx

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Bot is a bot of the account. Members that the answer lacks are empty.
type Bot struct {
	ID    int64
	Title string
	// Key and PreviewKey have 32 characters each.
	Key, PreviewKey string
	// Channels are the names of the bot's channels, such as "WEB".
	Channels         []string
	Active           bool
	InactiveBySystem bool
	CreatedAt        string // see ParseTime
	LastDeployedAt   string // see ParseTime
	Priority         int64
	Language         string // such as "English"
	LanguageCode     string // such as "EN"
	Type             string // such as "inbound"
	OutboundType     string
	OwnerID          int64
	OwnerName        string
	OwnerEmail       string
	Raw              json.RawMessage // the bot's JSON in the answer
}

// Bots returns all bots of the account: GET /v1/accounts/{account_id}/bots.
//
// Documented errors: ErrUnauthorized; ErrNoAccount before any request.
func (c *Client) Bots(ctx context.Context) ([]Bot, error) {
	const op = "list bots"
	var out struct {
		Bots []json.RawMessage `json:"bots"`
	}
	if err := c.callAccount(ctx, op, http.MethodGet, "/bots", nil, &out); err != nil {
		return nil, err
	}
	if out.Bots == nil {
		return nil, &AnswerError{Op: op, StatusCode: http.StatusOK, Reason: "has no list of bots"}
	}
	bots := make([]Bot, 0, len(out.Bots))
	for _, raw := range out.Bots {
		var b struct {
			ID         looseInt  `json:"bot_id"`
			Title      looseText `json:"bot_title"`
			Key        looseText `json:"bot_key"`
			PreviewKey looseText `json:"preview_key"`
			Channels   []struct {
				Name looseText `json:"name"`
			} `json:"channels"`
			Active           looseBool `json:"is_active"`
			InactiveBySystem looseBool `json:"is_inactive_by_system"`
			CreatedAt        looseText `json:"created_at"`
			LastDeployedAt   looseText `json:"last_deployed_at"`
			Priority         looseInt  `json:"priority"`
			Language         struct {
				Label looseText `json:"label"`
				Code  looseText `json:"code"`
			} `json:"preferred_bot_language"`
			Type         looseText `json:"type"`
			OutboundType looseText `json:"outbound_type"`
			Owner        struct {
				ID    looseInt  `json:"id"`
				Name  looseText `json:"name"`
				Email looseText `json:"email"`
			} `json:"bot_owner"`
		}
		// A member with an unexpected JSON type stays empty.
		_ = json.Unmarshal(raw, &b)
		bot := Bot{
			ID: int64(b.ID), Title: string(b.Title), Key: string(b.Key), PreviewKey: string(b.PreviewKey),
			Active: bool(b.Active), InactiveBySystem: bool(b.InactiveBySystem),
			CreatedAt: string(b.CreatedAt), LastDeployedAt: string(b.LastDeployedAt), Priority: int64(b.Priority),
			Language: string(b.Language.Label), LanguageCode: string(b.Language.Code),
			Type: string(b.Type), OutboundType: string(b.OutboundType),
			OwnerID: int64(b.Owner.ID), OwnerName: string(b.Owner.Name), OwnerEmail: string(b.Owner.Email),
			Raw: raw,
		}
		for _, channel := range b.Channels {
			bot.Channels = append(bot.Channels, string(channel.Name))
		}
		bots = append(bots, bot)
	}
	return bots, nil
}

// EventType is a kind of webhook event.
type EventType string

// The events that a webhook can subscribe to.
const (
	EventConversationCreate EventType = "conversation_create"
	EventMessage            EventType = "message"
	EventStatus             EventType = "status"
	EventAssigneeChange     EventType = "assignee_change"
	EventSLABreached        EventType = "sla_breached"
	EventVariables          EventType = "variables"
	EventLabels             EventType = "conversation_labels"
	EventNote               EventType = "note"
)

// EventTypes returns all events that a webhook can subscribe to, in the order of the
// API's document.
func EventTypes() []EventType {
	return []EventType{
		EventConversationCreate, EventMessage, EventStatus, EventAssigneeChange,
		EventSLABreached, EventVariables, EventLabels, EventNote,
	}
}

// Webhook is the account's subscription to events. An account has one webhook;
// setting it replaces the previous one, and no operation reads it.
type Webhook struct {
	// URL receives events by POST. When the webhook is set, the API sends a first
	// request to it, and the receiver must return the token: see EventHandler.
	URL string
	// Events are the subscribed events; all others are unsubscribed.
	Events []EventType
	// Disabled switches the webhook off.
	Disabled bool
	// Token is sent with every event, so that the receiver can authenticate the
	// sender.
	Token string
}

// SetWebhook sets the account's webhook: POST /v1/accounts/{account_id}/webhook.
//
// Documented errors: ErrUnauthorized; ErrNoAccount before any request.
func (c *Client) SetWebhook(ctx context.Context, w Webhook) error {
	const op = "set webhook"
	if target, err := url.Parse(w.URL); !w.Disabled && (err != nil || target.Host == "" || !strings.HasPrefix(target.Scheme, "http")) {
		return fmt.Errorf("%s: the webhook needs a URL that begins with https://", op)
	}
	type subscription struct {
		Key        EventType `json:"key"`
		Subscribed bool      `json:"is_subscribed"`
	}
	wanted := make(map[EventType]bool, len(w.Events))
	for _, e := range w.Events {
		wanted[e] = true
	}
	var subscriptions []subscription
	for _, e := range EventTypes() {
		subscriptions = append(subscriptions, subscription{e, wanted[e]})
		delete(wanted, e)
	}
	for _, e := range w.Events { // the event types without a constant here
		if wanted[e] {
			subscriptions = append(subscriptions, subscription{e, true})
			delete(wanted, e)
		}
	}
	return c.callAccount(ctx, op, http.MethodPost, "/webhook", map[string]any{
		"webhook_url": w.URL, "subscribed_events": subscriptions, "is_enabled": !w.Disabled, "token": w.Token,
	}, nil)
}

// ParseTime parses a time in one of the API's formats: RFC 3339, or without a zone.
// It takes a time without a zone as UTC; the API's document does not name the zone.
func ParseTime(text string) (time.Time, error) {
	var err error
	for _, layout := range []string{"2006-01-02 15:04:05.999999", time.RFC3339Nano, "2006-01-02T15:04:05.999999"} {
		var t time.Time
		if t, err = time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, err
}
