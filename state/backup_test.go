package state

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// populated returns a fixture with a row of every kind.
func populated(r *fixture) *fixture {
	r.t.Helper()
	r.put("a.md", "b.md", "c\xff.md", "ü \n.md")
	docs, _ := r.resolve(map[string]string{"a.md": "A", "b.md": "B", "c\xff.md": "C", "ü \n.md": "D"}, Sharing{})
	r.trained(TrainingCompleted, r.accept(r.seal(docs[:2]), 2)...)
	if _, err := r.s.Journal.MarkUncertain(r.ctx(), r.seal(docs[2:3]), 500, "gone"); err != nil {
		r.t.Fatal(err)
	}
	r.put("a.md")
	r.vanish("b.md")
	_, err := r.s.Journal.Recover(r.ctx(), r.sync.ID) // an import ends claims
	r.must(err)
	return r
}

func export(t *testing.T, s *Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Export(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestImportRestoresAnExportAndRefusesABrokenOne(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := populated(newFixture(t))
		text := export(t, r.s)
		to := r.open(r.make(t))

		lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
		for name, broken := range map[string]string{
			"cut":           strings.Join(lines[:len(lines)-1], ""),
			"cut in a line": text[:len(text)/2],
			"a row lost":    strings.Join(append(append([]string{}, lines[:len(lines)-2]...), lines[len(lines)-1]), ""),
			"foreign":       "{}\n",
			"empty":         "",
			"unknown table": strings.Replace(text, `"table":"past_contents"`, `"table":"sqlite_master"`, 1),
		} {
			if err := to.Import(t.Context(), strings.NewReader(broken)); err == nil {
				t.Errorf("%s: imported", name)
			} else if name != "empty" && !strings.Contains(err.Error(), "line ") {
				t.Errorf("%s: the error names no line: %v", name, err)
			}
		}
		if err := to.Import(t.Context(), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if again := export(t, to); again != text {
			t.Errorf("the imported state differs:\n%s\nwas\n%s", again, text)
		}
		if err := to.Import(t.Context(), strings.NewReader(text)); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("a second import: %v", err)
		}
		if findings, err := to.Check(t.Context()); err != nil || len(findings) > 0 {
			t.Errorf("findings %v, %v", findings, err)
		}
	})
}

func FuzzImport(f *testing.F) {
	var b bytes.Buffer
	if err := populated(newFixture(f)).s.Export(f.Context(), &b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.String())
	f.Add(`{"kbsync_state":2}` + "\n" + `{"rows":0}` + "\n")
	f.Add(`{"kbsync_state":2}` + "\n" + `{"table":"syncs","row":{"id":{"base64":"!"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "absent.db"), ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if s.Import(t.Context(), strings.NewReader(text)) != nil {
			if syncs, err := s.Syncs.All(t.Context()); err != nil || len(syncs) > 0 {
				t.Fatalf("a failed import left %v, %v", syncs, err)
			}
		}
	})
}

func TestOpenCreatesPrivateFilesAndReadsWithoutWriting(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub?dir#%41", "kb sync.db")
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Syncs.Ensure(t.Context(), "a", "/a", testDestination, false); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		if st, err := os.Stat(p); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", p, st.Mode(), err)
		}
	}
	ro, err := Open(t.Context(), Options{Path: path, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if syncs, err := ro.Syncs.All(t.Context()); err != nil || len(syncs) != 1 {
		t.Errorf("read-only: %v, %v", syncs, err)
	}
	if _, err := ro.Syncs.Ensure(t.Context(), "b", "/b", testDestination, false); err == nil {
		t.Error("a read-only state was written to")
	}
	if err := errors.Join(ro.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}

	absent := filepath.Join(dir, "absent", "x.db")
	ro, err = Open(t.Context(), Options{Path: absent, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if syncs, err := ro.Syncs.All(t.Context()); err != nil || len(syncs) != 0 {
		t.Errorf("absent: %v, %v", syncs, err)
	}
	if err := ro.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(absent)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading left %v", err)
	}
}

func TestOpenRefusesDamagedNewerAndForeignFiles(t *testing.T) {
	fresh := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "kbsync.db")
		s, err := Open(t.Context(), Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Syncs.Ensure(t.Context(), "a", "/a", testDestination, false); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	refuse := func(path string, want error) {
		t.Helper()
		s, err := Open(t.Context(), Options{Path: path})
		if err == nil {
			err = s.Close()
			t.Fatalf("opened (%v)", err)
		}
		if want != nil && !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
	}

	garbage := filepath.Join(t.TempDir(), "kbsync.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	refuse(garbage, ErrCorrupt)

	newer := fresh(t)
	s, err := Open(t.Context(), Options{Path: newer})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.update(t.Context(), func(t *tx) error {
		_, err := t.exec(`INSERT INTO schema_version (version_id, is_applied) VALUES (999, 1)`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refuse(newer, ErrNewerSchema)

	foreign := fresh(t)
	s, err = Open(t.Context(), Options{Path: foreign})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.update(t.Context(), func(t *tx) error { return t.command(`ALTER TABLE schema_version RENAME TO something`) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refuse(foreign, nil)
	refuse(t.TempDir(), nil)
	refuse("", nil)
}
