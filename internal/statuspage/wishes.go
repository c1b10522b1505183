package statuspage

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kbsync/kbsync/state"
)

// maxForm is the most bytes that a wish may have.
const maxForm = 64 << 10

// form reads a wish's parameters, of the address and of the body, and refuses unknown ones: a wish that is half understood
// might upload far more than was meant, and no upload can be taken back.
func form(w http.ResponseWriter, r *http.Request, allowed ...string) (url.Values, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		answer(w, http.StatusBadRequest, "the form cannot be read: "+err.Error(), nil)
		return nil, false
	}
	if t := r.Header.Get("Content-Type"); r.ContentLength != 0 && !strings.HasPrefix(t, "application/x-www-form-urlencoded") {
		answer(w, http.StatusUnsupportedMediaType, "send the parameters in the address, or as application/x-www-form-urlencoded", nil)
		return nil, false
	}
next:
	for name := range r.Form {
		for _, a := range allowed {
			if name == a {
				continue next
			}
		}
		answer(w, http.StatusBadRequest, "unknown parameter "+strconv.Quote(name)+"; there are: "+strings.Join(allowed, ", "), nil)
		return nil, false
	}
	return r.Form, true
}

func (p *Page) wishSync(w http.ResponseWriter, r *http.Request) {
	f, ok := form(w, r, "sync")
	if !ok {
		return
	}
	p.grant(w, r, p.opts.Sync != nil, http.StatusAccepted, func(ctx context.Context) (map[string]any, error) {
		return nil, p.opts.Sync(ctx, f.Get("sync"))
	})
}

func (p *Page) wishReload(w http.ResponseWriter, r *http.Request) {
	if _, ok := form(w, r); !ok {
		return
	}
	p.grant(w, r, p.opts.Reload != nil, http.StatusOK, func(ctx context.Context) (map[string]any, error) {
		return nil, p.opts.Reload(ctx)
	})
}

func (p *Page) wishReindex(w http.ResponseWriter, r *http.Request) {
	f, ok := form(w, r, "sync", "glob", "failed", "stuck", "older_than", "all")
	if !ok {
		return
	}
	wish := Reindex{Sync: f.Get("sync"), Globs: f["glob"]}
	for name, flag := range map[string]*bool{"failed": &wish.Failed, "stuck": &wish.Stuck, "all": &wish.All} {
		if !f.Has(name) {
			continue
		}
		set, err := strconv.ParseBool(f.Get(name))
		if err != nil {
			answer(w, http.StatusBadRequest, name+" is true or false", nil)
			return
		}
		*flag = set
	}
	if f.Has("older_than") {
		age, err := time.ParseDuration(f.Get("older_than"))
		if err != nil || age <= 0 {
			answer(w, http.StatusBadRequest, "older_than is an age such as 720h", nil)
			return
		}
		wish.OlderThan = age
	}
	for _, g := range wish.Globs {
		if g == "" {
			answer(w, http.StatusBadRequest, "glob is empty; write one such as guides/**", nil)
			return
		}
	}
	if chosen := len(wish.Globs) > 0 || wish.Failed || wish.Stuck || wish.OlderThan != 0; chosen == wish.All {
		answer(w, http.StatusBadRequest, "say which documents are to be uploaded once more: glob, failed=true, stuck=true or older_than=720h, "+
			"or all=true for every document (each leaves its old source behind in the knowledge base)", nil)
		return
	}
	p.grant(w, r, p.opts.Reindex != nil, http.StatusAccepted, func(ctx context.Context) (map[string]any, error) {
		n, err := p.opts.Reindex(ctx, wish)
		return map[string]any{"documents": n}, err
	})
}

// grant does what was asked for and answers.
func (p *Page) grant(w http.ResponseWriter, r *http.Request, able bool, status int, do func(context.Context) (map[string]any, error)) {
	if !able {
		answer(w, http.StatusNotImplemented, "this process does not do that", nil)
		return
	}
	more, err := do(r.Context())
	p.forgetReading()
	switch {
	case errors.Is(err, state.ErrNotFound):
		answer(w, http.StatusNotFound, err.Error(), nil)
	case err != nil:
		answer(w, http.StatusInternalServerError, err.Error(), nil)
	case strings.Contains(r.Header.Get("Accept"), "text/html"):
		http.Redirect(w, r, "/", http.StatusSeeOther) // a button of the page
	default:
		answer(w, status, "", more)
	}
}

// answer writes {"ok": true, ...}, or {"ok": false, "error": trouble} if there is trouble.
func answer(w http.ResponseWriter, status int, trouble string, more map[string]any) {
	body := map[string]any{"ok": trouble == ""}
	for k, v := range more {
		body[k] = v
	}
	if trouble != "" {
		body["error"] = trouble
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who asked is gone, then
}
