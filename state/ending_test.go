package state

import (
	"errors"
	"fmt"
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
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, tt := range []struct {
			name string
			lose func(r *fixture, u *Upload)
		}{
			{"lost answer", func(r *fixture, u *Upload) {
				_, err := r.s.Journal.MarkUncertain(r.ctx(), u, 502, "bad gateway")
				r.must(err)
			}},
			{"recovery", func(r *fixture, _ *Upload) {
				_, err := r.s.Journal.Recover(r.ctx(), r.sync.ID)
				r.must(err)
			}},
			{"recovery of a sync that no process works on", func(r *fixture, _ *Upload) {
				r.expireLease()
				got, err := r.s.Journal.RecoverUnowned(r.ctx())
				r.must(err)
				if len(got) != 1 || got[0] != (Recovered{Sync: "handbook", Uncertain: 1}) {
					r.t.Errorf("recovered %+v", got)
				}
			}},
			{"forget", func(r *fixture, _ *Upload) {
				r.expireLease()
				r.must(r.s.Syncs.Forget(r.ctx(), r.sync.ID))
			}},
			{"answer without a source that can be trusted", func(r *fixture, u *Upload) {
				receipt, err := r.s.Journal.Accept(r.ctx(), u, Answer{StatusCode: 200, KnowledgeBase: 1, Sources: [][]SourceAnswer{{{ID: 1}}}})
				r.must(err)
				if receipt.Streak != 1 {
					r.t.Errorf("receipt %+v", receipt)
				}
			}},
			{"import", func(r *fixture, _ *Upload) {
				to := r.open(r.make(r.t))
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
				batches, err := r.s.Journal.Recent(t.Context(), 1)
				r.must(err)
				if batches[0].State != BatchUncertain {
					t.Errorf("the batch is %s", batches[0].State)
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
	})
}

// Killing kbsync again and again during an outage must not make one document after the other uncertain.
func TestRestartsLeaveTheBreakerOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md", "c.md")
		contents := map[string]string{"a.md": "A", "b.md": "B", "c.md": "C"}
		for i := range 3 {
			docs, _ := r.resolve(contents, Sharing{})
			r.sealProbe(docs[:1])
			if len(docs) > 1 {
				b, _ := spec(r, docs[1:])
				if _, err := r.s.Journal.Begin(t.Context(), b); i > 0 && err == nil {
					t.Fatal("a second batch began beside the probe")
				}
			}
			_, err := r.s.Journal.Recover(t.Context(), r.sync.ID)
			r.must(err)
			if r.streak() != i+1 {
				t.Fatalf("streak %d after %d restarts", r.streak(), i+1)
			}
		}
	})
}

// other adds a second sync to the destination, with one pending document.
func (r *fixture) other() *fixture {
	r.t.Helper()
	y, err := r.s.Syncs.Ensure(r.ctx(), "other", "/other", testDestination, false)
	r.must(err)
	o := &fixture{t: r.t, s: r.s, sync: y, next: 990000}
	o.put("copy.md")
	return o
}

func TestSyncThatNoProcessWorksOnBlocksNoOther(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(r *fixture)
	}{
		{"forget", func(r *fixture) { r.must(r.s.Syncs.Forget(r.ctx(), r.sync.ID)) }},
		{"recovery", func(r *fixture) {
			_, err := r.s.Journal.RecoverUnowned(r.ctx())
			r.must(err)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newFixture(t)
			r.put("a.md", "b.md")
			docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B"}, Sharing{})
			_, err := r.s.Journal.MarkUncertain(t.Context(), r.seal(docs[1:]), 502, "bad gateway")
			r.must(err)
			r.sealProbe(docs[:1])

			o := r.other()
			o.resolve(map[string]string{"copy.md": "A"}, Sharing{})
			o.want("copy.md=uploading")
			o.put("new.md")
			held, err := r.s.Lock(t.Context(), o.sync.Name, 0)
			r.must(err)
			docs, _ = o.resolve(map[string]string{"new.md": "N"}, Sharing{})
			tt.end(r)
			r.must(held.Unlock())
			o.want("copy.md=uncertain new.md=uploading")
			b, _ := spec(o, docs)
			b.Probe = true
			if _, err := r.s.Journal.Begin(t.Context(), b); err != nil {
				t.Fatalf("the probe of a dead process blocks the next one: %v", err)
			}
		})
	}
}

