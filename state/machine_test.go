package state

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A model is a root, a server and the store between them, with random steps.
type model struct {
	*fixture
	root     map[string]string // key -> content
	accepted map[string]int    // content -> sources that the server created
	unsure   map[string]bool   // contents of sealed batches without an answer
	asked    map[string]int    // uploads that a person asked for
	queue    []int64           // sources in training
	claimed  []HashedDocument
	open     [][]HashedDocument // begun batches
	uploads  []*Upload
	late     []lateAnswer
	answered map[string]bool // contents of a lost answer that came after all
	failed   map[string]bool // contents of which the training of a source failed

	recorded   []int64          // sources of which kbsync got the id
	recognizes bool             // the server gives a content the source that it has already
	sources    map[string]int64 // the last source of each content
	contents   map[int64]string // of the sources
}

// A lateAnswer is an answer that kbsync takes for lost. It may come later.
type lateAnswer struct {
	upload  *Upload
	batch   []HashedDocument
	sources []int64
}

// create makes the server accept a batch. It returns the sources.
func (w *model) create(batch []HashedDocument) (sources []int64) {
	for _, d := range batch {
		c := version(d.Fingerprint.ETag)
		w.accepted[c]++
		if w.sources[c] == 0 || !w.recognizes {
			w.sources[c], w.contents[w.next] = w.next, c
			w.next++
		}
		sources = append(sources, w.sources[c])
	}
	return sources
}

// answer records the answer to an upload.
func (w *model) answer(a lateAnswer) {
	answer := Answer{StatusCode: 200, NextPoll: time.Now()}
	for i, id := range a.sources {
		answer.Sources = append(answer.Sources, []SourceAnswer{{ID: id, Type: "file", Name: usualName(a.batch[i].Key), Status: "in-progress"}})
		if !slices.Contains(w.queue, id) {
			w.queue = append(w.queue, id)
		}
		if !slices.Contains(w.recorded, id) {
			w.recorded = append(w.recorded, id)
		}
	}
	_, err := w.s.Journal.Accept(w.ctx(), a.upload, answer)
	w.must(err)
}

// answerLate records the oldest answer that was taken for lost.
func (w *model) answerLate() {
	a := w.late[0]
	w.late = w.late[1:]
	for _, d := range a.batch {
		w.answered[version(d.Fingerprint.ETag)] = true
	}
	w.answer(a)
}

// removeSource removes a source from the server and records that. Its content may be uploaded once more.
func (w *model) removeSource(id int64) {
	is := func(other int64) bool { return other == id }
	w.queue, w.recorded = slices.DeleteFunc(w.queue, is), slices.DeleteFunc(w.recorded, is)
	c := w.contents[id]
	w.asked[c]++
	if w.sources[c] == id {
		w.sources[c] = 0
	}
	_, err := w.s.Inventory.MarkSourcesGone(w.ctx(), w.sync.Destination.ID, []int64{id})
	w.must(err)
}

// train ends the training of the oldest source.
func (w *model) train(outcome Outcome) {
	id := w.queue[0]
	w.queue = w.queue[1:]
	if outcome == TrainingFailed {
		w.failed[w.contents[id]] = true
	}
	w.trained(outcome, id)
}

func (w *model) scan(t *rapid.T) {
	scan, err := w.s.Scans.Begin(w.ctx(), w.sync.ID, "")
	w.must(err)
	known := map[string]bool{}
	var cs []Change
	for k, err := range w.s.Scans.Known(w.ctx(), w.sync.ID, "") {
		w.must(err)
		known[k.Key] = true
		content, there := w.root[k.Key]
		switch {
		case !there:
			cs = append(cs, Change{Op: Vanish, Key: k.Key})
		case k.Fingerprint.ETag != content:
			cs = append(cs, Change{Op: Put, Key: k.Key, Fingerprint: Fingerprint{Size: 1, ETag: content}})
		}
	}
	for k, content := range w.root {
		if !known[k] {
			cs = append(cs, Change{Op: Put, Key: k, Fingerprint: Fingerprint{Size: 1, ETag: content}})
		}
	}
	w.must(w.s.Scans.Record(w.ctx(), scan, cs))
	_, err = w.s.Scans.Finish(w.ctx(), scan, "")
	w.must(err)
}

