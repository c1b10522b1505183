package watcher

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/kbsync/kbsync/state"
)

// threeFolders are 2,500 keys in 25 pages of 100.
func threeFolders() []string {
	return slices.Concat(foldersOf("a/", 10, 100), foldersOf("b/", 1, 1000), foldersOf("c/", 5, 100))
}

// An error in a part is an error of the listing. Nothing counts as removed, and the next scan completes.
func TestFailedPartRemovesNothing(t *testing.T) {
	t.Parallel()
	reset := errors.New("reset")
	for _, tt := range []struct {
		name   string
		fails  func(prefix, token string) error
		listed func(n int) bool
	}{
		{"the third page of the second part", func(prefix, token string) error {
			if strings.HasPrefix(prefix, "b/") && token == "1200" {
				return reset
			}
			return nil
		}, func(n int) bool { return n == 1200 }},
		{"each page of a part", func(prefix, _ string) error {
			if strings.HasPrefix(prefix, "c/") {
				return reset
			}
			return nil
		}, func(n int) bool { return n == 2000 }},
		{"the bucket is deleted meanwhile", func(prefix, _ string) error {
			if strings.HasPrefix(prefix, "b/") {
				return &cloudFault{faultNoBucket, errors.New("no such bucket")}
			}
			return nil
		}, func(n int) bool { return n == 1000 }},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &folderBucket{keys: threeFolders(), size: 100, took: 80 * time.Millisecond}
			store := newMemoryStore()
			scan := func() Result {
				t.Helper()
				r, err := NewScanner(s.bucket(""), ScanOptions{MaxDelete: Limit{Count: 10}}).Scan(t.Context(), store, state.Sync{ID: 1}, "")
				if err != nil {
					t.Fatal(tt.name, err)
				}
				return r
			}
			scan()
			s.keys = s.keys[:len(s.keys)-1]
			s.pageOf, s.parts = tt.fails, 0
			if r := scan(); r.IncompleteCount != 1 || !tt.listed(r.Listed) || r.Removed != 0 || len(store.known) != 2500 || s.parts < 2 {
				t.Errorf("%s: %+v, %d known, %d parts", tt.name, r, len(store.known), s.parts)
			}
			s.pageOf = nil
			if r := scan(); r.Removed != 1 || r.IncompleteCount != 0 {
				t.Errorf("%s: %+v", tt.name, r)
			}
		})
	}
}

// A store that has no levels, or wrong ones, is listed page by page.
func TestWrongLevelsAreNotUsed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		level  func(objects []object, folders []string, next string) ([]object, []string, string, error)
		levels int  // requests for levels in two listings
		split  bool // all the same
	}{
		{"they are refused", func([]object, []string, string) ([]object, []string, string, error) {
			return nil, nil, "", errNoLevels
		}, 1, false},
		{"they fail", func([]object, []string, string) ([]object, []string, string, error) {
			return nil, nil, "", errors.New("reset")
		}, 6, false},
		{"the delimiter is ignored", func([]object, []string, string) ([]object, []string, string, error) {
			return []object{objectAt("a/folder-0000/000000.md")}, nil, "1", nil
		}, 1, false},
		{"folders are left out", func(objects []object, _ []string, _ string) ([]object, []string, string, error) {
			return append(objects, objectAt("z.md")), nil, "", nil
		}, 2, false},
		{"the first folder is left out", func(objects []object, folders []string, _ string) ([]object, []string, string, error) {
			return objects, folders[1:], "", nil
		}, 2, false},
		{"they never end", func(objects []object, folders []string, _ string) ([]object, []string, string, error) {
			return objects, folders, "0", nil
		}, 2 * levelPages, false},
		{"they are not in order", func(objects []object, folders []string, _ string) ([]object, []string, string, error) {
			slices.Reverse(folders)
			return objects, folders, "", nil
		}, 2, false},
		{"folders of another place", func(objects []object, folders []string, _ string) ([]object, []string, string, error) {
			for i, f := range folders {
				folders[i] = "x/" + f
			}
			return objects, folders, "", nil
		}, 2, false},
		{"a folder that was deleted meanwhile", func(objects []object, folders []string, next string) ([]object, []string, string, error) {
			if len(folders) == 3 {
				folders = append(folders, "d/")
			}
			return objects, folders, next, nil
		}, 50, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &folderBucket{keys: threeFolders(), size: 100, levelOf: tt.level}
			b := s.bucket("")
			want := plainly(t, b)
			for range 2 {
				s.parts = 0
				if got, errs := listAll(t.Context(), b); !slices.Equal(got, want) || errs != nil {
					t.Errorf("%s: %d entries, want %d, errors %v", tt.name, len(got), len(want), errs)
				}
				if split := s.parts > 1; split != tt.split {
					t.Errorf("%s: %d parts", tt.name, s.parts)
				}
			}
			if s.levels > tt.levels {
				t.Errorf("%s: %d requests for levels", tt.name, s.levels)
			}
		})
	}
}

