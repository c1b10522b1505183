package emulator

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/goccy/go-yaml"
)

// Fixture is the world that an emulator serves. In YAML the names are those of the
// tags.
type Fixture struct {
	Accounts []Account `yaml:"accounts"`
	// Limits bound what an upload may hold. None do by default.
	Limits Limits `yaml:"limits"`
	// Refuse lists what uploads are refused for, first match first. The default
	// fixture has rules that nothing real matches; see DefaultFixture.
	Refuse []Refusal `yaml:"refuse"`
}

// Account is an account of the API.
type Account struct {
	ID   int64  `yaml:"id"`
	Name string `yaml:"name"`
	// KnowledgeBaseDisabled makes uploads and status requests UNAUTHORIZED_FEATURE.
	KnowledgeBaseDisabled bool            `yaml:"knowledge_base_disabled"`
	KnowledgeBases        []KnowledgeBase `yaml:"knowledge_bases"`
}

// KnowledgeBase is a knowledge base of an account. Its id is unique among all
// accounts.
type KnowledgeBase struct {
	ID   int64  `yaml:"id"`
	Name string `yaml:"name"`
}

// Limits bound uploads, in bytes and parts; 0 is no limit.
type Limits struct {
	// Request is the largest request: beyond it 413 with an HTML page, as a gateway
	// does it, before the body is read.
	Request int64 `yaml:"request"`
	// File is the largest part: beyond it 400 BAD_REQUEST with words.
	File int64 `yaml:"file"`
	// Parts is the largest number of parts: beyond it 400 BAD_REQUEST with words.
	Parts int `yaml:"parts"`
}

// Refusal refuses a whole upload for one of its parts. Of Name and Contains those
// that are set must both match.
type Refusal struct {
	// Name is a pattern (path.Match) for the part's file name, or for its field key
	// if it is a text field.
	Name string `yaml:"name"`
	// Contains is a text somewhere in the content.
	Contains string `yaml:"contains"`
	// Status, Code and Message are the answer: 400, BAD_REQUEST and words by default.
	Status  int    `yaml:"status"`
	Code    string `yaml:"code"`
	Message string `yaml:"message"`
}

// DefaultFixture returns the world without a fixture file: account 51 with the
// knowledge bases 876 and 877, account 52 with 900, and account 53, whose knowledge
// bases are not enabled. A document that contains KBSYNC-EMULATOR-REFUSE is
// refused.
func DefaultFixture() *Fixture {
	return &Fixture{
		Accounts: []Account{
			{ID: 51, Name: "Example Ltd", KnowledgeBases: []KnowledgeBase{{ID: 876, Name: "Handbook"}, {ID: 877, Name: "Products"}}},
			{ID: 52, Name: "Another Ltd", KnowledgeBases: []KnowledgeBase{{ID: 900, Name: "Another handbook"}}},
			{ID: 53, Name: "Not Enabled Ltd", KnowledgeBaseDisabled: true, KnowledgeBases: []KnowledgeBase{{ID: 910, Name: "Disabled"}}},
		},
		Refuse: []Refusal{{Contains: "KBSYNC-EMULATOR-REFUSE", Message: "The document is not accepted: it asks to be refused"}},
	}
}

// ParseFixture reads a fixture in YAML. Unknown names are errors, with their place.
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

// prepared returns a checked copy with further knowledge bases.
func (f *Fixture) prepared(more []int64) (*Fixture, error) {
	if len(f.Accounts) == 0 {
		return nil, errors.New("fixture: there is no account")
	}
	c := *f
	c.Accounts = slices.Clone(f.Accounts)
	accounts, bases := make(map[int64]bool), make(map[int64]bool)
	for _, a := range c.Accounts {
		if a.ID <= 0 || accounts[a.ID] {
			return nil, fmt.Errorf("fixture: account id %d is not positive or is there twice", a.ID)
		}
		accounts[a.ID] = true
		for _, k := range a.KnowledgeBases {
			if k.ID <= 0 || bases[k.ID] {
				return nil, fmt.Errorf("fixture: knowledge base id %d is not positive or is there twice", k.ID)
			}
			bases[k.ID] = true
		}
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
			return nil, errors.New("fixture: a refusal needs a name or a content")
		}
		if _, err := path.Match(r.Name, ""); err != nil {
			return nil, fmt.Errorf("fixture: refusal name %q: %w", r.Name, err)
		}
	}
	return &c, nil
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
