package replycx

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
)

// MaxEventBody is the largest request, in bytes, that an [EventHandler] accepts.
const MaxEventBody = 1 << 20

// Event is a webhook event of a conversation.
type Event struct {
	// Type is the kind of event. It may be one without a constant in this package.
	Type EventType
	// ConversationKey identifies the conversation, empty if the event does not.
	ConversationKey string
	// Created is set for EventConversationCreate, the only event with a publicly known
	// payload. It is nil if the payload has another form.
	Created *ConversationCreated
	// Payload is the event's payload.
	Payload json.RawMessage
	// Raw is the event's whole JSON in the delivery.
	Raw json.RawMessage
}

// ConversationCreated is the payload of EventConversationCreate. Members that the
// payload lacks are empty.
type ConversationCreated struct {
	// Title names the contact, such as "Visitor - A7184".
	Title string
	// CreatedAt is a time without a zone; see ParseTime.
	CreatedAt string
	BotID     int64
	// AssigneeEmail, AssigneeID and AssigneeType identify the assignee; the type of a
	// bot is "bot".
	AssigneeEmail, AssigneeID, AssigneeType string
	// ChannelName and ChannelProvider are numeric codes without public documentation.
	ChannelName, ChannelProvider int64
	NewVisitor, Closed           bool
	// ExternalKey is another key of the conversation: the document does not say whether
	// it is the id that other operations take.
	ExternalKey string
	// Browser is the visitor's browser with its version, empty on other channels.
	Browser   string
	Variables []EventVariable
}

// EventVariable is a variable in an event: its Type, such as "text" or "date", its Name
// and its Value as text.
type EventVariable struct{ Type, Name, Value string }

// EventHandlerOptions are the options of an [EventHandler]. The zero value works.
type EventHandlerOptions struct {
	// TokenHeader is a header that may contain the token, "token" if empty. The vendor
	// does not document where it sends the token, so the handler also accepts it in
	// the Authorization header, with or without Bearer, and in the body's member
	// "token".
	TokenHeader string
	// TokenQuery is a query parameter that may contain the token. By default the
	// handler ignores the query, because queries end up in logs.
	TokenQuery string
	// Logger gets a line for each refused delivery, without its content, and for each
	// error of the function that handles events. If it is nil, nothing is logged.
	Logger *slog.Logger
}

// EventHandler is an http.Handler that receives webhook events. It answers a request
// with the right token with 200 and the token as JSON, which also completes the
// handshake when the webhook is set. It refuses a wrong token with 401, another method
// than POST with 405, more than MaxEventBody bytes with 413, and a body that is not a
// delivery with 400. The API guarantees neither delivery nor order, and may deliver an
// event twice.
type EventHandler struct {
	token  [sha256.Size]byte
	echo   string
	handle func(ctx context.Context, e Event) error
	opts   EventHandlerOptions
}

// NewEventHandler returns a handler that checks the token and passes the events of a
// delivery to handle in order. Deliveries that arrive together are handled at the same
// time, so handle must be safe for concurrent use. Its context ends when the sender
// hangs up. If handle returns an error, the handler drops the rest of the delivery and
// answers 500, so that the sender may retry. NewEventHandler fails if the token is
// empty or handle is nil.
func NewEventHandler(token string, handle func(ctx context.Context, e Event) error, opts EventHandlerOptions) (*EventHandler, error) {
	if token == "" {
		return nil, errors.New("an event handler needs the webhook's token: without it anyone can send events")
	}
	if handle == nil {
		return nil, errors.New("an event handler needs a function for the events")
	}
	if opts.TokenHeader == "" {
		opts.TokenHeader = "token"
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &EventHandler{token: sha256.Sum256([]byte(token)), echo: token, handle: handle, opts: opts}, nil
}

var _ http.Handler = (*EventHandler)(nil)

// ServeHTTP handles one delivery.
func (h *EventHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		h.refuse(w, r, http.StatusMethodNotAllowed, "only POST is allowed")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxEventBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		h.refuse(w, r, http.StatusRequestEntityTooLarge, "the delivery is too large")
		return
	}
	if err != nil {
		h.refuse(w, r, http.StatusBadRequest, "the delivery is incomplete")
		return
	}
	var delivery struct {
		Token  json.RawMessage   `json:"token"`
		Events []json.RawMessage `json:"events"`
	}
	parseErr := json.Unmarshal(body, &delivery)
	if !h.authentic(r, delivery.Token) {
		h.refuse(w, r, http.StatusUnauthorized, "the token is missing or wrong")
		return
	}
	if parseErr != nil && len(body) > 0 { // a handshake may have no body
		h.refuse(w, r, http.StatusBadRequest, "the delivery is not valid JSON of the expected form")
		return
	}
	for _, raw := range delivery.Events {
		if err := h.handle(r.Context(), readEvent(raw)); err != nil {
			h.opts.Logger.Error("webhook event not handled", "error", err)
			http.Error(w, `{"ok":false,"error":"NOT_HANDLED"}`, http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"ok": true, "token": h.echo})
}

func (h *EventHandler) refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	h.opts.Logger.Warn("webhook delivery refused", "why", why, "remote", r.RemoteAddr)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	code := strings.ToUpper(strings.ReplaceAll(http.StatusText(status), " ", "_"))
	_ = json.NewEncoder(w).Encode(map[string]any{"ok": false, "error": code, "message": why})
}

