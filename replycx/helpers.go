package replycx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// UploadedFile is the result for one file of [Client.UploadFiles].
type UploadedFile struct {
	// Path is the file's path in the file system.
	Path string
	// Sources are the sources that the API created for it, usually one. After an error,
	// Sources has only the sources that the API's answer named, if any.
	Sources []Source
}

// The largest batch of UploadFiles.
const (
	filesPerUpload = 20
	bytesPerUpload = 32 << 20
)

// UploadFiles uploads the regular files of a file system that match one of the
// patterns, or all of them without a pattern, as the caller reads the results. A batch
// has at most 20 files and, unless it is one file, 32 MiB. A pattern has the syntax of path.Match, and ** stands for any number of
// directories. A pattern with a slash matches the whole path, a pattern without one
// the file's name. A source's name is the file's path with each slash replaced by __.
//
// Every file that matches is yielded once, with its sources or with an error. When an
// upload fails, that is every file of its batch (see [Client.UploadSources] for the
// kinds of errors); the next batches go on. A folder or file that cannot be read is
// yielded with its error too. With an invalid pattern, its error is the only result.
// Calls share no memory: uploading a file twice makes two sources.
func (c *Client) UploadFiles(ctx context.Context, knowledgeBase int64, fsys fs.FS, patterns ...string) iter.Seq2[UploadedFile, error] {
	return func(yield func(UploadedFile, error) bool) {
		for _, p := range patterns {
			if _, err := path.Match(p, ""); err != nil {
				yield(UploadedFile{}, fmt.Errorf("pattern %q: %w", p, err))
				return
			}
		}
		b := fileBatch{client: c, knowledgeBase: knowledgeBase, fsys: fsys}
		stopped := false
		_ = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && (!d.Type().IsRegular() || !matches(patterns, name)) {
				return nil
			}
			var info fs.FileInfo
			if err == nil {
				info, err = d.Info()
			}
			switch {
			case err != nil:
				stopped = !yield(UploadedFile{Path: name}, fmt.Errorf("read %s: %w", name, err))
			case b.full(info.Size()):
				stopped = !b.send(ctx, yield)
			}
			if stopped {
				return fs.SkipAll
			}
			if err == nil {
				b.add(name, info.Size())
			}
			return nil // the error was yielded: the walk goes on
		})
		if !stopped {
			b.send(ctx, yield)
		}
	}
}

// fileBatch holds the files of one upload of UploadFiles.
type fileBatch struct {
	client        *Client
	knowledgeBase int64
	fsys          fs.FS
	paths         []string
	parts         []Part
	size          int64
}

// full reports whether the batch must be sent before a file of that size is added.
func (b *fileBatch) full(size int64) bool {
	return len(b.parts) == filesPerUpload || len(b.parts) > 0 && b.size+size > bytesPerUpload
}

func (b *fileBatch) add(name string, size int64) {
	b.paths, b.size = append(b.paths, name), b.size+size
	b.parts = append(b.parts, Part{
		Field:    fmt.Sprintf("f%d", len(b.parts)+1),
		Filename: strings.ReplaceAll(name, "/", "__"),
		Size:     size,
		Open:     func(context.Context) (io.ReadCloser, error) { return b.fsys.Open(name) },
	})
}

// send uploads the files, yields a result for each and begins a new batch. It
// returns false when the consumer has stopped.
func (b *fileBatch) send(ctx context.Context, yield func(UploadedFile, error) bool) bool {
	if len(b.parts) == 0 {
		return true
	}
	paths, parts := b.paths, b.parts
	b.paths, b.parts, b.size = nil, nil, 0
	result, err := b.client.UploadSources(ctx, b.knowledgeBase, parts, nil)
	for i, name := range paths {
		file, fileErr := UploadedFile{Path: name}, err
		if err == nil {
			file.Sources = result.Sources[parts[i].Field]
			if slices.Contains(result.Missing, parts[i].Field) {
				fileErr = &AnswerError{Op: "upload sources", StatusCode: http.StatusOK, Reason: "has no source for " + clean(name, maxExcerpt)}
			}
		}
		if !yield(file, fileErr) {
			return false
		}
	}
	return true
}

