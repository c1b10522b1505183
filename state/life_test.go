package state

import (
	"errors"
	"io"
	"slices"
	"time"
)

// A lifeStep is a part of the life of a sync that runs every text of some methods.
type lifeStep struct {
	methods string // of the groups of a Store, separated by spaces
	run     func(r *fixture)
}

// life has every method that runs for a batch, a poll, a page of a scan or of a list, or a status page.
var life = []lifeStep{
	{"Syncs.Ensure Syncs.Get Syncs.All Syncs.Owners Syncs.SetLastError Syncs.AddSample Syncs.Samples Syncs.InStepSince Journal.Turn", func(r *fixture) {
		_, err := r.s.Syncs.Ensure(r.ctx(), r.sync.Name, r.sync.Root, r.sync.Destination, false)
		r.must(err)
		_, err = r.s.Syncs.All(r.ctx())
		r.must(err)
		_, err = r.s.Syncs.Owners(r.ctx())
		r.must(err)
		r.must(r.s.Syncs.SetLastError(r.ctx(), r.sync.ID, "halted"))
		r.must(r.s.Syncs.AddSample(r.ctx(), r.sync.ID, Sample{At: time.Now()}))
		_, err = r.s.Syncs.Samples(r.ctx(), r.sync.ID)
		r.must(err)
		_, err = r.s.Syncs.InStepSince(r.ctx(), r.sync.ID)
		r.must(err)
		_, err = r.s.Journal.Turn(r.ctx(), r.sync.Destination.Account, time.Millisecond, 1)
		r.must(err)
	}},
	{"Scans.Begin Scans.Record Scans.Known Scans.Count Scans.CountBelow Scans.Finish Scans.Drop Scans.SetGate", (*fixture).liveScans},
	{"Queue.Claim Queue.Resolve Queue.SizeTaken Journal.Begin Journal.Seal Journal.Accept Inventory.RecordPolls", (*fixture).liveUploads},
	{"Documents.IsResaved Documents.Resave", (*fixture).liveSaves},
	{"Queue.ClaimAll Journal.Adopt Journal.AdoptStrays Inventory.Missing", (*fixture).liveAdoptions},
	{"Journal.Refuse Queue.Release Queue.Reopen", (*fixture).liveRefusals},
	{"Journal.MarkUncertain Queue.ClaimResends Queue.ClaimSmallest Journal.Breaker", (*fixture).liveLosses},
	{"Queue.MarkUnreadable Queue.MarkVanished", func(r *fixture) {
		r.put("unreadable.md", "vanished.md", "a.md")
		docs, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 100)
		r.must(err)
		for i, d := range docs {
			if i%2 == 0 {
				r.must(r.s.Queue.MarkUnreadable(r.ctx(), d, "no"))
			} else {
				r.must(r.s.Queue.MarkVanished(r.ctx(), d))
			}
		}
	}},
	{"Queue.Block Queue.ReopenBlocked Documents.Blocked Documents.CountBlocked", func(r *fixture) {
		r.put("blocked.pdf")
		docs, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 1)
		r.must(err)
		r.must(r.s.Queue.Block(r.ctx(), docs, []string{"it is not a PDF"}))
		for _, err := range r.s.Documents.Blocked(r.ctx(), r.sync.ID) {
			r.must(err)
		}
		_, err = r.s.Documents.CountBlocked(r.ctx(), r.sync.ID)
		r.must(err)
		_, err = r.s.Queue.ReopenBlocked(r.ctx(), r.sync.ID)
		r.must(err)
	}},
	{"Inventory.DueSources Inventory.PostponePolls Inventory.NextPoll Inventory.MakeStuckDue Inventory.AnySource Inventory.MarkSourcesGone", (*fixture).livePolls},
	{"Journal.Recover Journal.RecoverUnowned", func(r *fixture) {
		r.put("left.md", "sealed.md")
		docs, _ := r.resolve(map[string]string{"left.md": "L", "sealed.md": "S"}, Sharing{})
		r.seal(docs)
		_, err := r.s.Journal.RecoverUnowned(r.ctx())
		r.must(err)
		_, err = r.s.Journal.Recover(r.ctx(), r.sync.ID)
		r.must(err)
	}},
	{"Queue.NextDue Journal.Pause Journal.Limits Journal.Recent", func(r *fixture) {
		r.put("due.md")
		_, err := r.s.Queue.NextDue(r.ctx(), r.sync.ID, time.Hour)
		r.must(err)
		r.must(r.s.Journal.Pause(r.ctx(), r.sync.Destination.ID, time.Now()))
		_, err = r.s.Journal.Limits(r.ctx(), r.sync.Destination.ID)
		r.must(err)
		_, err = r.s.Journal.Recent(r.ctx(), 10)
		r.must(err)
	}},
	{"Documents.Outstanding Documents.AnyInTraining Documents.Progress Documents.NeedingAttention Documents.Get Documents.History Documents.Versions " +
		"Documents.All Documents.Search Inventory.OfDocument", func(r *fixture) {
		for _, st := range []DocumentState{"", Failed, Training, Skipped, Completed} {
			_, err := r.s.Documents.Search(r.ctx(), DocumentQuery{SyncID: r.sync.ID, State: st, Limit: 10})
			r.must(err)
		}
		_, err := r.s.Documents.Outstanding(r.ctx(), r.sync.ID)
		r.must(err)
		_, err = r.s.Documents.AnyInTraining(r.ctx(), r.sync.Destination.ID)
		r.must(err)
		_, err = r.s.Documents.Progress(r.ctx(), r.sync.ID)
		r.must(err)
		_, err = r.s.Documents.NeedingAttention(r.ctx(), r.sync.ID, 10)
		r.must(err)
		d, err := r.s.Documents.Get(r.ctx(), r.sync.ID, "a.md")
		r.must(err)
		_, err = r.s.Documents.History(r.ctx(), d.ID)
		r.must(err)
		_, err = r.s.Documents.Versions(r.ctx(), d.ID)
		r.must(err)
		_, err = r.s.Inventory.OfDocument(r.ctx(), d.ID)
		r.must(err)
		r.states()
	}},
	{"Inventory.Sources Inventory.Worksheet Inventory.CountLeftBehind Inventory.PossibleDuplicates Inventory.KnownContents Inventory.Holding", func(r *fixture) {
		r.standings()
		for _, err := range r.s.Inventory.Worksheet(r.ctx(), SourceFilter{}) {
			r.must(err)
		}
		for _, err := range r.s.Inventory.Sources(r.ctx(), SourceFilter{SyncID: r.sync.ID, Standings: []Standing{Orphaned}}) {
			r.must(err)
		}
		_, _, err := r.s.Inventory.CountLeftBehind(r.ctx(), r.sync.ID)
		r.must(err)
		for _, err := range r.s.Inventory.PossibleDuplicates(r.ctx(), r.sync.ID) {
			r.must(err)
		}
		_, err = r.s.Inventory.KnownContents(r.ctx(), r.sync.Destination, []SHA256{hash("A")})
		r.must(err)
		_, err = r.s.Inventory.Holding(r.ctx(), r.sync.ID, "a.md")
		r.must(err)
	}},
	{"Outbox.Enqueue Outbox.Due Outbox.NextDue Outbox.Retry Outbox.Ack", func(r *fixture) {
		for _, items := range [][]string{{"a"}, {"b"}} {
			_, err := r.enqueue("failed", nil, items...)
			r.must(err)
		}
		_, err := r.s.Outbox.NextDue(r.ctx(), r.sync.ID)
		r.must(err)
		due, err := r.s.Outbox.Due(r.ctx(), r.sync.ID, 10)
		r.must(err)
		r.must(r.s.Outbox.Retry(r.ctx(), due[0].ID, time.Now()))
		r.must(r.s.Outbox.Ack(r.ctx(), due[0].ID))
	}},
}

