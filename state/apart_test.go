package state

import (
	"fmt"
	"testing"
	"time"
)

// The tests in this file hold that a decision on one document or sync is about that one, whatever is beside it.

func TestDocumentsOfOneClaimEndApart(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, end := range endsOfClaims {
			r := newFixture(t)
			r.put("a.md", "b.md")
			docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
			ended, other := docs[0], docs[1]
			r.must(end.do(r, ended))
			if got := r.states(); got[other.Key] != Uploading || got[ended.Key] == Uploading {
				t.Errorf("%s of %s: %v", end.name, ended.Key, got)
			}
		}
	})
}

// A document that is marked is uploaded again. Another one in the same claim, whose content is known, shares its source.
func TestMarkIsOfADocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, marked := range []string{"1.md", "2.md"} {
			r := newFixture(t)
			r.put("1.md", "2.md")
			r.upload(map[string]string{"1.md": "1", "2.md": "2"})
			n, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{Keys: []string{marked}})
			r.must(err)
			other := map[string]string{"1.md": "2.md", "2.md": "1.md"}[marked]
			r.put(other)
			_, verdicts := r.resolve(map[string]string{"1.md": "1", "2.md": "2"}, Sharing{})
			if n != 1 || verdicts[marked] != ActionUpload || verdicts[other] != ActionShare {
				t.Errorf("%d documents are marked, %s: %v", n, marked, verdicts)
			}
		}
	})
}

// Documents that share nothing have contents of their own, also those of the same key in two syncs.
func TestContentsThatAreNotSharedAreOfADocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		second := r.other()
		each := Sharing{Each: true}
		for _, f := range []*fixture{r, second} {
			f.put("a.md", "b.md")
			docs, verdicts := f.resolve(map[string]string{"a.md": "A", "b.md": "A", "copy.md": "A"}, each)
			for key, v := range verdicts {
				if v != ActionUpload {
					t.Errorf("%s %s: %v", f.sync.Name, key, v)
				}
			}
			b, seals := spec(f, docs)
			b.Sharing = each
			u, err := f.s.Journal.Begin(t.Context(), b)
			r.must(err)
			r.must(f.s.Journal.Seal(t.Context(), u, seals))
			f.accept(u, len(docs))
		}
	})
}

func TestReopenIsOfADocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("1.md", "2.md", "3.md")
		docs, _ := r.resolve(map[string]string{"1.md": "1", "2.md": "2", "3.md": "3"}, Sharing{})
		r.must(r.s.Journal.Refuse(t.Context(), r.seal(docs), Refusal{StatusCode: 402, Disposition: Fail, Message: "quota"}))
		want := map[string]DocumentState{"1.md": Failed, "2.md": Failed, "3.md": Failed}
		for _, d := range docs {
			r.must(r.s.Queue.Reopen(t.Context(), []int64{d.DocumentID}))
			want[d.Key] = Pending
			if got := r.states(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%v, want %v", got, want)
			}
		}
	})
}

func TestGateIsOfASync(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		second := r.other()
		r.put("a.md")
		for shut, open := range map[*fixture]*fixture{r: second, second: r} {
			r.must(r.s.Scans.SetGate(t.Context(), shut.sync.ID, true))
			for f, want := range map[*fixture]int{shut: 0, open: 1} {
				docs, err := f.s.Queue.Claim(t.Context(), f.sync.ID, 10)
				r.must(err)
				if len(docs) != want {
					t.Errorf("the gate of %s is shut: %d documents of %s are claimed", shut.sync.Name, len(docs), f.sync.Name)
				}
				r.must(f.s.Queue.Release(t.Context(), docs, time.Time{}, false))
			}
			r.must(r.s.Scans.SetGate(t.Context(), shut.sync.ID, false))
		}
	})
}

// How long a changed document rests follows from its own last upload.
func TestRestIsOfADocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, recent := range []string{"1.md", "2.md"} {
			r := newFixture(t)
			for _, key := range []string{"1.md", "2.md"} {
				r.put(key)
				r.upload(map[string]string{key: key})
				if key != recent {
					r.must(r.s.update(t.Context(), func(x *tx) error {
						return x.command(`UPDATE batches SET sealed_at = sealed_at - 7200000 WHERE id = (SELECT max(id) FROM batches)`)
					}))
				}
			}
			scan, err := r.s.Scans.Begin(t.Context(), r.sync.ID, "")
			r.must(err)
			scan.Rest = time.Hour
			var changes []Change
			for _, key := range []string{"1.md", "2.md"} {
				changes = append(changes, Change{Op: Put, Key: key, Fingerprint: Fingerprint{Size: 11, MTime: 99}})
			}
			r.must(r.s.Scans.Record(t.Context(), scan, changes))
			docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
			r.must(err)
			if len(docs) != 1 || docs[0].Key == recent {
				t.Errorf("%s was uploaded recently: claimed %v", recent, docs)
			}
		}
	})
}
