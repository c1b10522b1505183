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

// Part is one form field of an upload: a file, or a text.
type Part struct {
	// Field is the form key, unique in the request. The answer lists the created
	// sources by field key. It is 1 to 200 bytes of valid UTF-8 without control
	// characters, quotes and backslashes, and must not be one of the answer's own
	// keys: ok, knowledge_base_id, error, code, message, status.
	Field string
	// Filename is the name of the source. A part without one is a text field. Any
	// string is valid: characters that could break a header are percent-encoded as
	// browsers do it, and invalid UTF-8 is replaced.
	Filename string
	// ContentType is the part's media type. The default for a file is the result of
	// [ContentType]; a text field has no default.
	ContentType string
	// Size is the exact number of bytes of the content.
	Size int64
	// Open returns the content. UploadSources calls it at most once, and closes the
	// reader before it opens the next part. The context ends when the upload is
	// abandoned. A reader that may block for long must obey it, because UploadSources
	// does not return during a Read.
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
	// Seal, if set, is called once, after the content of every part was handed to the
	// connection and before the closing boundary. The server cannot have the whole
	// request until Seal has returned nil. If Seal returns an error, UploadSources
	// abandons the request and returns that error in an *UnsentError. Seal is not
	// called after an answer has arrived or the upload was abandoned. Its context ends
	// if the upload is abandoned while it runs.
	Seal func(ctx context.Context) error
}

// Status is a source's training status as the server spells it.
type Status string

// The training states that the API's document names.
const (
	StatusInProgress Status = "in-progress"
	StatusCompleted  Status = "completed"
	StatusFailed     Status = "failed"
)

// Is reports whether both are the same state. It ignores case and treats underscores
// and spaces as hyphens, because the API's document shows only "in-progress".
func (s Status) Is(t Status) bool { return s.folded() == t.folded() }

// Known reports whether the status is one of the documented states.
func (s Status) Known() bool {
	return s.Is(StatusInProgress) || s.Is(StatusCompleted) || s.Is(StatusFailed)
}

// Final reports whether training is completed or failed. An unknown status is not
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
	// ID is the source's id, always positive and below 2^53.
	ID int64
	// Type is "text" or "file".
	Type string
	// Name is the name that the server gave the source.
	Name string
	// Status is the training status, usually StatusInProgress.
	Status Status
	// Errors is the server's text about a fault of the source, empty if there is none.
	Errors string
}

// UploadResult is the answer to an upload.
type UploadResult struct {
	// KnowledgeBaseID is the knowledge base in the answer, 0 if the answer has none.
	KnowledgeBaseID int64
	// Sources holds the created sources by field key. A field may have several
	// sources. The map also has the keys of the answer that were not in the request.
	Sources map[string][]Source
	// Missing lists, in the order of the parts, the fields without a source in the
	// answer and the fields with an invalid source. Their outcome is unknown. The
	// valid sources of such a field are in Sources.
	Missing []string
	// Raw is the answer's body.
	Raw json.RawMessage
}