// wholeLife has the methods that read a table whole, as their docs say. A person asks for each, or a reader asks rarely.
var wholeLife = []lifeStep{
	{"Documents.Counts", func(r *fixture) { // status pages keep its result for some time
		_, err := r.s.Documents.Counts(r.ctx(), r.sync.ID)
		r.must(err)
	}},
	{"Documents.ChangeToken", func(r *fixture) { // verify, between two passes
		_, err := r.s.Documents.ChangeToken(r.ctx(), r.sync.ID)
		r.must(err)
	}},
	{"Queue.CountSelected Queue.Mark", func(r *fixture) { // reindex and retry select documents by a function
		_, _, err := r.s.Queue.CountSelected(r.ctx(), r.sync.ID, Selection{})
		r.must(err)
		_, err = r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{})
		r.must(err)
	}},
	{"Store.Check", func(r *fixture) { // it checks every row
		_, err := r.s.Check(r.ctx())
		r.must(err)
	}},
	{"Store.Export", func(r *fixture) { r.must(r.s.Export(r.ctx(), io.Discard)) }},
	{"Syncs.Ensure", func(r *fixture) { // another destination gets every document
		other := r.sync.Destination
		other.KnowledgeBase++
		_, err := r.s.Syncs.Ensure(r.ctx(), r.sync.Name, r.sync.Root, other, true)
		r.must(err)
	}},
	{"Syncs.Forget", func(r *fixture) { // it removes every document
		r.must(r.s.Syncs.Forget(r.ctx(), r.sync.ID))
	}},
}

