package emulator

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/goccy/go-yaml"
)

// Fixture holds the data that an emulator serves. The YAML tags of the fields are the
// keys of a fixture file.
type Fixture struct {
	Accounts []Account `yaml:"accounts"`
	// Limits bound an upload. The default is no limit.
	Limits Limits `yaml:"limits"`
	// Refuse lists the refused parts; the first match applies. The default fixture
	// refuses a marker that real documents do not contain; see DefaultFixture.
	Refuse []Refusal `yaml:"refuse"`
}

// Account is an account of the API.
type Account struct {
	ID   int64  `yaml:"id"`
	Name string `yaml:"name"`
	// KnowledgeBaseDisabled makes uploads and status requests fail with
	// UNAUTHORIZED_FEATURE.
	KnowledgeBaseDisabled bool            `yaml:"knowledge_base_disabled"`
	KnowledgeBases        []KnowledgeBase `yaml:"knowledge_bases"`
	Users                 []User          `yaml:"users"`
	// Teams are the names of the teams.
	Teams     []string          `yaml:"teams"`
	Channels  []AccountChannel  `yaml:"channels"`
	Templates []AccountTemplate `yaml:"templates"`
	Contacts  []Contact         `yaml:"contacts"`
	// Conversations exist from the start.
	Conversations []StartConversation `yaml:"conversations"`
	Bots          []AccountBot        `yaml:"bots"`
}

// User is an agent.
type User struct {
	ID    int64  `yaml:"id"`
	Email string `yaml:"email"`
	Name  string `yaml:"name"`
	// Limited makes all actions of the user, and assignments to the user, fail "due to
	// user limit validation": CONVERSATION_NOT_CREATED, MESSAGE_NOT_SENT,
	// CONVERSATION_NOT_CLOSED, ASSIGNEE_NOT_CHANGED.
	Limited bool `yaml:"limited"`
}

// AccountChannel is a channel of an account. A channel without an entry fails with
// CHANNEL_NOT_ENABLED.
type AccountChannel struct {
	// Channel is the name of the channel, such as SMS or WHATSAPP.
	Channel string `yaml:"channel"`
	// Numbers are the allowed values of "from"; any other fails with
	// PHONE_NUMBER_IS_NOT_CONFIGURED.
	Numbers []string `yaml:"numbers"`
	// Expired makes the channel fail with CHANNEL_TOKEN_EXPIRED.
	Expired bool `yaml:"expired"`
	// Failing makes the channel fail with CONVERSATION_CREATION_EXCEPTION.
	Failing bool `yaml:"failing"`
}

// AccountTemplate is a WhatsApp template. A template without an entry fails with
// WHATSAPP_TEMPLATE_NOT_FOUND, an unapproved one with TEMPLATE_NOT_APPROVED.
type AccountTemplate struct {
	Name     string `yaml:"name"`
	Approved bool   `yaml:"approved"`
}

// Contact is the other person of conversations. A contact without an entry is created
// with its first conversation. A blocked contact fails with CONTACT_IS_BLOCKED.
type Contact struct {
	ID      string `yaml:"id"`
	Phone   string `yaml:"phone"`
	Name    string `yaml:"name"`
	Email   string `yaml:"email"`
	Blocked bool   `yaml:"blocked"`
}

// StartConversation is a conversation that exists from the start.
type StartConversation struct {
	ID string `yaml:"id"`
	// Contact is the contact's phone.
	Contact string `yaml:"contact"`
	// Assignee is a user's email, or BotAssignee for a bot.
	Assignee string `yaml:"assignee"`
	Closed   bool   `yaml:"closed"`
}

// BotAssignee is the assignee of a conversation that is assigned to a bot.
const BotAssignee = "bot"

// AccountBot is a bot, with the members of the API's answer.
type AccountBot struct {
	ID               int64    `yaml:"bot_id" json:"bot_id"`
	Title            string   `yaml:"bot_title" json:"bot_title"`
	Channels         []Named  `yaml:"channels" json:"channels"`
	Active           bool     `yaml:"is_active" json:"is_active"`
	Key              string   `yaml:"bot_key" json:"bot_key"`
	LastDeployedAt   string   `yaml:"last_deployed_at" json:"last_deployed_at"`
	InactiveBySystem bool     `yaml:"is_inactive_by_system" json:"is_inactive_by_system"`
	Priority         int64    `yaml:"priority" json:"priority"`
	Language         Language `yaml:"preferred_bot_language" json:"preferred_bot_language"`
	Type             string   `yaml:"type" json:"type"`
	OutboundType     *string  `yaml:"outbound_type" json:"outbound_type"`
	Owner            BotOwner `yaml:"bot_owner" json:"bot_owner"`
	CreatedAt        string   `yaml:"created_at" json:"created_at"`
	PreviewKey       string   `yaml:"preview_key" json:"preview_key"`
}

