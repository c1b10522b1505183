package emulator

import (
	"encoding/hex"
	"encoding/json"
	"html/template"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// controlRoutes adds the emulator's own routes: the page at / and
//
//	GET    /_emulator/counts     the counts of requests and accepted sources
//	GET    /_emulator/accepted   all sources with their hashes, as JSON lines
//	PUT    /_emulator/faults     sets a fault script (YAML)
//	DELETE /_emulator/faults     ends all faults
//	POST   /_emulator/events     publishes an event: {"account", "conversation", "type", "payload"}
//	GET    /_emulator/token/{account}  a token
func (e *Emulator) controlRoutes() {
	for pattern, serve := range map[string]http.HandlerFunc{
		"GET /{$}":                       e.page,
		"GET /_emulator/counts":          e.serveCounts,
		"GET /_emulator/accepted":        e.serveAccepted,
		"PUT /_emulator/faults":          e.putFaults,
		"DELETE /_emulator/faults":       e.deleteFaults,
		"POST /_emulator/events":         e.postEvent,
		"GET /_emulator/token/{account}": e.serveToken,
	} {
		e.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !e.mayControl(r) {
				fail(http.StatusForbidden, "FORBIDDEN", "Access requires the same machine or a token, and is denied to pages of other sites.").write(w)
				return
			}
			serve(w, r)
		})
	}
}

// mayControl allows requests from the same machine or with a token, and denies pages
// of other sites. Browsers send the origin of a request; the check of the Host header
// denies names that an attacker resolves to the loopback address.
func (e *Emulator) mayControl(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host {
		return false
	}
	if _, ok := e.account(r); ok {
		return true
	}
	return loopback(r.RemoteAddr) && loopback(r.Host)
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (e *Emulator) serveCounts(w http.ResponseWriter, _ *http.Request) {
	c := e.Counts()
	e.mu.Lock()
	held := len(e.sources)
	e.mu.Unlock()
	encode(http.StatusOK, map[string]any{
		"requests": c.Requests, "uploads": c.Uploads, "statuses": c.Statuses, "accepted_uploads": c.AcceptedUploads,
		"accepted_parts": c.AcceptedParts, "accepted_bytes": c.AcceptedBytes, "sources_held": held,
	}).write(w)
}

func (e *Emulator) serveAccepted(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jsonl")
	out := json.NewEncoder(w)
	for _, s := range e.Accepted() {
		if out.Encode(map[string]any{
			"id": s.SourceID, "account": s.Account, "knowledge_base": s.KnowledgeBase, "request": s.RequestNumber, "field": s.Field,
			"filename": s.Filename, "sha256": hex.EncodeToString(s.SHA256[:]), "size": s.Size, "accepted": s.Accepted.UTC(),
		}) != nil {
			return
		}
	}
}

func (e *Emulator) putFaults(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxJSON))
	var faults *Faults
	if err == nil {
		faults, err = ParseFaults(data)
	}
	if err == nil {
		err = e.SetFaults(faults)
	}
	if err != nil {
		badRequest(err.Error()).write(w)
		return
	}
	encode(http.StatusOK, map[string]any{"ok": true, "rules": len(faults.Rules)}).write(w)
}

func (e *Emulator) deleteFaults(w http.ResponseWriter, _ *http.Request) {
	_ = e.SetFaults(nil) // nil is always valid
	encode(http.StatusOK, map[string]any{"ok": true}).write(w)
}

func (e *Emulator) postEvent(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Account      int64          `json:"account"`
		Conversation string         `json:"conversation"`
		Type         string         `json:"type"`
		Payload      map[string]any `json:"payload"`
	}
	if err := readJSON(r, &body); err != nil || body.Type == "" {
		badRequest("an event needs an account and a type").write(w)
		return
	}
	if body.Payload == nil {
		body.Payload = make(map[string]any)
	}
	e.publish(body.Account, body.Conversation, body.Type, body.Payload)
	encode(http.StatusOK, map[string]any{"ok": true}).write(w)
}

func (e *Emulator) serveToken(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("account"), 10, 64)
	if err != nil {
		badRequest("the account must be a number").write(w)
		return
	}
	encode(http.StatusOK, map[string]any{"ok": true, "token": e.Token(id)}).write(w)
}