func (r *fixture) liveAdoptions() {
	r.put("adopted.md", "listed.md", "a.md")
	docs, err := r.s.Queue.ClaimAll(r.ctx(), r.sync.ID, 0, 100)
	r.must(err)
	var adoptions []Adoption
	for _, d := range docs {
		a := Adoption{HashedDocument: HashedDocument{ClaimedDocument: d, SHA256: hash(d.Key), Size: 10}, Name: d.Key}
		if d.Key == "listed.md" {
			a.Sources, a.Former = []SourceAnswer{{ID: r.next, Type: "file"}}, []SourceAnswer{{ID: r.next + 1, Type: "file"}}
		}
		adoptions = append(adoptions, a)
	}
	_, err = r.s.Journal.Adopt(r.ctx(), r.sync.ID, adoptions, Sharing{})
	r.must(err)
	_, err = r.s.Journal.AdoptStrays(r.ctx(), r.sync.ID, []SourceAnswer{{ID: r.next + 2, Type: "file"}})
	r.must(err)
	_, err = r.s.Inventory.Missing(r.ctx(), r.sync.Destination.ID, []int64{r.next, r.next + 3})
	r.must(err)
	r.next += 3
}

func (r *fixture) liveScans() {
	r.put("a.md", "b.md", "dir/c.md")
	for _, prefix := range []string{"", "dir/", "a.md"} {
		for _, err := range r.s.Scans.Known(r.ctx(), r.sync.ID, prefix) {
			r.must(err)
		}
	}
	r.vanish("b.md")
	scan, err := r.s.Scans.Begin(r.ctx(), r.sync.ID, "")
	r.must(err)
	scan.Rest = time.Minute
	r.must(r.s.Scans.Record(r.ctx(), scan, []Change{
		{Op: Put, Key: "a.md", Fingerprint: Fingerprint{Size: 1}}, {Op: Skip, Key: "dir/c.md"}, {Op: Vanish, Key: "a.md"},
	}))
	_, err = r.s.Scans.Count(r.ctx(), scan)
	r.must(err)
	_, err = r.s.Scans.CountBelow(r.ctx(), scan, "dir/")
	r.must(err)
	r.must(r.s.Scans.Drop(r.ctx(), scan))
	for _, shut := range []bool{true, false} {
		r.must(r.s.Scans.SetGate(r.ctx(), r.sync.ID, shut))
	}
}

