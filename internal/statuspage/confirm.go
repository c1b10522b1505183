package statuspage

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/kbsync/kbsync/state"
)

// confirmData is the data of the page that asks before work begins. It needs no script.
type confirmData struct {
	frame
	Heading   string
	Choose    bool // asks which documents to upload again
	SyncNames []string
	Sync      string

	Count  string // the number of permanent uploads, and their size
	Text   string
	Post   string // the address of the trigger, with its parameters; empty if there is nothing to do
	Check  string // a sentence to tick
	Button string
	Cancel string
}

// serveConfirm asks a person before a trigger starts work.
func (p *Page) serveConfirm(w http.ResponseWriter, r *http.Request) {
	v, err := parameters(r, "action", "sync", "glob", "key", "older_than", "all")
	if err != nil {
		p.refusePage(w, err)
		return
	}
	data := &confirmData{frame: p.frame("Confirm", "front"), Cancel: "/"}
	if !data.Buttons {
		p.message(w, http.StatusNotImplemented, "This page cannot start work", "The page needs a kbsync watch with a token.")
		return
	}
	s, names, err := p.chosenSync(r.Context(), v.Get("sync"))
	if err == nil && s.ID == 0 {
		err = errNoSync
	}
	if err != nil {
		p.refusePage(w, err)
		return
	}
	data.Sync, data.SyncNames = s.Name, names
	switch v.Get("action") {
	case "sync":
		err = p.confirmSync(r.Context(), data, s)
	case "retry":
		err = p.confirmRetry(r.Context(), data, s)
	case "reindex":
		err = p.confirmReindex(r.Context(), data, s, v)
	default:
		p.message(w, http.StatusBadRequest, "The request has a mistake", "action must be sync, retry or reindex")
		return
	}
	if err != nil {
		p.refusePage(w, err)
		return
	}
	p.render(w, http.StatusOK, "confirm", data)
}

// uploads names a number of permanent uploads.
func uploads(most string, documents int, bytes int64) string {
	return most + plural(documents, "permanent upload", "permanent uploads") + ", " + size(bytes)
}

func (p *Page) confirmSync(ctx context.Context, data *confirmData, s state.Sync) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	n, bytes, err := p.opts.State.Queue.CountSelected(ctx, s.ID, state.Selection{States: []state.DocumentState{state.Pending}})
	if err != nil {
		return err
	}
	data.Heading = "Sync " + visible(s.Name) + " now?"
	data.Count = uploads("", n, bytes) + " wait now"
	if n == 1 {
		data.Count = uploads("", n, bytes) + " waits now"
	}
	data.Text = "kbsync lists the root at once, and tries again what waits after a failure. It uploads what has changed since the last scan, too. " +
		"Only a person can remove a source from the knowledge base."
	data.Post, data.Button = link("/-/sync", "sync", s.Name), "Sync now"
	return nil
}

func (p *Page) confirmRetry(ctx context.Context, data *confirmData, s state.Sync) error {
	n, bytes, err := p.estimate(ctx, Reindex{Sync: s.Name, Retry: true})
	if err != nil {
		return err
	}
	data.Heading = "Retry the documents of " + visible(s.Name) + "?"
	data.Count = uploads("At most ", n, bytes)
	data.Text = "kbsync uploads the documents that failed, are stuck or are uncertain once more, and looks again at blocked ones. An uncertain document may then be in " +
		"the knowledge base twice; the list of possible duplicates has it."
	if n == 0 {
		data.Text = "No document failed, is stuck, uncertain or blocked."
		return nil
	}
	data.Post, data.Button = link("/-/retry", "sync", s.Name), "Retry, "+uploads("at most ", n, bytes)
	return nil
}

func (p *Page) confirmReindex(ctx context.Context, data *confirmData, s state.Sync, v url.Values) error {
	data.Heading = "Upload documents of " + visible(s.Name) + " again?"
	v.Del("action")
	for name := range v {
		if v.Get(name) == "" {
			v.Del(name) // an empty field of the form
		}
	}
	v.Set("sync", s.Name)
	if len(v) == 1 {
		data.Choose = true
		return nil
	}
	request, err := parseReindex(v)
	if err != nil {
		return err
	}
	n, bytes, err := p.estimate(ctx, request)
	if err != nil {
		return err
	}
	data.Count = uploads("", n, bytes)
	data.Text = "Each document becomes a new source, although its content did not change. Its old source stays in the knowledge base, superseded, until you remove it by hand."
	if key := v.Get("key"); key != "" {
		data.Heading, data.Cancel = "Upload "+visible(key)+" again?", documentLink(s.Name, key)
	}
	if n == 0 {
		data.Text = "No document matches, or all of them are being uploaded now."
		return nil
	}
	data.Post, data.Button = "/-/reindex?"+strings.ReplaceAll(v.Encode(), "+", "%20"), "Upload again, "+uploads("", n, bytes)
	all, err := p.selectsAll(ctx, s.ID, n)
	if all || request.All {
		data.Check = "I want every document of this sync once more, beside its old source."
	}
	return err
}

// selectsAll reports whether n documents are all that a reindex could select, and several.
func (p *Page) selectsAll(ctx context.Context, syncID int64, n int) (bool, error) {
	o, err := p.overview(ctx)
	if err != nil || n < 2 {
		return false, err
	}
	for i := range o.Syncs {
		if v := &o.Syncs[i]; v.id == syncID {
			return n >= v.Documents[state.Completed]+v.unfinished()-v.Documents[state.Uploading], nil
		}
	}
	return false, nil
}

// estimate returns how many documents a reindex would upload, and their bytes.
func (p *Page) estimate(ctx context.Context, request Reindex) (documents int, bytes int64, err error) {
	if p.opts.Estimate == nil {
		return 0, 0, errUnsupported
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return p.opts.Estimate(ctx, request)
}
