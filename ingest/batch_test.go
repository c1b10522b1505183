package ingest

import (
	"math/rand/v2"
	"testing"

	"github.com/kbsync/kbsync/state"
)

// A BatchCount counts as cut cuts.
func TestBatchCount(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		documents, bytes := 1+random.IntN(5), int64(1+random.IntN(50))
		count := BatchCount{Documents: documents, Bytes: bytes}
		var docs []*document
		for range random.IntN(30) {
			size := int64(random.IntN(80))
			count.Add(size)
			docs = append(docs, &document{ClaimedDocument: state.ClaimedDocument{Fingerprint: state.Fingerprint{Size: size}}})
		}
		want := 0
		for len(docs) > 0 {
			n, _ := cut(docs, documents, bytes)
			docs = docs[n:]
			want++
		}
		if count.Batches != want {
			t.Fatalf("%d batches, want %d", count.Batches, want)
		}
	}
	zero := BatchCount{}
	for range 41 {
		zero.Add(1)
	}
	if zero.Batches != 3 {
		t.Errorf("%d batches by the defaults", zero.Batches)
	}
}
