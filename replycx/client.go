package replycx

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// DefaultBaseURL is where the API is served.
const DefaultBaseURL = "https://api.reply.cx"

// MaxAnswer is the most bytes that are read of an answer, after decompression.
const MaxAnswer = 1 << 20

// Options are the options of a [Client]. The zero value works.
type Options struct {
	// BaseURL is the API's address, DefaultBaseURL if empty. A path in it is a
	// prefix of all paths. Plain http is refused beyond loopback unless
	// AllowInsecure is set.
	BaseURL string
	// AllowInsecure permits plain http to any host: the token then travels in the
	// clear.
	AllowInsecure bool
	// AccountID is the account for the operations below /v1/accounts. When it is 0,
	// the account_id claim of the token is used, if it has one.
	AccountID int64
	// TokenSource, if set, gives the token for each request, and New's token is
	// used only when it is nil. It may be called concurrently; caching is its own
	// affair.
	TokenSource func(ctx context.Context) (string, error)
	// HTTPClient replaces the client's own transport: its Transport and Jar are
	// used. Its Timeout and CheckRedirect are not, because one total timeout kills
	// large uploads and a redirect must not carry the token elsewhere. CAFile,
	// Timeouts.Dial and Timeouts.TLS have no effect then.
	HTTPClient *http.Client
	// CAFile names a PEM file of certificate authorities trusted beside the
	// system's.
	CAFile string
	// UserAgent is sent with every request, "replycx-go" if empty.
	UserAgent string
	// Logger gets a debug line per request: operation, path, status, duration. Never
	// the token or a body. Nothing is logged if it is nil.
	Logger *slog.Logger
	// Limiter is waited for before each request, if set. *rate.Limiter of
	// golang.org/x/time is one.
	Limiter Limiter
	// Timeouts bounds the phases of a request.
	Timeouts Timeouts
}

// Limiter holds requests back. Wait returns nil when one may go.
type Limiter interface {
	Wait(ctx context.Context) error
}

// Timeouts bounds the phases of a request; there is no total for uploads. A zero
// value is replaced by its default.
type Timeouts struct {
	// Dial bounds the making of a connection: 30 s.
	Dial time.Duration
	// TLS bounds the TLS handshake: 15 s.
	TLS time.Duration
	// Stall bounds the time in which an upload makes no progress at all while its
	// body is sent: 2 min.
	Stall time.Duration
	// Answer bounds the wait for the answer after an upload's last byte: 10 min. A
	// short one turns slow answers into unknown outcomes.
	Answer time.Duration
	// Call bounds every other request as a whole: 60 s.
	Call time.Duration
}

// Client calls the API. Make one with [New]. It is safe for concurrent use.
type Client struct {
	unimplemented struct{}
}

// New returns a client that authenticates with token. It makes no request. It fails
// when an option is unusable: ErrNoToken without a token or token source.
func New(token string, opts Options) (*Client, error) { panic("not yet") }

// Origin returns the scheme, host and port that requests go to, such as
// "https://api.reply.cx".
func (c *Client) Origin() string { panic("not yet") }

// AccountID returns the account for the operations below /v1/accounts: that of the
// options, or the account_id claim of the token, or 0 when neither is there.
func (c *Client) AccountID(ctx context.Context) (int64, error) { panic("not yet") }

// CloseIdleConnections closes the connections that no request uses.
func (c *Client) CloseIdleConnections() { panic("not yet") }

// SourceStatus asks for the training status of sources:
// GET /api/v1/ai/status/sources?source_ids=1,2.
//
// The answer is in the server's order and may lack ids that were asked for. Keep
// the list modest, a hundred ids or so: it travels in the URL. The id 0 is
// allowed, as a probe of the token before there is any source.
//
// Documented errors: ErrTokenInvalid, ErrFeatureNotEnabled, ErrAccountNotFound.
func (c *Client) SourceStatus(ctx context.Context, ids []int64) ([]SourceStatus, error) {
	panic("not yet")
}

// SourceStatus is the training status of one source.
type SourceStatus struct {
	// ID is the source's id, always positive.
	ID int64
	// Name is the source's name.
	Name string
	// Status is the training status.
	Status Status
	// KnowledgeBaseID is the source's knowledge base, 0 if the answer does not say.
	KnowledgeBaseID int64
	// Errors is the server's text about what went wrong. The documented answer has
	// none; it is read in case one comes.
	Errors string
}

func (c *Client) upload(ctx context.Context, knowledgeBase int64, parts []Part, seal func(context.Context) error) (*UploadResult, error) {
	panic("not yet")
}
