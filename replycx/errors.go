package replycx

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Code is an error code of the API, such as "KNOWLEDGE_BASE_NOT_FOUND". A Code is
// itself an error: errors.Is(err, code) reports whether err is a refusal with that
// code, and works for codes without a constant too.
type Code string

// Error returns the code itself.
func (c Code) Error() string { return string(c) }

// The codes that the API documents, each with its status and the operations that
// return it.
const (
	// ErrTokenInvalid: the token is not valid for this API (401). Knowledge base and
	// conversation operations.
	ErrTokenInvalid = Code("JWT_SIGNATURE_EXCEPTION")
	// ErrUnauthorized: the token does not belong to this account (401). The operations
	// below an account: variables, webhook, bots.
	ErrUnauthorized = Code("UNAUTHORIZED")
	// ErrFeatureNotEnabled: the token is valid, but the account may not use the
	// feature until support enables it (401). Upload, source status.
	ErrFeatureNotEnabled = Code("UNAUTHORIZED_FEATURE")
	// ErrAccountNotFound: the token's account does not exist (404). Upload, source status.
	ErrAccountNotFound = Code("ACCOUNT_DETAILS_NOT_FOUND")
	// ErrKnowledgeBaseNotFound: no such knowledge base (404). Upload.
	ErrKnowledgeBaseNotFound = Code("KNOWLEDGE_BASE_NOT_FOUND")
	// ErrBadRequest: the content of the request is invalid (400). Upload, where
	// ErrKnowledgeBaseNotOwned is a special case, and variables, where Error.Fields
	// names the invalid fields.
	ErrBadRequest = Code("BAD_REQUEST")

	// ErrChannelTokenExpired: the channel must be configured again (400). Create conversation.
	ErrChannelTokenExpired = Code("CHANNEL_TOKEN_EXPIRED")
	// ErrConversationCreation: the conversation was not created, a retry may succeed (400). Create conversation.
	ErrConversationCreation = Code("CONVERSATION_CREATION_EXCEPTION")
	// ErrChannelNotEnabled: the account does not have this channel (400). Create conversation.
	ErrChannelNotEnabled = Code("CHANNEL_NOT_ENABLED")
	// ErrContactBlocked: the contact is blocked (400). Create conversation, send message.
	ErrContactBlocked = Code("CONTACT_IS_BLOCKED")
	// ErrConversationNotCreated: a user limit forbids it (400). Create conversation.
	ErrConversationNotCreated = Code("CONVERSATION_NOT_CREATED")
	// ErrPhoneNumberNotConfigured: the account does not have the number in "from" (404). Create conversation.
	ErrPhoneNumberNotConfigured = Code("PHONE_NUMBER_IS_NOT_CONFIGURED")
	// ErrTemplateNotFound: the account has no such WhatsApp template (404). Create conversation.
	ErrTemplateNotFound = Code("WHATSAPP_TEMPLATE_NOT_FOUND")
	// ErrTemplateNotApproved: the template exists but is not approved (404). Create conversation.
	ErrTemplateNotApproved = Code("TEMPLATE_NOT_APPROVED")

	// ErrInvalidData: the message is malformed (400). Send message.
	ErrInvalidData = Code("INVALID_DATA")
	// ErrConversationClosed: the conversation is closed (400). Send message, change assignee.
	ErrConversationClosed = Code("CONVERSATION_CLOSED")
	// ErrConversationAssignedToBot: the conversation is assigned to a bot, so agents cannot write (400). Send message.
	ErrConversationAssignedToBot = Code("CONVERSATION_ASSIGNED_TO_BOT")
	// ErrMessageNotSent: a user limit forbids it (400). Send message.
	ErrMessageNotSent = Code("MESSAGE_NOT_SENT")
	// ErrConversationNotFound: no such conversation (404). Send message, close, change assignee, variables.
	ErrConversationNotFound = Code("CONVERSATION_NOT_FOUND")
	// ErrConversationNotClosed: a user limit forbids it (400). Close.
	ErrConversationNotClosed = Code("CONVERSATION_NOT_CLOSED")
	// ErrTeamNotFound: no such team (400). Change assignee.
	ErrTeamNotFound = Code("TEAM_NOT_FOUND")
	// ErrSameAssignee: "by" and "to" are the same user (400). Change assignee.
	ErrSameAssignee = Code("ASSIGNEE_CHANGE_EXCEPTION")
	// ErrAssigneeNotChanged: a user limit forbids it (400). Change assignee.
	ErrAssigneeNotChanged = Code("ASSIGNEE_NOT_CHANGED")
)

