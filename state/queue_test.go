package state

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// The next due time is one at which a claim of the same sync returns a document. Else a loop that waits for it would not wait.
func TestNextDueIsOfADocumentThatCanBeClaimed(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		n := r.neighbour("neighbour")
		n.put("due.md", "wrong.md")
		r.put("claimed.md", "wrong.md", "later.md")
		docs, _ := r.resolve(nil, Sharing{})
		later := docs[2].ClaimedDocument
		if later.Key != "later.md" {
			t.Fatalf("claimed %+v", docs)
		}
		r.must(r.s.Queue.Release(t.Context(), []ClaimedDocument{later}, time.Now().Add(time.Hour), true))
		// A clock that was wrong for a moment set the next attempts of a claimed document, and of a document of another sync.
		r.must(r.s.update(t.Context(), func(t *tx) error {
			_, err := t.exec(`UPDATE documents SET attempts = 1, next_attempt = $1 WHERE key = $2`,
				time.Now().AddDate(1, 0, 0).UnixMilli(), []byte("wrong.md"))
			return err
		}))
		due, err := r.s.Queue.NextDue(t.Context(), r.sync.ID, -1)
		r.must(err)
		if d := time.Until(due); d < 50*time.Minute || d > time.Hour {
			t.Errorf("due in %v, want an hour", d)
		}
	})
}

// A resend takes one batch at a time, as a part of another one may still be answered.
func TestResendTakesTheDocumentsOfOneBatch(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		first, second := r.seal(docs[:1]), r.seal(docs[1:])
		for _, u := range []*Upload{first, second} {
			_, err := r.s.Journal.MarkUncertain(t.Context(), u, 502, "bad gateway")
			r.must(err)
		}
		for _, lost := range []*Upload{first, second} {
			again, err := r.s.Queue.ClaimResends(t.Context(), r.sync.ID, 0, 10)
			r.must(err)
			if len(again) != 1 || again[0].ResendOf != lost.ID() || again[0].Key != lost.spec.Members[0].Key {
				t.Errorf("%+v are sent again, want the document of batch %d", again, lost.ID())
			}
		}
	})
}

// Reopen leaves other documents that have failed, and the claim of a document that has the same content.
func TestReopenLeavesOtherDocuments(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		contents := map[string]string{"a.md": "A", "twin.md": "A", "other.md": "B"}
		docs, _ := r.resolve(contents, Sharing{})
		r.must(r.s.Journal.Refuse(t.Context(), r.seal(docs), Refusal{Disposition: Fail, Message: "quota"}))
		r.put("other.md", "twin.md")
		other, _ := r.resolve(contents, Sharing{})
		r.trained(TrainingFailed, r.accept(r.seal(other), 1)...)
		r.want("a.md=failed other.md=failed twin.md=failed")
		r.put("twin.md")
		claimed, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		if len(claimed) != 1 || claimed[0].Key != "twin.md" {
			t.Fatalf("claimed %+v", claimed)
		}
		r.must(r.s.Queue.Reopen(t.Context(), []int64{docs[0].DocumentID}))
		r.want("a.md=pending other.md=failed twin.md=uploading")
	})
}

// A large document is hashed before it is sent if its content may be known, or may be on its way: something else has its size.
func TestSizeTaken(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		const pending, uploaded, refused, small = 2 * HashAhead, 3 * HashAhead, 4 * HashAhead, HashAhead
		r := newFixture(t)
		n := r.neighbour("neighbour")
		sizes := map[string]int64{"pending.md": pending, "uploaded.md": uploaded, "refused.md": refused, "small.md": small, "small too.md": small}
		n.putSizes(map[string]int64{"elsewhere.md": 5 * HashAhead})
		elsewhere, _ := n.resolve(nil, Sharing{})
		elsewhere[0].Size = 5 * HashAhead
		n.accept(n.seal(elsewhere), 1)
		n.putSizes(map[string]int64{"pending elsewhere.md": 6 * HashAhead})
		r.putSizes(sizes)
		docs, _ := r.resolve(map[string]string{"uploaded.md": "U", "refused.md": "R", "pending.md": "P", "small.md": "S"}, Sharing{})
		ids := map[string]int64{}
		for _, d := range docs {
			d.Size = sizes[d.Key]
			ids[d.Key] = d.DocumentID
			switch d.Key {
			case "uploaded.md", "small.md":
				r.accept(r.seal([]HashedDocument{d}), 1)
			case "refused.md":
				r.must(r.s.Queue.Block(t.Context(), []ClaimedDocument{d.ClaimedDocument}, []string{"it is not a PDF"}))
			}
		}
		for _, c := range []struct {
			name     string
			size     int64
			document int64
			want     bool
		}{
			{"of another pending document", pending, 0, true},
			{"of the document itself", pending, ids["pending.md"], false},
			{"of a content", uploaded, ids["uploaded.md"], true},
			{"of a document that will not be uploaded", refused, 0, false},
			{"of no document", pending + 1, 0, false},
			{"of a document of another knowledge base", 5 * HashAhead, 0, false},
			{"of a pending document of another knowledge base", 6 * HashAhead, 0, false},
			{"too small", small, 0, false},
		} {
			if taken, err := r.s.Queue.SizeTaken(t.Context(), r.sync.Destination.ID, c.size, c.document); err != nil || taken != c.want {
				t.Errorf("the size %s: taken %v, %v", c.name, taken, err)
			}
		}
	})
}

