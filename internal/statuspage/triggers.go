package statuspage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kbsync/kbsync/state"
)

// confirmation is the value of the parameter confirm. It names what follows.
const confirmation = "duplicates"

// ErrUnconfirmed means that a reindex selects every document of a sync, and that the request does not confirm it. The page responds
// with 400.
var ErrUnconfirmed = fmt.Errorf("%w: this uploads every document once more, and the old source of each stays in the knowledge base; "+
	"add confirm=%s if you want that", ErrInvalid, confirmation)

// errUnsupported means that the process has no function for a trigger.
var errUnsupported = errors.New("this process does not support this trigger")

// maxForm is the maximum size of a trigger's body in bytes.
const maxForm = 64 << 10

// form parses the parameters of a trigger from the URL and the body. It refuses unknown parameters: ignoring one could upload
// far more than intended, and uploads are permanent. If it returns false, it has responded.
func form(w http.ResponseWriter, r *http.Request, allowed ...string) (url.Values, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		respond(w, http.StatusBadRequest, "cannot parse the parameters: "+err.Error(), nil)
		return nil, false
	}
	if t := r.Header.Get("Content-Type"); r.ContentLength != 0 && !strings.HasPrefix(t, "application/x-www-form-urlencoded") {
		respond(w, http.StatusUnsupportedMediaType, "send the parameters in the URL, or as application/x-www-form-urlencoded", nil)
		return nil, false
	}
	for name := range r.Form {
		if !slices.Contains(allowed, name) {
			respond(w, http.StatusBadRequest, unknownParameter(name, allowed), nil)
			return nil, false
		}
	}
	return r.Form, true
}

func unknownParameter(name string, allowed []string) string {
	if len(allowed) == 0 {
		return "unknown parameter " + strconv.Quote(name) + "; this trigger has no parameters"
	}
	return "unknown parameter " + strconv.Quote(name) + "; the parameters are " + strings.Join(allowed, ", ")
}

func (p *Page) triggerSync(w http.ResponseWriter, r *http.Request) {
	f, ok := form(w, r, "sync")
	if !ok {
		return
	}
	p.trigger(w, r, p.opts.Sync != nil, http.StatusAccepted, func(ctx context.Context) (map[string]any, error) {
		return nil, p.opts.Sync(ctx, f.Get("sync"))
	})
}

func (p *Page) triggerReload(w http.ResponseWriter, r *http.Request) {
	if _, ok := form(w, r); !ok {
		return
	}
	p.trigger(w, r, p.opts.Reload != nil, http.StatusOK, func(ctx context.Context) (map[string]any, error) {
		return nil, p.opts.Reload(ctx)
	})
}

func (p *Page) triggerRetry(w http.ResponseWriter, r *http.Request) {
	f, ok := form(w, r, "sync")
	if !ok {
		return
	}
	p.reindex(w, r, Reindex{Sync: f.Get("sync"), Retry: true})
}

