package ingest

import (
	"slices"
	"sync"
)

// quotaAfter is how many documents refused in a row, each alone and with one code, look like a quota of the account.
const quotaAfter = 10

// refusals counts single documents that the API refused in a row with one code. An accepted document or another code starts
// the count again.
type refusals struct {
	mu   sync.Mutex
	code string
	docs []*document
}

// add counts a document. At quotaAfter it returns all documents of the row, once. After that stopped is true: another
// worker is stopping the run, and the document is not counted.
func (r *refusals) add(d *document, code string) (row []*document, stopped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.docs) >= quotaAfter {
		return nil, true
	}
	if code != r.code {
		r.code, r.docs = code, nil
	}
	r.docs = append(r.docs, d)
	if len(r.docs) == quotaAfter {
		return slices.Clone(r.docs), false
	}
	return nil, false
}

// isQuota reports whether the count has reached quotaAfter.
func (r *refusals) isQuota() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.docs) >= quotaAfter
}

// reset starts the count again after an accepted document.
func (r *refusals) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.docs = nil
}
