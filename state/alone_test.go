package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// steps are what can happen to a document that is claimed and has an earlier version.
var steps = slices.Concat(endsOfClaims, []action{
	{"share a content", func(r *fixture, d HashedDocument) error {
		d.SHA256 = hash("known")
		return r.decide(d, ActionShare)
	}},
	{"go back to a content of its own", func(r *fixture, d HashedDocument) error {
		d.SHA256 = hash("acting.md, first")
		return r.decide(d, ActionShare)
	}},
	{"skip", func(r *fixture, d HashedDocument) error {
		return r.scanOf(Change{Op: Skip, Key: d.Key, Reason: "it is empty"})
	}},
	{"vanish", func(r *fixture, d HashedDocument) error { return r.scanOf(Change{Op: Vanish, Key: d.Key}) }},
	{"change", func(r *fixture, d HashedDocument) error {
		return r.scanOf(Change{Op: Put, Key: d.Key, Fingerprint: Fingerprint{Size: 99}})
	}},
	{"be refused for now", refusedSealed(Retry)},
	{"be refused for good", refusedSealed(Fail)},
	{"be refused and sent at once", refusedSealed(Requeue)},
	{"be refused for good, and reopened", func(r *fixture, d HashedDocument) error {
		r.must(refusedSealed(Fail)(r, d))
		return r.s.Queue.Reopen(r.ctx(), []int64{d.DocumentID})
	}},
	{"be lost", func(r *fixture, d HashedDocument) error {
		_, err := r.s.Journal.MarkUncertain(r.ctx(), r.seal([]HashedDocument{d}), 502, "bad gateway")
		return err
	}},
	{"be accepted", func(r *fixture, d HashedDocument) error {
		r.accept(r.seal([]HashedDocument{d}), 1)
		return nil
	}},
	{"fail to train", func(r *fixture, d HashedDocument) error {
		r.trained(TrainingFailed, r.accept(r.seal([]HashedDocument{d}), 1)...)
		return nil
	}},
	{"lose its source", func(r *fixture, d HashedDocument) error {
		ids := r.accept(r.seal([]HashedDocument{d}), 1)
		r.trained(TrainingCompleted, ids...)
		_, err := r.s.Inventory.MarkSourcesGone(r.ctx(), r.sync.Destination.ID, ids)
		return err
	}},
	{"be uploaded once more", func(r *fixture, d HashedDocument) error {
		r.accept(r.seal([]HashedDocument{d}), 1)
		_, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{Keys: []string{d.Key}})
		return err
	}},
})

// refusedSealed ends an upload that was sealed.
func refusedSealed(end Disposition) func(*fixture, HashedDocument) error {
	return func(r *fixture, d HashedDocument) error {
		return r.s.Journal.Refuse(r.ctx(), r.seal([]HashedDocument{d}), Refusal{StatusCode: 422, Disposition: end, NextAttempt: time.Now().Add(time.Hour)})
	}
}

// scanOf records a change in a scan that finishes.
func (r *fixture) scanOf(c Change) error {
	scan, err := r.s.Scans.Begin(r.ctx(), r.sync.ID, "")
	r.must(err)
	r.must(r.s.Scans.Record(r.ctx(), scan, []Change{c}))
	_, err = r.s.Scans.Finish(r.ctx(), scan, "1:2")
	return err
}

// What happens to a document changes no row of another one, in whatever state that is, nor of an earlier upload.
func TestStepOfADocumentLeavesTheOthersAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, step := range steps {
			t.Run(step.name, func(t *testing.T) {
				r := newFixture(t)
				recordLife(r, nil)
				r.put("acting.md", "claimed.md", "sealed.md", "known.md")
				r.upload(map[string]string{"acting.md": "acting.md, first", "claimed.md": "claimed.md, first", "sealed.md": "sealed.md, first", "known.md": "known"})
				r.put("saved.md")
				r.uploadCores(TrainingCompleted, map[string]string{"saved.md": "saved/core"})
				r.wantResaved("saved.md", "saved again/core", resaved)
				r.leaveOneOfEach()
				r.closeBreaker()
				r.put("acting.md", "claimed.md", "sealed.md")
				claimed, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 100)
				r.must(err)
				var acting HashedDocument
				for _, d := range claimed {
					switch d.Key {
					case "acting.md":
						acting = HashedDocument{ClaimedDocument: d, SHA256: hash("acting.md, second"), Size: 10}
					case "sealed.md":
						r.seal([]HashedDocument{{ClaimedDocument: d, SHA256: hash("sealed.md, second"), Size: 10}})
					case "claimed.md":
					default:
						r.must(r.s.Queue.Release(t.Context(), []ClaimedDocument{d}, time.Time{}, false))
					}
				}
				batches, err := r.s.Journal.Recent(t.Context(), 1)
				r.must(err)
				if n := r.rows("resaves"); n != 1 {
					t.Fatalf("%d documents were saved again, want 1", n)
				}
				before := r.rowsOfOthers(acting.DocumentID, batches[0].ID)
				r.must(step.do(r, acting))
				after := r.rowsOfOthers(acting.DocumentID, batches[0].ID)
				if !slices.Equal(after, before) {
					t.Errorf("the rows were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
				}
			})
		}
	})
}

// rowsOfOthers returns the rows of the state that are not about a document, a content of it, or a batch after lastBatch.
func (r *fixture) rowsOfOthers(document, lastBatch int64) []string {
	r.t.Helper()
	var out bytes.Buffer
	r.must(r.s.Export(r.ctx(), &out))
	contents := map[string]bool{}
	var rows []string
	for text := range bytes.Lines(out.Bytes()) {
		var l line
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		r.must(dec.Decode(&l))
		id := func(column string) int64 {
			n, _ := l.Row[column].(json.Number)
			i, _ := n.Int64()
			return i
		}
		own := id("document_id") == document
		switch l.Table {
		case "", "destinations", "syncs": // the header and the end; the breaker, the limits and the number of the last scan
			own = true
		case "batches":
			own = id("id") > lastBatch
		case "documents":
			own = id("id") == document
		case "contents":
			contents[fmt.Sprint(id("id"))] = own
		case "cores", "failed_endings":
			own = contents[fmt.Sprint(id("content_id"))]
		}
		if !own {
			rows = append(rows, string(bytes.TrimSpace(text)))
		}
	}
	return rows
}
