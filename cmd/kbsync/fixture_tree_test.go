package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A treeFixture is a fixture whose tree of documents changes at random. It records every version of every document
// that kbsync may upload.
type treeFixture struct {
	*fixture
	random   *rand.Rand
	outside  string // a directory beside the root
	n        int    // contents made
	versions map[[sha256.Size]byte]string
	deleted  []string
	history  []string              // what was done to the tree, in order
	admits   func(key string) bool // whether the rules of the sync admit a document; nil for all
}

// treeSettle is the settle time for a tree that changes at random.
const treeSettle = 300 * time.Millisecond

func newTreeFixture(tb testing.TB, database string, seed uint64) *treeFixture {
	tb.Helper()
	dir := tb.TempDir()
	f := &treeFixture{
		fixture:  newFixtureOn(tb, database, filepath.Join(dir, "docs")),
		random:   rand.New(rand.NewPCG(seed, 5)),
		outside:  filepath.Join(dir, "outside"),
		versions: map[[sha256.Size]byte]string{},
	}
	for _, d := range []string{filepath.Join(f.root, "kept"), f.outside} {
		f.must(os.MkdirAll(d, 0o700))
	}
	f.write(filepath.Join(f.root, "kept", "keep.md"))
	return f
}

// newContent makes a content that no document had before.
func (f *treeFixture) newContent() []byte {
	f.n++
	return fmt.Appendf(nil, "content %d\n%s", f.n, strings.Repeat(fmt.Sprintf("%d ", f.n), f.random.IntN(3000)))
}

// allow records a content as a version that kbsync may upload.
func (f *treeFixture) allow(data []byte, origin string) { f.versions[sha256.Sum256(data)] = origin }

// write writes a new content to a file.
func (f *treeFixture) write(path string) {
	data := f.newContent()
	f.allow(data, "write "+path)
	f.must(os.WriteFile(path, data, 0o600))
}

// newPath returns the path of a new document in a directory.
func (f *treeFixture) newPath(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("f%d.md", f.n+1))
}

// entries lists the documents and directories below the root, without the root and the kept document.
func (f *treeFixture) entries() (files, dirs []string) {
	f.must(filepath.WalkDir(f.root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == f.root || strings.Contains(path, "/kept"):
		case d.IsDir():
			dirs = append(dirs, path)
		case strings.HasSuffix(path, ".md"):
			files = append(files, path)
		}
		return nil
	}))
	return files, dirs
}

func (f *treeFixture) pick(paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	return paths[f.random.IntN(len(paths))]
}

// change carries out one random operation on the tree.
func (f *treeFixture) change() {
	files, dirs := f.entries()
	file, parent, dir := f.pick(files), f.pick(append(dirs, f.root)), f.pick(dirs)
	switch {
	case len(files) < 10:
		f.note("write a new document in %s", parent)
		f.write(f.newPath(parent))
		return
	case len(files) > 400: // a larger tree would make every operation slow
		if f.random.IntN(2) == 0 {
			f.note("remove %s", file)
			f.remove(file)
		} else {
			f.note("move %s out", dir)
			f.moveOut(dir)
		}
		return
	}
	operations := []struct {
		weight int
		name   string
		run    func()
	}{
		{2, "write a new document", func() { f.write(f.newPath(parent)) }},
		{1, "append", func() { f.appendTo(file) }},
		{2, "save as an editor", func() { f.saveAsEditor(file) }},
		{2, "rewrite in halves", func() { f.rewriteInHalves(file) }},
		{1, "write deep", func() { f.writeDeep(parent) }},
		{1, "move within", func() { f.moveWithin(dir, parent) }},
		{1, "move out", func() { f.moveOut(dir) }},
		{1, "move in", func() { f.moveIn(parent) }},
		{1, "remove", func() { f.remove(file) }},
		{1, "recreate", func() { f.recreate() }},
		{1, "touch", func() { f.touch(file) }},
		{1, "rename beside a swap file", func() { f.renameBesideSwapFile(file) }},
	}
	total := 0
	for _, o := range operations {
		total += o.weight
	}
	chosen := f.random.IntN(total)
	for _, o := range operations {
		if chosen -= o.weight; chosen < 0 {
			f.note("%s: document %s, directory %s, parent %s", o.name, file, dir, parent)
			o.run()
			return
		}
	}
}