func (r *fixture) liveUploads() {
	// New contents, shared ones, edits, left-behind ones, one source a document, and marks of a reindex.
	contents := map[string]string{"a.md": "A", "b.md": "B", "twin.md": "A"}
	r.put("a.md", "b.md")
	r.upload(contents)
	_, err := r.s.Queue.SizeTaken(r.ctx(), r.sync.Destination.ID, 2*HashAhead, 1)
	r.must(err)
	r.put("twin.md")
	r.resolve(contents, Sharing{})
	r.put("b.md")
	r.upload(map[string]string{"b.md": "B2"})
	r.put("b.md")
	r.resolve(contents, Sharing{})
	r.put("each.md")
	docs, _ := r.resolve(map[string]string{"each.md": "A"}, Sharing{Each: true})
	b, seals := spec(r, docs)
	b.Sharing = Sharing{Each: true}
	u, err := r.s.Journal.Begin(r.ctx(), b)
	r.must(err)
	r.must(r.s.Journal.Seal(r.ctx(), u, seals))
	// An answer with everything that is unusual: a second source, another name, an error, a source under a field that was not sent.
	ids := []int64{r.next, r.next + 1, r.next + 2}
	r.next += 3
	_, err = r.s.Journal.Accept(r.ctx(), u, Answer{
		StatusCode: 200, NextPoll: time.Now(),
		Sources: [][]SourceAnswer{{{ID: ids[0], Type: "file", Name: "other", Status: "odd", Errors: "bad"}, {ID: ids[1], Type: "url"}}},
		Unasked: []SourceAnswer{{ID: ids[2], Type: "file"}},
	})
	r.must(err)
	polls := []Poll{
		{SourceID: ids[0], Status: "failed", Outcome: TrainingFailed, Errors: "why"},
		{SourceID: ids[1], KnowledgeBase: 5, NextPoll: time.Now()},
	}
	r.must(r.s.Inventory.RecordPolls(r.ctx(), r.sync.Destination.ID, polls))
	// The content of each.md, with its two sources, is left behind and comes again.
	r.put("each.md")
	docs, _ = r.resolve(map[string]string{"each.md": "E"}, Sharing{Each: true})
	r.accept(r.seal(docs), len(docs))
	r.put("each.md")
	r.resolve(map[string]string{"each.md": "A"}, Sharing{Each: true})
	// A claim is lost before the seal.
	r.put("late.md")
	docs, _ = r.resolve(map[string]string{"late.md": "LATE"}, Sharing{})
	r.put("late.md")
	b, seals = spec(r, docs)
	u, err = r.s.Journal.Begin(r.ctx(), b)
	r.must(err)
	if _, ok := errors.AsType[*SealError](r.s.Journal.Seal(r.ctx(), u, seals)); !ok {
		r.t.Fatal("the lost claim was sealed")
	}
	r.force("a.md")
	docs, _ = r.resolve(contents, Sharing{})
	u = r.seal(docs)
	var a Answer
	for range docs { // the whole answer is taken for another knowledge base's
		a.Sources = append(a.Sources, []SourceAnswer{{ID: r.next, Type: "file", Status: "in-progress"}})
		r.next++
	}
	a.KnowledgeBase = 5
	_, err = r.s.Journal.Accept(r.ctx(), u, a)
	r.must(err)
	r.closeBreaker()
}

func (r *fixture) closeBreaker() {
	r.t.Helper()
	r.unrecorded(`UPDATE destinations SET uncertain_streak = 0, probe_batch = 0 WHERE id = $1`, r.sync.Destination.ID)
}

// force makes a document pending as a reindex does.
func (r *fixture) force(key string) {
	r.t.Helper()
	r.unrecorded(`UPDATE documents SET forced = 1, state = {doc.pending} WHERE sync_id = $1 AND key = $2`, r.sync.ID, []byte(key))
}

