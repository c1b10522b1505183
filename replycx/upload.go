package replycx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MaxParts is the most parts that one upload takes. The answer names a source for
// each, and answers are read up to 1 MiB.
const MaxParts = 2000

// Part is one form field of an upload: a file, or a text.
type Part struct {
	// Field is the form key, unique in the request: the answer names the sources
	// it created by it. It is 1 to 200 bytes of valid UTF-8 without control
	// characters, quotes and backslashes, and none of the keys that an answer has
	// itself: ok, knowledge_base_id, error, code, message, status.
	Field string
	// Filename is the name the source gets. Without one the part is a text field.
	// Any string will do: what could break a header is percent-encoded as browsers
	// do it, and invalid UTF-8 is replaced.
	Filename string
	// ContentType is the part's media type. Without one, a file gets that of its
	// name's extension or application/octet-stream, and a text field none.
	ContentType string
	// Size is the exact number of bytes that the reader gives.
	Size int64
	// Open returns the content. It is called at most once per upload, when the
	// part's turn comes, and the reader is closed before the next part is opened.
	// The context ends when the upload is given up; a reader that may block for
	// long must obey it, because UploadSources does not return while it reads.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// TextPart returns a part that is a text field.
func TextPart(field, text string) Part {
	return Part{
		Field: field,
		Size:  int64(len(text)),
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(text)), nil
		},
	}
}

// UploadOptions are the options of [Client.UploadSources]. The zero value works.
type UploadOptions struct {
	// Seal, if set, is called once after the content of every part was handed to the
	// connection and before the closing boundary is. Until it has returned nil, the
	// server cannot have the whole request. When it returns an error the request is
	// abandoned and UploadSources returns that error in an *UnsentError. It is not
	// called when an answer is there already, or when the upload was given up. Its
	// context ends when the upload is given up meanwhile.
	Seal func(ctx context.Context) error
}

// Status is a source's training status, in the server's word.
type Status string

// The training states that the API's document names.
const (
	StatusInProgress Status = "in-progress"
	StatusCompleted  Status = "completed"
	StatusFailed     Status = "failed"
)

// Is tells whether both are the same state. Only "in-progress" is ever shown by the
// API's document, so case, underscores and spaces make no difference.
func (s Status) Is(t Status) bool { return s.folded() == t.folded() }

// Known tells whether the word is one of the documented states.
func (s Status) Known() bool {
	return s.Is(StatusInProgress) || s.Is(StatusCompleted) || s.Is(StatusFailed)
}

// Final tells whether training has ended, well or not. A word nobody knows is not
// final.
func (s Status) Final() bool { return s.Is(StatusCompleted) || s.Is(StatusFailed) }

func (s Status) folded() string {
	if s == StatusInProgress || s == StatusCompleted || s == StatusFailed {
		return string(s)
	}
	return strings.NewReplacer("_", "-", " ", "-").Replace(strings.ToLower(strings.TrimSpace(string(s))))
}

// Source is a data source that an upload created.
type Source struct {
	// ID is the source's id, always positive.
	ID int64
	// Type is "text" or "file".
	Type string
	// Name is the name the server gave it.
	Name string
	// Status is the training status, as a rule StatusInProgress.
	Status Status
	// Errors is the server's text about what is wrong with the source, empty when
	// nothing is.
	Errors string
}

// UploadResult is the answer to an upload.
type UploadResult struct {
	// KnowledgeBaseID is the knowledge base as the answer names it, 0 if it does not.
	KnowledgeBaseID int64
	// Sources holds the created sources by field key. A field may have several. Keys
	// that were not sent are kept too.
	Sources map[string][]Source
	// Missing lists, in the order of the parts, the fields that were sent and for
	// which the answer has no source, or one whose id cannot be read (those that can
	// be read are in Sources all the same). What became of them is unknown.
	Missing []string
	// Raw is the answer's body.
	Raw json.RawMessage
}