// note adds to the history.
func (f *treeFixture) note(format string, args ...any) {
	f.history = append(f.history, strings.ReplaceAll(fmt.Sprintf(format, args...), f.root, ""))
}

func (f *treeFixture) appendTo(file string) {
	before, err := os.ReadFile(file)
	f.must(err)
	more := f.newContent()
	f.allow(append(before, more...), "append "+file)
	w, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	f.must(err)
	_, err = w.Write(more)
	f.must(errors.Join(err, w.Close()))
}

// saveAsEditor writes a temporary file and renames it, as many editors do.
func (f *treeFixture) saveAsEditor(file string) {
	data := f.newContent()
	f.allow(data, "save "+file)
	f.must(os.WriteFile(file+".tmp", data[:len(data)/2], 0o600))
	f.must(os.WriteFile(file+".tmp", data, 0o600))
	f.must(os.Rename(file+".tmp", file))
}

// rewriteInHalves truncates a file and writes it in two halves. The first half alone must not be uploaded.
func (f *treeFixture) rewriteInHalves(file string) {
	data := f.newContent()
	f.allow(data, "rewrite "+file)
	began := time.Now()
	w, err := os.Create(file)
	f.must(err)
	half := len(data) / 2
	_, err = w.Write(data[:half])
	f.must(err)
	_, err = w.Write(data[half:])
	f.must(errors.Join(err, w.Close()))
	if time.Since(began) > treeSettle/2 {
		f.allow(data[:half], "a half that settled because the machine is slow")
	}
}

// writeDeep makes nested directories and writes documents in the last one at once.
func (f *treeFixture) writeDeep(parent string) {
	deep := filepath.Join(parent, fmt.Sprintf("d%d", f.n), "deep", "er")
	f.must(os.MkdirAll(deep, 0o700))
	for range 3 {
		f.write(f.newPath(deep))
	}
}

// moveWithin moves a directory to another place below the root, if that is possible.
func (f *treeFixture) moveWithin(dir, parent string) {
	if dir == "" || parent == dir || strings.HasPrefix(parent, dir+"/") {
		return
	}
	f.n++
	f.must(os.Rename(dir, filepath.Join(parent, fmt.Sprintf("moved%d", f.n))))
}

// moveOut moves a directory out of the root.
func (f *treeFixture) moveOut(dir string) {
	if dir == "" {
		return
	}
	f.n++
	f.must(os.Rename(dir, filepath.Join(f.outside, fmt.Sprintf("out%d", f.n))))
}

// moveIn changes a directory outside of the root and moves it into the root.
func (f *treeFixture) moveIn(parent string) {
	entries, err := os.ReadDir(f.outside)
	f.must(err)
	if len(entries) == 0 {
		return
	}
	dir := filepath.Join(f.outside, entries[f.random.IntN(len(entries))].Name())
	f.write(f.newPath(dir))
	f.must(os.Rename(dir, filepath.Join(parent, filepath.Base(dir)+"-back"+strconv.Itoa(f.n))))
}

func (f *treeFixture) remove(file string) {
	f.must(os.Remove(file))
	f.deleted = append(f.deleted, file)
}

// recreate writes a document that was deleted before, if its directory is still there.
func (f *treeFixture) recreate() {
	path := f.pick(f.deleted)
	if path == "" {
		return
	}
	if info, err := os.Stat(filepath.Dir(path)); err == nil && info.IsDir() {
		f.write(path)
	}
}

// touch changes the mode and the times of a file and leaves its content.
func (f *treeFixture) touch(file string) {
	info, err := os.Stat(file)
	f.must(err)
	f.must(os.Chmod(file, info.Mode()^0o040))
	now := time.Now()
	f.must(os.Chtimes(file, now, now))
}

// renameBesideSwapFile renames a document while an editor's swap file lies beside it.
func (f *treeFixture) renameBesideSwapFile(file string) {
	swap := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".swp")
	f.must(os.WriteFile(swap, []byte("swap"), 0o600))
	f.must(os.Rename(file, f.newPath(filepath.Dir(file))))
	f.n++
	f.must(os.Remove(swap))
}

