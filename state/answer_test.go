package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// inventory lists the sources as id:key:standing, with the knowledge base of foreign ones.
func (r *fixture) inventory() string {
	r.t.Helper()
	var all []string
	for src, err := range r.s.Inventory.Sources(r.ctx(), SourceFilter{}) {
		r.must(err)
		text := fmt.Sprintf("%d:%s:%s", src.ID, src.Key, src.Standing)
		if src.Destination.KnowledgeBase != testDestination.KnowledgeBase {
			text += fmt.Sprintf("@%d", src.Destination.KnowledgeBase)
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

// The inventory has source 1 of old.md, and source 2 that came under a field that was not sent. a.md and b.md are sent.
func TestLyingAnswersMoveNoRowAndCompleteNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		const others = "old.md=completed"
		one := func(ids ...int64) (sources []SourceAnswer) {
			for _, id := range ids {
				sources = append(sources, SourceAnswer{ID: id, Status: "in-progress"})
			}
			return sources
		}
		for _, tt := range []struct {
			name      string
			answer    Answer
			want      string // documents, after all sources completed
			inventory string // beside 1 and 2
			conflicts string
			streak    int
		}{
			{"honest", Answer{Sources: [][]SourceAnswer{one(10), one(11, 12)}}, "a.md=completed b.md=completed", "10:a.md:live 11:b.md:live 12:b.md:live", "", 0},
			{"id of another content", Answer{Sources: [][]SourceAnswer{one(10), one(1)}}, "a.md=completed b.md=uncertain", "10:a.md:live", "1", 0},
			{"id of another content beside a new one", Answer{Sources: [][]SourceAnswer{one(10), one(11, 1)}}, "a.md=completed b.md=uncertain", "10:a.md:live 11:b.md:orphaned", "1", 0},
			{"id that came unasked before", Answer{Sources: [][]SourceAnswer{one(10), one(2)}}, "a.md=completed b.md=uncertain", "10:a.md:live", "2", 0},
			{"id of two members", Answer{Sources: [][]SourceAnswer{one(10), one(10)}}, "a.md=uncertain b.md=uncertain", "10::orphaned", "10 10", 1},
			{"id twice for one member", Answer{Sources: [][]SourceAnswer{one(10), one(11, 11)}}, "a.md=completed b.md=completed", "10:a.md:live 11:b.md:live", "", 0},
			{"id of a member and unasked", Answer{Sources: [][]SourceAnswer{one(10), one(11)}, Unasked: one(11)}, "a.md=completed b.md=uncertain", "10:a.md:live 11::orphaned", "11 11", 0},
			{"id of another content unasked", Answer{Sources: [][]SourceAnswer{one(10), one(11)}, Unasked: one(1)}, "a.md=completed b.md=completed", "10:a.md:live 11:b.md:live", "1", 0},
			{"another knowledge base", Answer{KnowledgeBase: 5, Sources: [][]SourceAnswer{one(10), one(1)}}, "a.md=uncertain b.md=uncertain", "10:a.md:orphaned@5 1:b.md:orphaned@5", "10 1", 1},
			{"field missing", Answer{Sources: [][]SourceAnswer{one(10)}}, "a.md=completed b.md=uncertain", "10:a.md:live", "", 0},
			{"nothing", Answer{}, "a.md=uncertain b.md=uncertain", "", "", 1},
			{"an earlier answer", Answer{Sources: [][]SourceAnswer{one(1), one(2)}}, "a.md=uncertain b.md=uncertain", "", "1 2", 1},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := newFixture(t)
				r.put("old.md")
				docs, _ := r.resolve(map[string]string{"old.md": "OLD"}, Sharing{})
				tt.answer.NextPoll = time.Now()
				_, err := r.s.Journal.Accept(t.Context(), r.seal(docs), Answer{Sources: [][]SourceAnswer{one(1)}, Unasked: one(2), NextPoll: time.Now()})
				r.must(err)
				r.trained(TrainingCompleted, 1, 2)

				r.put("a.md", "b.md")
				docs, _ = r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
				receipt, err := r.s.Journal.Accept(t.Context(), r.seal(docs), tt.answer)
				r.must(err)
				due, err := r.s.Inventory.DueSources(t.Context(), r.sync.Destination.ID, time.Hour, 100)
				r.must(err)
				for _, d := range due {
					r.trained(TrainingCompleted, d.ID)
				}
				r.want(tt.want + " " + others)
				want := []string{"1:old.md:live", "2::orphaned"}
				if tt.inventory != "" {
					want = append(want, strings.Fields(tt.inventory)...)
				}
				slices.Sort(want)
				if got := r.inventory(); got != fmt.Sprint(want) {
					t.Errorf("inventory %s\nwant      %v", got, want)
				}
				conflicts := ""
				for _, c := range receipt.Conflicts {
					conflicts += fmt.Sprintf("%d ", c.SourceID)
				}
				if strings.TrimSpace(conflicts) != tt.conflicts || receipt.Streak != tt.streak || r.streak() != tt.streak {
					t.Errorf("receipt %+v with streak %d, want conflicts %q and streak %d", receipt, r.streak(), tt.conflicts, tt.streak)
				}
				uncertain := strings.Count(tt.want, "uncertain")
				if len(receipt.Uncertain) != uncertain {
					t.Errorf("receipt %+v, but %d documents are uncertain", receipt, uncertain)
				}
				duplicates := 0
				for _, err := range r.s.Inventory.PossibleDuplicates(t.Context(), 0) {
					r.must(err)
					duplicates++
				}
				if duplicates != uncertain {
					t.Errorf("%d possible duplicates are listed", duplicates)
				}
			})
		}
	})
}

