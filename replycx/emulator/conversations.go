package emulator

import (
	"encoding/json"
	"net/http"
	"slices"
)

// maxJSON bounds, in bytes, the requests that are JSON.
const maxJSON = 1 << 20

// conversation is a conversation and how it stands.
type conversation struct {
	ID      string `json:"id"`
	Account int64  `json:"account"`
	Channel string `json:"channel,omitempty"`
	// Contact is a copy: the fixture does not change.
	Contact Contact `json:"contact"`
	// Assignee is an email, BotAssignee or empty; Team is a team's name or empty.
	Assignee  string            `json:"assignee,omitempty"`
	Team      string            `json:"team,omitempty"`
	Closed    bool              `json:"closed,omitempty"`
	CreatedAt int64             `json:"created_at"` // Unix nanoseconds
	Messages  []sentMessage     `json:"messages,omitempty"`
	Variables map[string]string `json:"variables,omitempty"` // by "type/name"
}

type sentMessage struct {
	ID   string          `json:"id"`
	By   string          `json:"by"`
	Body json.RawMessage `json:"body"`
}

// Conversation is a conversation as the emulator holds it.
type Conversation struct {
	ID      string
	Account int64
	Channel string
	// Contact is the phone.
	Contact string
	// Assignee is an email, BotAssignee or empty, Team a team's name or empty.
	Assignee, Team string
	Closed         bool
	// Messages counts what agents sent.
	Messages int
	// Variables are by type and name, such as "contact/phone".
	Variables map[string]string
}

// Conversations returns all conversations, in the order they came into being.
func (e *Emulator) Conversations() []Conversation {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.catchUp()
	list := make([]Conversation, 0, len(e.conversations))
	for _, id := range e.conversationOrder {
		c := e.conversations[id]
		variables := make(map[string]string, len(c.Variables))
		for k, v := range c.Variables {
			variables[k] = v
		}
		list = append(list, Conversation{
			ID: c.ID, Account: c.Account, Channel: c.Channel, Contact: c.Contact.Phone,
			Assignee: c.Assignee, Team: c.Team, Closed: c.Closed, Messages: len(c.Messages), Variables: variables,
		})
	}
	return list
}

// startConversations makes the fixture's conversations, before the journal is read.
func (e *Emulator) startConversations() {
	e.conversations = make(map[string]*conversation)
	for i := range e.fixture.Accounts {
		a := &e.fixture.Accounts[i]
		for _, s := range a.Conversations {
			e.keep(conversation{
				ID: s.ID, Account: a.ID, Contact: *a.contact(s.Contact), Assignee: s.Assignee, Closed: s.Closed, CreatedAt: e.now().UnixNano(),
			})
		}
	}
}

// keep stores a conversation in memory. e.mu is held.
func (e *Emulator) keep(c conversation) {
	if e.conversations[c.ID] == nil {
		e.conversationOrder = append(e.conversationOrder, c.ID)
	}
	e.conversations[c.ID] = &c
}

// change stores a conversation and makes it last. e.mu is held.
func (e *Emulator) change(c conversation) error {
	if err := e.write(journalLine{Conversation: &c}); err != nil {
		return err
	}
	e.keep(c)
	return nil
}

// message is a message of a request.
type message struct {
	Type string          `json:"type"`
	Text string          `json:"text"`
	File json.RawMessage `json:"file"`
	Data struct {
		Body     string `json:"body"`
		Template string `json:"template"`
	} `json:"data"`
}

// wrong says what is wrong with a message, empty if nothing is.
func (m *message) wrong() string {
	switch m.Type {
	case "text":
		if m.Text == "" && m.Data.Body == "" {
			return "The message has no text"
		}
	case "file", "voice":
		var f struct {
			Path, Type, Name string
			Size             int64
		}
		if json.Unmarshal(m.File, &f) != nil || f.Path == "" || f.Type == "" || f.Name == "" || f.Size <= 0 {
			return "The file needs path, size, type and name"
		}
	case "template":
		if m.Data.Template == "" {
			return "The template has no name"
		}
	default:
		return "The message's type is not text, file, voice or template"
	}
	return ""
}

func (e *Emulator) create(r *http.Request, _ *Fault) (reply, error) {
	account, refusal, ok := e.agents(r, false)
	if !ok {
		return refusal, nil
	}
	var body struct {
		Channel  string                              `json:"channel"`
		From     string                              `json:"from"`
		To       struct{ Phone, Name, Email string } `json:"to"`
		Message  json.RawMessage                     `json:"message"`
		Assignee string                              `json:"assignee"`
	}
	if err := readJSON(r, &body); err != nil {
		return badRequest(err.Error()), nil
	}
	wrong := make(map[string][]string)
	if body.Channel == "" {
		wrong["channel"] = []string{"Missing data for required field."}
	}
	if body.From == "" {
		wrong["from"] = []string{"Missing data for required field."}
	}
	if body.To.Phone == "" {
		wrong["to"] = []string{"Missing data for required field."}
	}
	var m message
	if len(body.Message) == 0 || json.Unmarshal(body.Message, &m) != nil {
		wrong["message"] = []string{"Not a valid message."}
	} else if why := m.wrong(); why != "" {
		wrong["message"] = []string{why}
	}
	if len(wrong) > 0 {
		return fieldErrors(wrong), nil
	}
	if refusal := e.mayCreate(account, body.Channel, body.From, body.To.Phone, &m, body.Assignee); refusal.status != 0 {
		return refusal, nil
	}

	contact := account.contact(body.To.Phone)
	if contact == nil {
		contact = &Contact{ID: digits(8), Phone: body.To.Phone, Name: body.To.Name, Email: body.To.Email}
	}
	now := e.now()
	c := conversation{
		ID: externalKey(now), Account: account.ID, Channel: body.Channel, Contact: *contact, Assignee: body.Assignee, CreatedAt: now.UnixNano(),
	}
	first := sentMessage{ID: key32(now), By: body.Assignee, Body: body.Message}
	c.Messages = []sentMessage{first}
	e.mu.Lock()
	err := e.change(c)
	e.mu.Unlock()
	if err != nil {
		return internal(err), nil
	}
	e.publish(account.ID, c.ID, "conversation_create", e.createdPayload(&c))
	assignee := map[string]any{"id": nil, "to": body.Assignee}
	if u := account.user(body.Assignee); u != nil {
		assignee["id"] = u.ID
	}
	return encode(http.StatusOK, map[string]any{
		"ok": true,
		"conversation": map[string]any{
			"id": c.ID, "message_id": first.ID, "created_at": naive(now), "assignee": assignee,
		},
		"contact": map[string]any{"id": contact.ID, "name": contact.Name, "phone": contact.Phone, "email": contact.Email},
	}), nil
}

