package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// A movingRoot has documents whose time stamps do not hold still.
type movingRoot struct {
	Root
	documents int
}

func (r *movingRoot) Unsteady() (documents int, key string) { return r.documents, "first.md" }

func TestUnsteadyTimeStampsAreSaidOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	w := &worker{logger: slog.New(slog.NewTextHandler(&log, nil))}
	root := &movingRoot{}
	for range 5 {
		w.warnUnsteady(root)
		root.documents += 2
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "do not hold still") || !strings.Contains(text, "first=first.md") {
		t.Errorf("the log has %q", text)
	}
}