func TestStatusOfAnotherKnowledgeBaseIsNotRecorded(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		ids := r.accept(r.seal(docs), 1)
		r.must(r.s.Inventory.RecordPolls(t.Context(), r.sync.Destination.ID, []Poll{
			{SourceID: ids[0], KnowledgeBase: 5, Status: "completed", Outcome: TrainingCompleted},
		}))
		r.want("a.md=training")
		next, err := r.s.Inventory.NextPoll(t.Context(), r.sync.Destination.ID)
		r.must(err)
		if next.IsZero() || time.Until(next) > time.Hour {
			t.Fatalf("next poll at %v", next)
		}
		r.must(r.s.Inventory.RecordPolls(t.Context(), r.sync.Destination.ID, []Poll{
			{SourceID: ids[0], Polls: 1, KnowledgeBase: testDestination.KnowledgeBase, Status: "completed", Outcome: TrainingCompleted},
		}))
		r.want("a.md=completed")
	})
}

// A document was sent again, because the first request had no answer. Then that answer comes after all, before the second request
// ends or after it. No document is sent a third time.
func TestAnswerOfALostRequestThatComesAfterItWasSentAgain(t *testing.T) {
	answer := func(sources ...SourceAnswer) Answer {
		return Answer{StatusCode: 200, Sources: [][]SourceAnswer{sources}}
	}
	accepted := func(r *fixture, u *Upload) error {
		_, err := r.s.Journal.Accept(r.ctx(), u, answer(SourceAnswer{ID: 11, Status: "in-progress"}))
		return err
	}
	unnamed := func(r *fixture, u *Upload) error {
		_, err := r.s.Journal.Accept(r.ctx(), u, answer())
		return err
	}
	lost := func(r *fixture, u *Upload) error {
		_, err := r.s.Journal.MarkUncertain(r.ctx(), u, 502, "lost")
		return err
	}
	refused := func(d Disposition) func(*fixture, *Upload) error {
		return func(r *fixture, u *Upload) error {
			return r.s.Journal.Refuse(r.ctx(), u, Refusal{StatusCode: 429, Disposition: d, NextAttempt: time.Now()})
		}
	}
	first := answer(SourceAnswer{ID: 10, Status: "completed", Outcome: TrainingCompleted})
	tests := []struct {
		name       string
		first      Answer
		second     func(*fixture, *Upload) error
		want       string // after both
		inventory  string
		duplicates string // the batches that have a possible duplicate
	}{
		{"accepted", first, accepted, "a.md=training", "[10:a.md:live 11:a.md:live]", "[1]"},
		{"accepted, and the first names nothing", answer(), accepted, "a.md=training", "[11:a.md:live]", "[1]"},
		{"lost", first, lost, "a.md=completed", "[10:a.md:live]", "[2]"},
		{"answered without the document", first, unnamed, "a.md=completed", "[10:a.md:live]", "[2]"},
		{"refused for now", first, refused(Retry), "a.md=completed", "[10:a.md:live]", "[]"},
		{"refused for good", first, refused(Fail), "a.md=completed", "[10:a.md:live]", "[]"},
		{"both without an answer", answer(), lost, "a.md=uncertain", "[]", "[1 2]"},
	}
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, tt := range tests {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, late %t", tt.name, late), func(t *testing.T) {
					r := newFixture(t)
					r.put("a.md")
					docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
					one := r.seal(docs)
					r.must(lost(r, one))
					two := r.sealResend()
					if late {
						r.must(tt.second(r, two))
					}
					_, err := r.s.Journal.Accept(r.ctx(), one, tt.first)
					r.must(err)
					if !late {
						r.want("a.md=uploading")
						r.must(tt.second(r, two))
					}
					r.want(tt.want)
					if got := r.inventory(); got != tt.inventory {
						t.Errorf("the inventory is %s, want %s", got, tt.inventory)
					}
					batches := []int64{}
					for d, err := range r.s.Inventory.PossibleDuplicates(t.Context(), 0) {
						r.must(err)
						batches = append(batches, d.Batch)
					}
					if got := fmt.Sprint(batches); got != tt.duplicates {
						t.Errorf("possible duplicates of the batches %s, want %s", got, tt.duplicates)
					}
				})
			}
		}
	})
}