// documents returns the contents of the documents on the root by key.
func (f *treeFixture) documents() map[string]state.SHA256 {
	documents := map[string]state.SHA256{}
	f.must(filepath.WalkDir(f.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".md") {
			return err
		}
		key, _ := filepath.Rel(f.root, path)
		if key = filepath.ToSlash(key); f.admits != nil && !f.admits(key) {
			return nil
		}
		data, err := os.ReadFile(path)
		if err == nil && len(data) > 0 {
			documents[key] = sha256.Sum256(data)
		}
		return err
	}))
	return documents
}

// waitUntilSynced waits until the state holds exactly the documents on the root, all of them trained. If that takes longer
// than patience, it calls intervene if that is not nil, and waits once more.
func (f *treeFixture) waitUntilSynced(patience time.Duration, intervene func()) {
	f.Helper()
	documents := f.documents()
	store := f.openState()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		wrong := f.differences(store, documents)
		switch {
		case len(wrong) == 0:
			return
		case time.Now().Before(deadline):
		case intervene == nil:
			f.Fatalf("%d of %d documents differ from the root after %v (the sync's last error: %q), such as\n%s",
				len(wrong), len(documents), patience, f.lastError(store), strings.Join(wrong[:min(len(wrong), 10)], "\n"))
		default:
			intervene()
			deadline, intervene = time.Now().Add(patience), nil
		}
	}
}

// lastError returns why the only sync does not go on, empty if it does.
func (f *treeFixture) lastError(store *state.Store) string {
	syncs, err := store.Syncs.All(f.Context())
	if err != nil || len(syncs) != 1 {
		return fmt.Sprintf("%d syncs, %v", len(syncs), err)
	}
	return syncs[0].LastError
}

// differences compares the state with the documents on the root.
func (f *treeFixture) differences(store *state.Store, documents map[string]state.SHA256) (wrong []string) {
	syncs, err := store.Syncs.All(f.Context())
	if err != nil || len(syncs) != 1 {
		return []string{fmt.Sprintf("%d syncs, %v", len(syncs), err)}
	}
	seen := map[string]bool{}
	for d, err := range store.Documents.All(f.Context(), syncs[0].ID) {
		f.must(err)
		if d.State == state.Removed || d.State == state.Skipped {
			continue
		}
		seen[d.Key] = true
		if want, ok := documents[d.Key]; !ok || d.State != state.Completed || d.SHA256 != want {
			wrong = append(wrong, fmt.Sprintf("%s is %s; on the root: %v; same content: %v", d.Key, d.State, ok, d.SHA256 == want))
		}
	}
	for key := range documents {
		if !seen[key] {
			wrong = append(wrong, key+" is not in the state")
		}
	}
	slices.Sort(wrong)
	return wrong
}

// checkUploads checks that the emulator accepted every document on the root, only versions that were complete, and none
// of them more than most times.
func (f *treeFixture) checkUploads(most int) {
	f.Helper()
	possible := f.possibleDuplicates(f.openState())
	if most == 1 && len(possible) > 0 {
		f.Errorf("%d possible duplicates are listed, although no answer was lost", len(possible))
	}
	for _, a := range f.emulator.Accepted() {
		if _, complete := f.versions[a.SHA256]; !complete {
			f.Errorf("%s was uploaded with a content that the document never had: %d bytes", a.Filename, a.Size)
		}
	}
	accepted := f.accepted()
	f.checkDuplicates(accepted, possible, most)
	for sum, n := range accepted {
		if n > 1 {
			f.Logf("content %x (%s) was accepted %d times", sum[:6], f.versions[sum], n)
		}
	}
	documents := f.documents()
	for key, sum := range documents {
		if accepted[sum] == 0 {
			f.Errorf("the content of %s was never accepted", key)
		}
	}
	f.Logf("%d versions made, %d accepted, %d on the root, %d possible duplicates",
		len(f.versions), len(accepted), len(documents), len(possible))
}