// mayCreate goes through the reasons why a conversation is not created.
func (e *Emulator) mayCreate(a *Account, channel, from, phone string, m *message, assignee string) reply {
	var found *AccountChannel
	enabled := false
	for i := range a.Channels {
		if a.Channels[i].Channel != channel {
			continue
		}
		enabled = true
		if slices.Contains(a.Channels[i].Numbers, from) {
			found = &a.Channels[i]
		}
	}
	contact := a.contact(phone)
	switch {
	case !enabled:
		return fail(http.StatusBadRequest, "CHANNEL_NOT_ENABLED", "This channel is not enabled in the account.")
	case found == nil:
		return fail(http.StatusNotFound, "PHONE_NUMBER_IS_NOT_CONFIGURED", "’From’ phone number is not configured in the account.")
	case found.Expired:
		return fail(http.StatusBadRequest, "CHANNEL_TOKEN_EXPIRED", "Token used to configure the channel is expired. Please reconfigure the channel.")
	case contact != nil && contact.Blocked:
		return fail(http.StatusBadRequest, "CONTACT_IS_BLOCKED", "Conversation cannot be created for blocked contact.")
	}
	if m.Type == "template" {
		t := a.template(m.Data.Template)
		switch {
		case t == nil:
			return fail(http.StatusNotFound, "WHATSAPP_TEMPLATE_NOT_FOUND", "WhatsApp template is not available in the account.")
		case !t.Approved:
			return fail(http.StatusNotFound, "TEMPLATE_NOT_APPROVED", "Oops, template is not approved")
		}
	}
	switch {
	case a.limited(assignee):
		return fail(http.StatusBadRequest, "CONVERSATION_NOT_CREATED", "Conversation is not created due to user limit validation")
	case found.Failing:
		return fail(http.StatusBadRequest, "CONVERSATION_CREATION_EXCEPTION", "Conversation is not created. Please try again after some time.")
	}
	return reply{}
}

// find returns a copy of a conversation of the account. e.mu is held.
func (e *Emulator) find(a *Account, id string) (conversation, bool) {
	c := e.conversations[id]
	if c == nil || c.Account != a.ID {
		return conversation{}, false
	}
	return *c, true
}

func (e *Emulator) sendMessage(r *http.Request, _ *Fault) (reply, error) {
	account, refusal, ok := e.agents(r, true)
	if !ok {
		return refusal, nil
	}
	var body struct {
		Message json.RawMessage     `json:"message"`
		User    struct{ By string } `json:"user"`
	}
	readErr := readJSON(r, &body)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.catchUp(); err != nil {
		return internal(err), nil
	}
	c, ok := e.find(account, r.PathValue("conversation"))
	if !ok {
		return fail(http.StatusNotFound, "CONVERSATION_NOT_FOUND", "Conversation is not available."), nil
	}
	var m message
	why := "The message is missing"
	if readErr != nil {
		why = readErr.Error()
	} else if json.Unmarshal(body.Message, &m) == nil {
		why = m.wrong()
	}
	if why == "" && account.user(body.User.By) == nil {
		why = "The user is not one of the account"
	}
	switch {
	case why != "":
		return fail(http.StatusBadRequest, "INVALID_DATA", why), nil
	case c.Closed:
		return fail(http.StatusBadRequest, "CONVERSATION_CLOSED", "Assignee cannot be changed on closed conversation."), nil
	case c.Assignee == BotAssignee:
		return fail(http.StatusBadRequest, "CONVERSATION_ASSIGNED_TO_BOT", "Agent message cannot be sent on bot assigned conversation."), nil
	case c.Contact.Blocked:
		return fail(http.StatusBadRequest, "CONTACT_IS_BLOCKED", "Conversation cannot be created for blocked contact."), nil
	case account.limited(body.User.By):
		return fail(http.StatusBadRequest, "MESSAGE_NOT_SENT", "Message is not sent due to user limit validation."), nil
	}
	sent := sentMessage{ID: key32(e.now()), By: body.User.By, Body: body.Message}
	c.Messages = append(slices.Clip(c.Messages), sent)
	if err := e.change(c); err != nil {
		return internal(err), nil
	}
	e.publish(account.ID, c.ID, "message", map[string]any{"message_id": sent.ID, "message": sent.Body, "by": sent.By})
	return encode(http.StatusOK, map[string]any{"ok": true, "message_id": sent.ID}), nil
}