// UploadSources adds data sources to a knowledge base:
// POST /api/v1/ai/knowledge-base/{knowledge_base_id}/upload/sources.
//
// The parts are streamed as one multipart/form-data body with its exact
// Content-Length, in constant memory; a body above 1 MiB is sent only after the
// server said that it may come (Expect: 100-continue), or said nothing for two
// seconds. Every error is one of three kinds:
//
//   - an [*UnsentError]: the server cannot have the whole request, nothing was
//     created, sending again is safe. It may wrap an *Error, when the server
//     refused before it had everything, or a [*PartError].
//   - an [*Error] that is not unsent: the server had the whole request and refused
//     it. Whether that is the API's word or a gateway's shows in Error.FromAPI.
//   - anything else, such as an [*AnswerError], a broken connection or [ErrStalled]:
//     the whole request went out and the answer was lost. The sources may exist.
//
// When it returns, no part is open and no callback runs any more.
//
// Documented errors: ErrKnowledgeBaseNotFound, ErrTokenInvalid,
// ErrFeatureNotEnabled, ErrAccountNotFound, ErrBadRequest and, as a case of it,
// ErrKnowledgeBaseNotOwned.
func (c *Client) UploadSources(ctx context.Context, knowledgeBase int64, parts []Part, opts *UploadOptions) (*UploadResult, error) {
	const op = "upload sources"
	b, err := newBody(parts)
	if err != nil {
		return nil, &UnsentError{fmt.Errorf("%s: %w", op, err)}
	}
	if opts != nil {
		b.seal = opts.Seal
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.timeouts.Stall, func() { cancel(ErrStalled) })
	defer watchdog.Stop()
	b.ctx, b.stall, b.answer = ctx, c.timeouts.Stall, c.timeouts.Answer
	b.watch = func(d time.Duration) {
		if d > 0 {
			watchdog.Reset(d)
		} else {
			watchdog.Stop()
		}
	}

	req, err := c.uploadRequest(ctx, knowledgeBase, b)
	if err != nil {
		return nil, &UnsentError{fmt.Errorf("%s: %w", op, err)}
	}
	token, err := c.authorize(req)
	if err != nil {
		return nil, &UnsentError{fmt.Errorf("%s: %w", op, err)}
	}
	began := time.Now()
	watchdog.Reset(c.timeouts.Stall) // the limiter may have taken its time
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(err)
		sent, failure := b.over()
		if failure != nil {
			err = failure
		}
		c.logRequest(op, req, 0, began, err)
		err = fmt.Errorf("%s: %w", op, unwrapURL(err))
		if !sent {
			return nil, &UnsentError{err}
		}
		return nil, err
	}

	sent := b.answered()
	if sent {
		watchdog.Reset(c.timeouts.Stall)
	} else {
		// Such an answer may end only after the request does, which now never ends.
		watchdog.Reset(min(c.timeouts.Stall, 5*time.Second))
	}
	a := c.readAnswer(op, resp, token)
	defer a.free()
	if cause := context.Cause(ctx); a.err != nil && cause != nil {
		a.err = cause
	}
	cancel(errAnswered)
	_, _ = b.over()
	c.logRequest(op, req, a.status, began, a.err)
	result, err := a.uploadResult(parts)
	if refused, ok := errors.AsType[*Error](err); ok && !sent {
		return nil, &UnsentError{refused}
	}
	if err == nil && !sent {
		return nil, a.broken("claims success before it had the whole request", nil)
	}
	return result, err
}

// largeUpload is the length from which an upload asks before it sends its body, so
// that a refusal is read and not lost in a reset.
const largeUpload = 1 << 20

func (c *Client) uploadRequest(ctx context.Context, knowledgeBase int64, b *body) (*http.Request, error) {
	if knowledgeBase <= 0 {
		return nil, errors.New("a knowledge base has a positive id")
	}
	req, err := c.NewRequest(ctx, http.MethodPost, "/api/v1/ai/knowledge-base/"+strconv.FormatInt(knowledgeBase, 10)+"/upload/sources", nil)
	if err != nil {
		return nil, err
	}
	req.Body, req.ContentLength = b, b.length
	req.Header.Set("Content-Type", "multipart/form-data; boundary="+b.boundary)
	if b.length > largeUpload {
		req.Header.Set("Expect", "100-continue")
		// Without it, net/http sends the whole body after a final answer all the same.
		req.Close = true
	}
	return req, nil
}

// uploadResult reads the answer to an upload.
func (a *answer) uploadResult(parts []Part) (*UploadResult, error) {
	if err := a.refused(); err != nil {
		return nil, err
	}
	body, err := a.whole()
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, a.broken(fmt.Sprintf("is not the API's: it begins %q", excerpt(string(body))), err)
	}
	if ok, has := okField(fields); has {
		if err := a.refusedWithin(&ok); err != nil {
			return nil, err
		}
	}
	result := &UploadResult{
		Sources: make(map[string][]Source, len(fields)),
		Raw:     append(json.RawMessage(nil), body...),
	}
	_ = json.Unmarshal(fields["knowledge_base_id"], &result.KnowledgeBaseID)
	var firstErr error
	doubtful := make(map[string]bool)
	for field, raw := range fields {
		if answerKeys[strings.ToLower(field)] {
			continue
		}
		sources, err := readSources(raw)
		if len(sources) > 0 {
			result.Sources[field] = sources
		}
		if err != nil {
			doubtful[field] = true
			firstErr = fmt.Errorf("field %q: %w", clean(field, maxExcerpt), err)
		}
	}
	for i := range parts {
		if field := parts[i].Field; doubtful[field] || len(result.Sources[field]) == 0 {
			result.Missing = append(result.Missing, field)
		}
	}
	if len(result.Sources) == 0 {
		return nil, a.broken("names no source", firstErr)
	}
	return result, nil
}

// readSources reads the list of one field. What can be read of it comes back beside
// the error.
func readSources(raw json.RawMessage) ([]Source, error) {
	var list []struct {
		ID     json.RawMessage `json:"id"`
		Type   looseText       `json:"type"`
		Name   looseText       `json:"name"`
		Status looseText       `json:"status"`
		Errors json.RawMessage `json:"errors"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	sources := make([]Source, 0, len(list))
	var firstErr error
	for i := range list {
		id, err := sourceID(list[i].ID)
		if err != nil {
			firstErr = err
			continue
		}
		sources = append(sources, Source{
			ID:     id,
			Type:   string(list[i].Type),
			Name:   string(list[i].Name),
			Status: Status(list[i].Status),
			Errors: errorText(list[i].Errors),
		})
	}
	return sources, firstErr
}
