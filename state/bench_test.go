package state

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// BenchmarkUploads takes documents through the whole of their lives, 20 a batch. It prints documents a second, and bytes of
// the database a document (keys are 30 bytes).
func BenchmarkUploads(b *testing.B) {
	const n = 10000
	contents := map[string]string{}
	var keys []string
	for i := range n {
		k := fmt.Sprintf("department/team/page-%06d.md", i)
		keys, contents[k] = append(keys, k), k
	}
	for b.Loop() {
		b.StopTimer()
		r := newFixture(b)
		b.StartTimer()
		start := time.Now()
		for i := 0; i < n; i += 1000 {
			r.put(keys[i : i+1000]...)
		}
		b.ReportMetric(n/time.Since(start).Seconds(), "puts/s")
		start = time.Now()
		var ids []int64
		for {
			docs, _ := r.resolve(contents, Sharing{})
			if len(docs) == 0 {
				break
			}
			for i := 0; i < len(docs); i += 20 {
				batch := docs[i:min(i+20, len(docs))]
				ids = append(ids, r.accept(r.seal(batch), len(batch))...)
			}
		}
		b.ReportMetric(n/time.Since(start).Seconds(), "uploads/s")
		start = time.Now()
		for i := 0; i < n; i += 100 {
			r.trained(TrainingCompleted, ids[i:i+100]...)
		}
		b.ReportMetric(n/time.Since(start).Seconds(), "polls/s")
		if err := r.s.update(b.Context(), func(t *tx) error { return nil }); err != nil {
			b.Fatal(err)
		}
		if _, err := r.sqlite().read.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
			b.Log(err)
		}
		if st, err := os.Stat(r.sqlite().path); err == nil {
			b.ReportMetric(float64(st.Size())/n, "bytes/document")
		}
	}
}

// BenchmarkKnown streams 100,000 known documents.
func BenchmarkKnown(b *testing.B) {
	r := newFixture(b)
	for i := range 100 {
		var keys []string
		for j := range 1000 {
			keys = append(keys, fmt.Sprintf("department/team/page-%06d.md", 1000*i+j))
		}
		r.put(keys...)
	}
	for b.Loop() {
		n := 0
		for _, err := range r.s.Scans.Known(b.Context(), r.sync.ID, "") {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 100000 {
			b.Fatal(n)
		}
	}
}