func TestRecoverUnownedSkipsHeldLocks(t *testing.T) {
	r := newFixture(t)
	r.put("a.md")
	r.resolve(map[string]string{"a.md": "A"}, Sharing{})
	lock, err := r.s.Lock(t.Context(), r.sync.Name, 0)
	r.must(err)
	got, err := r.s.Journal.RecoverUnowned(t.Context())
	r.must(err)
	r.want("a.md=uploading")
	r.must(lock.Unlock())
	if len(got) != 0 {
		t.Fatalf("recovered %+v while the lock was held", got)
	}
	if got, err = r.s.Journal.RecoverUnowned(t.Context()); err != nil || len(got) != 1 {
		t.Fatalf("recovered %+v, %v", got, err)
	}
	r.want("a.md=pending")
}

// A process that is killed loses the answers to all its requests at once. Three answers in a row that an API loses would halt
// the uploads of all processes for long.
func TestRequestsOfAKilledProcessCountAsOneLostAnswer(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md", "c.md", "d.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B", "c.md": "C", "d.md": "D"}, Sharing{})
		for i := range docs {
			r.seal(docs[i : i+1])
		}
		r.expireLease()
		n, err := r.s.Journal.Recover(t.Context(), r.sync.ID)
		r.must(err)
		if n != 4 || r.streak() != 1 {
			t.Errorf("%d uncertain batches, streak %d; want 4 and 1", n, r.streak())
		}
		r.want("a.md=uncertain b.md=uncertain c.md=uncertain d.md=uncertain")
	})
}

// A document that the API refused before its upload was sealed has no content and no claim. It stays failed.
func TestRecoveryLeavesRefusedDocumentsFailed(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		b, _ := spec(r, docs)
		u, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		r.must(r.s.Journal.Refuse(t.Context(), u, Refusal{StatusCode: 422, Disposition: Fail, Message: "no"}))
		r.want("a.md=failed")
		_, err = r.s.Journal.Recover(t.Context(), r.sync.ID)
		r.must(err)
		r.want("a.md=failed")
	})
}

// While the breaker is open, one probe is under way. The end of another batch, which was sealed before, lets no second one begin.
func TestEndOfAnotherBatchLeavesTheProbe(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, tt := range []struct {
			name string
			end  func(*fixture, *Upload) error
		}{
			{"refused", func(r *fixture, u *Upload) error {
				return r.s.Journal.Refuse(r.ctx(), u, Refusal{StatusCode: 429, Disposition: Retry})
			}},
			{"lost", func(r *fixture, u *Upload) error {
				_, err := r.s.Journal.MarkUncertain(r.ctx(), u, 502, "bad gateway")
				return err
			}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := newFixture(t)
				r.put("earlier.md", "lost.md", "probe.md", "second.md")
				docs, _ := r.resolve(map[string]string{"earlier.md": "A", "lost.md": "B", "probe.md": "C", "second.md": "D"}, Sharing{})
				probe := func(d HashedDocument) error {
					b, _ := spec(r, []HashedDocument{d})
					b.Probe = true
					_, err := r.s.Journal.Begin(t.Context(), b)
					return err
				}
				earlier, lost := r.seal(docs[:1]), r.seal(docs[1:2])
				_, err := r.s.Journal.MarkUncertain(t.Context(), lost, 502, "bad gateway")
				r.must(err)
				r.must(probe(docs[2]))
				r.must(tt.end(r, earlier))
				if err := probe(docs[3]); !errors.Is(err, ErrBreakerOpen) {
					t.Errorf("a second probe: %v", err)
				}
			})
		}
	})
}

