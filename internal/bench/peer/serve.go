package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An api serves the part of the ReplyCX API that kbsync uses, at the lowest cost: it parses each upload and discards it. It keeps no
// document. Its memory grows with the number of requests, and, while the harness asks for arrivals, with their names.
type api struct {
	mu       sync.Mutex
	settings settings
	counts   counts
	lastID   int64
	uploads  []upload             // in the order of their ids
	arrivals map[string]time.Time // by the name of the file; nil if no test asks for them
	arrived  *sync.Cond
}

// The settings of an api. The harness sends them to /bench/reset.
type settings struct {
	Delay    time.Duration `json:"delay"` // before each answer
	Train    time.Duration `json:"train"` // from the upload to the completed training
	Arrivals bool          `json:"arrivals"`
}

// The counts since the last reset.
type counts struct {
	Uploads   int       `json:"uploads"`
	Statuses  int       `json:"statuses"`
	Documents int       `json:"documents"`
	Bytes     int64     `json:"bytes"`
	First     time.Time `json:"first"` // the first upload began
	Last      time.Time `json:"last"`  // the last upload was accepted
}

// An upload has the ids from first on, up to those of the next one.
type upload struct {
	first int64
	at    time.Time
}

func serve(context.Context, []string) error { return listen(newAPI()) }

func newAPI() http.Handler {
	a := &api{}
	a.arrived = sync.NewCond(&a.mu)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /bench/reset", a.reset)
	mux.HandleFunc("GET /bench/counts", a.count)
	mux.HandleFunc("GET /bench/arrival", a.arrival)
	mux.HandleFunc("POST /", a.take)
	mux.HandleFunc("GET /", a.status)
	return mux
}

// take is the operation "upload sources".
func (a *api) take(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	a.mu.Lock()
	a.counts.Uploads++
	if a.counts.First.IsZero() {
		a.counts.First = begun
	}
	delay, names := a.settings.Delay, a.settings.Arrivals
	a.mu.Unlock()

	parts, err := r.MultipartReader()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	type field struct{ key, name string }
	var fields []field
	size := int64(0)
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return // the client broke off
		}
		n, err := io.Copy(io.Discard, part)
		if err != nil {
			return
		}
		size += n
		fields = append(fields, field{part.FormName(), part.FileName()})
	}
	time.Sleep(delay)

	now := time.Now()
	a.mu.Lock()
	first := a.lastID + 1
	a.lastID += int64(len(fields))
	a.uploads = append(a.uploads, upload{first, now})
	a.counts.Documents += len(fields)
	a.counts.Bytes += size
	a.counts.Last = now
	if names {
		for _, f := range fields {
			a.arrivals[f.name] = now
		}
		a.arrived.Broadcast()
	}
	a.mu.Unlock()

	answer := map[string]any{"ok": true, "knowledge_base_id": base(r.URL.Path)}
	for i, f := range fields {
		answer[f.key] = []map[string]any{{"id": first + int64(i), "type": "file", "name": f.name, "status": "in-progress", "errors": nil}}
	}
	reply(w, answer)
}

// status is the operation "status of sources".
func (a *api) status(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	sources := []map[string]any{}
	a.mu.Lock()
	a.counts.Statuses++
	delay := a.settings.Delay
	for text := range strings.SplitSeq(r.URL.Query().Get("source_ids"), ",") {
		id, err := strconv.ParseInt(text, 10, 64)
		at := sort.Search(len(a.uploads), func(i int) bool { return a.uploads[i].first > id })
		if err != nil || at == 0 || id > a.lastID {
			continue
		}
		word := "in-progress"
		if now.Sub(a.uploads[at-1].at) >= a.settings.Train {
			word = "completed"
		}
		sources = append(sources, map[string]any{"id": id, "status": word, "knowledge_base_id": base(r.URL.Path)})
	}
	a.mu.Unlock()
	time.Sleep(delay)
	reply(w, map[string]any{"ok": true, "sources": sources})
}

// base returns the number of the knowledge base in a path.
func base(path string) int64 {
	_, rest, _ := strings.Cut(path, "/knowledge-base/")
	number, _, _ := strings.Cut(rest, "/")
	id, _ := strconv.ParseInt(number, 10, 64)
	return id
}

// reset sets the counts to zero and takes the settings of the body. The ids go on.
func (a *api) reset(w http.ResponseWriter, r *http.Request) {
	var s settings
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	a.settings, a.counts, a.arrivals = s, counts{}, map[string]time.Time{}
	a.mu.Unlock()
	reply(w, s)
}

func (a *api) count(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	c := a.counts
	a.mu.Unlock()
	reply(w, c)
}

// arrival waits for the file with the name of the query, at most half a minute, and answers with the time of its arrival.
func (a *api) arrival(w http.ResponseWriter, r *http.Request) {
	name, end := r.URL.Query().Get("name"), time.Now().Add(30*time.Second)
	wake := time.AfterFunc(time.Until(end), func() {
		a.mu.Lock() // or the waiter may not wait yet
		defer a.mu.Unlock()
		a.arrived.Broadcast()
	})
	defer wake.Stop()
	a.mu.Lock()
	at, ok := a.arrivals[name]
	for !ok && time.Now().Before(end) {
		a.arrived.Wait()
		at, ok = a.arrivals[name]
	}
	a.mu.Unlock()
	if !ok {
		http.Error(w, fmt.Sprintf("%s did not arrive", name), http.StatusNotFound)
		return
	}
	reply(w, at)
}

func reply(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the client notices
}
