package state

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// The tests in this file hold that a decision on one document or sync is about that one, whatever is beside it.

func TestDocumentsOfOneClaimEndApart(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, end := range slices.Concat(endsOfClaims, []action{
			{"refuse for now", refuseOpen(Retry)}, {"give back", refuseOpen(Requeue)}, {"refuse for good", refuseOpen(Fail)},
		}) {
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

// The breaker and the limits of a destination follow from its own uploads.
func TestBreakerIsOfADestination(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		second := newFixture(t)
		r := second.neighbour("first")
		r.put("lost.md", "large.md")
		second.put("lost.md", "sent.md")
		contents := map[string]string{"lost.md": "L", "large.md": "M", "sent.md": "S"}
		all := map[*fixture]map[string][]HashedDocument{}
		for _, f := range []*fixture{r, second} {
			docs, _ := f.resolve(contents, Sharing{})
			all[f] = map[string][]HashedDocument{}
			for _, d := range docs {
				all[f][d.Key] = []HashedDocument{d}
			}
		}
		r.must(r.s.Journal.Refuse(t.Context(), r.seal(all[r]["large.md"]), Refusal{StatusCode: 413, Disposition: Requeue}))
		streak, err := r.s.Journal.MarkUncertain(t.Context(), r.seal(all[r]["lost.md"]), 0, "lost")
		r.must(err)
		if streak != 1 {
			t.Errorf("%d answers were lost in a row, want 1", streak)
		}
		want := func(when string, f *fixture, streak int, limits Limits) {
			t.Helper()
			got, _, err := r.s.Journal.Breaker(t.Context(), f.sync.Destination.ID)
			r.must(err)
			has, err := r.s.Journal.Limits(t.Context(), f.sync.Destination.ID)
			r.must(err)
			if has.RefusedAt = (time.Time{}); got != streak || has != limits {
				t.Errorf("%s, %s: streak %d and %+v, want %d and %+v", when, f.sync.Name, got, has, streak, limits)
			}
		}
		refused := Limits{SmallestRefused: 10}
		want("one answer was lost", r, 1, refused)
		want("one answer was lost", second, 0, Limits{})
		large, _ := r.resolve(contents, Sharing{})
		spare, seals := spec(r, large)
		if _, err := r.s.Journal.Begin(t.Context(), spare); !errors.Is(err, ErrBreakerOpen) {
			t.Errorf("a batch of %s begins: %v", r.sync.Name, err)
		}
		spare.Probe = true
		probe, err := r.s.Journal.Begin(t.Context(), spare)
		r.must(err)
		second.accept(second.seal(all[second]["sent.md"]), 1)
		want("the other destination accepts", r, 1, refused)
		want("the other destination accepts", second, 0, Limits{LargestAccepted: 10})
		_, err = r.s.Journal.MarkUncertain(t.Context(), second.seal(all[second]["lost.md"]), 0, "lost")
		r.must(err)
		want("both lost an answer", r, 1, refused)
		want("both lost an answer", second, 1, Limits{LargestAccepted: 10})
		if _, err := r.s.Journal.Begin(t.Context(), spare); !errors.Is(err, ErrBreakerOpen) {
			t.Errorf("a second probe of %s begins: %v", r.sync.Name, err)
		}
		second.put("probe.md")
		docs, _ := second.resolve(map[string]string{"probe.md": "P"}, Sharing{})
		own, _ := spec(second, docs)
		own.Probe = true
		u, err := r.s.Journal.Begin(t.Context(), own)
		r.must(err)
		r.must(r.s.Journal.Refuse(t.Context(), u, Refusal{Disposition: Requeue}))
		r.must(r.s.Journal.Seal(t.Context(), probe, seals))
		r.accept(probe, 1)
		want("a probe is accepted", r, 0, Limits{LargestAccepted: 10})
		want("a probe is accepted", second, 1, Limits{LargestAccepted: 10})
	})
}

func TestPollIsOfASource(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		first := newFixture(t)
		to := testDestination
		to.KnowledgeBase++
		other, err := first.s.Syncs.Ensure(t.Context(), "other", "/other", to, false)
		first.must(err)
		r := &fixture{t: t, s: first.s, sync: other, next: 1}
		for _, key := range []string{"a.md", "b.md"} {
			first.put(key)
			r.put(key)
			docs, _ := first.resolve(map[string]string{key: key}, Sharing{})
			first.accept(first.seal(docs), 1)
			docs, _ = r.resolve(map[string]string{key: key}, Sharing{})
			r.accept(r.seal(docs), 1)
		}
		due, err := r.s.Inventory.DueSources(t.Context(), other.Destination.ID, 0, 10)
		r.must(err)
		var polls []Poll
		for _, d := range due {
			polls = append(polls, Poll{SourceID: d.ID, Polls: d.Polls, KnowledgeBase: to.KnowledgeBase, Status: "completed", Outcome: TrainingCompleted})
		}
		if len(due) != 2 || due[0].ID == due[1].ID {
			t.Errorf("due %+v, want two sources", due)
		}
		r.must(r.s.Inventory.RecordPolls(t.Context(), other.Destination.ID, polls))
		r.want("a.md=completed b.md=completed")
		first.want("a.md=training b.md=training")
	})
}

