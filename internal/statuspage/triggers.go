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

func (p *Page) triggerReindex(w http.ResponseWriter, r *http.Request) {
	f, ok := form(w, r, "sync", "glob", "failed", "stuck", "older_than", "all", "confirm")
	if !ok {
		return
	}
	request := Reindex{Sync: f.Get("sync"), Globs: f["glob"]}
	for name, flag := range map[string]*bool{"failed": &request.Failed, "stuck": &request.Stuck, "all": &request.All} {
		if !f.Has(name) {
			continue
		}
		set, err := strconv.ParseBool(f.Get(name))
		if err != nil {
			respond(w, http.StatusBadRequest, name+" must be true or false", nil)
			return
		}
		*flag = set
	}
	switch text := f.Get("confirm"); {
	case text == confirmation:
		request.Confirmed = true
	case text != "" || f.Has("confirm"):
		respond(w, http.StatusBadRequest, "confirm must be "+confirmation, nil)
		return
	}
	if f.Has("older_than") {
		age, err := time.ParseDuration(f.Get("older_than"))
		if err != nil || age <= 0 {
			respond(w, http.StatusBadRequest, "older_than must be an age, such as 720h", nil)
			return
		}
		request.OlderThan = age
	}
	for _, g := range request.Globs {
		if g == "" {
			respond(w, http.StatusBadRequest, "glob is empty; write a pattern, such as guides/**", nil)
			return
		}
	}
	if chosen := len(request.Globs) > 0 || request.Failed || request.Stuck || request.OlderThan != 0; chosen == request.All {
		respond(w, http.StatusBadRequest, "choose the documents to upload again: glob, failed=true, stuck=true or older_than=720h, "+
			"or all=true for every document (the old source of each stays in the knowledge base)", nil)
		return
	}
	if request.All && !request.Confirmed {
		respond(w, http.StatusBadRequest, ErrUnconfirmed.Error(), nil)
		return
	}
	p.trigger(w, r, p.opts.Reindex != nil, http.StatusAccepted, func(ctx context.Context) (map[string]any, error) {
		n, err := p.opts.Reindex(ctx, request)
		return map[string]any{"documents": n}, err
	})
}

// trigger calls do and responds. A trigger that is not supported has no function in the options.
func (p *Page) trigger(w http.ResponseWriter, r *http.Request, supported bool, status int, do func(context.Context) (map[string]any, error)) {
	if !supported {
		respond(w, http.StatusNotImplemented, "this process does not support this trigger", nil)
		return
	}
	more, err := do(r.Context())
	p.expireReading()
	switch {
	case errors.Is(err, state.ErrNotFound):
		respond(w, http.StatusNotFound, err.Error(), nil)
	case errors.Is(err, ErrInvalid):
		respond(w, http.StatusBadRequest, err.Error(), nil)
	case err != nil:
		respond(w, http.StatusInternalServerError, err.Error(), nil)
	case strings.Contains(r.Header.Get("Accept"), "text/html"):
		http.Redirect(w, r, "/", http.StatusSeeOther) // from a button of the page
	default:
		respond(w, status, "", more)
	}
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