func (p *Page) triggerReindex(w http.ResponseWriter, r *http.Request) {
	f, ok := form(w, r, "sync", "glob", "key", "failed", "stuck", "older_than", "all", "confirm")
	if !ok {
		return
	}
	request, err := parseReindex(f)
	if err != nil {
		p.respondTo(w, r, http.StatusBadRequest, strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "), nil)
		return
	}
	switch text := f.Get("confirm"); {
	case text == confirmation:
		request.Confirmed = true
	case f.Has("confirm"):
		p.respondTo(w, r, http.StatusBadRequest, "confirm must be "+confirmation, nil)
		return
	}
	if request.All && !request.Confirmed {
		p.respondTo(w, r, http.StatusBadRequest, ErrUnconfirmed.Error(), nil)
		return
	}
	p.reindex(w, r, request)
}

func (p *Page) reindex(w http.ResponseWriter, r *http.Request, request Reindex) {
	p.trigger(w, r, p.opts.Reindex != nil, http.StatusAccepted, func(ctx context.Context) (map[string]any, error) {
		n, err := p.opts.Reindex(ctx, request)
		return map[string]any{"documents": n}, err
	})
}

// parseReindex reads the parameters that select documents. Errors: ErrInvalid.
func parseReindex(f url.Values) (Reindex, error) {
	request := Reindex{Sync: f.Get("sync"), Globs: f["glob"], Key: f.Get("key")}
	for name, flag := range map[string]*bool{"failed": &request.Failed, "stuck": &request.Stuck, "all": &request.All} {
		if !f.Has(name) {
			continue
		}
		set, err := strconv.ParseBool(f.Get(name))
		if err != nil {
			return request, fmt.Errorf("%w: %s must be true or false", ErrInvalid, name)
		}
		*flag = set
	}
	if f.Has("older_than") {
		age, err := time.ParseDuration(f.Get("older_than"))
		if err != nil || age <= 0 {
			return request, fmt.Errorf("%w: older_than must be an age, such as 720h", ErrInvalid)
		}
		request.OlderThan = age
	}
	for _, g := range request.Globs {
		if g == "" {
			return request, fmt.Errorf("%w: glob is empty; write a pattern, such as guides/**", ErrInvalid)
		}
	}
	if f.Has("key") && (request.Key == "" || len(f["key"]) > 1 || request.Sync == "") {
		return request, fmt.Errorf("%w: key is the key of one document, and needs the parameter sync", ErrInvalid)
	}
	if chosen := len(request.Globs) > 0 || request.Key != "" || request.Failed || request.Stuck || request.OlderThan != 0; chosen == request.All {
		return request, fmt.Errorf("%w: choose the documents to upload again: glob, key, failed=true, stuck=true or older_than=720h, "+
			"or all=true for every document (the old source of each stays in the knowledge base)", ErrInvalid)
	}
	return request, nil
}

// triggerAck records that sources were removed by hand.
func (p *Page) triggerAck(w http.ResponseWriter, r *http.Request) {
	f, ok := form(w, r, "sync", "destination", "id")
	if !ok {
		return
	}
	request := Ack{Sync: f.Get("sync")}
	for _, text := range f["id"] {
		id, err := ParseSourceID(text)
		if err != nil {
			p.respondTo(w, r, http.StatusBadRequest, err.Error(), nil)
			return
		}
		if !slices.Contains(request.IDs, id) {
			request.IDs = append(request.IDs, id)
		}
	}
	if len(request.IDs) == 0 {
		p.respondTo(w, r, http.StatusBadRequest, "tick the sources that you have removed: id is missing", nil)
		return
	}
	if f.Has("destination") {
		var err error
		if request.Destination, err = strconv.ParseInt(f.Get("destination"), 10, 64); err != nil || request.Destination < 1 {
			p.respondTo(w, r, http.StatusBadRequest, "destination must be a number of /sources.json", nil)
			return
		}
	}
	p.trigger(w, r, p.opts.Ack != nil, http.StatusOK, func(ctx context.Context) (map[string]any, error) {
		n, err := p.opts.Ack(ctx, request)
		return map[string]any{"acknowledged": len(request.IDs), "pending": n}, err
	})
}

// trigger calls do and responds. A trigger that is not supported has no function in the options.
func (p *Page) trigger(w http.ResponseWriter, r *http.Request, supported bool, status int, do func(context.Context) (map[string]any, error)) {
	if !supported {
		p.respondTo(w, r, http.StatusNotImplemented, errUnsupported.Error(), nil)
		return
	}
	more, err := do(r.Context())
	p.expireReading()
	switch {
	case errors.Is(err, state.ErrNotFound):
		p.respondTo(w, r, http.StatusNotFound, err.Error(), nil)
	case errors.Is(err, ErrInvalid):
		p.respondTo(w, r, http.StatusBadRequest, err.Error(), nil)
	case err != nil:
		p.respondTo(w, r, http.StatusInternalServerError, err.Error(), nil)
	case wantsPage(r): // from a button of the page
		back := "/"
		if r.URL.Path == "/-/ack" {
			back = link("/sources", "sync", r.Form.Get("sync"))
		}
		http.Redirect(w, r, back, http.StatusSeeOther)
	default:
		respond(w, status, "", more)
	}
}

// respondTo responds with a page to a person, and with JSON to a program.
func (p *Page) respondTo(w http.ResponseWriter, r *http.Request, status int, message string, more map[string]any) {
	if wantsPage(r) {
		p.message(w, status, "kbsync did not do it", message)
		return
	}
	respond(w, status, message, more)
}

// respond writes {"ok": true, ...} or, if message is not empty, {"ok": false, "error": message}.
func respond(w http.ResponseWriter, status int, message string, more map[string]any) {
	body := map[string]any{"ok": message == ""}
	maps.Copy(body, more)
	if message != "" {
		body["error"] = message
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // an error means that the client is gone
}
