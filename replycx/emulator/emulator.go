// Package emulator serves the ReplyCX API locally: the same paths, field names,
// statuses and errors, with its own tokens and a short training. kbsync uses it when
// there is no account, and tests use it in place of the real server. Fault scripts
// make it fail as real servers and networks do.
//
//	e, err := emulator.New(emulator.Options{})
//	url, err := e.Start("")
//	defer e.Close()
//	client, err := replycx.New(e.Token(51), replycx.Options{BaseURL: url})
//
// It records every accepted source, so that a test can prove that nothing was lost
// or duplicated. An [Emulator] is also an http.Handler.
//
// Between tests, [Emulator.Reset] returns it to its start, and [Emulator.Restore] to a
// snapshot. [Emulator.Advance] moves its clock, so that no test waits for a training.
// Options.Seed makes its ids repeatable.
//
// Do not use it in production: it keeps only the hash of a content, it signs tokens
// with a published key, and its answers are guesses wherever the API's document is
// silent.
package emulator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultTrain is the default duration of training.
const DefaultTrain = time.Second

// Options are the options of an [Emulator]. The zero value works.
type Options struct {
	// Fixture holds the accounts with their knowledge bases; DefaultFixture() if nil.
	Fixture *Fixture
	// KnowledgeBases are ids of additional knowledge bases of the fixture's first
	// account. Ids that an account already has are ignored.
	KnowledgeBases []int64
	// Train is the duration of training: DefaultTrain if 0, none if negative.
	Train time.Duration
	// File, if set, keeps the accepted sources across processes, as JSON lines. Each
	// upload is appended before it is answered. One emulator at a time may use it.
	File string
	// Faults is the first fault script; see SetFaults.
	Faults *Faults
	// Secret signs the tokens. The default is fixed, so that a token is valid in later
	// runs too.
	Secret []byte
	// Now is the clock for training, the expiry of tokens and the times in answers:
	// time.Now if nil. Advance moves it.
	Now func() time.Time
	// Seed, if not 0, makes the ids of conversations, messages and contacts repeatable:
	// the same requests in the same order get the same ids. The ids of sources always
	// are. The parts of an id that hold a time then come from the seed too.
	Seed uint64
	// Webhook configures the delivery of webhooks, which the API's document leaves open.
	Webhook WebhookOptions
	// Logger gets a line per request. If it is nil, nothing is logged.
	Logger *slog.Logger
}

// Emulator is the API. Make one with [New].
type Emulator struct {
	fixture *Fixture
	train   time.Duration
	secret  []byte
	clock   clock
	seed    uint64
	log     *slog.Logger
	mux     *http.ServeMux
	life    context.Context // until Close; ends stalls and deliveries
	end     context.CancelFunc
	closing sync.Once

	counts counts

	faultMu     sync.Mutex
	faults      *script
	firstFaults *Faults // those of the options

	mu                sync.Mutex
	sources           []source // in order of id, from firstID
	conversations     map[string]*conversation
	conversationOrder []string
	issued            uint64   // how many conversations and messages exist
	journal           *journal // nil without a file

	deliveries deliveries

	serverMu sync.Mutex
	servers  []*http.Server
	serving  sync.WaitGroup
}

