package replycx

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// The states of a request body. Read returns the closing boundary only in
// bodySealed, which follows bodyOpen and bodySealing. Every step is a
// compare-and-swap: an answer or an abandonment that comes first wins.
const (
	bodyOpen      int32 = iota
	bodySealing         // the seal hook is running
	bodySealed          // the closing boundary may be sent
	bodyAnswered        // an answer came first: nothing more is sent
	bodyAbandoned       // no more is read
)

// errAnswered ends a body whose answer arrived before the body was sent.
var errAnswered = errors.New("the server answered before it had the whole request")

// body streams the parts as multipart/form-data. The transport reads it in its own
// goroutine, which may outlast the transport's return; end waits for it.
type body struct {
	parts    []Part
	boundary string
	heads    []byte // all part headers, one after the other
	ends     []int  // ends[i] is the end of the header of part i in heads
	tail     string // the closing boundary
	length   int64

	ctx      context.Context // ends when the upload is abandoned; for Open and seal
	seal     func(context.Context) error
	timeouts Timeouts
	watchdog *time.Timer // aborts the upload

	state atomic.Int32
	done  chan struct{} // closed by end
	once  sync.Once

	mu     sync.Mutex // held by Read
	part   int        // the part being sent; len(parts) is the tail
	head   []byte     // the rest of its header
	reader io.ReadCloser
	left   int64 // unread bytes of its content
	err    error // sticky, for the transport
	// failure is the error of a part or of the seal.
	failure error
}

// newBody prepares the part headers and computes the length. It opens no part.
func newBody(parts []Part) (*body, error) {
	if len(parts) == 0 {
		return nil, errors.New("an upload needs at least one part")
	}
	if len(parts) > MaxParts {
		return nil, fmt.Errorf("%d parts in one upload: the maximum is %d", len(parts), MaxParts)
	}
	b := &body{
		parts:    parts,
		boundary: "kbsync" + rand.Text(),
		ends:     make([]int, len(parts)),
		done:     make(chan struct{}),
	}
	b.heads = make([]byte, 0, len(parts)*160)
	seen := make(map[string]struct{}, len(parts))
	for i, p := range parts {
		if err := checkField(p.Field); err != nil {
			return nil, &PartError{Index: i, Field: p.Field, Err: err}
		}
		if _, twice := seen[p.Field]; twice {
			return nil, &PartError{Index: i, Field: p.Field, Err: errors.New("the field key is used twice")}
		}
		seen[p.Field] = struct{}{}
		if p.Size < 0 || p.Open == nil {
			return nil, &PartError{Index: i, Field: p.Field, Err: errors.New("a part needs a size and an Open function")}
		}
		if i > 0 {
			b.heads = append(b.heads, "\r\n"...)
		}
		b.heads = appendPartHeader(b.heads, b.boundary, p)
		b.ends[i] = len(b.heads)
		if b.length += p.Size; b.length < 0 {
			return nil, errTooLarge
		}
	}
	b.tail = "\r\n--" + b.boundary + "--\r\n"
	b.length += int64(len(b.heads) + len(b.tail))
	if b.length < 0 {
		return nil, errTooLarge
	}
	b.head = b.heads[:b.ends[0]]
	return b, nil
}

// errTooLarge means that the length of a body overflows.
var errTooLarge = errors.New("the parts are too large for one request")

// start sets the context of the upload and the timer that aborts it.
func (b *body) start(ctx context.Context, timeouts Timeouts, watchdog *time.Timer) {
	b.ctx, b.timeouts, b.watchdog = ctx, timeouts, watchdog
}

// answerKeys are the keys of an answer that are not fields.
var answerKeys = map[string]bool{"ok": true, "knowledge_base_id": true, "error": true, "code": true, "message": true, "status": true}