// An API that recognizes a content may answer both requests with one source. The late answer of the first request does not take the
// outcome of the training back.
func TestLateAnswerWithTheSourceOfTheSecondRequestKeepsItsOutcome(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, tt := range []struct {
			before, after Outcome // of the training, before and after the late answer
			want          string
		}{
			{InTraining, TrainingCompleted, "a.md=completed"},
			{InTraining, TrainingFailed, "a.md=failed"},
			{TrainingCompleted, TrainingCompleted, "a.md=completed"},
			{TrainingFailed, TrainingFailed, "a.md=failed"},
		} {
			r := newFixture(t)
			r.put("a.md")
			docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
			one := r.seal(docs)
			_, err := r.s.Journal.MarkUncertain(t.Context(), one, 502, "lost")
			r.must(err)
			ids := r.accept(r.sealResend(), 1)
			if tt.before != InTraining {
				r.trained(tt.before, ids...)
			}
			_, err = r.s.Journal.Accept(t.Context(), one, Answer{StatusCode: 200, Sources: [][]SourceAnswer{{{ID: ids[0], Status: "in-progress"}}}})
			r.must(err)
			if tt.before == InTraining {
				r.want("a.md=training")
				r.trained(tt.after, ids...)
			}
			r.want(tt.want)
		}
	})
}

// The same, while the content is sent a third time on purpose, which the API refuses. The content then has its second batch again.
func TestLateAnswerDuringAReindexLeavesTheSourceWhereItWas(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		contents := map[string]string{"a.md": "A", "b.md": "A"}
		docs, _ := r.resolve(contents, Sharing{})
		one := r.seal(docs[:1])
		_, err := r.s.Journal.MarkUncertain(t.Context(), one, 502, "lost")
		r.must(err)
		ids := r.accept(r.sealResend(), 1)
		r.resolveClaimed([]ClaimedDocument{docs[1].ClaimedDocument}, contents, Sharing{})
		_, err = r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{Match: func(key string) bool { return key == "a.md" }})
		r.must(err)
		docs, _ = r.resolve(contents, Sharing{})
		three := r.seal(docs)
		_, err = r.s.Journal.Accept(t.Context(), one, Answer{StatusCode: 200, Sources: [][]SourceAnswer{{{ID: ids[0], Status: "in-progress"}}}})
		r.must(err)
		r.must(r.s.Journal.Refuse(t.Context(), three, Refusal{Disposition: Requeue, StatusCode: 429}))
		r.want("a.md=pending b.md=training")
		r.trained(TrainingCompleted, ids...)
		r.want("a.md=pending b.md=completed")
	})
}

// The same with the source of a batch before both requests: the late answer moves it to its batch, which the content gets back.
func TestLateAnswerWithAnEarlierSourceGetsIt(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		contents := map[string]string{"a.md": "A"}
		first := r.upload(contents)
		again := func() *Upload {
			t.Helper()
			_, err := r.s.Queue.Mark(t.Context(), r.sync.ID, Selection{})
			r.must(err)
			docs, _ := r.resolve(contents, Sharing{})
			return r.seal(docs)
		}
		r.trained(TrainingCompleted, r.accept(again(), 1)...)
		lost := again()
		_, err := r.s.Journal.MarkUncertain(t.Context(), lost, 502, "lost")
		r.must(err)
		resent := r.sealResend()
		_, err = r.s.Journal.Accept(t.Context(), lost, Answer{StatusCode: 200, Sources: [][]SourceAnswer{{{ID: first[0], Status: "in-progress"}}}})
		r.must(err)
		r.must(r.s.Journal.Refuse(t.Context(), resent, Refusal{Disposition: Fail, StatusCode: 422}))
		r.want("a.md=training")
		r.trained(TrainingCompleted, first...)
		r.want("a.md=completed")
	})
}

// Two documents of a lost request were sent again. The answer to the first request comes for one of them, and the second request is
// refused: the other one stays a possible duplicate.
func TestLateAnswerForOneDocumentLeavesTheOtherListed(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
		lost := r.seal(docs)
		_, err := r.s.Journal.MarkUncertain(t.Context(), lost, 502, "lost")
		r.must(err)
		resent := r.sealResend()
		_, err = r.s.Journal.Accept(t.Context(), lost, Answer{StatusCode: 200, Sources: [][]SourceAnswer{{{ID: 1, Status: "in-progress"}}}})
		r.must(err)
		r.must(r.s.Journal.Refuse(t.Context(), resent, Refusal{Disposition: Requeue, StatusCode: 429}))
		r.want("a.md=training b.md=uncertain")
		found, err := list(r.s.Inventory.PossibleDuplicates(t.Context(), 0))
		r.must(err)
		if len(found) != 1 || found[0].Batch != lost.ID() || found[0].Key != "b.md" {
			t.Errorf("possible duplicates %+v, want b.md of the lost batch", found)
		}
	})
}

// sealResend claims what was lost, and seals it as the probe of the breaker.
func (r *fixture) sealResend() *Upload {
	r.t.Helper()
	again, err := r.s.Queue.ClaimResends(r.ctx(), r.sync.ID, 0, 10)
	r.must(err)
	var hs []HashedDocument
	for _, d := range again {
		hs = append(hs, HashedDocument{ClaimedDocument: d, SHA256: d.SHA256, Size: 10})
	}
	return r.sealProbe(hs)
}
