package state

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// An action is what a process does with a document that it has claimed.
type action struct {
	name string
	do   func(*fixture, HashedDocument) error
}

// endsOfClaims end the claim of a document that is not uploaded.
var endsOfClaims = []action{
	{"release", func(r *fixture, d HashedDocument) error {
		return r.s.Queue.Release(r.ctx(), []ClaimedDocument{d.ClaimedDocument}, time.Now().Add(time.Hour), true)
	}},
	{"mark unreadable", func(r *fixture, d HashedDocument) error {
		return r.s.Queue.MarkUnreadable(r.ctx(), d.ClaimedDocument, "no permission")
	}},
	{"mark vanished", func(r *fixture, d HashedDocument) error { return r.s.Queue.MarkVanished(r.ctx(), d.ClaimedDocument) }},
	{"block", func(r *fixture, d HashedDocument) error {
		return r.s.Queue.Block(r.ctx(), []ClaimedDocument{d.ClaimedDocument}, []string{"a web page"})
	}},
}

// actions are all that a process does.
var actions = slices.Concat(endsOfClaims, []action{
	{"resolve", func(r *fixture, d HashedDocument) error {
		d.Core = SHA256{}
		return r.decide(d, ActionLost)
	}},
	{"resolve as saved again", func(r *fixture, d HashedDocument) error {
		d.SHA256 = hash("saved again")
		return r.decide(d, ActionUpload)
	}},
	{"adopt", func(r *fixture, d HashedDocument) error {
		adopted, err := r.s.Journal.Adopt(r.ctx(), r.sync.ID, []Adoption{{HashedDocument: d, Sources: []SourceAnswer{{ID: 7, Name: "a.md"}}}}, Sharing{})
		if slices.Contains(adopted, true) {
			r.t.Error("the document was adopted")
		}
		return err
	}},
	{"seal", func(r *fixture, d HashedDocument) error {
		d.SHA256 = hash("another content")
		b, seals := spec(r, []HashedDocument{d})
		u, err := r.s.Journal.Begin(r.ctx(), b)
		r.must(err)
		sealErr, ok := errors.AsType[*SealError](r.s.Journal.Seal(r.ctx(), u, seals))
		if !ok || !slices.Equal(sealErr.Lost, []int{0}) {
			r.t.Errorf("the seal returns %v", sealErr)
		}
		return nil
	}},
	{"refuse for now", refuseOpen(Retry)},
	{"refuse for good", refuseOpen(Fail)},
})

// refuseOpen ends an upload that was not sealed.
func refuseOpen(end Disposition) func(*fixture, HashedDocument) error {
	return func(r *fixture, d HashedDocument) error {
		b, _ := spec(r, []HashedDocument{d})
		u, err := r.s.Journal.Begin(r.ctx(), b)
		r.must(err)
		return r.s.Journal.Refuse(r.ctx(), u, Refusal{StatusCode: 422, Disposition: end, NextAttempt: time.Now().Add(time.Hour)})
	}
}

func (r *fixture) decide(d HashedDocument, want Action) error {
	verdicts, err := r.s.Queue.Resolve(r.ctx(), r.sync.ID, []HashedDocument{d}, Sharing{})
	if err == nil && verdicts[0].Action != want {
		r.t.Errorf("the verdict is %v, want %v", verdicts[0].Action, want)
	}
	return err
}

// rowsBesideUploads returns the rows of the state without those of uploads, which the lost claims may begin.
func (r *fixture) rowsBesideUploads() []string {
	r.t.Helper()
	return slices.DeleteFunc(r.allRows(), func(row string) bool {
		return strings.Contains(row, `"table":"batches"`) || strings.Contains(row, `"table":"members"`)
	})
}

// A process may act on a claim that it has lost: it was paused, another process has recovered the document and claimed it. The second
// claim stays, and the document is uploaded.
func TestActionOnALostClaimChangesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, known := range []bool{false, true} {
			for _, action := range actions {
				name := action.name
				if known {
					name += ", with an earlier version"
				}
				t.Run(name, func(t *testing.T) {
					r := newFixture(t)
					r.put("other.md")
					r.uploadCores(TrainingCompleted, map[string]string{"other.md": "A"})
					r.put("a.md")
					if known {
						r.uploadCores(TrainingCompleted, map[string]string{"a.md": "B/core"})
						r.put("a.md")
					}
					claim := func() HashedDocument {
						docs, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 10)
						r.must(err)
						if len(docs) != 1 || docs[0].Attempts != 0 {
							t.Fatalf("claimed %+v", docs)
						}
						return HashedDocument{ClaimedDocument: docs[0], SHA256: hash("A"), Core: hash("core"), Size: 10}
					}
					lost := claim()
					_, err := r.s.Journal.Recover(r.ctx(), r.sync.ID)
					r.must(err)
					held := claim()
					before := r.rowsBesideUploads()
					r.must(action.do(r, lost))
					if after := r.rowsBesideUploads(); !slices.Equal(after, before) {
						t.Errorf("the rows were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
					}
					held.SHA256 = hash("C")
					r.accept(r.seal([]HashedDocument{held}), 1)
					r.want("a.md=training other.md=completed")
				})
			}
		}
	})
}

// A seal finds the claim that was lost, although the document looks much as if the seal had linked it.
func TestSealOnALostClaimNamesTheDocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, tt := range []struct {
			name    string
			content string // that the lost claim seals
			take    func(*fixture, HashedDocument)
			want    string
		}{
			{"another process claimed it to send the same content again", "A", func(*fixture, HashedDocument) {}, "a.md=uploading"},
			{"another document has the content", "A", func(r *fixture, _ HashedDocument) {
				r.put("twin.md")
				r.resolve(map[string]string{"twin.md": "A"}, Sharing{})
			}, "a.md=uploading twin.md=completed"},
			{"another process uploaded another content", "B", func(r *fixture, held HashedDocument) {
				held.SHA256 = hash("C")
				r.accept(r.seal([]HashedDocument{held}), 1)
			}, "a.md=training"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := newFixture(t)
				r.put("a.md")
				r.upload(map[string]string{"a.md": "A"})
				_, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{})
				r.must(err)
				claim := func() HashedDocument {
					docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
					r.must(err)
					return HashedDocument{ClaimedDocument: docs[0], SHA256: hash(tt.content), Size: 10}
				}
				lost := claim()
				_, err = r.s.Journal.Recover(t.Context(), r.sync.ID)
				r.must(err)
				tt.take(r, claim())
				b, seals := spec(r, []HashedDocument{lost})
				u, err := r.s.Journal.Begin(t.Context(), b)
				r.must(err)
				err = r.s.Journal.Seal(t.Context(), u, seals)
				if sealErr, ok := errors.AsType[*SealError](err); !ok || !slices.Equal(sealErr.Lost, []int{0}) {
					t.Errorf("the seal returns %v", err)
				}
				r.want(tt.want)
			})
		}
	})
}