// A refusal makes the documents pending that share the content, except one that was blocked meanwhile with a newer version.
func TestRefusalLeavesABlockedTwinSkipped(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md", "b.md", "c.md")
		contents := map[string]string{"a.md": "A", "b.md": "A", "c.md": "A"}
		docs, _ := r.resolve(contents, Sharing{})
		u := r.seal(docs[:1])
		r.resolveClaimed([]ClaimedDocument{docs[1].ClaimedDocument, docs[2].ClaimedDocument}, contents, Sharing{})
		r.want("a.md=uploading b.md=uploading c.md=uploading")
		r.put("b.md")
		claimed, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		r.must(r.s.Queue.Block(t.Context(), claimed, []string{"a web page"}))
		r.must(r.s.Journal.Refuse(t.Context(), u, Refusal{StatusCode: 429, Disposition: Retry}))
		r.want("a.md=pending b.md=skipped c.md=pending")
	})
}

// A document has a source, and its newer version is blocked. When the source is gone, the document stays skipped until it changes.
func TestSourceGoneLeavesABlockedDocumentSkipped(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		ids := r.upload(map[string]string{"a.md": "A"})
		r.put("a.md")
		claimed, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		r.must(r.s.Queue.Block(t.Context(), claimed, []string{"a web page"}))
		_, err = r.s.Inventory.MarkSourcesGone(t.Context(), r.sync.Destination.ID, ids)
		r.must(err)
		r.want("a.md=skipped")
	})
}

// Two processes see an open breaker, and one closes it before the other one begins its probe. The next lost answer opens the breaker again,
// and then a probe begins, even if an ended one was left in the state.
func TestProbeThatCameTooLateHoldsBackNoOther(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, left := range []bool{false, true} {
			t.Run(fmt.Sprintf("left in the state %t", left), func(t *testing.T) {
				r := newFixture(t)
				r.put("a.md", "b.md", "c.md", "d.md")
				docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B", "c.md": "C", "d.md": "D"}, Sharing{})
				r.accept(r.seal(docs[:1]), 1) // of the largest size
				b, seals := spec(r, docs[1:2])
				owner, err := r.s.owner(t.Context())
				r.must(err)
				late := &Upload{spec: b, owner: owner}
				r.must(r.s.update(t.Context(), func(tx *tx) error { return tx.beginProbe(late) })) // it has read the breaker before
				if late.ID() != 0 {
					t.Error("a closed breaker has a probe")
				}
				r.must(r.s.Journal.Seal(t.Context(), late, seals))
				r.accept(late, 1)
				if left {
					r.must(r.s.update(t.Context(), func(tx *tx) error {
						_, err := tx.exec(`UPDATE destinations SET probe_batch = (SELECT max(id) FROM batches)`)
						return err
					}))
				}
				_, err = r.s.Journal.MarkUncertain(t.Context(), r.seal(docs[2:3]), 502, "lost")
				r.must(err)
				b, _ = spec(r, docs[3:])
				b.Probe = true
				if _, err := r.s.Journal.Begin(t.Context(), b); err != nil {
					t.Errorf("the probe of an open breaker: %v", err)
				}
			})
		}
	})
}

// A content in training needs a source of its last batch that is in training: without one it would never end.
func TestCheckFindsATrainingWithoutASource(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		docs, _ := r.resolve(map[string]string{"a.md": "A"}, Sharing{})
		r.accept(r.seal(docs), 1)
		r.must(r.s.update(t.Context(), func(tx *tx) error {
			if err := tx.moveSource(1); err != nil {
				return err
			}
			_, err := tx.exec(`UPDATE sources SET batch_id = batch_id + 1`)
			return err
		}))
		findings, err := r.s.Check(t.Context())
		r.must(err)
		if len(findings) != 1 || findings[0] != "1 contents are in training, and none of their sources is." {
			t.Errorf("the findings are %q", findings)
		}
	})
}
