package emulator

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
)

// conversation is a conversation and its current state.
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

// Conversation is a conversation of the emulator.
type Conversation struct {
	ID      string
	Account int64
	Channel string
	// Contact is the contact's phone.
	Contact string
	// Assignee is an email, BotAssignee or empty, Team a team's name or empty.
	Assignee, Team string
	Closed         bool
	// Messages counts the messages of agents.
	Messages int
	// Variables holds the values by type and name, such as "contact/phone".
	Variables map[string]string
}

// Conversations returns all conversations in the order of their creation.
func (e *Emulator) Conversations() []Conversation {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.catchUp()
	list := make([]Conversation, 0, len(e.conversations))
	for _, id := range e.conversationOrder {
		list = append(list, e.conversations[id].public())
	}
	return list
}

// public returns a copy for callers of the package.
func (c *conversation) public() Conversation {
	variables := make(map[string]string, len(c.Variables))
	maps.Copy(variables, c.Variables)
	return Conversation{
		ID: c.ID, Account: c.Account, Channel: c.Channel, Contact: c.Contact.Phone,
		Assignee: c.Assignee, Team: c.Team, Closed: c.Closed, Messages: len(c.Messages), Variables: variables,
	}
}

// startConversations makes the fixture's conversations the only ones. The caller holds
// e.mu, except New.
func (e *Emulator) startConversations() {
	e.conversations, e.conversationOrder, e.issued = make(map[string]*conversation), nil, 0
	for i := range e.fixture.Accounts {
		a := &e.fixture.Accounts[i]
		for _, s := range a.Conversations {
			e.store(conversation{
				ID: s.ID, Account: a.ID, Contact: *a.contact(s.Contact), Assignee: s.Assignee, Closed: s.Closed, CreatedAt: e.now().UnixNano(),
			})
		}
	}
}

// store keeps a conversation in memory. The caller holds e.mu.
func (e *Emulator) store(c conversation) {
	old := e.conversations[c.ID]
	if old == nil {
		e.conversationOrder = append(e.conversationOrder, c.ID)
		old = new(conversation)
		e.issued++
	}
	e.issued += uint64(max(0, len(c.Messages)-len(old.Messages)))
	e.conversations[c.ID] = &c
}

// change stores a conversation in memory and in the journal. The caller holds e.mu.
func (e *Emulator) change(c conversation) error {
	if err := e.write(journalLine{Conversations: []conversation{c}}); err != nil {
		return err
	}
	e.store(c)
	return nil
}

// message is the message in a request.
type message struct {
	Type string          `json:"type"`
	Text string          `json:"text"`
	File json.RawMessage `json:"file"`
	Data struct {
		Body     string `json:"body"`
		Template string `json:"template"`
	} `json:"data"`
}