// unrecorded runs a text of the test.
func (r *fixture) unrecorded(query string, args ...any) {
	r.t.Helper()
	r.must(r.s.backend.(*recorder).backend.update(r.ctx(), func(t *tx) error {
		_, err := t.exec(query, args...)
		return err
	}))
}

func (r *fixture) liveRefusals() {
	for _, sealed := range []bool{false, true} {
		for _, d := range []Disposition{Retry, Requeue, Keep, Fail} {
			r.put("refused.md")
			docs, _ := r.resolve(map[string]string{"refused.md": time.Now().String()}, Sharing{})
			b, seals := spec(r, docs)
			u, err := r.s.Journal.Begin(r.ctx(), b)
			r.must(err)
			if sealed {
				r.must(r.s.Journal.Seal(r.ctx(), u, seals))
			}
			r.must(r.s.Journal.Refuse(r.ctx(), u, Refusal{StatusCode: 413, Disposition: d}))
			_, err = r.s.Journal.Limits(r.ctx(), r.sync.Destination.ID)
			r.must(err)
			switch d {
			case Keep:
				r.must(r.s.Queue.Release(r.ctx(), b.Members, time.Time{}, true))
			case Fail:
				r.must(r.s.Queue.Reopen(r.ctx(), []int64{docs[0].DocumentID}))
			}
		}
	}
	// A document of a known content is sent again, and refused.
	r.force("b.md")
	docs, _ := r.resolve(map[string]string{"b.md": "B", "refused.md": "R"}, Sharing{})
	r.must(r.s.Journal.Refuse(r.ctx(), r.seal(docs), Refusal{StatusCode: 429, Disposition: Retry}))
}

func (r *fixture) liveLosses() {
	r.put("lost.md", "probe.md")
	docs, _ := r.resolve(map[string]string{"lost.md": "LOST", "probe.md": "PROBE"}, Sharing{})
	docs = slices.DeleteFunc(docs, func(d HashedDocument) bool { return d.Key != "lost.md" })
	_, err := r.s.Journal.MarkUncertain(r.ctx(), r.seal(docs), 502, "lost")
	r.must(err)
	_, _, err = r.s.Journal.Breaker(r.ctx(), r.sync.Destination.ID)
	r.must(err)
	// The probe sends the lost document again, and its answer closes the breaker.
	_, err = r.s.Queue.ClaimSmallest(r.ctx(), r.sync.ID, time.Hour)
	r.must(err)
	u := r.sealResend()
	r.accept(u, len(u.spec.Members))
}

func (r *fixture) livePolls() {
	r.put("polled.md", "gone.md")
	contents := map[string]string{"polled.md": "POLLED", "gone.md": "GONE"}
	docs, _ := r.resolve(contents, Sharing{})
	ids := r.accept(r.seal(docs), len(docs))
	destination := r.sync.Destination.ID
	due, err := r.s.Inventory.DueSources(r.ctx(), destination, time.Hour, 100)
	r.must(err)
	r.must(r.s.Inventory.PostponePolls(r.ctx(), destination, due, time.Now()))
	_, err = r.s.Inventory.NextPoll(r.ctx(), destination)
	r.must(err)
	r.must(r.s.Inventory.RecordPolls(r.ctx(), destination, []Poll{
		{SourceID: ids[0], Outcome: TrainingStuck, NextPoll: time.Now()},
		{SourceID: ids[1], KnowledgeBase: 5, NextPoll: time.Now()},
	}))
	r.must(r.s.Inventory.MakeStuckDue(r.ctx(), destination))
	_, err = r.s.Inventory.AnySource(r.ctx(), destination)
	r.must(err)
	_, err = r.s.Inventory.MarkSourcesGone(r.ctx(), destination, ids[1:])
	r.must(err)
}