// New returns an emulator. It fails if the fixture or the fault script is invalid, or
// the file cannot be read.
func New(opts Options) (*Emulator, error) {
	e := &Emulator{
		fixture: opts.Fixture,
		train:   opts.Train,
		secret:  opts.Secret,
		clock:   clock{base: opts.Now},
		seed:    opts.Seed,
		log:     opts.Logger,
	}
	e.life, e.end = context.WithCancel(context.Background())
	if e.fixture == nil {
		e.fixture = DefaultFixture()
	}
	var err error
	if e.fixture, err = e.fixture.prepared(opts.KnowledgeBases); err != nil {
		return nil, err
	}
	if e.train == 0 {
		e.train = DefaultTrain
	}
	e.train = max(e.train, 0)
	if len(e.secret) == 0 {
		e.secret = []byte("the emulator's key, which is no secret")
	}
	if e.clock.base == nil {
		e.clock.base = time.Now
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.firstFaults = opts.Faults
	if err := e.SetFaults(opts.Faults); err != nil {
		return nil, err
	}
	e.deliveries.prepare(opts.Webhook)
	e.startConversations()
	if opts.File != "" {
		if e.journal, err = openJournal(opts.File); err != nil {
			return nil, err
		}
		if err := e.catchUp(); err != nil {
			_ = e.journal.file.Close()
			return nil, err
		}
	}
	e.mux = http.NewServeMux()
	e.routes()
	return e, nil
}

func (e *Emulator) routes() {
	e.mux.HandleFunc("POST /api/v1/ai/knowledge-base/{knowledge_base}/upload/sources", e.operation(OpUpload, e.upload))
	e.mux.HandleFunc("GET /api/v1/ai/status/sources", e.operation(OpStatus, e.status))
	create := e.operation(OpCreate, e.create)
	e.mux.HandleFunc("POST /v1/conversations", create)
	e.mux.HandleFunc("POST /api/v1/conversations", create) // the path in other public sources
	e.mux.HandleFunc("POST /api/v1/conversation/{conversation}/messages", e.operation(OpMessage, e.sendMessage))
	closing, assigning := e.operation(OpClose, e.conversationEvent), e.operation(OpAssign, e.conversationEvent)
	e.mux.HandleFunc("POST /api/v1/conversation/{conversation}/events", func(w http.ResponseWriter, r *http.Request) {
		if eventOperation(r) == OpAssign {
			assigning(w, r)
		} else {
			closing(w, r)
		}
	})
	e.mux.HandleFunc("POST /v1/accounts/{account}/conversations/{conversation}/variables", e.operation(OpVariables, e.variables))
	e.mux.HandleFunc("POST /v1/accounts/{account}/webhook", e.operation(OpWebhook, e.setWebhook))
	e.mux.HandleFunc("GET /v1/accounts/{account}/bots", e.operation(OpBots, e.bots))
	e.controlRoutes()
	e.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(http.StatusNotFound, "NOT_FOUND", "The requested URL was not found on the server.").write(w)
	})
}

// ServeHTTP serves the API.
func (e *Emulator) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.mux.ServeHTTP(w, r) }

// Start serves the API on addr until Close and returns the base URL. An empty addr
// selects a free port of 127.0.0.1.
func (e *Emulator) Start(addr string) (string, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return "", fmt.Errorf("start emulator: %w", err)
	}
	server := &http.Server{
		Handler:           e,
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}
	e.serverMu.Lock()
	e.servers = append(e.servers, server)
	e.serverMu.Unlock()
	e.serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			e.log.Error("emulator stopped", "error", err)
		}
	})
	return "http://" + listener.Addr().String(), nil
}

// Close stops the servers of Start, ends stalled answers and closes the file. It does
// not wait for requests that another server serves.
func (e *Emulator) Close() error {
	var err error
	e.closing.Do(func() {
		e.end()
		e.serverMu.Lock()
		for _, s := range e.servers {
			err = errors.Join(err, s.Close())
		}
		e.serverMu.Unlock()
		e.serving.Wait()
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.journal != nil {
			err = errors.Join(err, e.journal.file.Close())
		}
	})
	return err
}

// Counts holds the counts of an emulator since it was made or reset.
type Counts struct {
	// Requests counts the requests of each operation, including refused ones.
	Requests map[Operation]int64
	// Uploads and Statuses are the Requests of OpUpload and OpStatus.
	Uploads, Statuses int64
	// AcceptedUploads counts the accepted uploads, including those with a lost answer.
	AcceptedUploads int64
	// AcceptedParts and AcceptedBytes count the sources of these uploads, and the
	// bytes of their content.
	AcceptedParts, AcceptedBytes int64
}

type counts struct {
	requests                    sync.Map // Operation -> *atomic.Int64
	accepted, parts, partsBytes atomic.Int64
}

func (c *counts) reset() {
	c.requests.Clear()
	c.accepted.Store(0)
	c.parts.Store(0)
	c.partsBytes.Store(0)
}

