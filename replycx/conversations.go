package replycx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Channel is a channel for conversations.
type Channel string

// The channels for which the API's document shows how to create a conversation.
const (
	ChannelSMS      Channel = "SMS"
	ChannelWhatsApp Channel = "WHATSAPP"
)

// Dialect chooses between the API's document and other public sources where they
// contradict each other. The zero value follows the document.
type Dialect struct {
	// CreateUnderAPI creates conversations at /api/v1/conversations instead of
	// /v1/conversations.
	CreateUnderAPI bool
	// Text is the JSON form of a text message.
	Text TextForm
}

// TextForm is the JSON form of a text message.
type TextForm int

// The forms of a text message.
const (
	// TextPlain is {"type": "text", "text": "..."}, the document's form.
	TextPlain TextForm = iota
	// TextBody is {"type": "text", "data": {"body": "..."}}, the form that a running
	// server reportedly accepts.
	TextBody
	// TextBoth sends both forms in one message.
	TextBoth
)

// Person is the contact of a conversation.
type Person struct {
	// Phone begins with the country code, without a plus sign.
	Phone string `json:"phone"`
	// Name and Email may be empty.
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
}

// Message is the content of a message. Exactly one member must be set.
type Message struct {
	// Text is a text. The document names no limit of its length.
	Text string
	// File is an attachment.
	File *File
	// Voice is a recording.
	Voice *File
	// Template is a WhatsApp template.
	Template *Template
}