// version is the first letter of a fingerprint's ETag: touching a file changes the ETag, not the version.
func version(etag string) string { return etag[:1] }

func (w *model) claim() {
	docs, err := w.s.Queue.Claim(w.ctx(), w.sync.ID, 3)
	w.must(err)
	var hs []HashedDocument
	for _, d := range docs {
		if d.Fingerprint.ETag == "" { // it could not be read, and the next scan finds it changed
			w.must(w.s.Queue.Release(w.ctx(), []ClaimedDocument{d}, time.Time{}, false))
			continue
		}
		hs = append(hs, HashedDocument{ClaimedDocument: d, SHA256: hash(version(d.Fingerprint.ETag)), Size: 1})
	}
	w.take(hs)
}

func (w *model) take(hs []HashedDocument) {
	vs, err := w.s.Queue.Resolve(w.ctx(), w.sync.ID, hs, Sharing{})
	w.must(err)
	for i, v := range vs {
		switch v.Action {
		case ActionUpload:
			w.claimed = append(w.claimed, hs[i])
		case ActionVerify:
			hs[i].Verified = true
			w.take(hs[i : i+1])
		}
	}
}

func (w *model) begin() {
	n := min(2, len(w.claimed))
	batch := w.claimed[:n:n]
	w.claimed = w.claimed[n:]
	b, _ := spec(w.fixture, batch)
	streak, _, err := w.s.Journal.Breaker(w.ctx(), w.sync.Destination.ID)
	w.must(err)
	b.Probe = streak > 0
	id, err := w.s.Journal.Begin(w.ctx(), b)
	if err != nil {
		w.must(w.s.Queue.Release(w.ctx(), b.Members, time.Time{}, false))
		return
	}
	w.open = append(w.open, batch)
	w.uploads = append(w.uploads, id)
}

func (w *model) pop() (*Upload, []HashedDocument) {
	id, batch := w.uploads[0], w.open[0]
	w.uploads, w.open = w.uploads[1:], w.open[1:]
	return id, batch
}

// finish seals the oldest open batch and gives it an end.
func (w *model) finish(outcome string) {
	id, batch := w.pop()
	_, seals := spec(w.fixture, batch)
	if outcome == "unsent" {
		w.must(w.s.Journal.Refuse(w.ctx(), id, Refusal{Disposition: Retry}))
		return
	}
	if err := w.s.Journal.Seal(w.ctx(), id, seals); err != nil {
		fail, ok := errors.AsType[*SealError](err)
		if !ok {
			w.must(w.s.Journal.Refuse(w.ctx(), id, Refusal{Disposition: Requeue}))
			return
		}
		// Members that cannot be sealed leave and are resolved again; the others go on in a new batch.
		w.must(w.s.Journal.Refuse(w.ctx(), id, Refusal{Disposition: Keep}))
		var rest []HashedDocument
		for i, d := range batch {
			if slices.Contains(fail.Known, i) {
				w.must(w.s.Queue.Release(w.ctx(), []ClaimedDocument{d.ClaimedDocument}, time.Time{}, false))
			} else if !slices.Contains(fail.Lost, i) {
				rest = append(rest, d)
			}
		}
		w.claimed = append(rest, w.claimed...)
		return
	}
	switch outcome {
	case "accepted":
		w.answer(lateAnswer{id, batch, w.create(batch)})
	case "refused":
		w.must(w.s.Journal.Refuse(w.ctx(), id, Refusal{Disposition: Requeue, StatusCode: 429}))
	case "lost", "taken and lost":
		for _, d := range batch {
			w.unsure[version(d.Fingerprint.ETag)] = true
		}
		if outcome != "lost" {
			w.late = append(w.late, lateAnswer{id, batch, w.create(batch)})
		}
		_, err := w.s.Journal.MarkUncertain(w.ctx(), id, 502, "lost")
		w.must(err)
	case "killed":
		for _, d := range batch {
			w.unsure[version(d.Fingerprint.ETag)] = true
		}
		w.late = append(w.late, lateAnswer{id, batch, w.create(batch)}) // of a process that is paused
		w.crash()
	}
}

