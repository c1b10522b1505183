package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbsync/kbsync/state"
)

// number is a setting of a test, which make targets raise.
func number(tb testing.TB, name string, otherwise int) int {
	tb.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestStorm carries out random operations on a tree while a watch follows it, which is killed now and then and begun again.
// After quiet everything on the root is in the knowledge base, no document was sent half-written, and none twice but what is listed
// as a possible duplicate of a kill. STORM_OPS, STORM_SEEDS and STORM_KILLS make it longer; STORM_SEED repeats one.
func TestStorm(t *testing.T) {
	t.Parallel()
	if os.PathSeparator != '/' {
		t.Skip("directories that are watched cannot be moved here")
	}
	first, seeds := number(t, "STORM_SEED", 1), number(t, "STORM_SEEDS", 2)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			storm(t, uint64(seed), number(t, "STORM_OPS", 250), number(t, "STORM_KILLS", 1-seed%2))
		})
	}
}

const stormSettle = 300 * time.Millisecond

// A weather makes a storm.
type weather struct {
	t        testing.TB
	chance   *rand.Rand
	root     string
	outside  string
	n        int // contents made
	versions map[[sha256.Size]byte]string
	deleted  []string
}

func newWeather(tb testing.TB, seed uint64) *weather {
	dir := tb.TempDir()
	w := &weather{t: tb, chance: rand.New(rand.NewPCG(seed, 5)), root: filepath.Join(dir, "docs"), outside: filepath.Join(dir, "outside"), versions: map[[sha256.Size]byte]string{}}
	for _, d := range []string{filepath.Join(w.root, "kept"), w.outside} {
		w.must(os.MkdirAll(d, 0o700))
	}
	w.write("kept/keep.md")
	return w
}

func storm(t *testing.T, seed uint64, operations, kills int) {
	w := newWeather(t, seed)
	k := newKilling(t, w.root)
	var log bytes.Buffer
	start := func() *exec.Cmd {
		cmd := k.command("watch", w.root, "--knowledge-base", "876", "--include", "**/*.md", "--settle", stormSettle.String(), "--rate", "off",
			"--batch-wait", "50ms", "--poll-min", "20ms", "--poll-max", "200ms", "--max-delete", "off", "--min-reupload-interval", "200ms", "--log-level", "debug")
		cmd.Stderr = &log
		w.must(cmd.Start())
		return cmd
	}
	cmd := start()
	defer func() {
		if t.Failed() {
			t.Logf("the watch said:\n%s", lastLines(log.String(), 60))
		}
	}()
	killAt := map[int]bool{}
	for range kills {
		killAt[operations/4+w.chance.IntN(operations/2)] = true
	}
	for i := range operations {
		w.operate()
		if w.chance.IntN(8) == 0 {
			time.Sleep(time.Duration(w.chance.IntN(40)) * time.Millisecond)
		}
		if killAt[i] {
			w.must(cmd.Process.Kill())
			_ = cmd.Wait() // it says that it was killed
			cmd = start()
		}
	}
	k.converge(w, time.Minute, nil)
	w.must(cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil {
		t.Errorf("the watch ended with %v", err)
	}
	most := 1
	if kills > 0 {
		most = 2 // what was sealed when a kill came
	}
	k.weigh(w, most)
}

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (w *weather) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// content makes one that was not there before.
func (w *weather) content() []byte {
	w.n++
	return fmt.Appendf(nil, "content %d\n%s", w.n, strings.Repeat(fmt.Sprintf("%d ", w.n), w.chance.IntN(3000)))
}

// complete notes the content of a file as one that may be sent.
func (w *weather) complete(data []byte, how string) { w.versions[sha256.Sum256(data)] = how }

func (w *weather) write(key string) {
	data := w.content()
	w.complete(data, "write "+key)
	w.must(os.WriteFile(filepath.Join(w.root, filepath.FromSlash(key)), data, 0o600))
}

// look lists what is below a directory, itself left out.
func (w *weather) look(top string) (files, dirs []string) {
	w.must(filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == top || strings.Contains(path, "/kept"):
		case d.IsDir():
			dirs = append(dirs, path)
		case strings.HasSuffix(path, ".md"):
			files = append(files, path)
		}
		return nil
	}))
	return files, dirs
}

