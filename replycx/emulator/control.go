package emulator

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/kbsync/kbsync/replycx"
)

// controlRoutes adds the emulator's own routes: the page at / and
//
//	GET    /_emulator/openapi.json     the OpenAPI document of the API
//	GET    /_emulator/counts           the counts of requests and accepted sources
//	GET    /_emulator/accepted         all sources with their hashes, as JSON lines
//	PUT    /_emulator/faults           sets a fault script (YAML)
//	DELETE /_emulator/faults           ends all faults
//	POST   /_emulator/reset            calls Reset
//	GET    /_emulator/snapshot         the data, see Snapshot
//	PUT    /_emulator/snapshot         calls Restore
//	GET    /_emulator/clock            the time
//	POST   /_emulator/clock            advances the clock: {"advance": "2h"}
//	GET    /_emulator/webhooks         the webhooks and the finished deliveries
//	POST   /_emulator/webhooks/replay  replays the delivery with the query's id
//	POST   /_emulator/events           publishes an event: {"account", "conversation", "type", "payload"}
//	GET    /_emulator/token/{account}  a token, with expires_in=1h in the query an expiring one
func (e *Emulator) controlRoutes() {
	for pattern, serve := range map[string]http.HandlerFunc{
		"GET /{$}":                        e.page,
		"GET /_emulator/openapi.json":     e.getOpenAPI,
		"GET /_emulator/counts":           e.getCounts,
		"GET /_emulator/accepted":         e.getAccepted,
		"PUT /_emulator/faults":           e.putFaults,
		"DELETE /_emulator/faults":        e.deleteFaults,
		"POST /_emulator/reset":           e.postReset,
		"GET /_emulator/snapshot":         e.getSnapshot,
		"PUT /_emulator/snapshot":         e.putSnapshot,
		"GET /_emulator/clock":            e.getClock,
		"POST /_emulator/clock":           e.postClock,
		"GET /_emulator/webhooks":         e.getWebhooks,
		"POST /_emulator/webhooks/replay": e.postReplay,
		"POST /_emulator/events":          e.postEvent,
		"GET /_emulator/token/{account}":  e.getToken,
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

func (e *Emulator) getOpenAPI(w http.ResponseWriter, _ *http.Request) {
	reply{status: http.StatusOK, body: replycx.OpenAPI()}.write(w)
}

func (e *Emulator) getCounts(w http.ResponseWriter, _ *http.Request) {
	c := e.Counts()
	e.mu.Lock()
	held := len(e.sources)
	e.mu.Unlock()
	encode(http.StatusOK, map[string]any{
		"requests": c.Requests, "uploads": c.Uploads, "statuses": c.Statuses, "accepted_uploads": c.AcceptedUploads,
		"accepted_parts": c.AcceptedParts, "accepted_bytes": c.AcceptedBytes, "sources_held": held,
	}).write(w)
}

func (e *Emulator) getAccepted(w http.ResponseWriter, _ *http.Request) {
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
	done(nil).write(w)
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
	done(nil).write(w)
}

func (e *Emulator) getToken(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("account"), 10, 64)
	if err != nil {
		badRequest("the account must be a number").write(w)
		return
	}
	token := e.Token(id)
	if text := r.URL.Query().Get("expires_in"); text != "" {
		life, err := time.ParseDuration(text)
		if err != nil || life <= 0 {
			badRequest("expires_in must be a positive duration such as 1h").write(w)
			return
		}
		token = e.ExpiringToken(id, life)
	}
	encode(http.StatusOK, map[string]any{"ok": true, "token": token}).write(w)
}
