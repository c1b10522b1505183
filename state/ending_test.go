package state

import (
	"path/filepath"
	"strings"
	"testing"
)

// streak returns the number of batches in a row that became uncertain.
func (r *fixture) streak() int {
	r.t.Helper()
	streak, _, err := r.s.Journal.Breaker(r.ctx(), r.sync.Destination.ID)
	r.must(err)
	return streak
}

// Each path makes a sealed batch uncertain, while another batch is open.
func TestEveryPathToUncertainOpensTheBreaker(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(r *fixture, batch int64)
	}{
		{"lost answer", func(r *fixture, batch int64) {
			_, err := r.s.Journal.MarkUncertain(r.ctx(), batch, 502, "bad gateway")
			r.must(err)
		}},
		{"recovery", func(r *fixture, _ int64) {
			_, err := r.s.Journal.Recover(r.ctx(), r.sync.ID)
			r.must(err)
		}},
		{"import", func(r *fixture, _ int64) {
			to, err := Open(r.ctx(), Options{Path: filepath.Join(r.t.(*testing.T).TempDir(), "copy.db")})
			r.must(err)
			r.t.Cleanup(func() { r.must(to.Close()) })
			r.must(to.Import(r.ctx(), strings.NewReader(export(r.t.(*testing.T), r.s))))
			r.s = to
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newFixture(t)
			original := r.s
			r.put("sealed.md", "open.md")
			docs, _ := r.resolve(map[string]string{"sealed.md": "S", "open.md": "O"}, Sharing{})
			sealed := r.seal(docs[:1])
			b, seals := spec(r, docs[1:])
			open, err := r.s.Journal.Begin(t.Context(), b)
			r.must(err)
			tt.lose(r, sealed)
			if r.streak() != 1 {
				t.Errorf("streak %d, want 1", r.streak())
			}
			for d, err := range r.s.Documents.All(t.Context(), r.sync.ID) {
				r.must(err)
				if d.Key == "sealed.md" && d.State != Uncertain && d.State != Removed {
					t.Errorf("sealed.md is %s", d.State)
				}
			}
			batches, err := r.s.Journal.Recent(t.Context(), 2)
			r.must(err)
			if batches[1].State != BatchUncertain {
				t.Errorf("the batch is %s", batches[1].State)
			}
			if err := r.s.Journal.Seal(t.Context(), open, seals); err == nil {
				t.Error("another batch was sealed")
			}
			findings, err := r.s.Check(t.Context())
			r.must(err)
			if len(findings) > 0 {
				t.Error(findings)
			}
			r.s = original
		})
	}
}

// Killing kbsync again and again during an outage must not make one document after the other uncertain.
func TestRestartsLeaveTheBreakerOpen(t *testing.T) {
	r := newFixture(t)
	r.put("a.md", "b.md", "c.md")
	contents := map[string]string{"a.md": "A", "b.md": "B", "c.md": "C"}
	for i := range 3 {
		docs, _ := r.resolve(contents, Sharing{})
		b, seals := spec(r, docs[:1])
		b.Probe = true
		batch, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.must(r.s.Journal.Seal(t.Context(), batch, seals))
		if len(docs) > 1 {
			b, _ = spec(r, docs[1:])
			if _, err := r.s.Journal.Begin(t.Context(), b); i > 0 && err == nil {
				t.Fatal("a second batch began beside the probe")
			}
		}
		_, err = r.s.Journal.Recover(t.Context(), r.sync.ID)
		r.must(err)
		if r.streak() != i+1 {
			t.Fatalf("streak %d after %d restarts", r.streak(), i+1)
		}
	}
}