// Named is a channel of a bot.
type Named struct {
	Name string `yaml:"name" json:"name"`
}

// Language is the language of a bot.
type Language struct {
	Label string `yaml:"label" json:"label"`
	Code  string `yaml:"code" json:"code"`
}

// BotOwner is the owner of a bot.
type BotOwner struct {
	ID    int64  `yaml:"id" json:"id"`
	Name  string `yaml:"name" json:"name"`
	Email string `yaml:"email" json:"email"`
}

// KnowledgeBase is a knowledge base of an account. Its id is unique across accounts.
type KnowledgeBase struct {
	ID   int64  `yaml:"id"`
	Name string `yaml:"name"`
}

// Limits bound uploads, in bytes and parts; 0 is no limit.
type Limits struct {
	// Request is the largest request. A larger one gets 413 with an HTML page, like
	// that of a gateway, before its body is read.
	Request int64 `yaml:"request"`
	// File is the largest part. A larger one gets 400 BAD_REQUEST with a message.
	File int64 `yaml:"file"`
	// Parts is the largest number of parts. More get 400 BAD_REQUEST with a message.
	Parts int `yaml:"parts"`
}

// Refusal refuses a whole upload because of one part. If both Name and Contains are
// set, both must match.
type Refusal struct {
	// Name is a pattern (path.Match) for the part's file name, or for the field key of
	// a text field.
	Name string `yaml:"name"`
	// Contains is a text in the content.
	Contains string `yaml:"contains"`
	// Status, Code and Message are the answer. The default is 400, BAD_REQUEST and a
	// message with the name.
	Status  int    `yaml:"status"`
	Code    string `yaml:"code"`
	Message string `yaml:"message"`
}

// DefaultFixture returns the default fixture.
//
// Account 51 has the knowledge bases 876 and 877, the users agent@example.com,
// another@example.com and limited@example.com (whose limit is reached), the team
// Sales, the SMS numbers 1-123-1231230, 1-123-0000001 (its token expired) and
// 1-123-0000002 (fails), the WhatsApp number 1123123123 with the templates
// test_template, template_1 and draft_template (not approved), the blocked contact
// 1-000-0000000, a bot, and the conversations 12wfegrgt4t (assigned to
// agent@example.com), held-by-bot, with-blocked-contact and already-closed. Account
// 52 has only the knowledge base 900. Account 53 has 910, but knowledge bases are
// disabled for it. The emulator refuses a document that contains
// KBSYNC-EMULATOR-REFUSE.
func DefaultFixture() *Fixture {
	return &Fixture{
		Accounts: []Account{
			{
				ID: 51, Name: "Example Ltd",
				KnowledgeBases: []KnowledgeBase{{ID: 876, Name: "Handbook"}, {ID: 877, Name: "Products"}},
				Users: []User{
					{ID: 123, Email: "agent@example.com", Name: "Ann Agent"},
					{ID: 124, Email: "another@example.com", Name: "Another Agent"},
					{ID: 125, Email: "limited@example.com", Name: "Limited Agent", Limited: true},
				},
				Teams: []string{"Sales"},
				Channels: []AccountChannel{
					{Channel: "SMS", Numbers: []string{"1-123-1231230"}},
					{Channel: "SMS", Numbers: []string{"1-123-0000001"}, Expired: true},
					{Channel: "SMS", Numbers: []string{"1-123-0000002"}, Failing: true},
					{Channel: "WHATSAPP", Numbers: []string{"1123123123"}},
				},
				Templates: []AccountTemplate{{Name: "test_template", Approved: true}, {Name: "template_1", Approved: true}, {Name: "draft_template"}},
				Contacts: []Contact{
					{ID: "11111111", Phone: "1-1321231320", Name: "John Doe", Email: "john@example.com"},
					{ID: "11111112", Phone: "1-000-0000000", Name: "Blocked Person", Blocked: true},
				},
				Conversations: []StartConversation{
					{ID: "12wfegrgt4t", Contact: "1-1321231320", Assignee: "agent@example.com"},
					{ID: "held-by-bot", Contact: "1-1321231320", Assignee: BotAssignee},
					{ID: "with-blocked-contact", Contact: "1-000-0000000", Assignee: "agent@example.com"},
					{ID: "already-closed", Contact: "1-1321231320", Assignee: "agent@example.com", Closed: true},
				},
				Bots: []AccountBot{{
					ID: 9633, Title: "Appointment Booking", Channels: []Named{{Name: "WEB"}},
					Key: "7SgQLb4qUbp61059137828254t5QVE0H", LastDeployedAt: "2025-01-22 13:26:40.554000", Priority: 1,
					Language: Language{Label: "English", Code: "EN"}, Type: "inbound",
					Owner:     BotOwner{ID: 14764, Name: "John Doe", Email: "john@example.com"},
					CreatedAt: "2024-02-09 10:59:13.783000", PreviewKey: "6H7PD4WwTmsU105913782825Zk3KCj3t",
				}},
			},
			{ID: 52, Name: "Another Ltd", KnowledgeBases: []KnowledgeBase{{ID: 900, Name: "Another handbook"}}},
			{ID: 53, Name: "Not Enabled Ltd", KnowledgeBaseDisabled: true, KnowledgeBases: []KnowledgeBase{{ID: 910, Name: "Disabled"}}},
		},
		Refuse: []Refusal{{Contains: "KBSYNC-EMULATOR-REFUSE", Message: "The document is not accepted: it contains KBSYNC-EMULATOR-REFUSE"}},
	}
}