func (w *weather) pick(paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	return paths[w.chance.IntN(len(paths))]
}

// operate does one thing.
func (w *weather) operate() {
	files, dirs := w.look(w.root)
	file, dir := w.pick(files), w.pick(append(dirs, w.root))
	fresh := func(parent string) string { return filepath.Join(parent, fmt.Sprintf("f%d.md", w.n+1)) }
	if file == "" || len(files) < 10 {
		file = fresh(dir)
		data := w.content()
		w.complete(data, "create "+file)
		w.must(os.WriteFile(file, data, 0o600))
		return
	}
	what := w.chance.IntN(15)
	if len(files) > 400 {
		what = 9 + 2*w.chance.IntN(2) // out, or deleted: a tree that grows for ever takes for ever to look at
	}
	switch what {
	case 0, 1: // create
		path := fresh(dir)
		data := w.content()
		w.complete(data, "create "+path)
		w.must(os.WriteFile(path, data, 0o600))
	case 2: // append
		before, err := os.ReadFile(file)
		w.must(err)
		more := w.content()
		w.complete(append(before, more...), "append "+file)
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		w.must(err)
		_, err = f.Write(more)
		w.must(errors.Join(err, f.Close()))
	case 3, 4: // saved as by an editor: a temporary file, and a rename
		data := w.content()
		w.complete(data, "save "+file)
		w.must(os.WriteFile(file+".tmp", data[:len(data)/2], 0o600))
		w.must(os.WriteFile(file+".tmp", data, 0o600))
		w.must(os.Rename(file+".tmp", file))
	case 5, 6: // truncated and rewritten in two halves
		data := w.content()
		w.complete(data, "rewrite "+file)
		began := time.Now()
		f, err := os.Create(file)
		w.must(err)
		half := len(data) / 2
		_, err = f.Write(data[:half])
		w.must(err)
		_, err = f.Write(data[half:])
		w.must(errors.Join(err, f.Close()))
		if time.Since(began) > stormSettle/2 {
			w.complete(data[:half], "a half that stood still for a while, for the machine is slow")
		}
	case 7: // new directories, and files at once
		deep := filepath.Join(dir, fmt.Sprintf("d%d", w.n), "deep", "er")
		w.must(os.MkdirAll(deep, 0o700))
		for range 3 {
			path := fresh(deep)
			data := w.content()
			w.complete(data, "deep "+path)
			w.must(os.WriteFile(path, data, 0o600))
		}
	case 8: // a directory moved within
		if from := w.pick(dirs); from != "" && dir != from && !strings.HasPrefix(dir, from+"/") {
			w.n++
			w.must(os.Rename(from, filepath.Join(dir, fmt.Sprintf("moved%d", w.n))))
		}
	case 9: // out
		if from := w.pick(dirs); from != "" {
			w.n++
			w.must(os.Rename(from, filepath.Join(w.outside, fmt.Sprintf("out%d", w.n))))
		}
	case 10: // in, with what was changed outside
		entries, err := os.ReadDir(w.outside)
		w.must(err)
		if len(entries) > 0 {
			from := filepath.Join(w.outside, entries[w.chance.IntN(len(entries))].Name())
			path := fresh(from)
			data := w.content()
			w.complete(data, "outside "+path)
			w.must(os.WriteFile(path, data, 0o600))
			w.must(os.Rename(from, filepath.Join(dir, filepath.Base(from)+"-back"+strconv.Itoa(w.n))))
		}
	case 11: // deleted
		w.must(os.Remove(file))
		w.deleted = append(w.deleted, file)
	case 12: // and made again
		if path := w.pick(w.deleted); path != "" {
			if info, err := os.Stat(filepath.Dir(path)); err == nil && info.IsDir() {
				data := w.content()
				w.complete(data, "recreate "+path)
				w.must(os.WriteFile(path, data, 0o600))
			}
		}
	case 13: // nothing that counts
		info, err := os.Stat(file)
		w.must(err)
		w.must(os.Chmod(file, info.Mode()^0o040))
		now := time.Now()
		w.must(os.Chtimes(file, now, now))
	case 14: // an editor's swap file, and a file renamed
		swap := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".swp")
		w.must(os.WriteFile(swap, []byte("swap"), 0o600))
		w.must(os.Rename(file, fresh(filepath.Dir(file))))
		w.n++
		w.must(os.Remove(swap))
	}
}

