package ingest

import (
	"testing"

	"github.com/kbsync/kbsync/state"
)

func TestDocumentWaitsForItsContentInFlight(t *testing.T) {
	wake := make(wakeup, 1)
	set := newInFlight(&contentCache{}, wake)
	doc := func(sha byte) *document { return &document{sha: state.SHA256{sha}, hashed: true} }
	first, twin, other := doc(1), doc(1), doc(2)
	if !set.addOrWait(first) || set.addOrWait(twin) || !set.addOrWait(other) {
		t.Fatal("only the twin must wait")
	}
	set.add(doc(2)) // a resend: the content is in flight twice
	set.remove(other)
	if again := set.takeAgain(); len(again) != 0 || len(wake) != 0 {
		t.Fatalf("freed %v before its content had left", again)
	}
	set.remove(first)
	set.remove(first) // changes nothing
	if again := set.takeAgain(); len(again) != 1 || again[0] != twin || len(wake) != 1 || set.waitingCount != 0 {
		t.Fatalf("freed %v, woken %d times, %d wait", again, len(wake), set.waitingCount)
	}
	if !set.addOrWait(twin) {
		t.Fatal("the content is still in flight")
	}
}

func TestTakeAllEmptiesTheSetOfWaitingDocuments(t *testing.T) {
	set := newInFlight(&contentCache{}, make(wakeup, 1))
	for range maxWaiting + 1 {
		if set.isFull() {
			t.Fatal("full too early")
		}
		set.addOrWait(&document{hashed: true})
	}
	if !set.isFull() {
		t.Fatal("not full")
	}
	set.resolveAgain(&document{})
	if docs := set.takeAll(); len(docs) != maxWaiting+1 || set.isFull() || len(set.takeAgain()) != 0 {
		t.Fatalf("took %d, full %v", len(docs), set.isFull())
	}
}

func TestAbandonedRequestIsNeitherSealedNorAbandonedTwice(t *testing.T) {
	set := newInFlight(&contentCache{}, make(wakeup, 1))
	cancelled := 0
	open, sealing := &request{cancel: func(error) { cancelled++ }}, &request{cancel: func(error) { cancelled += 10 }}
	sealing.phase.Store(phaseSealing)
	set.addRequest(open)
	set.addRequest(sealing)
	set.abandonRequests(errAbandoned)
	set.abandonRequests(errAbandoned)
	if cancelled != 1 || open.phase.Load() != phaseAbandoned || sealing.phase.Load() != phaseSealing {
		t.Fatalf("%d cancelled, phases %d and %d", cancelled, open.phase.Load(), sealing.phase.Load())
	}
}