// An answer with another knowledge base is of the same account.
func TestOtherKnowledgeBaseIsOfTheAccount(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		for _, f := range []*fixture{r, r.neighbour("second")} {
			f.put("a.md")
			docs, _ := f.resolve(map[string]string{"a.md": "A"}, Sharing{})
			_, err := r.s.Journal.Accept(t.Context(), f.seal(docs), Answer{
				StatusCode: 200, KnowledgeBase: 5, Sources: [][]SourceAnswer{{{ID: 7, Name: "a.md", Type: "file", Status: "in-progress"}}},
			})
			r.must(err)
			sources, err := list(r.s.Inventory.Sources(t.Context(), SourceFilter{SyncID: f.sync.ID}))
			r.must(err)
			if len(sources) != 1 || sources[0].Destination.Account != f.sync.Destination.Account || sources[0].Destination.KnowledgeBase != 5 {
				t.Errorf("%s: %+v, want one of the account %s", f.sync.Name, sources, f.sync.Destination.Account)
			}
		}
	})
}

func TestAdoptionIsOfADocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		first := newFixture(t)
		first.put("known.md", "failed.md")
		first.upload(map[string]string{"known.md": "K", "failed.md": "F"})
		r := first.neighbour("second")
		r.put("known.md", "failed.md")
		contents := map[string]string{"known.md": "K", "failed.md": "F", "lost.md": "L", "reserved.md": "R", "new.md": "N"}
		docs, _ := r.resolve(contents, Sharing{})
		ids := r.accept(r.seal(docs), 2)
		for i, d := range docs {
			r.trained(map[string]Outcome{"known.md": TrainingCompleted, "failed.md": TrainingFailed}[d.Key], ids[i])
		}
		sourcesOf := func(key string) (sources []string) {
			t.Helper()
			for src, err := range r.s.Inventory.Sources(t.Context(), SourceFilter{SyncID: r.sync.ID}) {
				r.must(err)
				if src.Key == key {
					sources = append(sources, fmt.Sprintf("%s: %d of batch %d", src.Destination.Account, src.ID, src.Batch))
				}
			}
			return sources
		}
		known := sourcesOf("known.md")
		r.put("reserving.md")
		docs, _ = r.resolve(map[string]string{"reserving.md": "R"}, Sharing{})
		r.seal(docs)
		n, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{Keys: []string{"failed.md"}})
		r.must(err)
		r.put("lost.md", "reserved.md", "new.md")
		claimed, err := r.s.Queue.ClaimAll(t.Context(), r.sync.ID, 0, 10)
		r.must(err)
		r.put("lost.md") // changes, which ends its claim
		var adoptions []Adoption
		for i, d := range claimed {
			adoptions = append(adoptions, Adoption{
				HashedDocument: HashedDocument{ClaimedDocument: d, SHA256: hash(contents[d.Key]), Size: 10},
				Sources:        []SourceAnswer{{ID: int64(1 + i), Type: "file", Name: d.Key, Outcome: TrainingCompleted}},
			})
		}
		// The document that is not adopted comes last.
		slices.SortFunc(adoptions, func(a, b Adoption) int { return -cmp.Compare(a.Key, b.Key) })
		slices.SortStableFunc(adoptions, func(a, b Adoption) int {
			return cmp.Compare(strings.Count(a.Key, "reserved"), strings.Count(b.Key, "reserved"))
		})
		_, err = r.s.Journal.Adopt(t.Context(), r.sync.ID, adoptions, Sharing{})
		r.must(err)
		if len(adoptions) != 4 || n != 1 {
			t.Errorf("%d documents to adopt, %d marked", len(adoptions), n)
		}
		r.want("failed.md=completed known.md=completed lost.md=pending new.md=completed reserved.md=pending reserving.md=uploading")
		first.want("failed.md=completed known.md=completed")
		if after := sourcesOf("known.md"); !slices.Equal(after, known) {
			t.Errorf("the sources of known.md were %v, and are %v", known, after)
		}
		for _, src := range append(sourcesOf("new.md"), sourcesOf("failed.md")...) {
			if !strings.HasPrefix(src, "of second") {
				t.Errorf("source %s is of another account", src)
			}
		}
	})
}

