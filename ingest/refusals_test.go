package ingest

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRefusalsReachAQuotaOnceAndOnlyInARow(t *testing.T) {
	var r refusals
	add := func(n int, code string) (row []*document, stopped bool) {
		for range n {
			row, stopped = r.add(&document{}, code)
		}
		return row, stopped
	}
	if row, stopped := add(quotaAfter-1, "A"); row != nil || stopped {
		t.Fatalf("%d of one code: row of %d, stopped %v", quotaAfter-1, len(row), stopped)
	}
	add(1, "B") // another code
	if row, _ := add(quotaAfter-1, "A"); row != nil {
		t.Fatal("another code did not restart the count")
	}
	r.reset() // an accepted document
	if row, _ := add(quotaAfter-1, "A"); row != nil || r.isQuota() {
		t.Fatal("reset did not restart the count")
	}
	if row, stopped := add(1, "A"); len(row) != quotaAfter || stopped || !r.isQuota() {
		t.Fatalf("row of %d, stopped %v", len(row), stopped)
	}
	if row, stopped := add(1, "A"); row != nil || !stopped {
		t.Fatalf("after the quota: row of %d, stopped %v", len(row), stopped)
	}
}

func TestSizeLimitsKeepTheLargestAcceptedAndTheSmallestRefused(t *testing.T) {
	var l sizeLimits
	if l.tooLarge(1<<40) || l.aboveAccepted(1<<40) || l.batchBytes(100) != 100 {
		t.Fatal("a limit before any answer")
	}
	l.accepted(50)
	l.accepted(20)
	l.refused(80)
	l.refused(90)
	if !l.tooLarge(80) || l.tooLarge(79) || !l.aboveAccepted(51) || l.aboveAccepted(50) || l.batchBytes(100) != 50 || l.batchBytes(45) != 45 {
		t.Fatalf("accepted %d, refused %d", l.largest, l.smallest)
	}
	l.accepted(80)
	if l.tooLarge(1<<40) || l.batchBytes(100) != 100 {
		t.Fatal("an accepted request of the refused size did not end the limit")
	}
	l.refused(60) // smaller than the largest accepted one
	if l.batchBytes(100) != 30 {
		t.Fatalf("batches of %d bytes, want half of the refused size", l.batchBytes(100))
	}
}

func TestOneTrialAboveTheLimitAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l sizeLimits
		if l.beginTrial(100) {
			t.Error("a trial without a limit")
		}
		l.refused(80)
		if l.beginTrial(100) {
			t.Error("a trial at once")
		}
		time.Sleep(limitLasts)
		if l.beginTrial(79) {
			t.Error("a trial below the limit")
		}
		if !l.beginTrial(80) || l.beginTrial(80) {
			t.Error("want one trial")
		}
		time.Sleep(limitLasts)
		if !l.beginTrial(80) {
			t.Error("no trial after another hour")
		}
	})
}

func TestUnfailedTakesTheDocumentsOutOfTheResult(t *testing.T) {
	r := newReport(Progress{})
	docs := make([]*document, 3)
	for i, key := range []string{"a", "b", "c"} {
		docs[i] = &document{}
		docs[i].Key = key
	}
	r.failed(docs, outcome{code: "NO", message: "no"})
	r.unfailed(docs[1:])
	if got := r.snapshot(); got.Failed != 1 || len(got.Failures) != 1 || got.Failures[0] != (Failure{Key: "a", Code: "NO", Reason: "no"}) {
		t.Fatalf("%+v", got)
	}
}
