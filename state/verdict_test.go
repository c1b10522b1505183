package state

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// sent uploads the documents that are pending, all of one content, and returns the keys that were sent.
func (r *fixture) sent(outcome Outcome, keys ...string) []string {
	r.t.Helper()
	contents := map[string]string{}
	for _, k := range keys {
		contents[k] = "same"
	}
	docs, _ := r.resolve(contents, Sharing{})
	if len(docs) == 0 {
		return nil
	}
	// A batch has a content once; a run lets the others wait.
	ids := r.accept(r.seal(docs[:1]), 1)
	for _, d := range docs[1:] {
		r.must(r.s.Queue.Release(r.ctx(), []ClaimedDocument{d.ClaimedDocument}, time.Time{}, false))
	}
	r.trained(outcome, ids...)
	return []string{docs[0].Key}
}

func (r *fixture) wantSent(want string, got []string) {
	r.t.Helper()
	if (want == "") != (len(got) == 0) || want != "" && got[0] != want {
		r.t.Fatalf("sent %v, want %q", got, want)
	}
}

func TestFailureIsOfTheEndingItWasSentUnder(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		keys := []string{"a.csv", "b.txt", "c.CSV", "d.md", "e.txt"}
		r.put(keys[:3]...)
		r.wantSent("a.csv", r.sent(TrainingFailed, keys...))
		// c.CSV has the ending that failed, b.txt has not.
		r.wantSent("b.txt", r.sent(TrainingFailed, keys...))
		r.want("a.csv=failed b.txt=failed c.CSV=failed")
		// Each ending is tried once, whichever document has it.
		r.put("e.txt")
		r.wantSent("", r.sent(TrainingFailed, keys...))
		r.put("d.md")
		r.wantSent("d.md", r.sent(TrainingCompleted, keys...))
		// The content is in the knowledge base, so every document has it.
		r.want("a.csv=completed b.txt=completed c.CSV=completed d.md=completed e.txt=completed")
		r.put("f.rst")
		r.wantSent("", r.sent(TrainingCompleted, append(keys, "f.rst")...))
	})
}

func TestTwinsOfAFailedContentWait(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.csv", "b.txt", "c.csv")
		contents := map[string]string{"a.csv": "same", "b.txt": "same", "c.csv": "same"}
		docs, _ := r.resolve(contents, Sharing{})
		ids := r.accept(r.seal(docs[:1]), 1)
		var rest []ClaimedDocument
		for _, d := range docs[1:] {
			rest = append(rest, d.ClaimedDocument)
		}
		r.resolveClaimed(rest, contents, Sharing{})
		r.want("a.csv=training b.txt=training c.csv=training")
		r.trained(TrainingFailed, ids...)
		r.want("a.csv=failed b.txt=pending c.csv=failed")
	})
}

func TestRefusalIsOfTheEndingToo(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.csv")
		docs, _ := r.resolve(map[string]string{"a.csv": "same"}, Sharing{})
		r.must(r.s.Journal.Refuse(r.ctx(), r.seal(docs), Refusal{Disposition: Fail, StatusCode: 400, Message: "no"}))
		r.put("b.txt", "c.csv")
		r.wantSent("b.txt", r.sent(TrainingCompleted, "b.txt", "c.csv"))
		r.want("a.csv=completed b.txt=completed c.csv=completed")
	})
}

func TestABusyAnswerIsNoVerdictOnTheEnding(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, end := range []Outcome{TrainingFailed, TrainingCompleted} {
			r := newFixture(t)
			r.put("a.csv")
			r.wantSent("a.csv", r.sent(TrainingFailed, "a.csv"))
			r.put("b.txt")
			docs, _ := r.resolve(map[string]string{"b.txt": "same"}, Sharing{})
			r.must(r.s.Journal.Refuse(r.ctx(), r.seal(docs), Refusal{Disposition: Retry, StatusCode: 429}))
			r.want("a.csv=failed b.txt=pending")
			r.wantSent("b.txt", r.sent(end, "b.txt"))
		}
	})
}

func TestRetrySendsTheEndingThatHasNotFailed(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.csv", "b.txt")
		r.wantSent("a.csv", r.sent(TrainingFailed, "a.csv", "b.txt"))
		r.want("a.csv=failed b.txt=pending")
		_, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{States: []DocumentState{Failed}})
		r.must(err)
		r.wantSent("b.txt", r.sent(TrainingFailed, "a.csv", "b.txt"))
		r.want("a.csv=failed b.txt=failed")
		// After both have failed, a retry sends one of them again.
		_, err = r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{States: []DocumentState{Failed}})
		r.must(err)
		if sent := r.sent(TrainingCompleted, "a.csv", "b.txt"); len(sent) != 1 {
			t.Fatalf("sent %v", sent)
		}
		r.wantSent("", r.sent(TrainingCompleted, "a.csv", "b.txt"))
		r.want("a.csv=completed b.txt=completed")
	})
}

