package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// acceptNamed accepts a batch with these sources of each document, which do not have the document's name.
func (r *fixture) acceptNamed(u *Upload, sources ...[]int64) {
	r.t.Helper()
	answer := Answer{StatusCode: 200, NextPoll: time.Now()}
	for _, ids := range sources {
		var of []SourceAnswer
		for _, id := range ids {
			of = append(of, SourceAnswer{ID: id, Type: "file", Name: "other name", Status: "in-progress"})
		}
		answer.Sources = append(answer.Sources, of)
	}
	_, err := r.s.Journal.Accept(r.ctx(), u, answer)
	r.must(err)
}

// again marks a document and claims it, to be sent once more.
func (r *fixture) again(key, content string) []HashedDocument {
	r.t.Helper()
	n, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{Keys: []string{key}})
	r.must(err)
	if n != 1 {
		r.t.Fatalf("%d documents are marked", n)
	}
	docs, _ := r.resolve(map[string]string{key: content}, Sharing{})
	return docs
}

func (r *fixture) duplicates() string {
	r.t.Helper()
	var got []string
	for p, err := range r.s.Inventory.PossibleDuplicates(r.ctx(), 0) {
		r.must(err)
		got = append(got, fmt.Sprintf("%s %s in %d, again in %d, known %v", p.Key, p.Class, p.Batch, p.ResentAs, p.KnownSources))
	}
	return strings.Join(got, "; ")
}

// A request that was refused as a whole is listed only if the API may have kept a part of it, and only once its document was accepted.
func TestRefusedRequestIsAPossibleDuplicateIfTheAPIMayHaveKeptAPart(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for status, listed := range map[int]bool{400: true, 413: true, 422: true, 401: false, 403: false, 409: false, 429: false, 503: false} {
			r := newFixture(t)
			r.put("a.md")
			docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
			r.must(r.s.Journal.Refuse(r.ctx(), r.seal(docs), Refusal{StatusCode: status, Disposition: Requeue}))
			if got := r.duplicates(); got != "" {
				t.Errorf("%d, before the document was accepted: %s", status, got)
			}
			docs, _ = r.resolve(map[string]string{"a.md": "A"}, Sharing{})
			ids := r.accept(r.seal(docs), 1)
			want := ""
			if listed {
				want = fmt.Sprintf("a.md refused in 1, again in 2, known %v", ids)
			}
			if got := r.duplicates(); got != want {
				t.Errorf("%d: %s, want %s", status, got, want)
			}
		}
	})
}

// A possible duplicate names the first batch that sent its content again, and the live sources with that content.
func TestPossibleDuplicateNamesItsContentAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("lost.md", "other.md")
		contents := map[string]string{"lost.md": "L", "other.md": "O"}
		docs, _ := r.resolve(contents, Sharing{})
		i := slices.IndexFunc(docs, func(d HashedDocument) bool { return d.Key == "lost.md" })
		earlier := r.seal(docs[i : i+1])
		_, err := r.s.Journal.MarkUncertain(r.ctx(), earlier, 0, "lost")
		r.must(err)
		r.must(r.s.Queue.Release(r.ctx(), []ClaimedDocument{docs[1-i].ClaimedDocument}, time.Time{}, false))
		if got, want := r.duplicates(), "lost.md uncertain in 1, again in 0, known []"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		// Another content comes between.
		docs, _ = r.resolve(contents, Sharing{})
		r.acceptNamed(r.sealProbe(docs), []int64{11, 12})
		if got, want := r.duplicates(), "lost.md uncertain in 1, again in 0, known []"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		r.acceptNamed(r.sealProbe(r.again("lost.md", "L")), []int64{21, 22})
		r.acceptNamed(r.seal(r.again("lost.md", "L")), []int64{31})
		if got, want := r.duplicates(), "lost.md uncertain in 1, again in 3, known [21 22 31]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		_, err = r.s.Inventory.MarkSourcesGone(r.ctx(), r.sync.Destination.ID, []int64{22})
		r.must(err)
		if got, want := r.duplicates(), "lost.md uncertain in 1, again in 3, known [21 31]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		// A batch that sent the content before does not send it again.
		_, err = r.s.Journal.MarkUncertain(r.ctx(), r.seal(r.again("lost.md", "L")), 0, "lost")
		r.must(err)
		if got, want := r.duplicates(), "; lost.md uncertain in 5, again in 0, known [21 31]"; !strings.HasSuffix(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	})
}