// tree reads what is on the root.
func (w *weather) tree() map[string]state.SHA256 {
	tree := map[string]state.SHA256{}
	w.must(filepath.WalkDir(w.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".md") {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil && len(data) > 0 {
			key, _ := filepath.Rel(w.root, path)
			tree[filepath.ToSlash(key)] = sha256.Sum256(data)
		}
		return err
	}))
	return tree
}

// converge waits until the state knows exactly what is on the root, all of it trained. After patience it calls help, if there is
// any, and waits once more.
func (k *killing) converge(w *weather, patience time.Duration, help func()) {
	k.Helper()
	tree := w.tree()
	store, err := state.Open(k.Context(), state.Options{Path: filepath.Join(k.dir, "kbsync.db"), ReadOnly: true})
	if err != nil {
		k.Fatal(err)
	}
	defer store.Close()
	var wrong []string
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		wrong = k.differences(store, tree)
		switch {
		case len(wrong) == 0:
			return
		case time.Now().Before(deadline):
		case help == nil:
			k.Fatalf("%d of %d documents are not as on the root after %v, such as\n%s", len(wrong), len(tree), patience, strings.Join(wrong[:min(len(wrong), 10)], "\n"))
		default:
			help()
			deadline, help = time.Now().Add(patience), nil
		}
	}
}

func (k *killing) differences(store *state.Store, tree map[string]state.SHA256) (wrong []string) {
	syncs, err := store.Syncs.All(k.Context())
	if err != nil || len(syncs) != 1 {
		return []string{fmt.Sprintf("%d syncs, %v", len(syncs), err)}
	}
	seen := map[string]bool{}
	for d, err := range store.Documents.All(k.Context(), syncs[0].ID) {
		if err != nil {
			k.Fatal(err)
		}
		if d.State == state.Removed || d.State == state.Skipped {
			continue
		}
		seen[d.Key] = true
		if want, ok := tree[d.Key]; !ok || d.State != state.Completed || d.SHA256 != want {
			wrong = append(wrong, fmt.Sprintf("%s is %s; on the root: %v, as it is there: %v", d.Key, d.State, ok, d.SHA256 == want))
		}
	}
	for key := range tree {
		if !seen[key] {
			wrong = append(wrong, key+" is not known")
		}
	}
	slices.Sort(wrong)
	return wrong
}

// weigh checks what the server has accepted, and how often: most times at most, and no more than once what is not listed.
func (k *killing) weigh(w *weather, most int) {
	k.Helper()
	store, err := state.Open(k.Context(), state.Options{Path: filepath.Join(k.dir, "kbsync.db"), ReadOnly: true})
	if err != nil {
		k.Fatal(err)
	}
	defer store.Close()
	possible := map[[sha256.Size]byte]bool{}
	for p, err := range store.Inventory.PossibleDuplicates(k.Context(), 0) {
		if err != nil {
			k.Fatal(err)
		}
		possible[p.SHA256] = true
	}
	if most == 1 && len(possible) > 0 {
		k.Errorf("%d possible duplicates of nothing", len(possible))
	}
	accepted := map[[sha256.Size]byte]int{}
	for _, a := range k.emulator.Accepted() {
		accepted[a.SHA256]++
		if _, whole := w.versions[a.SHA256]; !whole {
			k.Errorf("%s was sent as it never was: %d bytes", a.Filename, a.Size)
		}
	}
	for sum, n := range accepted {
		if n > 1 && (n > most || !possible[sum]) {
			k.Errorf("%s was accepted %d times", w.versions[sum], n)
		}
	}
	tree := w.tree()
	for key, sum := range tree {
		if accepted[sum] == 0 {
			k.Errorf("%s was never accepted as it is", key)
		}
	}
	k.Logf("%d versions made, %d accepted, %d on the root, %d possible duplicates", len(w.versions), len(accepted), len(tree), len(possible))
}
