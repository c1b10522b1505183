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

// UploadedFile is what became of one file of [Client.UploadFiles].
type UploadedFile struct {
	// Path is the file's path in the file system.
	Path string
	// Sources are what the API made of it.
	Sources []Source
}

// The size of the batches of UploadFiles.
const (
	filesPerUpload = 20
	bytesPerUpload = 32 << 20
)

// UploadFiles uploads the regular files of a file system that match one of the
// patterns, all of them without a pattern, in batches as the results are read. A
// pattern is that of path.Match, for the whole path if it has a slash and for the
// file's name otherwise; ** stands for any number of directories. A source's name is
// the file's path with __ for the slashes.
//
// A file whose upload failed comes with the error, see [Client.UploadSources] for
// its kinds, as do the others of its batch; the next batches go on. Nothing is
// remembered between calls: uploading twice makes two sources.
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
			return nil // an error was yielded, the walk goes on
		})
		if !stopped {
			b.send(ctx, yield)
		}
	}
}

// fileBatch is the files of one upload of UploadFiles.
type fileBatch struct {
	client        *Client
	knowledgeBase int64
	fsys          fs.FS
	paths         []string
	parts         []Part
	size          int64
}

// full tells whether the files go out before one of that size is added.
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

// send uploads the files and yields what became of each, and begins a new batch. It
// returns false when the consumer has had enough.
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
				fileErr = &AnswerError{Op: "upload sources", StatusCode: http.StatusOK, Reason: "does not say what became of " + clean(name, maxExcerpt)}
			}
		}
		if !yield(file, fileErr) {
			return false
		}
	}
	return true
}

// matches tells whether a path matches one of the patterns, or there are none.
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
	// Min and Max bound the time between two requests, which grows from the one to the
	// other: 2 s and 60 s if 0.
	Min, Max time.Duration
	// Progress, if set, is called after each round with all statuses so far, in the
	// order of the ids. It must not keep the slice.
	Progress func(statuses []SourceStatus)
}

// idsPerRequest is how many ids go into one URL.
const idsPerRequest = 100

// WaitForSources asks for the status of sources until training has ended for all of
// them, well or not, and returns the statuses in the order of the ids. A source that
// the API does not name has an empty status and is waited for; bound the wait with
// the context. Failures that may pass (of the connection, 408, 429, 5xx, answers that
// make no sense) are tried again after a while, Retry-After included; others end it.
// With an error the statuses so far are returned too.
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
	place := make(map[int64][]int, len(ids))
	for i, id := range ids {
		statuses[i].ID = id
		place[id] = append(place[id], i)
	}
	for {
		open, wait, err := c.pollOpen(ctx, statuses, place)
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

// pollOpen asks once for all sources that are not final. It returns how many are
// left, and how long the server wants to be left alone.
func (c *Client) pollOpen(ctx context.Context, statuses []SourceStatus, place map[int64][]int) (open int, wait time.Duration, err error) {
	var ask []int64
	for id, at := range place {
		if !statuses[at[0]].Status.Final() {
			ask = append(ask, id)
		}
	}
	slices.Sort(ask)
	for chunk := range slices.Chunk(ask, idsPerRequest) {
		got, err := c.SourceStatus(ctx, chunk)
		if err != nil {
			if ctx.Err() != nil || !passing(err) {
				return len(ask), 0, err
			}
			if refused, ok := errors.AsType[*Error](err); ok {
				wait = max(wait, refused.RetryAfter)
			}
			continue
		}
		for _, s := range got {
			for _, i := range place[s.ID] {
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

// passing tells whether a failed status request may work later.
func passing(err error) bool {
	if refused, ok := errors.AsType[*Error](err); ok {
		return refused.StatusCode == http.StatusRequestTimeout || refused.StatusCode == http.StatusTooManyRequests || refused.StatusCode >= 500
	}
	return !errors.Is(err, ErrNoToken)
}
