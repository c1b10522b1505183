package emulator

import (
	_ "embed" // for page.html
	"encoding/hex"
	"html/template"
	"net/http"
	"time"
)

// The page shows at most this many sources of a knowledge base, conversations and
// deliveries, the newest first, and messages of a conversation.
const (
	pageSources       = 500
	pageConversations = 200
	pageDeliveries    = 200
	pageMessages      = 20
)

type pageBase struct {
	Account string
	ID      int64
	Name    string
	Total   int
	Bytes   int64
	Counts  map[string]int
	Sources []pageSource
	Left    int
}

type pageSource struct {
	ID      int64
	Name    string
	Size    int64
	Status  string
	Failure string
	Removed bool
	SHA256  string
	Request int64
	At      string
}

type pageConversation struct {
	Conversation
	At   string
	Last []sentMessage
}

// page shows the knowledge bases, the conversations and the webhooks.
func (e *Emulator) page(w http.ResponseWriter, _ *http.Request) {
	var deliveries []Delivery
	all := e.Deliveries()
	for i := len(all) - 1; i >= 0 && len(deliveries) < pageDeliveries; i-- {
		deliveries = append(deliveries, all[i])
	}
	e.mu.Lock()
	_ = e.catchUp()
	bases := e.pageBases()
	conversations, total := e.pageConversations(), len(e.conversationOrder)
	e.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.Header().Set("Cache-Control", "no-store")
	_ = pageTemplate.Execute(w, map[string]any{
		"Bases": bases, "Counts": e.Counts(), "Now": e.now().UTC().Format(time.RFC3339), "Advanced": time.Duration(e.clock.advanced.Load()),
		"Conversations": conversations, "ConversationsLeft": total - len(conversations),
		"Webhooks": e.subscriptions(), "Deliveries": deliveries, "DeliveriesLeft": len(all) - len(deliveries),
	})
}

// pageBases returns the fixture's knowledge bases with their sources. The caller holds
// e.mu.
func (e *Emulator) pageBases() []*pageBase {
	now := e.now()
	var bases []*pageBase
	byID := make(map[int64]*pageBase)
	for _, a := range e.fixture.Accounts {
		for _, k := range a.KnowledgeBases {
			b := &pageBase{Account: a.Name, ID: k.ID, Name: k.Name, Counts: make(map[string]int)}
			bases = append(bases, b)
			byID[k.ID] = b
		}
	}
	for i := len(e.sources) - 1; i >= 0; i-- {
		s := &e.sources[i]
		b := byID[s.KnowledgeBase]
		if b == nil {
			continue // the source is from another fixture
		}
		row := pageSource{
			ID: firstID + int64(i), Name: s.Name, Size: s.Size, Status: s.status(now), Removed: s.removed,
			SHA256: hex.EncodeToString(s.SHA256[:6]), Request: s.Request, At: s.accepted().UTC().Format(time.RFC3339),
		}
		switch {
		case s.removed:
			row.Status = "removed"
		case row.Status == "failed":
			row.Failure = s.Failure
		}
		b.Total++
		b.Bytes += s.Size
		b.Counts[row.Status]++
		if len(b.Sources) == pageSources {
			b.Left++
			continue
		}
		b.Sources = append(b.Sources, row)
	}
	return bases
}

// pageConversations returns the newest conversations. The caller holds e.mu.
func (e *Emulator) pageConversations() []pageConversation {
	var list []pageConversation
	for i := len(e.conversationOrder) - 1; i >= 0 && len(list) < pageConversations; i-- {
		c := e.conversations[e.conversationOrder[i]]
		list = append(list, pageConversation{
			Conversation: c.public(),
			At:           time.Unix(0, c.CreatedAt).UTC().Format(time.RFC3339),
			Last:         c.Messages[max(0, len(c.Messages)-pageMessages):],
		})
	}
	return list
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"text": func(m sentMessage) string { return string(m.Body) },
	"when": func(t time.Time) string { return t.Format(time.RFC3339) },
}).Parse(pageText))