// UploadSources adds data sources to a knowledge base:
// POST /api/v1/ai/knowledge-base/{knowledge_base_id}/upload/sources. Section "Adding a
// data source to a knowledge base".
//
// It streams the parts in constant memory as one multipart/form-data body with its
// exact Content-Length. A body above 1 MiB has Expect: 100-continue: the client sends
// it after the server's go-ahead, or after two seconds without an answer. Every error
// is one of three kinds:
//
//   - an [*UnsentError]: the server cannot have the whole request. Nothing was
//     created, and sending again is safe. It may wrap an *Error, if the server
//     refused before it had the whole request, or a [*PartError].
//   - an [*Error] outside an UnsentError: the server had the whole request and
//     refused it. Error.FromAPI distinguishes the API from a gateway.
//   - anything else, such as an [*AnswerError], a broken connection or [ErrStalled]:
//     the whole request was sent and the answer was lost. The sources may exist.
//
// After it returns, no part is open and no callback is running. There may be 1 to
// MaxParts parts.
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
	b.start(ctx, c.timeouts, watchdog)

	req, token, err := c.uploadRequest(ctx, knowledgeBase, b)
	if err != nil {
		return nil, &UnsentError{fmt.Errorf("%s: %w", op, err)}
	}
	began := time.Now()
	watchdog.Reset(c.timeouts.Stall) // the limiter may have waited
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(err)
		return nil, c.uploadFailed(op, req, b, began, err)
	}

	sent := b.answered()
	if sent {
		watchdog.Reset(c.timeouts.Stall)
	} else {
		// The server may end such an answer only after the request, and the request is
		// never completed.
		watchdog.Reset(min(c.timeouts.Stall, 5*time.Second))
	}
	a := c.readAnswer(op, resp, token)
	defer a.free()
	if cause := context.Cause(ctx); a.err != nil && cause != nil {
		a.err = cause
	}
	cancel(errAnswered)
	_, _ = b.end()
	c.logRequest(op, req, a.status, began, a.err)
	result, err := a.uploadResult(parts)
	if refused, ok := errors.AsType[*Error](err); ok && !sent {
		return nil, &UnsentError{refused}
	}
	if err == nil && !sent {
		return nil, a.invalid("claims success before the whole request was sent", nil)
	}
	return result, err
}

// uploadFailed ends the body and returns the error of an upload without an answer.
// The context of the upload must have ended.
func (c *Client) uploadFailed(op string, req *http.Request, b *body, began time.Time, err error) error {
	sent, failure := b.end()
	if failure != nil {
		err = failure
	}
	c.logRequest(op, req, 0, began, err)
	err = fmt.Errorf("%s: %w", op, c.explainNoAnswer(err))
	if !sent {
		return &UnsentError{err}
	}
	return err
}

// largeUpload is the body length above which an upload waits for the server's
// go-ahead. The client can then read a refusal; without the wait, a reset of the
// connection may destroy it.
const largeUpload = 1 << 20

// uploadRequest returns the request of an upload and the token in it.
func (c *Client) uploadRequest(ctx context.Context, knowledgeBase int64, b *body) (req *http.Request, token string, err error) {
	if knowledgeBase <= 0 {
		return nil, "", errors.New("the id of the knowledge base must be positive")
	}
	path := "/api/v1/ai/knowledge-base/" + strconv.FormatInt(knowledgeBase, 10) + "/upload/sources"
	req, err = c.NewRequest(ctx, http.MethodPost, path, nil)
	if err != nil {
		return nil, "", err
	}
	req.Body, req.ContentLength = b, b.length
	req.Header.Set("Content-Type", "multipart/form-data; boundary="+b.boundary)
	if b.length > largeUpload {
		req.Header.Set("Expect", "100-continue")
		// Without Close, net/http sends the whole body even after a final answer.
		req.Close = true
	}
	token, err = c.authorize(req)
	return req, token, err
}

// uploadResult parses the answer to an upload.
func (a *answer) uploadResult(parts []Part) (*UploadResult, error) {
	if err := a.refused(); err != nil {
		return nil, err
	}
	body, err := a.completeBody()
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, a.invalid(fmt.Sprintf("is not from the API: it begins with %q", excerpt(string(body))), err)
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
	var knowledgeBase looseInt
	_ = json.Unmarshal(fields["knowledge_base_id"], &knowledgeBase)
	result.KnowledgeBaseID = int64(knowledgeBase)
	var firstErr error
	invalid := make(map[string]bool)
	for field, raw := range fields {
		if answerKeys[strings.ToLower(field)] {
			continue
		}
		sources, err := readSources(raw)
		if len(sources) > 0 {
			result.Sources[field] = sources
		}
		if err != nil {
			invalid[field] = true
			firstErr = fmt.Errorf("field %q: %w", clean(field, maxExcerpt), err)
		}
	}
	for i := range parts {
		if field := parts[i].Field; invalid[field] || len(result.Sources[field]) == 0 {
			result.Missing = append(result.Missing, field)
		}
	}
	if len(result.Sources) == 0 {
		return nil, a.invalid("names no source", firstErr)
	}
	return result, nil
}

// readSources parses the list of one field. With an error it also returns the valid
// sources.
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
