package watcher

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/state"
)

func survey(t *testing.T, root Surveyor) (*LeftOut, []string) {
	t.Helper()
	left := &LeftOut{}
	var keys []string
	for e, err := range root.Survey(t.Context(), left) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, e.Key)
	}
	return left, keys
}

func describe(l *LeftOut) string {
	var b strings.Builder
	for _, g := range l.Groups {
		fmt.Fprintf(&b, "%s: %d files, %d directories", g.Reason, g.Files, g.Directories)
		for _, ending := range slices.Sorted(maps.Keys(g.Endings)) {
			fmt.Fprintf(&b, " %s=%d", ending, g.Endings[ending])
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d links, %d unmatched\n", l.Links, l.UnmatchedCount)
	for _, r := range l.Unmatched {
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}

func TestLeftOutIsCountedByReasonAndEnding(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.md", "b.HTM", "c.htm", "README", "d.docm", "Drafts/s.md", "old/.DS_Store", "x (conflicted copy 1).md", ".git/config", "node_modules/p/README.md",
		".notes.md", "sub/keep.md", "sub/no.md", "e.a-very-long-ending-of-a-name")
	link(t, "a.md", filepath.Join(dir, "link.md"))
	write(t, filepath.Join(dir, "sub", ignoreName), "no.md\nnever.md\n!neither.md\n")
	write(t, filepath.Join(dir, ignoreName), "\nno-such/\n")
	d := NewDirectory(dir, DirectoryOptions{Filter: filter(t, FilterOptions{
		Rules: rules(t, "\n- nothing.md\n"), Exclude: []string{"drafts", "*.docm", "old/x", ".git/hooks", "typo/**"},
	})})
	left, keys := survey(t, d)
	if want := []string{"a.md", "sub/keep.md"}; !slices.Equal(keys, want) {
		t.Errorf("listed %q, want %q", keys, want)
	}
	want := `not of a default document type: 4 files, 0 directories .htm=2 no ending=1 other=1
kbsync's own files: 2 files, 0 directories .kbsyncignore=2
an exclude: 1 files, 1 directories .docm=1
an ignore file: 1 files, 0 directories .md=1
conflict copies: 1 files, 0 directories .md=1
hidden files: 1 files, 0 directories .md=1
system files: 1 files, 0 directories .ds_store=1
dependencies: 0 files, 1 directories
version control: 0 files, 1 directories
1 links, 6 unmatched
filters.txt:2: the rule nothing.md matched nothing
exclude: the rule old/x matched nothing
exclude: the rule typo/** matched nothing
sub/.kbsyncignore:2: the rule never.md matched nothing
sub/.kbsyncignore:3: the rule !neither.md matched nothing
.kbsyncignore:2: the rule no-such/ matched nothing
`
	if got := describe(left); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A rule counts as matched wherever it matches, also where another one decides.
func TestRulesMatchBesideOthers(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.md", "drafts/b.md", "c.bin", "d.PDF", ".obsidian/x.json")
	write(t, filepath.Join(dir, ignoreName), "drafts/\nDRAFTS\n*.bin\n")
	left, _ := survey(t, NewDirectory(dir, DirectoryOptions{Filter: filter(t, FilterOptions{
		Exclude: []string{"drafts", "drafts/**", "*.bin", "c.*", ".obsidian/**"}, Include: []string{"*.md", "a.*", "*.pdf"},
	})}))
	if left.UnmatchedCount != 0 {
		t.Errorf("%v", left.Unmatched)
	}
	// Nothing is known of rules where nothing is, and of includes that match nothing the remedy is.
	left, _ = survey(t, NewDirectory(t.TempDir(), DirectoryOptions{Filter: filter(t, FilterOptions{Include: []string{"md"}})}))
	if left.UnmatchedCount != 0 {
		t.Errorf("%v", left.Unmatched)
	}
	left, _ = survey(t, NewDirectory(dir, DirectoryOptions{Filter: filter(t, FilterOptions{Include: []string{"md"}})}))
	if len(left.Unmatched) != 1 || !strings.Contains(left.Unmatched[0].Hint, "*.md") || !strings.Contains(left.Unmatched[0].Hint, "md/**") {
		t.Errorf("%v", left.Unmatched)
	}
}

func TestLeftOutIsBounded(t *testing.T) {
	l := &LeftOut{}
	v := verdict{out: true, kind: leftByType}
	for i := range 1000 {
		l.file(fmt.Sprintf("a.e%d", i), &v)
		l.unmatched(UnmatchedRule{Rule: fmt.Sprint(i)})
	}
	if l.Files() != 1000 || len(l.Groups[0].Endings) > keptEndings+1 || len(l.Unmatched) != keptUnmatched || l.UnmatchedCount != 1000 {
		t.Errorf("%d files, %d endings, %d of %d rules", l.Files(), len(l.Groups[0].Endings), len(l.Unmatched), l.UnmatchedCount)
	}
}

// Only a whole scan without errors says that a rule matched nothing.
func TestOnlyWholeScansCountRules(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a.md", "sub/b.md")
	d := NewDirectory(dir, DirectoryOptions{Filter: filter(t, FilterOptions{Exclude: []string{"typo"}})})
	scan := func(prefix string) Result {
		r, err := NewScanner(d, ScanOptions{}).Scan(t.Context(), newMemoryStore(), state.Sync{ID: 1}, prefix)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := scan(""); r.LeftOut == nil || r.LeftOut.UnmatchedCount != 1 {
		t.Errorf("%+v", r.LeftOut)
	}
	if r := scan("sub/"); r.LeftOut != nil {
		t.Errorf("%+v", r.LeftOut)
	}
	d.fault = func(key string) error {
		if key == "sub/" {
			return fmt.Errorf("broken")
		}
		return nil
	}
	if r := scan(""); r.IncompleteCount != 1 || r.LeftOut.UnmatchedCount != 0 {
		t.Errorf("%+v", r.LeftOut)
	}
}

// The objects of folders with names before ".kbsyncignore" are listed before it. Whatever the size of the pages, and the order of the
// listing, none of them is taken before the ignore file is known.
func TestBucketFindsIgnoreFilesAtAnyDepth(t *testing.T) {
	s := &fakeBucket{contents: map[string]string{
		"a/.kbsyncignore": "secret*\n", "a/#/.kbsyncignore": "*.txt\n", "b/c/.kbsyncignore": "*\n",
	}}
	for _, key := range []string{
		"a/#/x.md", "a/#/y.txt", "a/#secret.md", "a/+secret.md", "a/-/secret.md", "a/public.md", "a/secret.md", "b/c/-.md", "b/c/d/e.md", "b/f.md",
		"a/.kbsyncignore", "a/#/.kbsyncignore", "b/c/.kbsyncignore", "c/#1.md", "c/#2.md",
	} {
		s.objects = append(s.objects, object{key: key, fingerprint: state.Fingerprint{Size: int64(len(s.contents[key]) + 1), MTime: 1}})
		if text, ok := s.contents[key]; ok {
			s.objects[len(s.objects)-1].fingerprint.Size = int64(len(text))
		}
	}
	want := []string{"a/#/x.md", "a/#secret.md", "a/+secret.md", "a/public.md", "b/f.md", "c/#1.md", "c/#2.md"}
	sorted := slices.SortedFunc(slices.Values(s.objects), func(a, b object) int { return strings.Compare(a.key, b.key) })
	for _, size := range []int{1, 2, 3, 5, 100} {
		for _, unordered := range []bool{false, true} {
			s.objects = sorted
			if unordered {
				s.objects = slices.Clone(sorted)
				slices.Reverse(s.objects)
			}
			s.pageSize, s.requests = size, nil
			b := s.bucket()
			b.service.unordered = unordered
			if left, keys := survey(t, b); !slices.Equal(keys, want) {
				t.Errorf("pages of %d, unordered %v: %q\n%s", size, unordered, keys, describe(left))
			}
			if pages := len(slices.DeleteFunc(slices.Clone(s.requests), func(r string) bool { return strings.HasPrefix(r, "open") })); size == 100 && !unordered && pages != 1 {
				t.Errorf("%d requests: %q", pages, s.requests)
			}
		}
	}
	// A store that breaks its promise of an order is found out: nothing that an ignore file leaves out stays recorded.
	s.objects = slices.Clone(sorted)
	slices.Reverse(s.objects)
	s.pageSize = 2
	store := newMemoryStore()
	r, err := NewScanner(s.bucket(), ScanOptions{Settle: -1}).Scan(t.Context(), store, state.Sync{ID: 1}, "")
	if got := slices.Sorted(maps.Keys(store.known)); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v: known are %q", r, err, got)
	}
}
