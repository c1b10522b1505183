package emulator

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// firstID is the id of the first source, as in the sample of the API's document.
const firstID = 330783

// source is an accepted source. Its id is firstID plus its index.
type source struct {
	Account       int64  `json:"account"`
	KnowledgeBase int64  `json:"kb"`
	Request       int64  `json:"request"`
	Field         string `json:"field"`
	Filename      string `json:"filename,omitempty"`
	Name          string `json:"name"`
	SHA256        digest `json:"sha256"`
	Size          int64  `json:"size"`
	At            int64  `json:"at"` // Unix nanoseconds
	// Train is the duration of training in nanoseconds, negative for never.
	Train int64 `json:"train"`
	// Failure is the reason why training fails, empty if it succeeds.
	Failure string `json:"failure,omitempty"`
	removed bool
}

// digest is a SHA-256, in hexadecimal digits in JSON.
type digest [sha256.Size]byte

func (d digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

func (d *digest) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(d) {
		return fmt.Errorf("%q is not a SHA-256", text)
	}
	_, err := hex.Decode(d[:], text)
	return err
}

func (s *source) accepted() time.Time { return time.Unix(0, s.At) }

func (s *source) kind() string {
	if s.Filename == "" {
		return "text"
	}
	return "file"
}

// status returns the training status at a time. Nothing runs in the background.
func (s *source) status(now time.Time) string {
	switch {
	case s.Train < 0 || now.Sub(s.accepted()) < time.Duration(s.Train):
		return "in-progress"
	case s.Failure != "":
		return "failed"
	}
	return "completed"
}

// upload accepts the sources of a request: all of them or none.
func (e *Emulator) upload(r *http.Request, f *Fault) (reply, error) {
	account, id, refusal := e.uploadTarget(r)
	if refusal.status != 0 {
		return refusal, nil
	}
	if f != nil && f.At == Middle && f.replacesAnswer() {
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		return e.replaceAnswer(r, f)
	}
	sources, refusal, complete := e.readUpload(r)
	if complete && f != nil && f.At == Read && f.replacesAnswer() {
		return e.replaceAnswer(r, f)
	}
	if refusal.status != 0 {
		return refusal, nil
	}
	for i := range sources {
		s := &sources[i]
		s.Account, s.KnowledgeBase = account.ID, id
		e.schedule(s, f)
		if s.Filename != "" {
			e.schedule(s, e.firePart(s.Filename))
		}
	}
	first, err := e.accept(sources)
	if err != nil {
		return fail(http.StatusInternalServerError, "INTERNAL", err.Error()), nil
	}
	drop := 0
	if f != nil {
		drop = f.DropFields
	}
	return reply{status: http.StatusOK, body: uploadAnswer(sources, first, id, drop)}, nil
}

// uploadTarget checks an upload before its body is read. It returns the account and
// the id of the knowledge base, or a refusal.
func (e *Emulator) uploadTarget(r *http.Request) (account *Account, id int64, refusal reply) {
	account, refusal, ok := e.knowledgeAccount(r)
	if !ok {
		return nil, 0, refusal
	}
	id, err := strconv.ParseInt(r.PathValue("knowledge_base"), 10, 64)
	owner := e.fixture.owner(id)
	limit := e.fixture.Limits.Request
	switch {
	case err != nil || owner == nil:
		return nil, 0, fail(http.StatusNotFound, "KNOWLEDGE_BASE_NOT_FOUND", "KnowledgeBase Not Found in DB!")
	case owner.ID != account.ID:
		return nil, 0, badRequest(fmt.Sprintf("Knowledge base does not belong to the account(%d)", id))
	case limit > 0 && r.ContentLength > limit:
		return nil, 0, gatewayPage(http.StatusRequestEntityTooLarge, "")
	case boundary(r) == "":
		return nil, 0, badRequest("The body must be multipart/form-data")
	}
	return account, id, reply{}
}

// boundary returns the boundary of a multipart/form-data request, empty for any other.
func boundary(r *http.Request) string {
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/form-data" {
		return ""
	}
	return params["boundary"]
}

// readUpload reads the body of an upload. It returns the sources or a refusal, and
// reports whether the body was complete.
func (e *Emulator) readUpload(r *http.Request) (sources []source, refusal reply, complete bool) {
	counted := &countingReader{r: r.Body, limit: e.fixture.Limits.Request}
	sources, refusal, err := e.readParts(counted, boundary(r))
	switch {
	case errors.Is(err, errTooLarge):
		return nil, gatewayPage(http.StatusRequestEntityTooLarge, ""), false
	case err != nil:
		return nil, badRequest("The multipart body is invalid: " + err.Error()), false
	}
	// The sources exist only after the last byte of the request.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return nil, badRequest("The body is incomplete"), false
	}
	if refusal.status == 0 && len(sources) == 0 {
		refusal = badRequest("No data source is in the request")
	}
	return sources, refusal, true
}