// ErrKnowledgeBaseNotOwned means that the knowledge base belongs to another account (400).
// Upload. The API answers BAD_REQUEST, so the client recognizes this case by the
// message. Such an error also matches ErrBadRequest.
var ErrKnowledgeBaseNotOwned = errors.New("knowledge base does not belong to the account")

// Error is a refusal by the server: an HTTP status other than 2xx (including a
// redirect, because the client follows none), or a body with "ok": false under any
// status.
type Error struct {
	// Op is the operation in words, such as "upload sources".
	Op string
	// StatusCode is the HTTP status of the answer.
	StatusCode int
	// Code is the "code" of the body, or its "error" if there is no code. It is empty
	// if the body is not the API's.
	Code string
	// Message is the API's text without control characters. For a body that is not the
	// API's it is a short excerpt.
	Message string
	// Fields holds the texts by field if the API's message is an object of field
	// errors, nil otherwise.
	Fields map[string][]string
	// RetryAfter is positive if and only if the answer has a valid Retry-After, in
	// seconds or as an HTTP date. A date in the past becomes one millisecond. The
	// value has no upper bound: cap it.
	RetryAfter time.Duration
	// FromAPI reports whether the body is the API's own: JSON with "ok": false. It is
	// false for an error page of a gateway.
	FromAPI bool
}

// Error returns the operation, the status, the code and the message.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	b.WriteString(": the API answered ")
	b.WriteString(strconv.Itoa(e.StatusCode))
	if text := http.StatusText(e.StatusCode); text != "" {
		b.WriteString(" " + text)
	}
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	return b.String()
}

// Is supports errors.Is with every [Code] and with [ErrKnowledgeBaseNotOwned].
func (e *Error) Is(target error) bool {
	if target == ErrKnowledgeBaseNotOwned {
		return e.StatusCode == http.StatusBadRequest && strings.Contains(e.Message, "does not belong to the account")
	}
	code, ok := target.(Code)
	return ok && code != "" && string(code) == e.Code
}

// AnswerError is an answer that claims success and is invalid: empty, cut off, not
// JSON, too large, or without a required member. The operation may have happened.
type AnswerError struct {
	// Op is the operation in words, such as "upload sources".
	Op string
	// StatusCode is the HTTP status of the answer.
	StatusCode int
	// Reason describes the fault, as the rest of a sentence that begins with "the
	// answer".
	Reason string
	// Err is the underlying error, or nil.
	Err error
}