// A permission may be for the prefix of the root only.
func TestRefusedPartsAreListedWithTheirRoot(t *testing.T) {
	t.Parallel()
	for refused, parts := range map[string]int{"a": 3, "c": 5} {
		for _, unordered := range []bool{false, true} {
			s := &folderBucket{keys: threeFolders(), size: 100}
			b := s.bucket("")
			b.service.unordered = unordered
			want := plainly(t, b)
			s.pageOf = func(prefix, _ string) error {
				if strings.HasPrefix(prefix, refused) {
					return &cloudFault{faultPermanent, errors.New("denied")}
				}
				return nil
			}
			if got, errs := listAll(t.Context(), b); !slices.Equal(got, want) || errs != nil {
				t.Errorf("%s: %d entries, want %d, errors %v", refused, len(got), len(want), errs)
			}
			if s.parts < parts {
				t.Errorf("%s: %d parts", refused, s.parts)
			}
			s.levels = 0
			if got, errs := listAll(t.Context(), b); !slices.Equal(got, want) || errs != nil || s.levels != 0 {
				t.Errorf("%s again: %d entries, errors %v, %d levels", refused, len(got), errs, s.levels)
			}
			s.pageOf = func(string, string) error { return &cloudFault{faultPermanent, errors.New("denied")} }
			if _, errs := listAll(t.Context(), b); len(errs) != 1 {
				t.Error(errs)
			}
		}
	}
}

// A part that is not in byte order, in itself or in its folder, is noticed, and the next listing is sorted.
func TestDisorderedPartsAreSorted(t *testing.T) {
	t.Parallel()
	inOrder := threeFolders()
	for name, swap := range map[string][2]int{"inside a part": {1210, 1211}, "between pages": {1210, 1333}, "between parts": {100, 2400}} {
		keys := slices.Clone(inOrder)
		keys[swap[0]], keys[swap[1]] = keys[swap[1]], keys[swap[0]]
		s := &folderBucket{keys: keys, size: 100, disordered: true}
		store := newMemoryStore()
		r, err := NewScanner(s.bucket(""), ScanOptions{}).Scan(t.Context(), store, state.Sync{ID: 1}, "")
		if err != nil || r.New != 2500 || r.Listed != 2500 || r.IncompleteCount != 0 || len(store.known) != 2500 {
			t.Errorf("%s: %+v, %v, %d known", name, r, err, len(store.known))
		}
	}
}

// A part that never ends is an error of the listing.
func TestPartThatNeverEndsIsAnError(t *testing.T) {
	t.Parallel()
	s := &folderBucket{keys: threeFolders(), size: 100}
	b := s.bucket("")
	b.service.objects = endlessPart{s}
	entries, errs := listAll(t.Context(), b)
	if len(entries) != 1100 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "never ends") {
		t.Errorf("%d entries, errors %v", len(entries), errs)
	}
}

// An endlessPart answers for b/ with the same page again and again.
type endlessPart struct{ *folderBucket }

func (s endlessPart) page(ctx context.Context, prefix, token string) ([]object, string, error) {
	page, next, err := s.folderBucket.page(ctx, prefix, token)
	if token != "" && strings.HasPrefix(prefix, "b/") {
		page, next = nil, token
	}
	return page, next, err
}

// The end of the context, or of the reader, ends all requests.
func TestPartsEndWithTheirReader(t *testing.T) { // not parallel: goleak sees all goroutines
	for _, after := range []int{0, 1, 450, 1500} {
		for _, cancels := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s := &folderBucket{keys: threeFolders(), size: 100, took: 80 * time.Millisecond}
				b := s.bucket("")
				if after == 0 {
					time.AfterFunc(600*time.Millisecond, cancel)
				}
				n, failed := 0, false
				for _, err := range b.List(ctx, "") {
					if failed = err != nil; failed {
						break
					}
					if n++; n == after {
						if !cancels {
							break
						}
						cancel()
					}
				}
				if failed != (cancels || after == 0) {
					t.Errorf("after %d: %d entries, failed: %v", after, n, failed)
				}
				synctest.Wait()
				if s.now != 0 {
					t.Errorf("%d requests are open", s.now)
				}
			})
		}
	}
}

// A level that lacks a folder which the first pages have shown is not used.
func TestLevelThatLacksAFolderIsNotUsed(t *testing.T) {
	t.Parallel()
	s := &folderBucket{keys: foldersOf("", 25, 100), size: 100}
	b := s.bucket("")
	s.levelOf = func(objects []object, folders []string, next string) ([]object, []string, string, error) {
		return objects, slices.Delete(folders, 1, 2), next, nil
	}
	if got, errs := listAll(t.Context(), b); len(got) != len(s.keys) || errs != nil || s.levels != 1 {
		t.Errorf("%d entries, want %d, errors %v, %d levels", len(got), len(s.keys), errs, s.levels)
	}
}