// matches reports whether a path matches one of the patterns, or there are none.
func matches(patterns []string, name string) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, p := range patterns {
		target := strings.Split(name, "/")
		if !strings.Contains(p, "/") {
			target = target[len(target)-1:]
		}
		if matchSegments(strings.Split(p, "/"), target) {
			return true
		}
	}
	return false
}

func matchSegments(pattern, name []string) bool {
	if len(pattern) == 0 {
		return len(name) == 0
	}
	if pattern[0] == "**" {
		return matchSegments(pattern[1:], name) || len(name) > 0 && matchSegments(pattern, name[1:])
	}
	if len(name) == 0 {
		return false
	}
	ok, _ := path.Match(pattern[0], name[0])
	return ok && matchSegments(pattern[1:], name[1:])
}

// WaitOptions are the options of [Client.WaitForSources]. The zero value works.
type WaitOptions struct {
	// Min and Max bound the time between two rounds of requests, which grows from Min
	// to Max: 2 s and 60 s if 0.
	Min, Max time.Duration
	// Progress, if set, is called after each round with all statuses so far, in the
	// order of the ids. It must not retain the slice.
	Progress func(statuses []SourceStatus)
}

// WaitForSources requests the status of sources until all are completed or failed,
// and returns the statuses in the order of the ids. A source that is missing from the
// answers has an empty status, and WaitForSources keeps waiting for it: bound the
// wait with the context. WaitForSources retries failures that may pass: failures of
// the connection, 408, 425, 429, 5xx and malformed answers. It waits as long as
// Retry-After asks, up to ten times opts.Max. Any other failure ends the wait. With
// an error WaitForSources also returns the statuses so far.
func (c *Client) WaitForSources(ctx context.Context, ids []int64, opts WaitOptions) ([]SourceStatus, error) {
	if opts.Min <= 0 {
		opts.Min = 2 * time.Second
	}
	if opts.Max <= 0 {
		opts.Max = time.Minute
	}
	pace := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(opts.Min),
		backoff.WithMaxInterval(max(opts.Min, opts.Max)),
		backoff.WithMultiplier(1.5),
		backoff.WithMaxElapsedTime(0),
	)
	statuses := make([]SourceStatus, len(ids))
	positions := make(map[int64][]int, len(ids))
	for i, id := range ids {
		statuses[i].ID = id
		positions[id] = append(positions[id], i)
	}
	for {
		open, wait, err := c.pollOpen(ctx, statuses, positions)
		if opts.Progress != nil {
			opts.Progress(statuses)
		}
		if err != nil || open == 0 {
			return statuses, err
		}
		timer := time.NewTimer(max(pace.NextBackOff(), min(wait, 10*opts.Max)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return statuses, fmt.Errorf("wait for sources: %d of %d still in training: %w", open, len(ids), context.Cause(ctx))
		}
	}
}

// pollOpen requests the status of all sources that are not final, once. It returns
// how many are still open, and the largest Retry-After of the answers. positions
// holds the indexes in statuses by id.
func (c *Client) pollOpen(
	ctx context.Context, statuses []SourceStatus, positions map[int64][]int,
) (open int, wait time.Duration, err error) {
	var pending []int64
	for id, at := range positions {
		if !statuses[at[0]].Status.Final() {
			pending = append(pending, id)
		}
	}
	slices.Sort(pending)
	for chunk := range slices.Chunk(pending, MaxStatusIDs) {
		got, err := c.SourceStatus(ctx, chunk)
		if err != nil {
			if ctx.Err() != nil || !temporary(err) {
				return len(pending), 0, err
			}
			if refused, ok := errors.AsType[*Error](err); ok {
				wait = max(wait, refused.RetryAfter)
			}
			continue
		}
		for _, s := range got {
			for _, i := range positions[s.ID] {
				statuses[i] = s
			}
		}
	}
	for i := range statuses {
		if !statuses[i].Status.Final() {
			open++
		}
	}
	return open, wait, nil
}

// temporary reports whether a failed status request may succeed later.
func temporary(err error) bool {
	if refused, ok := errors.AsType[*Error](err); ok {
		class := refused.Class()
		return class == ClassBusy || class == ClassUnclear && refused.StatusCode >= 500
	}
	return !errors.Is(err, ErrNoToken)
}