// Error returns the operation, the status, the reason and the text of Err.
func (e *AnswerError) Error() string {
	text := fmt.Sprintf("%s: the answer (status %d) %s", e.Op, e.StatusCode, e.Reason)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns Err.
func (e *AnswerError) Unwrap() error { return e.Err }

// UnsentError wraps every error of [Client.UploadSources] that happened before the
// end of the request was handed to the connection. The server cannot have the whole
// request: sending it again creates no duplicate.
type UnsentError struct {
	// Err is the cause: an *Error if the server refused before it had the whole
	// request, a *PartError if a part could not be read, the error of the seal, or a
	// failure of the transport.
	Err error
}

// Error returns the text of Err.
func (e *UnsentError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *UnsentError) Unwrap() error { return e.Err }

// PartError names the part of an upload that could not be read. The client abandoned
// the request before the server had all of it.
type PartError struct {
	// Index is the part's index in the slice given to UploadSources.
	Index int
	// Field is the part's field key.
	Field string
	// Err is ErrPartShort, ErrPartLong, or the error of the part's Open or reader.
	Err error
}

// Error returns the field key of the part and the text of Err.
func (e *PartError) Error() string { return fmt.Sprintf("part %q: %v", e.Field, e.Err) }

// Unwrap returns Err.
func (e *PartError) Unwrap() error { return e.Err }

var (
	// ErrPartShort means that a part's reader ended before its Size.
	ErrPartShort = errors.New("content is shorter than its size")
	// ErrPartLong means that a part's reader had more bytes than its Size.
	ErrPartLong = errors.New("content is longer than its size")
	// ErrStalled means that an upload made no progress for Timeouts.Stall, or had no
	// answer within Timeouts.Answer.
	ErrStalled = errors.New("no progress on the connection")
	// ErrNoAccount means that an operation below /v1/accounts has no account: neither
	// the options nor the token name one.
	ErrNoAccount = errors.New("no account id: set Options.AccountID, because the token does not name one")
	// ErrNoToken means that there is neither a token nor a token source, or that the
	// token is empty.
	ErrNoToken = errors.New("no API token")
)

// maxExcerpt is the largest excerpt, in bytes, of a body that is not the API's.
const maxExcerpt = 200

// refusal parses an error body. It never fails: a body that is not the API's becomes
// an excerpt.
func refusal(op string, status int, header http.Header, body []byte, now time.Time) *Error {
	e := &Error{Op: op, StatusCode: status, RetryAfter: retryAfter(header, now)}
	var fields map[string]json.RawMessage
	if json.Unmarshal(trimBOM(body), &fields) != nil {
		e.Message = excerpt(string(body))
		return e
	}
	if ok, has := okField(fields); has && !ok {
		e.FromAPI = true
	}
	_ = json.Unmarshal(fields["code"], &e.Code)
	if e.Code == "" {
		_ = json.Unmarshal(fields["error"], &e.Code)
	}
	e.Code = clean(e.Code, maxExcerpt)
	e.Message, e.Fields = messageField(fields["message"])
	if e.Message == "" && e.Code == "" {
		e.Message = excerpt(string(body))
	}
	return e
}

// okField returns the "ok" of an answer. The API's document prints "Ok" once, so the
// name's case does not matter.
func okField(fields map[string]json.RawMessage) (ok, has bool) {
	for _, name := range []string{"ok", "Ok", "OK"} {
		if raw, found := fields[name]; found && json.Unmarshal(raw, &ok) == nil {
			return ok, true
		}
	}
	return false, false
}

// messageField parses a message. It is a string or an object of field errors, whose
// values are lists of strings, strings, or objects for nested fields.
func messageField(raw json.RawMessage) (string, map[string][]string) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return clean(text, 4<<10), nil
	}
	var object map[string]json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &object) != nil {
		return excerpt(string(raw)), nil
	}
	fields := make(map[string][]string, len(object))
	for name, value := range object {
		var list []string
		var one string
		switch {
		case json.Unmarshal(value, &list) == nil:
		case json.Unmarshal(value, &one) == nil:
			list = []string{one}
		default:
			list = []string{string(value)}
		}
		for i := range list {
			list[i] = clean(list[i], maxExcerpt)
		}
		fields[clean(name, maxExcerpt)] = list
	}
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(name + ": " + strings.Join(fields[name], " "))
	}
	return b.String(), fields
}

// retryAfter parses a Retry-After in seconds or as an HTTP date. It compares a date
// with the answer's Date, if there is one, so a wrong local clock does no harm.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		switch {
		case math.IsNaN(seconds):
			return 0
		case seconds <= 0:
			return time.Millisecond
		case seconds >= math.MaxInt64/float64(time.Second):
			return math.MaxInt64
		}
		return max(time.Duration(seconds*float64(time.Second)), time.Millisecond)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return max(at.Sub(now), time.Millisecond)
}

// excerpt shortens a body that is not the API's to one line. For a web page, such as
// a gateway's, it is the title.
func excerpt(body string) string {
	body = strings.TrimSpace(body)
	if strings.HasPrefix(body, "<") {
		lower := strings.ToLower(body)
		title := strings.Index(lower, "<title>")
		end := strings.Index(lower, "</title>")
		if title < 0 || end < title || len(lower) != len(body) {
			return "a web page"
		}
		body = "a web page, " + strings.TrimSpace(body[title+len("<title>"):end])
	}
	return clean(body, maxExcerpt)
}

// clean makes foreign text safe for one line of a terminal or a log: valid UTF-8
// without control characters, at most limit bytes.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || r == '\u202e' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) <= limit {
		return text
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

func trimBOM(body []byte) []byte {
	if len(body) >= 3 && string(body[:3]) == "\xef\xbb\xbf" {
		return body[3:]
	}
	return body
}