// fault describes the fault of a message, empty if it is valid.
func (m *message) fault() string {
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

// createBody is a request for a new conversation.
type createBody struct {
	Channel  string                              `json:"channel"`
	From     string                              `json:"from"`
	To       struct{ Phone, Name, Email string } `json:"to"`
	Message  json.RawMessage                     `json:"message"`
	Assignee string                              `json:"assignee"`
}

// check parses the message and returns the errors of the fields.
func (b *createBody) check() (m message, faults map[string][]string) {
	faults = make(map[string][]string)
	if b.Channel == "" {
		faults["channel"] = []string{"Missing data for required field."}
	}
	if b.From == "" {
		faults["from"] = []string{"Missing data for required field."}
	}
	if b.To.Phone == "" {
		faults["to"] = []string{"Missing data for required field."}
	}
	if len(b.Message) == 0 || json.Unmarshal(b.Message, &m) != nil {
		faults["message"] = []string{"Not a valid message."}
	} else if fault := m.fault(); fault != "" {
		faults["message"] = []string{fault}
	}
	return m, faults
}

func (e *Emulator) create(r *http.Request, _ *Fault) (reply, error) {
	account, refusal, ok := e.conversationAccount(r, false)
	if !ok {
		return refusal, nil
	}
	var body createBody
	if err := readJSON(r, &body); err != nil {
		return badRequest(err.Error()), nil
	}
	m, faults := body.check()
	if len(faults) > 0 {
		return fieldErrors(faults), nil
	}
	if refusal := e.createRefusal(account, &body, &m); refusal.status != 0 {
		return refusal, nil
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.catchUp(); err != nil {
		return internal(err), nil
	}
	ids, now := e.newIDs(), e.now()
	contact := e.contact(account, body.To.Phone)
	if contact == nil {
		contact = &Contact{ID: ids.contact(), Phone: body.To.Phone, Name: body.To.Name, Email: body.To.Email}
	}
	c := conversation{
		ID: ids.conversation(), Account: account.ID, Channel: body.Channel, Contact: *contact, Assignee: body.Assignee, CreatedAt: now.UnixNano(),
	}
	first := sentMessage{ID: ids.message(), By: body.Assignee, Body: body.Message}
	c.Messages = []sentMessage{first}
	if err := e.change(c); err != nil {
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

// createRefusal returns the documented refusal of a new conversation, or a zero reply
// if it may be created.
func (e *Emulator) createRefusal(a *Account, b *createBody, m *message) reply {
	var found *AccountChannel
	enabled := false
	for i := range a.Channels {
		if a.Channels[i].Channel != b.Channel {
			continue
		}
		enabled = true
		if slices.Contains(a.Channels[i].Numbers, b.From) {
			found = &a.Channels[i]
		}
	}
	contact := a.contact(b.To.Phone)
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
	case a.limited(b.Assignee):
		return fail(http.StatusBadRequest, "CONVERSATION_NOT_CREATED", "Conversation is not created due to user limit validation")
	case found.Failing:
		return fail(http.StatusBadRequest, "CONVERSATION_CREATION_EXCEPTION", "Conversation is not created. Please try again after some time.")
	}
	return reply{}
}

// contact returns a contact of the fixture or of an earlier conversation, nil if there
// is none. The caller holds e.mu.
func (e *Emulator) contact(a *Account, phone string) *Contact {
	if c := a.contact(phone); c != nil {
		return c
	}
	for _, c := range e.conversations {
		if c.Account == a.ID && c.Contact.Phone == phone {
			return &c.Contact
		}
	}
	return nil
}

// find returns a copy of a conversation of the account. The caller holds e.mu.
func (e *Emulator) find(a *Account, id string) (conversation, bool) {
	c := e.conversations[id]
	if c == nil || c.Account != a.ID {
		return conversation{}, false
	}
	return *c, true
}

func (e *Emulator) sendMessage(r *http.Request, _ *Fault) (reply, error) {
	account, refusal, ok := e.conversationAccount(r, true)
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
	fault := "The message is missing"
	if readErr != nil {
		fault = readErr.Error()
	} else if json.Unmarshal(body.Message, &m) == nil {
		fault = m.fault()
	}
	if fault == "" && account.user(body.User.By) == nil {
		fault = "The account has no such user"
	}
	switch {
	case fault != "":
		return fail(http.StatusBadRequest, "INVALID_DATA", fault), nil
	case c.Closed:
		return fail(http.StatusBadRequest, "CONVERSATION_CLOSED", "Assignee cannot be changed on closed conversation."), nil
	case c.Assignee == BotAssignee:
		return fail(http.StatusBadRequest, "CONVERSATION_ASSIGNED_TO_BOT", "Agent message cannot be sent on bot assigned conversation."), nil
	case c.Contact.Blocked:
		return fail(http.StatusBadRequest, "CONTACT_IS_BLOCKED", "Conversation cannot be created for blocked contact."), nil
	case account.limited(body.User.By):
		return fail(http.StatusBadRequest, "MESSAGE_NOT_SENT", "Message is not sent due to user limit validation."), nil
	}
	sent := sentMessage{ID: e.newIDs().message(), By: body.User.By, Body: body.Message}
	c.Messages = append(slices.Clip(c.Messages), sent)
	if err := e.change(c); err != nil {
		return internal(err), nil
	}
	e.publish(account.ID, c.ID, "message", map[string]any{"message_id": sent.ID, "message": sent.Body, "by": sent.By})
	return encode(http.StatusOK, map[string]any{"ok": true, "message_id": sent.ID}), nil
}