// File is an attachment. The API fetches it from Path; no operation uploads one.
type File struct {
	// Path is a URL that the API can read without authentication.
	Path string `json:"path"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// Type is the media type, such as "image/jpeg".
	Type string `json:"type"`
	// Name is the file's name, which the recipient sees.
	Name string `json:"name"`
}

// Template is an approved WhatsApp template with its parameters.
type Template struct {
	// Name is the template's name.
	Name string
	// Header, Body and Buttons are the template's parameters. The keys of Buttons are
	// kinds of buttons, such as "copy_code", "otp" and "url".
	Header  []string
	Body    []string
	Buttons map[string]string
	// Variables are variables for the conversation.
	Variables map[string]string
}

// wire returns the message in its JSON form.
func (m Message) wire(form TextForm) (map[string]any, error) {
	kinds := 0
	w := make(map[string]any, 3)
	if m.Text != "" {
		kinds++
		w["type"] = "text"
		if form != TextBody {
			w["text"] = m.Text
		}
		if form != TextPlain {
			w["data"] = map[string]string{"body": m.Text}
		}
	}
	if m.File != nil {
		kinds++
		w["type"], w["file"] = "file", m.File
	}
	if m.Voice != nil {
		kinds++
		w["type"], w["file"] = "voice", m.Voice
	}
	if t := m.Template; t != nil {
		kinds++
		data := map[string]any{"template": t.Name}
		parameters := make(map[string]any, 3)
		if t.Header != nil {
			parameters["header"] = t.Header
		}
		if t.Body != nil {
			parameters["body"] = t.Body
		}
		if t.Buttons != nil {
			parameters["buttons"] = t.Buttons
		}
		if len(parameters) > 0 {
			data["parameters"] = parameters
		}
		if t.Variables != nil {
			data["variables"] = t.Variables
		}
		w["type"], w["data"] = "template", data
	}
	if kinds != 1 {
		return nil, errors.New("a message needs exactly one of text, file, voice and template")
	}
	return w, nil
}

// NewConversation describes a conversation to create.
type NewConversation struct {
	Channel Channel
	// From is the account's number on the channel.
	From string
	To   Person
	// Message is a text for SMS, a template for WhatsApp.
	Message Message
	// Assignee is the email of the agent to assign, or empty.
	Assignee string
}

// Conversation is a created conversation. Members that the answer lacks are empty.
type Conversation struct {
	// ID identifies the conversation in the other operations. It is opaque.
	ID string
	// MessageID is the id of the first message.
	MessageID string
	// CreatedAt is the server's text; see ParseTime.
	CreatedAt string
	// AssigneeID and Assignee are the agent's id and email.
	AssigneeID int64
	Assignee   string
	// ContactID and Contact identify the other person.
	ContactID string
	Contact   Person
	// Raw is the answer's body.
	Raw json.RawMessage
}

// CreateConversation starts a conversation: POST /v1/conversations, or
// /api/v1/conversations with Dialect.CreateUnderAPI. Section "Creating a conversation".
//
// Repeat it only after an *Error. After any other error the conversation may exist.
//
// Documented errors: ErrChannelTokenExpired, ErrConversationCreation,
// ErrChannelNotEnabled, ErrContactBlocked, ErrConversationNotCreated,
// ErrTokenInvalid, ErrPhoneNumberNotConfigured, ErrTemplateNotFound,
// ErrTemplateNotApproved.
func (c *Client) CreateConversation(ctx context.Context, n NewConversation) (*Conversation, error) {
	const op = "create conversation"
	message, err := n.Message.wire(c.dialect.Text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	body := struct {
		Channel  Channel        `json:"channel"`
		From     string         `json:"from"`
		To       Person         `json:"to"`
		Message  map[string]any `json:"message"`
		Assignee string         `json:"assignee,omitempty"`
	}{n.Channel, n.From, n.To, message, n.Assignee}
	path := "/v1/conversations"
	if c.dialect.CreateUnderAPI {
		path = "/api" + path
	}
	var out struct {
		Conversation struct {
			ID        looseText `json:"id"`
			MessageID looseText `json:"message_id"`
			CreatedAt looseText `json:"created_at"`
			Assignee  struct {
				ID looseInt  `json:"id"`
				To looseText `json:"to"`
			} `json:"assignee"`
		} `json:"conversation"`
		Contact struct {
			ID    looseText `json:"id"`
			Name  looseText `json:"name"`
			Phone looseText `json:"phone"`
			Email looseText `json:"email"`
		} `json:"contact"`
	}
	raw, err := c.callRaw(ctx, op, http.MethodPost, path, body, &out)
	if err != nil {
		return nil, err
	}
	if out.Conversation.ID == "" {
		return nil, &AnswerError{Op: op, StatusCode: http.StatusOK, Reason: "names no conversation"}
	}
	return &Conversation{
		ID:         string(out.Conversation.ID),
		MessageID:  string(out.Conversation.MessageID),
		CreatedAt:  string(out.Conversation.CreatedAt),
		AssigneeID: int64(out.Conversation.Assignee.ID),
		Assignee:   string(out.Conversation.Assignee.To),
		ContactID:  string(out.Contact.ID),
		Contact:    Person{Phone: string(out.Contact.Phone), Name: string(out.Contact.Name), Email: string(out.Contact.Email)},
		Raw:        raw,
	}, nil
}

// SendMessage sends an agent's message in a conversation and returns the message's
// id: POST /api/v1/conversation/{conversation_id}/messages. by is the agent's email.
// Section "Send agent response to a conversation".
//
// Repeat it only after an *Error. After any other error the message may have been
// sent.
//
// Documented errors: ErrInvalidData, ErrConversationClosed,
// ErrConversationAssignedToBot, ErrContactBlocked, ErrMessageNotSent,
// ErrTokenInvalid, ErrConversationNotFound.
func (c *Client) SendMessage(ctx context.Context, conversationID, by string, m Message) (messageID string, err error) {
	const op = "send message"
	message, err := m.wire(c.dialect.Text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	path, err := conversationPath(conversationID, "messages")
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	body := map[string]any{"message": message, "user": map[string]string{"by": by}}
	var out struct {
		MessageID looseText `json:"message_id"`
	}
	if err := c.call(ctx, op, http.MethodPost, path, body, &out); err != nil {
		return "", err
	}
	return string(out.MessageID), nil
}

// CloseConversation closes a conversation:
// POST /api/v1/conversation/{conversation_id}/events with the event "status". by is
// the agent's email. Section "Closing a conversation".
//
// The document does not say how the API answers for a closed conversation, and shows no
// way to open one.
//
// Documented errors: ErrConversationNotClosed, ErrTokenInvalid,
// ErrConversationNotFound.
func (c *Client) CloseConversation(ctx context.Context, conversationID, by string) error {
	return c.event(ctx, "close conversation", conversationID, map[string]any{
		"event": "status", "status": "CLOSE", "user": map[string]string{"by": by},
	})
}

// AssignToUser assigns a conversation to another agent:
// POST /api/v1/conversation/{conversation_id}/events with the event "assignee". by
// and to are the agents' emails. Section "Changing assignee in a conversation".
//
// The document does not say how the API answers for an email that no agent has.
//
// Documented errors: ErrConversationClosed, ErrSameAssignee, ErrAssigneeNotChanged,
// ErrTokenInvalid, ErrConversationNotFound.
func (c *Client) AssignToUser(ctx context.Context, conversationID, by, to string) error {
	return c.event(ctx, "assign conversation", conversationID, map[string]any{
		"event": "assignee", "user": map[string]string{"by": by, "to": to},
	})
}

// AssignToTeam assigns a conversation to a team:
// POST /api/v1/conversation/{conversation_id}/events with the event "assignee". by is
// the agent's email, team the team's name. Section "Changing assignee in a conversation".
//
// Documented errors: ErrTeamNotFound, ErrConversationClosed, ErrAssigneeNotChanged,
// ErrTokenInvalid, ErrConversationNotFound.
func (c *Client) AssignToTeam(ctx context.Context, conversationID, by, team string) error {
	return c.event(ctx, "assign conversation", conversationID, map[string]any{
		"event": "assignee", "team": map[string]string{"by": by, "to": team},
	})
}

func (c *Client) event(ctx context.Context, op, conversationID string, body any) error {
	path, err := conversationPath(conversationID, "events")
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.call(ctx, op, http.MethodPost, path, body, nil)
}

// VariableType is the owner of a variable: a conversation or a contact.
type VariableType string

// The types of variables that the API's document shows.
const (
	ConversationVariable VariableType = "conversation"
	ContactVariable      VariableType = "contact"
)

// Variable is a named value of a conversation or of its contact.
type Variable struct {
	// Name is the variable's name. The document does not say whether the API creates an
	// unknown one.
	Name string `json:"name"`
	// Type is the owner of the variable.
	Type VariableType `json:"type"`
	// Value is the new value. The document shows only texts.
	Value string `json:"value"`
}

// UpdateVariables sets variables of a conversation and its contact:
// POST /v1/accounts/{account_id}/conversations/{conversation_id}/variables. Section
// "Update variable of a conversation". Repeating the request sets the same values again.
//
// Documented errors: ErrBadRequest with Error.Fields, ErrUnauthorized,
// ErrConversationNotFound; ErrNoAccount before any request.
func (c *Client) UpdateVariables(ctx context.Context, conversationID string, variables []Variable) error {
	const op = "update variables"
	segment, err := pathSegment(conversationID)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if variables == nil {
		variables = []Variable{} // the API refuses an empty list with an explanation
	}
	return c.callAccount(ctx, op, http.MethodPost, "/conversations/"+segment+"/variables", map[string]any{"variables": variables}, nil)
}

// conversationPath returns the path of a resource of a conversation.
func conversationPath(id, resource string) (string, error) {
	segment, err := pathSegment(id)
	if err != nil {
		return "", err
	}
	return "/api/v1/conversation/" + segment + "/" + resource, nil
}

// pathSegment escapes a conversation id so that it stays one segment of a path.
func pathSegment(id string) (string, error) {
	if id == "" || id == "." || id == ".." {
		return "", fmt.Errorf("%q is not a conversation id", id)
	}
	return url.PathEscape(id), nil
}

// callAccount performs an operation below /v1/accounts/{account_id}.
func (c *Client) callAccount(ctx context.Context, op, method, path string, body, out any) error {
	account, err := c.AccountID(ctx)
	if err == nil && account == 0 {
		err = ErrNoAccount
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.call(ctx, op, method, "/v1/accounts/"+strconv.FormatInt(account, 10)+path, body, out)
}