// checkField refuses a key that the answer could not repeat unchanged.
func checkField(field string) error {
	switch {
	case field == "" || len(field) > 200:
		return errors.New("the field key must have 1 to 200 bytes")
	case answerKeys[strings.ToLower(field)]:
		return errors.New("the field key is reserved: the answer has a member of that name")
	case !utf8.ValidString(field):
		return errors.New("the field key is not valid UTF-8")
	}
	for _, r := range field {
		if r < ' ' || r == 0x7f || r == '"' || r == '\\' {
			return fmt.Errorf("the field key contains %q", r)
		}
	}
	return nil
}

// appendPartHeader appends the boundary line and the header of a part.
func appendPartHeader(b []byte, boundary string, p Part) []byte {
	b = append(b, "--"...)
	b = append(b, boundary...)
	b = append(b, "\r\nContent-Disposition: form-data; name=\""...)
	b = appendQuoted(b, p.Field)
	b = append(b, '"')
	contentType := p.ContentType
	if p.Filename != "" {
		b = append(b, "; filename=\""...)
		b = appendQuoted(b, p.Filename)
		b = append(b, '"')
		if contentType == "" {
			contentType = ContentType(p.Filename)
		}
	}
	if contentType != "" {
		if !headerSafe(contentType) {
			contentType = "application/octet-stream"
		}
		b = append(b, "\r\nContent-Type: "...)
		b = append(b, contentType...)
	}
	return append(b, "\r\n\r\n"...)
}

// appendQuoted appends the content of a quoted string. It percent-encodes quotes, CR
// and LF as browsers do it, and also the other control characters and the backslash,
// because parsers disagree about them.
func appendQuoted(b []byte, value string) []byte {
	const hex = "0123456789ABCDEF"
	for _, r := range value { // an invalid byte is U+FFFD here
		if r < ' ' || r == 0x7f || r == '"' || r == '\\' {
			b = append(b, '%', hex[r>>4], hex[r&15])
			continue
		}
		b = utf8.AppendRune(b, r)
	}
	return b
}

func headerSafe(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] >= 0x7f {
			return false
		}
	}
	return true
}

// ContentType returns the media type of a file by the extension of its name, for the
// document formats of a knowledge base, and application/octet-stream for all others.
// The result is the same on every machine.
func ContentType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".txt", ".text", ".log":
		return "text/plain; charset=utf-8"
	case ".md", ".markdown":
		return "text/markdown; charset=utf-8"
	case ".rst":
		return "text/x-rst; charset=utf-8"
	case ".html", ".htm":
		return "text/html; charset=utf-8"
	case ".csv":
		return "text/csv; charset=utf-8"
	case ".tsv":
		return "text/tab-separated-values; charset=utf-8"
	case ".json":
		return "application/json"
	case ".xml":
		return "application/xml"
	case ".pdf":
		return "application/pdf"
	case ".rtf":
		return "application/rtf"
	case ".doc":
		return "application/msword"
	case ".docx":
		return "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	case ".xls":
		return "application/vnd.ms-excel"
	case ".xlsx":
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case ".ppt":
		return "application/vnd.ms-powerpoint"
	case ".pptx":
		return "application/vnd.openxmlformats-officedocument.presentationml.presentation"
	case ".odt":
		return "application/vnd.oasis.opendocument.text"
	case ".ods":
		return "application/vnd.oasis.opendocument.spreadsheet"
	}
	return "application/octet-stream"
}

// Read returns the next bytes. It returns everything before the closing boundary
// before it calls the seal.
func (b *body) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n < len(p) {
		if b.err != nil {
			break
		}
		switch b.state.Load() {
		case bodyAnswered:
			// An error here would make the transport close the connection while the answer
			// is being read, so Read waits for the end of it.
			<-b.done
			b.err = errAnswered
		case bodyAbandoned:
			b.err = b.cause()
		case bodySealed:
			m := copy(p[n:], b.tail)
			n, b.tail = n+m, b.tail[m:]
			if b.tail == "" {
				b.err = io.EOF
			}
		default:
			if b.part == len(b.parts) {
				if n > 0 {
					return n, nil
				}
				b.trySeal()
				continue
			}
			m, err := b.readPart(p[n:])
			n += m
			if err != nil {
				b.fail(&PartError{Index: b.part, Field: b.parts[b.part].Field, Err: err})
				b.state.CompareAndSwap(bodyOpen, bodyAbandoned)
			}
		}
	}
	if b.state.Load() == bodyOpen {
		b.watchdog.Reset(b.timeouts.Stall)
	}
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