// putSizes records new documents of these sizes.
func (r *fixture) putSizes(sizes map[string]int64) {
	r.t.Helper()
	scan, err := r.s.Scans.Begin(r.ctx(), r.sync.ID, "")
	r.must(err)
	for key, size := range sizes {
		r.must(r.s.Scans.Record(r.ctx(), scan, []Change{{Op: Put, Key: key, Fingerprint: Fingerprint{Size: size, MTime: scan.ID}}}))
	}
	_, err = r.s.Scans.Finish(r.ctx(), scan, "1:2")
	r.must(err)
}

// A left-behind content is shared again only if the sources of its last batch still exist. Those of other contents and of earlier batches say
// nothing about it.
func TestVerifyAsksForTheSourcesOfTheLastBatch(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		accept := func(u *Upload, ids ...[]SourceAnswer) {
			_, err := r.s.Journal.Accept(t.Context(), u, Answer{StatusCode: 200, NextPoll: time.Now(), Sources: ids})
			r.must(err)
			for _, document := range ids {
				for _, s := range document {
					r.trained(TrainingCompleted, s.ID)
				}
			}
		}
		contents := map[string]string{"a.md": "A", "b.md": "B"}
		r.put("a.md", "b.md")
		docs, _ := r.resolve(contents, Sharing{})
		accept(r.seal(docs), []SourceAnswer{{ID: 1}, {ID: 2}}, []SourceAnswer{{ID: 3}, {ID: 4}})
		_, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{})
		r.must(err)
		docs, _ = r.resolve(contents, Sharing{})
		accept(r.seal(docs), []SourceAnswer{{ID: 5}, {ID: 6}, {ID: 9}}, []SourceAnswer{{ID: 7}, {ID: 8}})
		r.must(r.s.update(t.Context(), func(t *tx) error {
			_, err := t.exec(`UPDATE sources SET acked_at = 1 WHERE source_id = 9`) // a person has confirmed that it was deleted
			return err
		}))
		r.put("a.md")
		r.upload(map[string]string{"a.md": "A2"})

		r.put("a.md")
		claimed, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		verdicts, err := r.s.Queue.Resolve(t.Context(), r.sync.ID, []HashedDocument{{ClaimedDocument: claimed[0], SHA256: hash("A"), Size: 10}}, Sharing{})
		r.must(err)
		if v := verdicts[0]; v.Action != ActionVerify || fmt.Sprint(v.Verify) != "[5 6]" {
			t.Errorf("verdict %+v, want a look at the sources 5 and 6", v)
		}
	})
}

// Adoption takes pending documents alone: one that is claimed may be on its way.
func TestClaimAllLeavesClaimedDocuments(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("claimed.md")
		_, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 1)
		r.must(err)
		r.put("a.md", "b.md")
		docs, err := r.s.Queue.ClaimAll(t.Context(), r.sync.ID, 0, 10)
		r.must(err)
		if len(docs) != 2 || docs[0].Key != "a.md" || docs[1].Key != "b.md" {
			t.Errorf("claimed %+v", docs)
		}
		r.must(r.s.Queue.Release(t.Context(), docs, time.Time{}, false))
		docs, err = r.s.Queue.ClaimAll(t.Context(), r.sync.ID, docs[0].DocumentID, 10)
		r.must(err)
		if len(docs) != 1 || docs[0].Key != "b.md" {
			t.Errorf("claimed %+v after the first document", docs)
		}
	})
}

// A wait that an answer asks for does not end because a later answer asks for a shorter one.
func TestShorterPauseEndsNoLongerOne(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		for _, wait := range []time.Duration{time.Minute, time.Hour, time.Minute} {
			r.must(r.s.Journal.Pause(t.Context(), r.sync.Destination.ID, time.Now().Add(wait)))
		}
		_, until, err := r.s.Journal.Breaker(t.Context(), r.sync.Destination.ID)
		r.must(err)
		if d := time.Until(until); d < 50*time.Minute || d > time.Hour {
			t.Errorf("paused for %v, want an hour", d)
		}
	})
}

// A pause holds back all knowledge bases of its account, and nothing else.
func TestPauseIsOfAnAccount(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		accounts := map[string]Destination{
			"handbook": testDestination,
			"same":     {Origin: testDestination.Origin, Account: "51", KnowledgeBase: 877},
			"account":  {Origin: testDestination.Origin, Account: "52", KnowledgeBase: 878},
			"api":      {Origin: "https://api.example", Account: "51", KnowledgeBase: 876},
		}
		for paused, of := range map[string][]string{"handbook": {"handbook", "same"}, "same": {"handbook", "same"}, "account": {"account"}, "api": {"api"}} {
			first := newFixture(t)
			syncs := map[string]*fixture{}
			for name, d := range accounts {
				s, err := first.s.Syncs.Ensure(t.Context(), name, "/docs", d, false)
				first.must(err)
				syncs[name] = &fixture{t: t, s: first.s, sync: s}
				syncs[name].put("a.md")
			}
			until := time.Now().Add(time.Hour).Truncate(time.Millisecond)
			first.must(first.s.Journal.Pause(t.Context(), syncs[paused].sync.Destination.ID, until))
			for name, r := range syncs {
				held := slices.Contains(of, name)
				due, err := r.s.Queue.NextDue(t.Context(), r.sync.ID, -1)
				r.must(err)
				docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
				r.must(err)
				if due.Equal(until) != held || (len(docs) == 0) != held {
					t.Errorf("%s is paused: %s is due at %v, and %d documents are claimed", paused, name, due, len(docs))
				}
			}
		}
	})
}
