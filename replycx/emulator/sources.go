package emulator

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// firstID is the first source's id, that of the document's sample.
const firstID = 330783

// source is an accepted source. Its id is its place among them.
type source struct {
	Account       int64             `json:"account"`
	KnowledgeBase int64             `json:"kb"`
	Request       int64             `json:"request"`
	Field         string            `json:"field"`
	Filename      string            `json:"filename,omitempty"`
	Name          string            `json:"name"`
	SHA256        [sha256.Size]byte `json:"-"`
	Size          int64             `json:"size"`
	At            int64             `json:"at"` // Unix nanoseconds
	// Train is how long training takes in nanoseconds, negative for never.
	Train int64 `json:"train"`
	// Failure is why training fails, empty if it does not.
	Failure string `json:"failure,omitempty"`
}

func (s *source) accepted() time.Time { return time.Unix(0, s.At) }

func (s *source) kind() string {
	if s.Filename == "" {
		return "text"
	}
	return "file"
}

// status is a pure function of the time: nothing runs in the background.
func (s *source) status(now time.Time) string {
	switch {
	case s.Train < 0 || now.Sub(s.accepted()) < time.Duration(s.Train):
		return "in-progress"
	case s.Failure != "":
		return "failed"
	}
	return "completed"
}

// upload takes sources. A request is taken whole or not at all.
func (e *Emulator) upload(r *http.Request, f *Fault) (reply, error) {
	account, refusal, ok := e.knowledge(r)
	if !ok {
		return refusal, nil
	}
	id, err := strconv.ParseInt(r.PathValue("knowledge_base"), 10, 64)
	owner := e.fixture.owner(id)
	switch {
	case err != nil || owner == nil:
		return fail(http.StatusNotFound, "KNOWLEDGE_BASE_NOT_FOUND", "KnowledgeBase Not Found in DB!"), nil
	case owner.ID != account.ID:
		return badRequest(fmt.Sprintf("Knowledge base does not belong to the account(%d)", id)), nil
	}
	limits := e.fixture.Limits
	if limits.Request > 0 && r.ContentLength > limits.Request {
		return gatewayPage(http.StatusRequestEntityTooLarge, ""), nil
	}
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/form-data" || params["boundary"] == "" {
		return badRequest("The body must be multipart/form-data"), nil
	}

	counted := &countingReader{r: r.Body, limit: limits.Request}
	if f != nil && f.At == Middle && f.breaks() {
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		return e.broken(r, f)
	}
	sources, refusal, err := e.readParts(counted, params["boundary"])
	switch {
	case errors.Is(err, errTooLarge):
		return gatewayPage(http.StatusRequestEntityTooLarge, ""), nil
	case err != nil:
		return badRequest("The multipart body is broken: " + err.Error()), nil
	}
	// The sources exist only when the last byte of the request is there.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return badRequest("The body broke off"), nil
	}
	if f != nil && f.At == Read && f.breaks() {
		return e.broken(r, f)
	}
	if refusal.status != 0 {
		return refusal, nil
	}
	if len(sources) == 0 {
		return badRequest("No data source is in the request"), nil
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

// schedule lets a fault set how training goes.
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

// accept gives the sources ids, the first of which it returns, and makes them last.
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
		if err := e.write(sourcesLine(sources)); err != nil {
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

// uploadAnswer writes the answer: the fields in the order of the request, one list
// each, without the last dropped ones.
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

// countingReader refuses what is longer than a limit, whatever its header said.
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

// reading is what one request's reading needs, reused.
type reading struct {
	in     *bufio.Reader
	buf    []byte
	digest hash.Hash
	look   inspection
}

var readings = sync.Pool{New: func() any {
	return &reading{in: bufio.NewReaderSize(nil, 64<<10), buf: make([]byte, 64<<10), digest: sha256.New()}
}}

// readParts reads all parts, hashing and looking at them as they come. A refusal is
// an answer that the request gets once it has been read.
func (e *Emulator) readParts(body io.Reader, boundary string) ([]source, reply, error) {
	rd := readings.Get().(*reading)
	defer readings.Put(rd)
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

// readPart reads one part into s. It returns which of the fixture's refusals have
// their content in it.
func (e *Emulator) readPart(rd *reading, p io.Reader, s *source) ([]bool, error) {
	rd.digest.Reset()
	rd.look.reset(s.Name)
	finder := newFinder(e.fixture.Refuse)
	for {
		n, err := p.Read(rd.buf)
		chunk := rd.buf[:n]
		s.Size += int64(n)
		_, _ = rd.digest.Write(chunk)
		rd.look.add(chunk)
		finder.add(chunk)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	rd.digest.Sum(s.SHA256[:0])
	s.Failure = rd.look.failure(s.Size)
	return finder.found, nil
}

// refusal is the answer to a request with a part that is not taken.
func (e *Emulator) refusal(s *source, index int, markers []bool) reply {
	limits := e.fixture.Limits
	switch {
	case answerKeys[s.Field] || s.Field == "":
		return badRequest(fmt.Sprintf("The form field key %q is not possible", s.Field))
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

// answerKeys are the keys that an answer has beside the fields.
var answerKeys = map[string]bool{"ok": true, "knowledge_base_id": true, "error": true, "code": true, "message": true, "status": true}

// status tells the training status of sources. Ids that the account does not have
// are left out.
func (e *Emulator) status(r *http.Request, f *Fault) (reply, error) {
	account, refusal, ok := e.knowledge(r)
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
		if i < 0 || i >= int64(len(e.sources)) || e.sources[i].Account != account.ID {
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