// schedule sets the duration and the outcome of training, with a fault if there is one.
func (e *Emulator) schedule(s *source, f *Fault) {
	if s.Train == 0 {
		s.Train = int64(e.train)
	}
	if f == nil {
		return
	}
	if f.TrainFor > 0 {
		s.Train = int64(f.TrainFor)
	}
	switch f.Train {
	case "never":
		s.Train = -1
	case "failed":
		s.Failure = "The training failed"
	case "completed":
		s.Failure = ""
	}
}

// accept stores the sources in memory and in the journal, and returns the id of the
// first. The other ids follow it.
func (e *Emulator) accept(sources []source) (first int64, err error) {
	now := e.now().UnixNano()
	var size int64
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.catchUp(); err != nil {
		return 0, err
	}
	request := int64(1)
	if n := len(e.sources); n > 0 {
		request = e.sources[n-1].Request + 1
	}
	for i := range sources {
		sources[i].Request, sources[i].At = request, now
		size += sources[i].Size
	}
	if e.journal != nil {
		if err := e.journal.append(journalLine{Sources: sources}); err != nil {
			return 0, err
		}
	}
	first = firstID + int64(len(e.sources))
	e.sources = append(e.sources, sources...)
	e.counts.accepted.Add(1)
	e.counts.parts.Add(int64(len(sources)))
	e.counts.partsBytes.Add(size)
	return first, nil
}

// uploadAnswer returns the answer's JSON: a list for each field in the order of the
// request, without the last drop fields.
func uploadAnswer(sources []source, first, knowledgeBase int64, drop int) []byte {
	var fields []string
	byField := make(map[string][]int, len(sources))
	for i := range sources {
		field := sources[i].Field
		if byField[field] == nil {
			fields = append(fields, field)
		}
		byField[field] = append(byField[field], i)
	}
	fields = fields[:max(0, len(fields)-drop)]
	b := make([]byte, 0, 64+len(sources)*128)
	b = append(b, '{')
	for _, field := range fields {
		b = appendJSON(b, field)
		b = append(b, ":["...)
		for n, i := range byField[field] {
			if n > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"id":`...)
			b = strconv.AppendInt(b, first+int64(i), 10)
			b = append(b, `,"type":"`...)
			b = append(b, sources[i].kind()...)
			b = append(b, `","name":`...)
			b = appendJSON(b, sources[i].Name)
			b = append(b, `,"status":"in-progress","errors":null}`...)
		}
		b = append(b, "],"...)
	}
	b = append(b, `"knowledge_base_id":`...)
	b = strconv.AppendInt(b, knowledgeBase, 10)
	return append(b, `,"ok":true}`...)
}

