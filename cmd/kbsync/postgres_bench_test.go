package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/kbsync/kbsync/internal/pgtest"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// BenchmarkPostgresWorkers prints the throughput of 1, 2, 4 and 8 workers on one database, against an API that takes 200 ms for a
// request. POSTGRES_WORKER_DOCUMENTS sets the number of documents for each worker, and POSTGRES_WORKER_TRANSFERS the requests that each
// sends at once.
func BenchmarkPostgresWorkers(b *testing.B) {
	each, transfers := envInt(b, "POSTGRES_WORKER_DOCUMENTS", 2000), envInt(b, "POSTGRES_WORKER_TRANSFERS", 4)
	const latency, documents = 200 * time.Millisecond, 20
	for b.Loop() {
		var table strings.Builder
		w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "workers\tdocuments\tdocuments/s\trequests/s\ttimes one worker\t")
		one := 0.0
		for _, workers := range []int{1, 2, 4, 8} {
			f := newSharedFixture(b, sharedSetup{
				database: pgtest.Start(b).Database(b), delay: latency, documents: documents, transfers: transfers, poll: "{min: 2s}",
			})
			f.bucket.fill("first", workers*each)
			speed := f.measureWorkers(workers)
			if workers == 1 {
				one = speed
			}
			fmt.Fprintf(w, "%d\t%d\t%.0f\t%.1f\t%.2f\t\n", workers, workers*each, speed, speed/documents, speed/one)
			b.ReportMetric(speed, fmt.Sprintf("documents/s-%d", workers))
		}
		w.Flush()
		b.Logf("requests of %d documents that take %v each, %d at once in each worker\n%s", documents, latency, transfers, table.String())
	}
}

// measureWorkers returns the documents a second of some workers. It leaves out the first and the last tenth, in which not all of
// them work.
func (f *sharedFixture) measureWorkers(workers int) float64 {
	f.Helper()
	var processes []*process
	for i := range workers {
		processes = append(processes, f.start(fmt.Sprint("worker ", i), f.database, "worker"))
	}
	// The API refuses the token of this process, so it records the documents and uploads none.
	f.api.refused = "command"
	f.output(exitFatal, f.database, "sync")
	f.waitUntilUploaded(patience(len(f.bucket.all())))
	stopAll(processes)
	f.checkUploads(1)
	accepted := f.emulator.Accepted()
	slices.SortFunc(accepted, func(a, b emulator.AcceptedSource) int { return a.Accepted.Compare(b.Accepted) })
	first, last := accepted[len(accepted)/10], accepted[len(accepted)*9/10]
	return float64(len(accepted)) * .8 / last.Accepted.Sub(first.Accepted).Seconds()
}
