package console

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"sync"
)

// A redactor replaces secrets in the output of its writers. It finds a secret only within one Write, so callers must
// write whole lines.
type redactor struct {
	mu      sync.RWMutex
	secrets [][]byte
}

func (r *redactor) hide(secret string) {
	if len(secret) < 6 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	forms := []string{secret, inside(strconv.Quote(secret))}
	if q, err := json.Marshal(secret); err == nil {
		forms = append(forms, inside(string(q)))
	}
	for _, f := range forms {
		if !slices.ContainsFunc(r.secrets, func(s []byte) bool { return string(s) == f }) {
			r.secrets = append(r.secrets, []byte(f))
		}
	}
}

// inside removes the quotation marks.
func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

func (r *redactor) writer(w io.Writer) io.Writer { return &redactingWriter{r, w} }

type redactingWriter struct {
	r *redactor
	w io.Writer
}

func (w *redactingWriter) Write(p []byte) (int, error) {
	w.r.mu.RLock()
	clean := p
	for _, s := range w.r.secrets {
		clean = bytes.ReplaceAll(clean, s, []byte("[redacted]"))
	}
	w.r.mu.RUnlock()
	if _, err := w.w.Write(clean); err != nil {
		return 0, err
	}
	return len(p), nil
}
