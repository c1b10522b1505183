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

// An generatedBucket bucket makes its pages up.
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

func (generatedBucket) open(context.Context, string, state.Fingerprint, int64) (io.ReadCloser, error) {
	return nil, &cloudFault{kind: faultNoObject}
}

func (generatedBucket) close() error { return nil }

// The passes of BenchmarkListingMemory, in their order: each of one state finds what the one before it left there.
const (
	firstPass     = "first"
	unchangedPass = "unchanged"
	sortedPass    = "unchanged-sorted"
	removedPass   = "removed" // all but one
)

// BenchmarkListingMemory prints the peak of what is resident in a process of its own that scans 10,000 and 1,000,000 objects against a
// state on disk: for the first time, with nothing changed, with nothing changed in a bucket that lists in another order, and with all but
// one removed. It fails where 1,000,000 take more than a fifth more than 10,000.
func BenchmarkListingMemory(b *testing.B) {
	if dir := os.Getenv("LISTING_STATE"); dir != "" { // the process of its own
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
						dir = b.TempDir() // which the passes after it need
					}
					peak = max(peak, listingPeak(pb, dir, n, pass))
				}
				pb.ReportMetric(float64(peak)/1024, "peak-MiB")
				if few[pass] == 0 {
					few[pass] = peak
				} else if 5*peak > 6*few[pass] {
					pb.Errorf("%d KiB are resident, and %d with fewer objects", peak, few[pass])
				}
			})
		}
	}
}

// listingPeak runs a pass in a process, and returns how many KiB of it were resident at most.
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
	sync, err := store.EnsureSync(b.Context(), "docs", "root", state.Destination{Origin: "https://api.example", KnowledgeBase: 1}, false)
	if err != nil {
		b.Fatal(err)
	}
	if pass == removedPass {
		objects = 1
	}
	root := newBucket("mem://", "", service{objects: generatedBucket{objects}, unordered: pass == sortedPass}, BucketOptions{})
	r, err := NewScanner(root, ScanOptions{MaxDelete: MaxDelete{Percent: 100, ByPercent: true}}).Scan(b.Context(), store, sync, "")
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
