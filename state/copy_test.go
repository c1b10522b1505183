package state

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestBackupIsAConsistentCopy(t *testing.T) {
	r := newFixture(t)
	r.put("a.md", "b.md")
	ids := r.upload(map[string]string{"a.md": "A", "b.md": "B"})
	path := filepath.Join(t.TempDir(), "copy.db")
	r.must(r.s.Backup(r.ctx(), path))
	r.must(r.s.Backup(r.ctx(), path)) // replaces it
	info, err := os.Stat(path)
	r.must(err)
	if mode := info.Mode().Perm(); mode != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("the copy has the mode %o", mode)
	}
	r.vanish("a.md")
	from := &fixture{t: t, sync: r.sync}
	from.s = from.open(Options{Path: path})
	from.want("a.md=completed b.md=completed")
	from.wantStanding(ids[0], Live)
	r.wantStanding(ids[0], Orphaned)
	if err := r.s.Backup(r.ctx(), r.opts.Path); err == nil || !strings.Contains(err.Error(), "the state itself") {
		t.Errorf("got %v", err)
	}
	// A process that only reads makes a copy, too.
	reader := r.open(Options{Path: r.opts.Path, ReadOnly: true})
	r.must(reader.Backup(r.ctx(), path))
	if rest, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(rest) > 0 {
		t.Errorf("left %v, %v", rest, err)
	}
	if err := r.s.Backup(r.ctx(), filepath.Join(path, "below a file")); err == nil {
		t.Error("wrote a copy into a file")
	}
}

func TestNoCopyOfWhatIsNoFile(t *testing.T) {
	absent := (&fixture{t: t}).open(Options{Path: filepath.Join(t.TempDir(), "absent.db"), ReadOnly: true})
	r := fixtureIn(t, inPostgres)
	for _, s := range []*Store{absent, r.s} {
		if err := s.Backup(t.Context(), filepath.Join(t.TempDir(), "copy.db")); !errors.Is(err, ErrNoCopy) {
			t.Errorf("got %v", err)
		}
		if path, err := s.BackupBeside(t.Context(), 0); err != nil || path != "" {
			t.Errorf("got %q, %v", path, err)
		}
	}
}

func TestLastThreeBackupsStay(t *testing.T) {
	r := newFixture(t)
	beside := func(age time.Duration) string {
		t.Helper()
		path, err := r.s.BackupBeside(r.ctx(), age)
		r.must(err)
		return path
	}
	old := []string{"20240101T000000Z", "20240102T000000Z", "20240103T000000Z", "notes.txt"}
	for _, name := range old {
		r.must(os.WriteFile(r.opts.Path+backupMark+name, nil, 0o600))
	}
	made := beside(24 * time.Hour)
	if made == "" {
		t.Fatal("no copy, although the last one is old")
	}
	if again := beside(24 * time.Hour); again != "" {
		t.Errorf("made %s, although the last copy is new", again)
	}
	left, err := filepath.Glob(r.opts.Path + backupMark + "*")
	r.must(err)
	want := []string{r.opts.Path + backupMark + old[1], r.opts.Path + backupMark + old[2], made, r.opts.Path + backupMark + old[3]}
	if strings.Join(left, " ") != strings.Join(want, " ") {
		t.Errorf("left %v, want %v", left, want)
	}
}

func TestMigrationBeginsWithABackup(t *testing.T) {
	r := newFixture(t)
	s := r.sqlite()
	migrated := false
	migrate := func(context.Context) error {
		migrated = true
		if made, err := s.backups(); err != nil || len(made) != 1 {
			t.Errorf("migrates with the copies %v, %v", made, err)
		}
		return nil
	}
	other, err := openSQLite(t.Context(), r.opts)
	r.must(err)
	old := other.(*sqliteDB)
	defer func() { r.must(old.close()) }()
	old.schema.newest++
	// The connection for writing is in use; a process that migrates has not given it to the writer yet.
	old.write.SetMaxOpenConns(2)
	r.must(old.migrateCopied(t.Context(), migrate))
	if !migrated {
		t.Error("did not migrate")
	}
}