func (w *model) crash() {
	w.claimed, w.open, w.uploads = nil, nil, nil
	_, err := w.s.Journal.Recover(w.ctx(), w.sync.ID)
	w.must(err)
}

// advance brings an upload a step further. A step of the machine that has nothing to work on does this.
func (w *model) advance() {
	if len(w.claimed) == 0 {
		w.claim()
	} else {
		w.begin()
	}
}

func (w *model) resend() {
	docs, err := w.s.Queue.ClaimResends(w.ctx(), w.sync.ID, 0, 2)
	w.must(err)
	var batch []HashedDocument
	for _, d := range docs {
		if d.Fingerprint.ETag == "" {
			w.must(w.s.Queue.Release(w.ctx(), []ClaimedDocument{d}, time.Time{}, false))
			continue
		}
		h := HashedDocument{ClaimedDocument: d, SHA256: hash(version(d.Fingerprint.ETag)), Size: 1}
		if h.SHA256 != d.SHA256 {
			w.must(w.s.Queue.Release(w.ctx(), []ClaimedDocument{d}, time.Time{}, false))
			continue
		}
		batch = append(batch, h)
	}
	if len(batch) == 0 {
		return
	}
	rest := w.claimed
	w.claimed = batch
	w.begin()
	w.claimed = rest
}

