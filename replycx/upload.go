package replycx

import (
	"context"
	"encoding/json"
	"io"
	"strings"
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
// Content-Length, in constant memory. Every error is one of three kinds:
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
	var seal func(context.Context) error
	if opts != nil {
		seal = opts.Seal
	}
	return c.upload(ctx, knowledgeBase, parts, seal)
}