// pageSources is the number of sources that the page shows of a knowledge base. It
// shows the newest.
const pageSources = 500

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
	Field   string
	Size    int64
	Status  string
	Failure string
	SHA256  string
	Request int64
	At      string
}

// page shows the content of the knowledge bases.
func (e *Emulator) page(w http.ResponseWriter, _ *http.Request) {
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
	e.mu.Lock()
	_ = e.catchUp()
	for i := len(e.sources) - 1; i >= 0; i-- {
		s := &e.sources[i]
		b := byID[s.KnowledgeBase]
		if b == nil {
			continue // the source is from another fixture
		}
		b.Total++
		b.Bytes += s.Size
		word := s.status(now)
		b.Counts[word]++
		if len(b.Sources) == pageSources {
			b.Left++
			continue
		}
		row := pageSource{
			ID: firstID + int64(i), Name: s.Name, Field: s.Field, Size: s.Size, Status: word,
			SHA256: hex.EncodeToString(s.SHA256[:6]), Request: s.Request, At: s.accepted().UTC().Format(time.RFC3339),
		}
		if word == "failed" {
			row.Failure = s.Failure
		}
		b.Sources = append(b.Sources, row)
	}
	e.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.Header().Set("Cache-Control", "no-store")
	_ = pageTemplate.Execute(w, map[string]any{
		"Bases": bases, "Conversations": e.Conversations(), "Counts": e.Counts(), "Deliveries": e.Deliveries(), "Now": now.UTC().Format(time.RFC3339),
	})
}

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ReplyCX emulator</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2430; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #dde2e8; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } td { overflow-wrap: anywhere } code { font-size: .85em }
.completed { color: #17663a } .failed { color: #a3231f } .in-progress { color: #7a5200 } .quiet { color: #5b6675 }
</style>
<h1>ReplyCX emulator</h1>
<p>{{.Counts.Uploads}} upload requests, {{.Counts.AcceptedUploads}} accepted with {{.Counts.AcceptedParts}} sources ({{.Counts.AcceptedBytes}} bytes); {{.Counts.Statuses}} status requests, since this process began. <span class="quiet">{{.Now}}</span></p>
{{range .Bases}}
<h2>Knowledge base {{.ID}} “{{.Name}}” <span class="quiet">of {{.Account}}</span></h2>
{{if .Total}}<p>{{.Total}} sources, {{.Bytes}} bytes{{range $word, $n := .Counts}}; <span class="{{$word}}">{{$n}} {{$word}}</span>{{end}}.</p>
<table>
<thead><tr><th>id<th>name<th class="n">bytes<th>status<th>SHA-256<th class="n">upload<th>accepted</tr></thead>
<tbody>{{range .Sources}}
<tr><td>{{.ID}}<td>{{.Name}}<td class="n">{{.Size}}<td class="{{.Status}}">{{.Status}}{{with .Failure}}: {{.}}{{end}}<td><code>{{.SHA256}}…</code><td class="n">{{.Request}}<td>{{.At}}</tr>{{end}}
</tbody></table>{{if .Left}}<p class="quiet">and {{.Left}} older ones</p>{{end}}
{{else}}<p class="quiet">It has no sources yet.</p>{{end}}{{end}}
<h2>Conversations</h2>
<table>
<thead><tr><th>id<th>with<th>channel<th>assignee<th class="n">messages<th>state</tr></thead>
<tbody>{{range .Conversations}}
<tr><td>{{.ID}}<td>{{.Contact}}<td>{{.Channel}}<td>{{if .Team}}team {{.Team}}{{else}}{{.Assignee}}{{end}}<td class="n">{{.Messages}}<td>{{if .Closed}}closed{{else}}open{{end}}</tr>{{else}}
<tr><td colspan="6" class="quiet">none</tr>{{end}}
</tbody></table>
{{with .Deliveries}}<h2>Webhook deliveries</h2>
<table>
<thead><tr><th>event<th>to<th class="n">attempts<th class="n">status<th>error</tr></thead>
<tbody>{{range .}}
<tr><td>{{.Type}}<td>{{.URL}}<td class="n">{{.Attempts}}<td class="n">{{.Status}}<td>{{.Err}}</tr>{{end}}
</tbody></table>{{end}}
</html>
`))