func appendJSON(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			data, _ := json.Marshal(text) // a string can always be encoded
			return append(b, data...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

var errTooLarge = errors.New("the request is too large")

// countingReader refuses a body beyond a limit, independent of its Content-Length.
type countingReader struct {
	r     io.Reader
	n     int64
	limit int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += int64(n); c.limit > 0 && c.n > c.limit {
		return n, errTooLarge
	}
	return n, err
}

// partReader holds the reusable buffers for reading one request.
type partReader struct {
	in         *bufio.Reader
	buf        []byte
	digest     hash.Hash
	inspection inspection
}

var partReaders = sync.Pool{New: func() any {
	return &partReader{in: bufio.NewReaderSize(nil, 64<<10), buf: make([]byte, 64<<10), digest: sha256.New()}
}}

// readParts reads, hashes and inspects all parts. With a refusal it still reads the
// whole request.
func (e *Emulator) readParts(body io.Reader, boundary string) ([]source, reply, error) {
	rd := partReaders.Get().(*partReader)
	defer partReaders.Put(rd)
	rd.in.Reset(body)
	parts := multipart.NewReader(rd.in, boundary)
	var sources []source
	var refusal reply
	for {
		p, err := parts.NextRawPart()
		if err == io.EOF { //nolint:errorlint // a body that is cut off ends in a wrapped EOF
			return sources, refusal, nil
		}
		if err != nil {
			return nil, reply{}, err
		}
		if headerSize(p.Header) >= maxPartHeader {
			return nil, reply{}, fmt.Errorf("the header of part %d has %d bytes or more", len(sources)+1, maxPartHeader)
		}
		s := source{Field: p.FormName(), Filename: p.FileName()}
		s.Name = s.Filename
		if s.Filename == "" {
			s.Name = s.Field + ".txt"
		}
		markers, err := e.readPart(rd, p, &s)
		if err != nil {
			return nil, reply{}, err
		}
		if refusal.status == 0 {
			refusal = e.refusal(&s, len(sources), markers)
		}
		sources = append(sources, s)
	}
}

// maxPartHeader is the size in bytes from which the header of a part is refused.
const maxPartHeader = 64 << 10

// headerSize returns the size of a header as it is sent.
func headerSize(header textproto.MIMEHeader) int {
	size := 0
	for name, values := range header {
		for _, value := range values {
			size += len(name) + len(": ") + len(value) + len("\r\n")
		}
	}
	return size
}

// readPart reads one part into s. It reports for each of the fixture's refusals
// whether the part has its content.
func (e *Emulator) readPart(rd *partReader, p io.Reader, s *source) ([]bool, error) {
	rd.digest.Reset()
	rd.inspection.reset(s.Name)
	finder := newFinder(e.fixture.Refuse)
	for {
		n, err := p.Read(rd.buf)
		chunk := rd.buf[:n]
		s.Size += int64(n)
		_, _ = rd.digest.Write(chunk)
		rd.inspection.add(chunk)
		finder.add(chunk)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	rd.digest.Sum(s.SHA256[:0])
	s.Failure = rd.inspection.failure(s.Size)
	return finder.found, nil
}

// refusal returns the answer to a request with a refused part, or a zero reply.
func (e *Emulator) refusal(s *source, index int, markers []bool) reply {
	limits := e.fixture.Limits
	switch {
	case answerKeys[s.Field] || s.Field == "":
		return badRequest(fmt.Sprintf("The form field key %q is not allowed", s.Field))
	case limits.File > 0 && s.Size > limits.File:
		return badRequest(fmt.Sprintf("The file %s is larger than %d bytes", s.Name, limits.File))
	case limits.Parts > 0 && index >= limits.Parts:
		return badRequest(fmt.Sprintf("More than %d data sources in one request", limits.Parts))
	}
	for i, r := range e.fixture.Refuse {
		if r.Contains != "" && !markers[i] {
			continue
		}
		if r.Name != "" {
			name := s.Filename
			if name == "" {
				name = s.Field
			}
			if ok, _ := path.Match(r.Name, name); !ok {
				continue
			}
		}
		status, code, message := r.Status, r.Code, r.Message
		if status == 0 {
			status = http.StatusBadRequest
		}
		if code == "" {
			code = "BAD_REQUEST"
		}
		if message == "" {
			message = "The document is not accepted: " + s.Name
		}
		return fail(status, code, message)
	}
	return reply{}
}

// answerKeys are the keys of an answer that are not fields.
var answerKeys = map[string]bool{"ok": true, "knowledge_base_id": true, "error": true, "code": true, "message": true, "status": true}

// status answers with the training status of sources, without the ids that the
// account does not have.
func (e *Emulator) status(r *http.Request, f *Fault) (reply, error) {
	account, refusal, ok := e.knowledgeAccount(r)
	if !ok {
		return refusal, nil
	}
	list := r.URL.Query().Get("source_ids")
	if list == "" {
		return badRequest("source_ids is missing"), nil
	}
	now := e.now()
	var entries [][]byte
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.catchUp(); err != nil {
		return fail(http.StatusInternalServerError, "INTERNAL", err.Error()), nil
	}
	for text := range strings.SplitSeq(list, ",") {
		id, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return badRequest("source_ids must be a comma-separated list of ids"), nil
		}
		i := id - firstID
		if i < 0 || i >= int64(len(e.sources)) || e.sources[i].Account != account.ID || e.sources[i].removed {
			continue
		}
		s := &e.sources[i]
		word := s.status(now)
		if f != nil && f.Word != "" {
			word = f.Word
		}
		b := append([]byte(nil), `{"id":`...)
		b = strconv.AppendInt(b, id, 10)
		b = append(b, `,"name":`...)
		b = appendJSON(b, s.Name)
		b = append(b, `,"status":`...)
		b = appendJSON(b, word)
		b = append(b, `,"knowledge_base_id":`...)
		b = strconv.AppendInt(b, s.KnowledgeBase, 10)
		entries = append(entries, append(b, '}'))
	}
	if f != nil {
		entries = entries[:max(0, len(entries)-f.DropSources)]
	}
	body := []byte(`{"sources":[`)
	for i, entry := range entries {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, entry...)
	}
	return reply{status: http.StatusOK, body: append(body, `],"ok":true}`...)}, nil
}