// authentic reports whether the token is in one of the accepted places. Its duration
// does not depend on the values.
func (h *EventHandler) authentic(r *http.Request, inBody json.RawMessage) bool {
	var bodyToken string
	_ = json.Unmarshal(inBody, &bodyToken)
	authorization := r.Header.Get("Authorization")
	candidates := []string{
		bodyToken,
		r.Header.Get(h.opts.TokenHeader),
		authorization,
		strings.TrimPrefix(authorization, "Bearer "),
	}
	if h.opts.TokenQuery != "" {
		candidates = append(candidates, r.URL.Query().Get(h.opts.TokenQuery))
	}
	good := 0
	for _, c := range candidates {
		sum := sha256.Sum256([]byte(c))
		good |= subtle.ConstantTimeCompare(sum[:], h.token[:])
	}
	return good == 1
}

// readEvent parses one event of a delivery. It never fails: Raw keeps the JSON of an
// event with an unexpected form.
func readEvent(raw json.RawMessage) Event {
	e := Event{Raw: raw}
	var element struct {
		Event struct {
			Type    looseText       `json:"type"`
			Payload json.RawMessage `json:"payload"`
		} `json:"event"`
		Conversation struct {
			Key looseText `json:"key"`
		} `json:"conversation"`
	}
	_ = json.Unmarshal(raw, &element)
	e.Type, e.Payload, e.ConversationKey = EventType(element.Event.Type), element.Event.Payload, string(element.Conversation.Key)
	if e.Type == EventConversationCreate {
		e.Created, _ = readCreated(e.Payload)
	}
	return e
}

func readCreated(payload json.RawMessage) (*ConversationCreated, error) {
	var p struct {
		Title     looseText `json:"title"`
		CreatedAt looseText `json:"created_at"`
		BotID     looseInt  `json:"bot_id"`
		Assignee  struct {
			Email looseText `json:"email"`
			ID    looseText `json:"id"`
			Type  looseText `json:"type"`
		} `json:"assigned_to_user"`
		Channel struct {
			Name     looseInt `json:"name"`
			Provider looseInt `json:"provider"`
		} `json:"channel"`
		NewVisitor  looseBool `json:"is_new_visitor"`
		Closed      looseBool `json:"is_closed"`
		ExternalKey looseText `json:"external_key"`
		Browser     looseText `json:"browser"`
		Variables   []struct {
			Type  looseText `json:"type"`
			Name  looseText `json:"name"`
			Value looseText `json:"value"`
		} `json:"variables"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, fmt.Errorf("read payload: %w", err)
	}
	created := &ConversationCreated{
		Title: string(p.Title), CreatedAt: string(p.CreatedAt), BotID: int64(p.BotID),
		AssigneeEmail: string(p.Assignee.Email), AssigneeID: string(p.Assignee.ID), AssigneeType: string(p.Assignee.Type),
		ChannelName: int64(p.Channel.Name), ChannelProvider: int64(p.Channel.Provider),
		NewVisitor: bool(p.NewVisitor), Closed: bool(p.Closed), ExternalKey: string(p.ExternalKey), Browser: string(p.Browser),
	}
	for _, v := range p.Variables {
		created.Variables = append(created.Variables, EventVariable{string(v.Type), string(v.Name), string(v.Value)})
	}
	return created, nil
}