// readPart reads bytes of the current part and advances to the next one at its end.
func (b *body) readPart(p []byte) (int, error) {
	if len(b.head) > 0 {
		n := copy(p, b.head)
		b.head = b.head[n:]
		return n, nil
	}
	part := &b.parts[b.part]
	if b.reader == nil {
		r, err := part.Open(b.ctx)
		if err != nil {
			return 0, err
		}
		b.reader, b.left = r, part.Size
	}
	if b.left > 0 {
		n, err := b.reader.Read(p[:min(int64(len(p)), b.left)])
		b.left -= int64(n)
		if err == io.EOF && b.left > 0 {
			err = ErrPartShort
		}
		if err != nil && err != io.EOF {
			_ = b.closePart() // the first error counts
			return n, err
		}
		if err == nil || b.left > 0 {
			return n, nil
		}
		return n, b.nextPart()
	}
	var one [1]byte
	n, err := b.reader.Read(one[:])
	switch {
	case n > 0:
		_ = b.closePart() // the first error counts
		return 0, ErrPartLong
	case err == io.EOF:
		return 0, b.nextPart()
	case err != nil:
		_ = b.closePart() // the first error counts
		return 0, err
	}
	return 0, nil // neither a byte nor an error: read again
}

func (b *body) closePart() error {
	if b.reader == nil {
		return nil
	}
	err := b.reader.Close()
	b.reader = nil
	return err
}

func (b *body) nextPart() error {
	if err := b.closePart(); err != nil {
		return err
	}
	b.part++
	if b.part < len(b.parts) {
		b.head = b.heads[b.ends[b.part-1]:b.ends[b.part]]
	}
	return nil
}

// trySeal runs the seal hook and allows the closing boundary, unless an answer or the
// end of the upload comes first.
func (b *body) trySeal() {
	if !b.state.CompareAndSwap(bodyOpen, bodySealing) {
		return
	}
	b.watchdog.Stop() // the caller limits the time of the hook
	var err error
	if b.seal != nil {
		err = b.seal(b.ctx)
	}
	if err == nil {
		err = context.Cause(b.ctx)
	}
	if err != nil {
		b.fail(err)
		b.state.CompareAndSwap(bodySealing, bodyAbandoned)
		return
	}
	if b.state.CompareAndSwap(bodySealing, bodySealed) {
		b.watchdog.Reset(b.timeouts.Answer)
	}
}

func (b *body) fail(err error) { b.err, b.failure = err, err }

func (b *body) cause() error {
	if err := context.Cause(b.ctx); err != nil {
		return err
	}
	return errAnswered
}

// Close abandons the body unless it is sealed or answered. The transport may call it
// during a Read.
func (b *body) Close() error {
	b.state.CompareAndSwap(bodyOpen, bodyAbandoned)
	b.state.CompareAndSwap(bodySealing, bodyAbandoned)
	return nil
}

// answered records that the header of an answer has arrived, and reports whether the
// body was sealed before it.
func (b *body) answered() (sent bool) {
	b.state.CompareAndSwap(bodyOpen, bodyAnswered)
	b.state.CompareAndSwap(bodySealing, bodyAnswered)
	return b.state.Load() == bodySealed
}

// end ends the body and waits until no callback is running. It reports whether the
// body was sealed, and returns the error of a part or of the seal. b.ctx must have
// ended, or the wait may be long.
func (b *body) end() (sent bool, err error) {
	b.Close()
	b.once.Do(func() { close(b.done) })
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.closePart()
	return b.state.Load() == bodySealed, b.failure
}

// MaxParts is the largest number of parts in one upload. It keeps the answer, which
// lists a source for each part, below MaxAnswer.
const MaxParts = 2000
