package watcher

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// An endless bucket makes its pages up.
type endless struct{ objects int }

func (e endless) page(_ context.Context, prefix, token string) (page []object, next string, err error) {
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

func (endless) open(context.Context, string, state.Fingerprint, int64) (io.ReadCloser, error) {
	return nil, &fault{kind: faultNoObject}
}

func (endless) close() error { return nil }

// TestListingMemory compares what is resident when 10,000 and when 1,000,000 objects are listed against the state on disk: at most a
// fifth more. The first scan, which is printed as well, also fills SQLite's cache of 8 MiB, which 10,000 objects do not. Each scan
// has a process of its own. make bench-listing runs it.
func TestListingMemory(t *testing.T) {
	dir, objects := os.Getenv("TEST_LISTING_STATE"), os.Getenv("TEST_LISTING_OBJECTS")
	if dir != "" {
		n, err := strconv.Atoi(objects)
		if err != nil {
			t.Fatal(err)
		}
		scanEndless(t, dir, n)
		return
	}
	if os.Getenv("TEST_LISTING") == "" || runtime.GOOS != "linux" {
		t.Skip("takes a minute; TEST_LISTING=1 on Linux runs it")
	}
	peaks := map[string][2]int64{}
	for i, n := range []int{10_000, 1_000_000} {
		dir := t.TempDir()
		for _, pass := range []string{"first", "again", "again, sorted"} {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestListingMemory$", "-test.v")
			cmd.Env = append(os.Environ(), "TEST_LISTING_STATE="+dir, fmt.Sprint("TEST_LISTING_OBJECTS=", n), "TEST_LISTING_PASS="+pass)
			start := time.Now()
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var kib int64
			_, after, _ := strings.Cut(string(out), "VmHWM:")
			if _, err := fmt.Sscan(after, &kib); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			p := peaks[pass]
			p[i] = kib
			peaks[pass] = p
			fmt.Printf("%9d objects, %-14s %6.1f MiB resident, %v\n", n, pass+":", float64(kib)/1024, time.Since(start).Round(10*time.Millisecond))
		}
	}
	for _, pass := range []string{"again", "again, sorted"} {
		if p := peaks[pass]; float64(p[1]) > 1.2*float64(p[0]) {
			t.Errorf("%s: %d KiB for 1,000,000 objects, %d for 10,000", pass, p[1], p[0])
		}
	}
}

func scanEndless(t *testing.T, dir string, objects int) {
	store, err := state.Open(t.Context(), state.Options{Path: filepath.Join(dir, "kbsync.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	sync, err := store.EnsureSync(t.Context(), "docs", "root", state.Destination{Origin: "https://api.example", KnowledgeBase: 1}, false)
	if err != nil {
		t.Fatal(err)
	}
	pass := os.Getenv("TEST_LISTING_PASS")
	b := newBucket("mem://", "", service{objects: endless{objects}, unordered: pass == "again, sorted"}, BucketOptions{})
	r, err := NewScanner(b, ScanOptions{}).Scan(t.Context(), store, sync, "")
	if err != nil || r.IncompleteCount > 0 || pass == "first" && r.New != objects || pass != "first" && r.Unchanged != objects {
		t.Fatalf("%+v, %v", r, err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	fmt.Println("VmHWM:", line)
}
