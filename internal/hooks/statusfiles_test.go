package hooks

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// metricsWriter counts the writes of a metrics file.
type metricsWriter struct{ writes int }

func (w *metricsWriter) WriteMetrics(string) error {
	w.writes++
	return nil
}

func TestErrorFileListsProblemsAndGoesWithTheLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "errors.json")
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	f := NewStatusFiles(StatusFilesOptions{Paths: Paths{Error: path}, Now: func() time.Time { return now }})
	f.SetProblem("b", &Problem{Text: "root missing", ExitCode: 3})
	f.SetProblem("a", &Problem{Text: "a guard", ExitCode: 11})
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"errors":[{"sync":"a","exit_code":11,"error":"a guard","since":"2030-01-02T03:04:05Z"},` +
		`{"sync":"b","exit_code":3,"error":"root missing","since":"2030-01-02T03:04:05Z"}]}`
	if got := string(data); got != want+"\n" || !json.Valid(data) {
		t.Errorf("the file holds %s", got)
	}
	f.SetProblem("a", nil)
	f.SetProblem("b", nil)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the last problem: %v", err)
	}
}

func TestErrorFileMovesWithItsPath(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "first.json"), filepath.Join(t.TempDir(), "second.json")
	f := NewStatusFiles(StatusFilesOptions{Paths: Paths{Error: first}})
	f.SetProblem("a", &Problem{Text: "a guard", ExitCode: 11})
	f.SetPaths(Paths{Error: second})
	if _, err := os.Stat(first); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file at the first path: %v", err)
	}
	if _, err := os.Stat(second); err != nil {
		t.Errorf("the file at the second path: %v", err)
	}
}

func TestErrorFileOfAnEarlierProcessIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "errors.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	NewStatusFiles(StatusFilesOptions{Paths: Paths{Error: path}}).SetProblem("a", nil)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestTouchFileIsMadeAndGetsTheTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "touched")
	f := NewStatusFiles(StatusFilesOptions{Paths: Paths{Touch: path}})
	f.Touch()
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	f.Touch()
	info, err := os.Stat(path)
	if err != nil || time.Since(info.ModTime()) > time.Minute {
		t.Errorf("touched at %v, %v", info.ModTime(), err)
	}
}

func TestMetricsFileIsWrittenAfterChangesAndWithAge(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	w := &metricsWriter{}
	f := NewStatusFiles(StatusFilesOptions{Paths: Paths{Metrics: "metrics.prom"}, Metrics: w, Now: func() time.Time { return now }})
	for i, step := range []struct {
		change bool
		later  time.Duration
		want   int
	}{{true, 0, 1}, {false, time.Second, 1}, {true, time.Second, 2}, {false, metricsAge, 2}, {false, time.Second, 3}} {
		now = now.Add(step.later)
		if step.change {
			f.Touch()
		}
		if f.WriteMetrics(); w.writes != step.want {
			t.Errorf("step %d: %d writes, want %d", i, w.writes, step.want)
		}
	}
}