func TestLastErrorIsOfASync(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		for _, f := range []*fixture{r, r.other()} {
			r.must(r.s.Syncs.SetLastError(t.Context(), f.sync.ID, "of "+f.sync.Name))
		}
		for _, name := range []string{"handbook", "other"} {
			if s, err := r.s.Syncs.Get(t.Context(), name); err != nil || s.LastError != "of "+name {
				t.Errorf("%s: %q, %v", name, s.LastError, err)
			}
		}
	})
}

// A refused upload of a content that is in the knowledge base changes no other document with that content.
func TestRefusalIsOfADocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for to, want := range map[Disposition]DocumentState{Keep: Uploading, Requeue: Pending, Retry: Pending} {
			r := newFixture(t)
			r.put("a.md")
			r.upload(map[string]string{"a.md": "A"})
			r.put("twin.md")
			r.resolve(map[string]string{"twin.md": "A"}, Sharing{})
			r.must(r.s.Journal.Refuse(t.Context(), r.seal(r.again("a.md", "A")), Refusal{StatusCode: 400, Disposition: to}))
			r.want("a.md=" + string(want) + " twin.md=completed")
			r.put("twin.md") // is saved again
			_, verdicts := r.resolve(map[string]string{"a.md": "A", "twin.md": "A"}, Sharing{})
			if verdicts["twin.md"] != ActionShare {
				t.Errorf("%v: twin.md: %v", to, verdicts)
			}
		}
	})
}

// A document is saved again if it has the core of its own content. That of another document in the claim says nothing about it.
func TestResaveIsOfADocument(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("1.md", "2.md")
		r.uploadCores(TrainingCompleted, map[string]string{"1.md": "1/one", "2.md": "2/two"})
		r.put("1.md", "2.md")
		_, verdicts := r.resolveCores(map[string]string{"1.md": "1 again/two", "2.md": "2 again/two"}, Sharing{})
		if verdicts["1.md"].Resaved || verdicts["1.md"].Action != ActionUpload || !verdicts["2.md"].Resaved {
			t.Errorf("%+v", verdicts)
		}
	})
}

// A source that moves to the table of sources, because its content is sent again, keeps its name and its batch.
func TestMoveOfASourceIsOfAContent(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		want := map[int64]string{}
		keys := []string{"1.md", "2.md", "3.md"}
		for i, key := range keys {
			r.put(key)
			id := r.upload(map[string]string{key: key})[0]
			want[id] = fmt.Sprintf("%s of batch %d at %d", usualName(key), i+1, i)
			r.must(r.s.update(t.Context(), func(x *tx) error {
				_, err := x.exec(`UPDATE batches SET ended_at = $1 WHERE id = $2`, i, i+1)
				return err
			}))
		}
		for _, key := range []string{"2.md", "1.md", "3.md"} {
			r.accept(r.seal(r.again(key, key)), 1)
		}
		for src, err := range r.s.Inventory.Sources(t.Context(), SourceFilter{}) {
			r.must(err)
			got := fmt.Sprintf("%s of batch %d at %d", src.Name, src.Batch, max(src.CreatedAt.UnixMilli(), 0))
			if was, moved := want[src.ID]; moved && got != was {
				t.Errorf("source %d: %s, want %s", src.ID, got, was)
			}
		}
	})
}

func TestRecoveryIsOfTheSyncsWithWork(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("done.md", "pending.md")
		docs, _ := r.resolve(map[string]string{"done.md": "D", "pending.md": "P"}, Sharing{})
		r.accept(r.seal(docs[:1]), 1)
		r.must(r.s.Queue.Release(t.Context(), []ClaimedDocument{docs[1].ClaimedDocument}, time.Time{}, false))
		claimed, sealed := r.neighbour("claimed"), r.neighbour("sealed")
		claimed.put("a.md")
		claimed.resolve(nil, Sharing{})
		sealed.put("a.md")
		docs, _ = sealed.resolve(map[string]string{"a.md": "A"}, Sharing{})
		sealed.seal(docs)
		batches, err := r.s.Journal.Recent(t.Context(), 10)
		r.must(err)
		of := map[string]int{}
		for _, b := range batches {
			of[b.Sync]++
		}
		if want := map[string]int{"handbook": 1, "sealed": 1}; !maps.Equal(of, want) {
			t.Errorf("batches %v, want %v", of, want)
		}
		r.expireLease()
		got, err := r.s.Journal.RecoverUnowned(t.Context())
		r.must(err)
		if want := []Recovered{{Sync: "claimed"}, {Sync: "sealed", Uncertain: 1}}; !slices.Equal(got, want) {
			t.Errorf("recovered %v, want %v", got, want)
		}
	})
}
