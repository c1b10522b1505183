package hooks

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kbsync/kbsync/internal/atomicfile"
)

// metricsAge is the age at which the metrics file is written again although nothing changed.
const metricsAge = time.Minute

// Paths are the paths of the status files; an empty path means no such file.
type Paths struct {
	// Touch gets a new modification time after each complete pass.
	Touch string
	// Error lists the problems of syncs as JSON. It exists only while there are any.
	Error string
	// Metrics holds the metrics of the process for a textfile collector.
	Metrics string
}

// Metrics writes the metrics of the process to a file.
type Metrics interface {
	WriteMetrics(path string) error
}

// StatusFilesOptions are the options of StatusFiles.
type StatusFilesOptions struct {
	Paths   Paths
	Metrics Metrics          // writes the metrics file
	Logger  *slog.Logger     // none if nil
	Now     func() time.Time // time.Now if nil
}

// StatusFiles writes the files from which other programs learn how the process works. Failures to write them are logged and keep
// nothing from its work. Its methods may be called from several goroutines.
type StatusFiles struct {
	metrics Metrics
	logger  *slog.Logger
	now     func() time.Time

	mu        sync.Mutex
	paths     Paths
	problems  map[string]fileProblem // by sync
	cleared   bool                   // the error file of an earlier process was replaced or removed
	metricsAt time.Time
	stale     bool // something changed since the metrics were written
}

// A fileProblem is an entry of the error file.
type fileProblem struct {
	Sync     string    `json:"sync"`
	ExitCode int       `json:"exit_code"`
	Error    string    `json:"error"`
	Since    time.Time `json:"since"`
}

// NewStatusFiles returns StatusFiles that have written nothing yet.
func NewStatusFiles(opts StatusFilesOptions) *StatusFiles {
	f := &StatusFiles{
		paths: opts.Paths, metrics: opts.Metrics, logger: cmp.Or(opts.Logger, slog.New(slog.DiscardHandler)), now: opts.Now,
		problems: map[string]fileProblem{},
	}
	if f.now == nil {
		f.now = time.Now
	}
	return f
}

// SetPaths changes the paths, after the config was read again. The error file moves to its new path.
func (f *StatusFiles) SetPaths(paths Paths) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.paths
	f.paths, f.stale = paths, true
	if paths.Error == before.Error {
		return
	}
	if err := removeIfThere(before.Error); err != nil {
		f.logger.Warn("cannot remove the error file", "error", err)
	}
	f.rewriteErrors()
}

func removeIfThere(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SetProblem records the problem of a sync; nil if it has none or is no longer worked on.
func (f *StatusFiles) SetProblem(sync string, problem *Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stale = true
	before, had := f.problems[sync]
	switch {
	case problem == nil && !had && f.cleared:
		return
	case problem == nil:
		delete(f.problems, sync)
	case had && before.Error == problem.Text:
		return
	default:
		f.problems[sync] = fileProblem{sync, problem.ExitCode, problem.Text, f.now().UTC()}
	}
	f.rewriteErrors()
}

// rewriteErrors writes or removes the error file, if there is to be one.
func (f *StatusFiles) rewriteErrors() {
	f.cleared = true
	if f.paths.Error == "" {
		return
	}
	if err := f.writeErrors(); err != nil {
		f.logger.Warn("cannot write the error file", "error", err)
	}
}

func (f *StatusFiles) writeErrors() error {
	if len(f.problems) == 0 {
		return removeIfThere(f.paths.Error)
	}
	all := []fileProblem{}
	for _, p := range f.problems {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b fileProblem) int { return strings.Compare(a.Sync, b.Sync) })
	if err := os.MkdirAll(filepath.Dir(f.paths.Error), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(f.paths.Error, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(map[string]any{"errors": all})
	})
}

// Touch sets the modification time of the touch file to now, because a pass of a sync is complete.
func (f *StatusFiles) Touch() {
	f.mu.Lock()
	path := f.paths.Touch
	f.stale = true
	f.mu.Unlock()
	if path == "" {
		return
	}
	if err := touch(path); err != nil {
		f.logger.Warn("cannot touch the touch file", "error", err)
	}
}

// touch makes a file, or sets its time to now.
func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	now := time.Now()
	return os.Chtimes(path, now, now)
}

// WriteMetrics writes the metrics file if something changed since it was written, or if it is old.
func (f *StatusFiles) WriteMetrics() {
	f.mu.Lock()
	path := f.paths.Metrics
	now := f.now()
	write := path != "" && (f.stale || now.Sub(f.metricsAt) > metricsAge)
	if write {
		f.stale, f.metricsAt = false, now
	}
	f.mu.Unlock()
	if !write {
		return
	}
	if err := f.metrics.WriteMetrics(path); err != nil {
		f.logger.Warn("cannot write the metrics file", "error", err)
	}
}