func TestExportKeepsTheFailedEndings(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.csv")
		r.wantSent("a.csv", r.sent(TrainingFailed, "a.csv"))
		var out bytes.Buffer
		r.must(r.s.Export(r.ctx(), &out))
		if !bytes.Contains(out.Bytes(), []byte(`"failed_endings","row":{"content_id":1,"ending":".csv"}`)) {
			t.Fatal(out.String())
		}
		other := newFixture(t)
		other.s = other.open(Options{Path: t.TempDir() + "/other.db"})
		if err := other.s.Import(r.ctx(), &out); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBlockedDocumentIsSkippedUntilItChanges(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		source := r.upload(map[string]string{"a.md": "A", "b.md": "B"})[0]
		r.put("a.md", "c.md")
		docs, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 10)
		r.must(err)
		r.must(r.s.Queue.Block(r.ctx(), docs, []string{"it is a pointer", "it is a pointer"}))
		r.want("a.md=skipped b.md=completed c.md=skipped")
		// The good version stays: no report asks to remove its source.
		r.wantStanding(source, Live)
		for k, err := range r.s.Scans.Known(r.ctx(), r.sync.ID, "") {
			r.must(err)
			if k.Skip != "" {
				t.Errorf("a scan takes %s for skipped by a rule: %q", k.Key, k.Skip)
			}
		}
		n, err := r.s.Documents.CountBlocked(r.ctx(), r.sync.ID)
		if err != nil || n != 2 {
			t.Errorf("%d are blocked (%v)", n, err)
		}
		for d, err := range r.s.Documents.Blocked(r.ctx(), r.sync.ID) {
			r.must(err)
			if d.Reason != "blocked: it is a pointer" {
				t.Errorf("%s: %q", d.Key, d.Reason)
			}
		}
		r.put("c.md")
		r.want("a.md=skipped b.md=completed c.md=pending")
		n, err = r.s.Queue.ReopenBlocked(r.ctx(), r.sync.ID)
		if err != nil || n != 1 {
			t.Errorf("%d were reopened (%v)", n, err)
		}
		r.want("a.md=pending b.md=completed c.md=pending")
	})
}

// Another content that has failed under an ending says nothing about this one.
func TestFailedEndingsAreThoseOfTheContent(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("other.txt")
		docs, _ := r.resolve(map[string]string{"other.txt": "other"}, Sharing{})
		r.trained(TrainingFailed, r.accept(r.seal(docs), 1)...)
		keys := []string{"a.csv", "b.txt"}
		r.put(keys...)
		r.wantSent("a.csv", r.sent(TrainingFailed, keys...))
		r.wantSent("b.txt", r.sent(TrainingCompleted, keys...))
		r.want("a.csv=completed b.txt=completed other.txt=failed")
	})
}

// Two processes may ask for one source. The answer that is recorded second changes nothing, even if it is a failure.
func TestLateStatusOfASourceChangesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("one.md", "two.md")
		docs, _ := r.resolve(map[string]string{"one.md": "1", "two.md": "2"}, Sharing{})
		_, err := r.s.Journal.Accept(t.Context(), r.seal(docs), Answer{
			StatusCode: 200, NextPoll: time.Now(), Sources: [][]SourceAnswer{
				{{ID: 1, Type: "file", Name: usualName("one.md"), Status: "in-progress"}}, {{ID: 2}, {ID: 3}},
			},
		})
		r.must(err)
		r.trained(TrainingCompleted, 1, 2, 3)
		rows := r.allRows()
		var late []Poll
		for id := range int64(3) {
			late = append(late, Poll{SourceID: id + 1, Status: "failed", Outcome: TrainingFailed})
		}
		r.must(r.s.Inventory.RecordPolls(t.Context(), r.sync.Destination.ID, late))
		if after := r.allRows(); !slices.Equal(after, rows) {
			t.Errorf("the rows were\n%s\nand are\n%s", strings.Join(rows, "\n"), strings.Join(after, "\n"))
		}
	})
}

// A stream of several pages has every blocked document once, in order.
func TestBlockedDocumentsOfSeveralPages(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		const n = pageSize + 1
		var keys, reasons []string
		for i := range n {
			keys, reasons = append(keys, fmt.Sprintf("%05d.pdf", i)), append(reasons, "it is not a PDF")
		}
		r.put(keys...)
		docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, n)
		r.must(err)
		r.must(r.s.Queue.Block(t.Context(), docs, reasons))
		i := 0
		for d, err := range r.s.Documents.Blocked(t.Context(), r.sync.ID) {
			r.must(err)
			if i == n || d.Key != keys[i] {
				t.Fatalf("document %d is %q", i, d.Key)
			}
			i++
		}
		if i != n {
			t.Errorf("%d documents, want %d", i, n)
		}
	})
}
