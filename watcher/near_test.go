package watcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A rack is a bucket that lists from any key on, in an order of its own.
type rack struct {
	keys     []string // in its order
	compare  func(a, b string) int
	deaf     bool // it takes no notice of the key
	fail     func(key string) error
	size     int
	slow     time.Duration
	requests atomic.Int64
}

func (r *rack) from(ctx context.Context, prefix string, at int) ([]object, string, error) {
	r.requests.Add(1)
	if err := rest(ctx, r.slow); err != nil {
		return nil, "", err
	}
	var page []object
	for ; at < len(r.keys) && len(page) < r.size; at++ {
		if strings.HasPrefix(r.keys[at], prefix) {
			if r.fail != nil {
				if err := r.fail(r.keys[at]); err != nil {
					return nil, "", err
				}
			}
			page = append(page, object{key: r.keys[at], fingerprint: state.Fingerprint{Size: 1, ETag: r.keys[at]}})
		}
	}
	if at < len(r.keys) {
		return page, strconv.Itoa(at), nil
	}
	return page, "", nil
}

func (r *rack) page(ctx context.Context, prefix, token string) ([]object, string, error) {
	if strings.HasSuffix(prefix, ignoreName) {
		return nil, "", nil
	}
	at, _ := strconv.Atoi(token)
	return r.from(ctx, prefix, at)
}

func (r *rack) after(ctx context.Context, prefix, key string) ([]object, string, error) {
	if r.deaf {
		return r.from(ctx, prefix, 0)
	}
	at := slices.IndexFunc(r.keys, func(k string) bool { return r.compare(k, key) > 0 })
	if at < 0 {
		at = len(r.keys)
	}
	return r.from(ctx, prefix, at)
}

func (r *rack) open(context.Context, string, state.Fingerprint, int64) (io.ReadCloser, error) {
	return nil, &fault{kind: faultNoObject}
}

func (r *rack) close() error { return nil }

func (r *rack) bucket(prefix string) *Bucket {
	slices.SortFunc(r.keys, r.compare)
	b := newBucket("s3://rack", prefix, service{objects: r, after: r.after, identity: "rack"}, BucketOptions{PageSize: r.size})
	b.persistence = persistence{tries: 1, delay: time.Second, page: time.Hour, stall: time.Hour}
	return b
}

// What is known of a bucket makes its listing no other one: whatever came and went, in whatever order it lists (B1).
func TestListNear(t *testing.T) {
	t.Parallel()
	letters := func(a, b string) int {
		return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
	}
	backwards := func(a, b string) int { return strings.Compare(b, a) }
	for seed := range 400 {
		rng := rand.New(rand.NewPCG(5, uint64(seed)))
		r := &rack{size: 1 + rng.IntN(20), compare: []func(a, b string) int{strings.Compare, strings.Compare, letters, backwards}[seed%4], deaf: rng.IntN(5) == 0}
		present, absent := rng.Float64(), rng.Float64()
		store := newMemory()
		want := map[string]bool{}
		for range rng.IntN(300) {
			key := fmt.Sprintf("%c/%c%d.md", "aAbB-"[rng.IntN(5)], "xXyY"[rng.IntN(4)], rng.IntN(100))
			if rng.Float64() < present && !want[key] {
				want[key] = true
				r.keys = append(r.keys, "docs/"+key, "other/"+key)
			}
			if rng.Float64() < absent {
				store.known[key] = state.Known{Key: key, Fingerprint: state.Fingerprint{Size: 1, ETag: "docs/" + key}}
			}
		}
		result, err := NewScanner(r.bucket("docs/"), ScanOptions{AllowEmpty: true, MaxDelete: MaxDelete{Count: 1000}}).Scan(t.Context(), store, state.Sync{ID: 1}, "")
		if err != nil || result.IncompleteCount > 0 || len(store.known) != len(want) {
			t.Fatalf("seed %d: %+v, %v; %d are known, want %d", seed, result, err, len(store.known), len(want))
		}
		for key := range want {
			if _, ok := store.known[key]; !ok {
				t.Fatalf("seed %d: %q is not known", seed, key)
			}
		}
	}
}

// Pages of what is known are asked for at the same time, and few more than without.
func TestListNearIsFaster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rack{size: 16, compare: strings.Compare, slow: time.Second}
		store := newMemory()
		for i := range 1500 {
			key := fmt.Sprintf("%04d.md", i)
			r.keys = append(r.keys, key)
			if i%100 != 7 { // some are new
				store.known[key] = state.Known{Key: key, Fingerprint: state.Fingerprint{Size: 1, ETag: key}}
			}
		}
		start := time.Now()
		result, err := NewScanner(r.bucket(""), ScanOptions{}).Scan(t.Context(), store, state.Sync{ID: 1}, "")
		if err != nil || result.New != 15 || result.Unchanged != 1485 {
			t.Fatal(result, err)
		}
		if took := time.Since(start); took > 40*time.Second || r.requests.Load() > 105 {
			t.Errorf("%v and %d requests for 94 pages of a second", took, r.requests.Load())
		}
	})
}

// A part that fails ends the listing where the part begins.
func TestListNearFails(t *testing.T) {
	t.Parallel()
	r := &rack{size: 16, compare: strings.Compare}
	store := newMemory()
	for i := range 1500 {
		key := fmt.Sprintf("%04d.md", i)
		r.keys = append(r.keys, key)
		store.known[key] = state.Known{Key: key, Fingerprint: state.Fingerprint{Size: 1, ETag: key}}
	}
	store.known["0000.x.md"] = state.Known{Key: "0000.x.md"} // is gone, and nobody may know
	b := r.bucket("")
	r.fail = func(key string) error {
		if key == "0800.md" {
			return errors.New("reset")
		}
		return nil
	}
	scanner := NewScanner(b, ScanOptions{MaxDelete: MaxDelete{Count: 1}})
	if result, err := scanner.Scan(t.Context(), store, state.Sync{ID: 1}, ""); err != nil || result.IncompleteCount != 1 || result.Listed < 780 || result.Listed > 800 || len(store.known) != 1501 {
		t.Errorf("%+v, %v", result, err)
	}
	r.fail = nil
	if result, err := scanner.Scan(t.Context(), store, state.Sync{ID: 1}, ""); err != nil || result.Removed != 1 || len(store.known) != 1500 {
		t.Errorf("%+v, %v", result, err)
	}
}