// ParseFixture parses a fixture in YAML. An unknown key is an error with its line and
// column.
func ParseFixture(data []byte) (*Fixture, error) {
	var f Fixture
	if err := yaml.UnmarshalWithOptions(data, &f, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("read fixture: %w", err)
	}
	if _, err := f.prepared(nil); err != nil {
		return nil, err
	}
	return &f, nil
}

// prepared checks the fixture and returns a copy with additional knowledge bases.
func (f *Fixture) prepared(more []int64) (*Fixture, error) {
	if len(f.Accounts) == 0 {
		return nil, errors.New("fixture: no account")
	}
	c := *f
	c.Accounts = slices.Clone(f.Accounts)
	accounts, bases := make(map[int64]bool), make(map[int64]bool)
	for _, a := range c.Accounts {
		if a.ID <= 0 || accounts[a.ID] {
			return nil, fmt.Errorf("fixture: account id %d is not positive or not unique", a.ID)
		}
		accounts[a.ID] = true
		for _, k := range a.KnowledgeBases {
			if k.ID <= 0 || bases[k.ID] {
				return nil, fmt.Errorf("fixture: knowledge base id %d is not positive or not unique", k.ID)
			}
			bases[k.ID] = true
		}
	}
	if err := c.checkConversations(); err != nil {
		return nil, err
	}
	first := &c.Accounts[0]
	first.KnowledgeBases = slices.Clone(first.KnowledgeBases)
	for _, id := range more {
		if id > 0 && !bases[id] {
			bases[id] = true
			first.KnowledgeBases = append(first.KnowledgeBases, KnowledgeBase{ID: id, Name: fmt.Sprintf("Knowledge base %d", id)})
		}
	}
	for _, r := range c.Refuse {
		if r.Name == "" && r.Contains == "" {
			return nil, errors.New("fixture: a refusal needs name or contains")
		}
		if _, err := path.Match(r.Name, ""); err != nil {
			return nil, fmt.Errorf("fixture: refusal name %q: %w", r.Name, err)
		}
	}
	return &c, nil
}

// checkConversations checks for duplicate ids and unknown contacts and users.
func (f *Fixture) checkConversations() error {
	ids := make(map[string]bool)
	for i := range f.Accounts {
		a := &f.Accounts[i]
		for _, c := range a.Conversations {
			switch {
			case c.ID == "" || ids[c.ID]:
				return fmt.Errorf("fixture: conversation id %q is empty or not unique", c.ID)
			case a.contact(c.Contact) == nil:
				return fmt.Errorf("fixture: conversation %s: unknown contact %q", c.ID, c.Contact)
			case c.Assignee != "" && c.Assignee != BotAssignee && a.user(c.Assignee) == nil:
				return fmt.Errorf("fixture: conversation %s: unknown assignee %q", c.ID, c.Assignee)
			}
			ids[c.ID] = true
		}
	}
	return nil
}

func (a *Account) user(email string) *User {
	for i := range a.Users {
		if a.Users[i].Email == email {
			return &a.Users[i]
		}
	}
	return nil
}

func (a *Account) limited(email string) bool {
	u := a.user(email)
	return u != nil && u.Limited
}

func (a *Account) contact(phone string) *Contact {
	for i := range a.Contacts {
		if a.Contacts[i].Phone == phone {
			return &a.Contacts[i]
		}
	}
	return nil
}

func (a *Account) template(name string) *AccountTemplate {
	for i := range a.Templates {
		if a.Templates[i].Name == name {
			return &a.Templates[i]
		}
	}
	return nil
}

func (f *Fixture) account(id int64) *Account {
	for i := range f.Accounts {
		if f.Accounts[i].ID == id {
			return &f.Accounts[i]
		}
	}
	return nil
}

// owner returns the account of a knowledge base, nil if there is none.
func (f *Fixture) owner(knowledgeBase int64) *Account {
	for i := range f.Accounts {
		for _, k := range f.Accounts[i].KnowledgeBases {
			if k.ID == knowledgeBase {
				return &f.Accounts[i]
			}
		}
	}
	return nil
}