func (c *counts) request(op Operation) {
	n, ok := c.requests.Load(op)
	if !ok {
		n, _ = c.requests.LoadOrStore(op, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
}

// Counts returns the counts so far.
func (e *Emulator) Counts() Counts {
	c := Counts{
		Requests:        make(map[Operation]int64),
		AcceptedUploads: e.counts.accepted.Load(),
		AcceptedParts:   e.counts.parts.Load(),
		AcceptedBytes:   e.counts.partsBytes.Load(),
	}
	e.counts.requests.Range(func(op, n any) bool {
		c.Requests[op.(Operation)] = n.(*atomic.Int64).Load()
		return true
	})
	c.Uploads, c.Statuses = c.Requests[OpUpload], c.Requests[OpStatus]
	return c
}

// AcceptedSource is one source of the emulator.
type AcceptedSource struct {
	Account, KnowledgeBase int64
	SourceID               int64
	// RequestNumber counts the accepted uploads from 1, over the life of the file.
	RequestNumber int64
	Field         string
	// Filename is empty for a text field.
	Filename string
	SHA256   [sha256.Size]byte
	Size     int64
	Accepted time.Time
	// Name and Status have the values of a status answer.
	Name, Status string
	// Removed is set if Remove has removed it.
	Removed bool
}

// Accepted returns all accepted sources in order of their ids, including those of
// earlier processes with the same file.
func (e *Emulator) Accepted() []AcceptedSource {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.catchUp()
	now := e.now()
	list := make([]AcceptedSource, len(e.sources))
	for i := range e.sources {
		s := &e.sources[i]
		list[i] = AcceptedSource{
			Account: s.Account, KnowledgeBase: s.KnowledgeBase, SourceID: firstID + int64(i),
			RequestNumber: s.Request, Field: s.Field, Filename: s.Filename,
			SHA256: s.SHA256, Size: s.Size, Accepted: s.accepted(), Name: s.Name, Status: s.status(now), Removed: s.removed,
		}
	}
	return list
}

// Remove removes sources from their knowledge base, as a person does in ReplyCX: the
// API has no operation for it. Status answers lack them from then on. Ids that do not
// exist are ignored.
func (e *Emulator) Remove(sourceIDs ...int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.write(journalLine{Removed: sourceIDs}); err != nil {
		return err
	}
	e.remove(sourceIDs)
	return nil
}

// remove marks sources as removed. The caller holds e.mu.
func (e *Emulator) remove(sourceIDs []int64) {
	for _, id := range sourceIDs {
		if i := id - firstID; i >= 0 && i < int64(len(e.sources)) {
			e.sources[i].removed = true
		}
	}
}

// handler serves one operation. f is the fault of this request, or nil. A handler
// that streams a body applies the faults in the middle or at the end of the body.
type handler func(r *http.Request, f *Fault) (reply, error)

// errHangUp makes the emulator reset the connection instead of answering.
var errHangUp = errors.New("hang up")

// operation returns the HTTP handler of an operation: it counts the request, applies
// the fault and answers.
func (e *Emulator) operation(op Operation, serve handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		e.counts.request(op)
		f := e.fire(op)
		if f != nil && op != OpUpload && (f.At == Middle || f.At == Read) {
			f.At = Before
		}
		answer, err := e.answer(r, f, serve)
		if err == nil && f != nil {
			answer = f.corrupt(answer)
		}
		e.log.Debug("emulator request", "op", op, "path", r.URL.Path, "status", answer.status, "took", time.Since(began), "hung up", err != nil)
		if err != nil {
			hangUp(w)
			return
		}
		answer.write(w)
	}
}

// answer runs the handler and applies faults before and after it. The handler applies
// the faults within a body.
func (e *Emulator) answer(r *http.Request, f *Fault, serve handler) (reply, error) {
	if f == nil {
		return serve(r, nil)
	}
	e.wait(r, f.Latency)
	if f.At.is(Before) && f.replacesAnswer() {
		return e.replaceAnswer(r, f)
	}
	answer, err := serve(r, f)
	if err != nil {
		return answer, err
	}
	if f.At.is(After) && f.replacesAnswer() {
		return e.replaceAnswer(r, f)
	}
	return answer, nil
}

// replaceAnswer returns the result of a fault in place of the handler's answer.
func (e *Emulator) replaceAnswer(r *http.Request, f *Fault) (reply, error) {
	e.wait(r, f.Stall)
	switch {
	case f.Reset:
		return reply{}, errHangUp
	case f.Status != 0:
		return f.answer(), nil
	}
	return reply{}, errHangUp // a stall that ended
}

// wait waits for d, or until the request or the emulator ends.
func (e *Emulator) wait(r *http.Request, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	case <-e.life.Done():
	}
}

// hangUp resets the connection.
func hangUp(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

var _ http.Handler = (*Emulator)(nil)

var _ io.Closer = (*Emulator)(nil)
