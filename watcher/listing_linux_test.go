package watcher

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/state"
)

// A generatedBucket generates its pages.
type generatedBucket struct{ objects int }

func (e generatedBucket) page(_ context.Context, prefix, token string) (page []object, next string, err error) {
	if strings.HasSuffix(prefix, ignoreName) {
		return nil, "", nil
	}
	at, _ := strconv.Atoi(token)
	end := min(at+1000, e.objects)
	for i := at; i < end; i++ {
		page = append(page, object{
			key:         fmt.Sprintf("%05d/document-%08d.md", i/100, i),
			fingerprint: state.Fingerprint{Size: int64(i) + 1, MTime: 1, ETag: fmt.Sprintf(`"%032x"`, i)},
		})
	}
	if end < e.objects {
		next = strconv.Itoa(end)
	}
	return page, next, nil
}

func (generatedBucket) level(context.Context, string, string) ([]object, []string, string, error) {
	return nil, nil, "", errNoLevels
}

func (generatedBucket) open(context.Context, string, state.Fingerprint, int64) (io.ReadCloser, error) {
	return nil, &cloudFault{kind: faultNoObject}
}

func (generatedBucket) close() error { return nil }

// The passes of BenchmarkListingMemory, in order. Each pass starts with the state that the one before it left.
const (
	firstPass     = "first"
	unchangedPass = "unchanged"
	sortedPass    = "unchanged-sorted"
	removedPass   = "removed" // all but one
)

// BenchmarkListingMemory reports the peak resident memory of a separate process that scans 10,000 and 1,000,000 objects with a state
// on disk: a first scan, an unchanged one, an unchanged one of a bucket in another order, and one with all but one object removed.
// It fails if 1,000,000 objects take more than 1.2 times the memory of 10,000.
func BenchmarkListingMemory(b *testing.B) {
	if dir := os.Getenv("LISTING_STATE"); dir != "" { // the separate process
		n, err := strconv.Atoi(os.Getenv("LISTING_OBJECTS"))
		if err != nil {
			b.Fatal(err)
		}
		scanGenerated(b, dir, n, os.Getenv("LISTING_PASS"))
		return
	}
	few := map[string]int64{} // KiB by pass
	for _, n := range []int{10_000, 1_000_000} {
		dir := ""
		for _, pass := range []string{firstPass, unchangedPass, sortedPass, removedPass} {
			b.Run(fmt.Sprintf("%d/%s", n, pass), func(pb *testing.B) {
				var peak int64
				for pb.Loop() {
					if pass == firstPass {
						dir = b.TempDir() // the later passes need it
					}
					peak = max(peak, listingPeak(pb, dir, n, pass))
				}
				pb.ReportMetric(float64(peak)/1024, "peak-MiB")
				if few[pass] == 0 {
					few[pass] = peak
				} else if 5*peak > 6*few[pass] {
					pb.Errorf("%d KiB resident, %d KiB with fewer objects", peak, few[pass])
				}
			})
		}
	}
}

// listingPeak runs a pass in a process and returns its peak resident memory in KiB.
func listingPeak(b *testing.B, dir string, objects int, pass string) (kib int64) {
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkListingMemory$", "-test.benchtime=1x")
	cmd.Env = append(os.Environ(), "LISTING_STATE="+dir, fmt.Sprint("LISTING_OBJECTS=", objects), "LISTING_PASS="+pass)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	_, after, _ := strings.Cut(string(out), "VmHWM:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return kib
}

func scanGenerated(b *testing.B, dir string, objects int, pass string) {
	store, err := state.Open(b.Context(), state.Options{Path: filepath.Join(dir, "kbsync.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	sync, err := store.Syncs.Ensure(b.Context(), "docs", "root", state.Destination{Origin: "https://api.example", KnowledgeBase: 1}, false)
	if err != nil {
		b.Fatal(err)
	}
	if pass == removedPass {
		objects = 1
	}
	root := newBucket("mem://", "", service{objects: generatedBucket{objects}, unordered: pass == sortedPass}, BucketOptions{})
	r, err := NewScanner(root, ScanOptions{MaxDelete: Limit{Percent: 100, ByPercent: true}, MaxChange: Limit{Percent: 100, ByPercent: true}}).Scan(b.Context(), store.Scans, sync, "")
	if err != nil || r.IncompleteCount > 0 || pass == firstPass && r.New != objects || pass != firstPass && r.Unchanged != objects {
		b.Fatalf("%+v, %v", r, err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	fmt.Println("VmHWM:", line)
}