// After any sequence of events every content on the root was accepted in the end, and none twice, except contents of a
// lost answer (twice at most) and contents that a person asked for again.
func TestNothingIsLostOrDoubled(t *testing.T) {
	onEach(t, func(t *testing.T, newState stateMaker) {
		opts, sound := newState(t), true
		rapid.Check(t, func(rt *rapid.T) {
			if !sound {
				opts = newState(t) // a failure is repeated with fewer steps, on a sound state
			}
			sound = false
			s, err := Open(context.Background(), opts)
			if err != nil {
				rt.Fatal(err)
			}
			defer s.Close()
			w := &model{fixture: &fixture{t: t, s: s, next: 1}, root: map[string]string{}, accepted: map[string]int{}, unsure: map[string]bool{}, asked: map[string]int{},
				answered: map[string]bool{}, failed: map[string]bool{}, sources: map[string]int64{}, contents: map[int64]string{}, recognizes: rapid.Bool().Draw(rt, "recognizes")}
			// Another destination for every check: the file is made once.
			dest := testDestination
			syncs, err := s.Syncs.All(t.Context())
			w.must(err)
			dest.KnowledgeBase += int64(len(syncs))
			w.sync, err = s.Syncs.Ensure(t.Context(), time.Now().String(), "/docs", dest, false)
			w.must(err)

			key := rapid.SampledFrom([]string{"a", "b/c", "b-c", "d"})
			content := rapid.SampledFrom([]string{"A", "B", "C", "A'", "B'"})
			rt.Repeat(map[string]func(*rapid.T){
				"write":  func(rt *rapid.T) { w.root[key.Draw(rt, "key")] = content.Draw(rt, "content") },
				"remove": func(rt *rapid.T) { delete(w.root, key.Draw(rt, "key")) },
				"scan":   func(rt *rapid.T) { w.scan(rt) },
				"claim":  func(rt *rapid.T) { w.claim() },
				"begin": func(rt *rapid.T) {
					if len(w.claimed) == 0 {
						w.advance()
						return
					}
					w.begin()
				},
				"finish": func(rt *rapid.T) {
					if len(w.open) == 0 {
						w.advance()
						return
					}
					w.finish(rapid.SampledFrom([]string{"accepted", "accepted", "refused", "unsent", "lost", "taken and lost", "killed"}).Draw(rt, "outcome"))
				},
				"resend": func(rt *rapid.T) { w.resend() },
				"crash":  func(rt *rapid.T) { w.crash() },
				"block": func(rt *rapid.T) {
					if len(w.claimed) == 0 {
						w.advance()
						return
					}
					w.must(s.Queue.Block(t.Context(), []ClaimedDocument{w.claimed[0].ClaimedDocument}, []string{"a web page"}))
					w.claimed = w.claimed[1:]
				},
				"unreadable": func(rt *rapid.T) {
					if len(w.claimed) == 0 {
						w.advance()
						return
					}
					w.must(s.Queue.MarkUnreadable(t.Context(), w.claimed[0].ClaimedDocument, "no permission"))
					w.claimed = w.claimed[1:]
				},
				"remove a source": func(rt *rapid.T) {
					if len(w.recorded) == 0 {
						w.advance()
						return
					}
					w.removeSource(rapid.SampledFrom(w.recorded).Draw(rt, "source"))
				},
				"train": func(rt *rapid.T) {
					if len(w.queue) == 0 {
						w.advance()
						return
					}
					w.train(rapid.SampledFrom([]Outcome{TrainingCompleted, TrainingCompleted, TrainingFailed}).Draw(rt, "outcome"))
				},
				"late answer": func(rt *rapid.T) {
					if len(w.late) == 0 {
						w.advance()
						return
					}
					w.answerLate()
				},
				"reindex": func(rt *rapid.T) {
					n, err := s.Queue.Mark(t.Context(), w.sync.ID, Selection{Match: func(k string) bool { return k == "a" }})
					w.must(err)
					if n > 0 {
						for _, c := range []string{"A", "B", "C"} {
							w.asked[c]++
						}
					}
				},
				"": func(rt *rapid.T) {
					findings, err := s.Check(t.Context())
					w.must(err)
					if len(findings) > 0 {
						rt.Fatalf("unsound: %v", findings)
					}
				},
			})

			// All faults end, and kbsync runs once more.
			w.crash()
			_, err = s.Queue.ReopenBlocked(t.Context(), w.sync.ID)
			w.must(err)
			w.scan(rt)
			for range 50 {
				w.resend()
				for len(w.open) > 0 {
					w.finish("accepted")
				}
				w.claim()
				for len(w.claimed) > 0 {
					w.begin()
					for len(w.open) > 0 {
						w.finish("accepted")
					}
				}
			}
			for len(w.late) > 0 && rapid.Bool().Draw(rt, "late answer at last") {
				w.answerLate()
			}
			for len(w.queue) > 0 {
				w.train(TrainingCompleted)
			}
			listed := map[SHA256]bool{}
			for p, err := range s.Inventory.PossibleDuplicates(t.Context(), w.sync.ID) {
				w.must(err)
				listed[p.SHA256] = true
			}
			for k, etag := range w.root {
				c := version(etag)
				d, err := s.Documents.Get(t.Context(), w.sync.ID, k)
				w.must(err)
				held := d.State == Uncertain && d.Held || d.State == Failed && w.failed[c]
				if d.State != Completed && !held {
					rt.Errorf("%s is %s", k, d.State)
				}
				if w.accepted[c] == 0 && !held {
					rt.Errorf("%s: its content %s is lost", k, c)
				}
			}
			for c, n := range w.accepted {
				most := 1 + w.asked[c]
				if w.unsure[c] {
					most += 1 + 2*w.asked[c]
					if !listed[hash(c)] && (!w.answered[c] || n > 1+w.asked[c]) {
						rt.Errorf("content %s may be there twice, and is not listed", c)
					}
				}
				if n > most {
					rt.Errorf("content %s was accepted %d times, want at most %d", c, n, most)
				}
			}
			sound = !rt.Failed()
		})
	})
}
