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

// Bot is a bot of the account. Members that the answer lacks are empty. The document
// shows the members without explaining them.
type Bot struct {
	ID    int64
	Title string
	// Key and PreviewKey have 32 characters each.
	Key, PreviewKey string
	// Channels are the names of the bot's channels, such as "WEB".
	Channels []string
	// Active and InactiveBySystem are the API's is_active and is_inactive_by_system.
	Active, InactiveBySystem bool
	// CreatedAt and LastDeployedAt are the server's texts; see ParseTime.
	CreatedAt, LastDeployedAt string
	Priority                  int64
	// Language and LanguageCode are the bot's preferred language, such as "English" and
	// "EN".
	Language, LanguageCode string
	// Type is the kind of bot, such as "inbound". OutboundType is empty for that kind.
	Type, OutboundType string
	// OwnerID, OwnerName and OwnerEmail identify the user who owns the bot.
	OwnerID               int64
	OwnerName, OwnerEmail string
	// Raw is the bot's JSON in the answer.
	Raw json.RawMessage
}

// Bots returns all bots of the account, in the server's order:
// GET /v1/accounts/{account_id}/bots. Section "Fetch Bots List". Repeating the request
// is harmless.
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
	EventConversationCreate EventType = "conversation_create" // a new conversation; see Event.Created
	EventMessage            EventType = "message"             // a message of a bot, an agent or a visitor
	EventStatus             EventType = "status"              // a conversation was opened or closed
	EventAssigneeChange     EventType = "assignee_change"     // a conversation has another assignee
	EventSLABreached        EventType = "sla_breached"        // undocumented beyond its name
	EventVariables          EventType = "variables"           // a variable was created or updated
	EventLabels             EventType = "conversation_labels" // a label was created or attached
	EventNote               EventType = "note"                // a note was added
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
	// Disabled switches the webhook off. It needs no URL then.
	Disabled bool
	// Token is sent with every event, so that the receiver can authenticate the
	// sender.
	Token string
}

// SetWebhook sets the account's webhook: POST /v1/accounts/{account_id}/webhook. Section
// "Set webhook URL for Events feature".
//
// The API calls the URL before it answers, so the receiver must run already. The
// document does not show the API's answer if that call fails. Repeating the request sets
// the same webhook again.
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
