package replycx

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// DefaultBaseURL is the address of the API.
const DefaultBaseURL = "https://api.reply.cx"

// MaxAnswer is the size, in bytes after decompression, up to which the client reads
// an answer.
const MaxAnswer = 1 << 20

// Options are the options of a [Client]. The zero value works.
type Options struct {
	// BaseURL is the API's address, DefaultBaseURL if empty. A path in it is a
	// prefix of all paths. New refuses plain http to any host but loopback unless
	// AllowInsecure is set.
	BaseURL string
	// AllowInsecure permits plain http to any host: the token then travels
	// unencrypted.
	AllowInsecure bool
	// AccountID is the account for the operations below /v1/accounts. If it is 0, the
	// client uses the account_id claim of the token, if there is one.
	AccountID int64
	// TokenSource, if set, returns the token for each request, and the client ignores
	// the token given to New. The client may call it concurrently and does not cache
	// its result.
	TokenSource func(ctx context.Context) (string, error)
	// TokenRefused, if set, is called with the token of each request that the API
	// answers with 401, before the method returns. A TokenSource that keeps its token
	// can get another one then. The client may call it concurrently.
	TokenRefused func(token string)
	// HTTPClient supplies a Transport and a Jar in place of the client's own transport,
	// which speaks HTTP/1.1 and takes proxies from the environment (HTTPS_PROXY). Its
	// Timeout and CheckRedirect are ignored, because one total timeout aborts large
	// uploads and a redirect must not carry the token elsewhere. With a Transport here,
	// CAFile, Timeouts.Dial and Timeouts.TLS have no effect.
	HTTPClient *http.Client
	// CAFile names a PEM file of certificate authorities that the client trusts in
	// addition to the system's.
	CAFile string
	// UserAgent is sent with every request, "replycx-go" if empty.
	UserAgent string
	// Logger gets a debug line per request with operation, path, status and duration,
	// never with the token or a body. If it is nil, the client logs nothing.
	Logger *slog.Logger
	// Limiter, if set, delays requests: the client calls its Wait before each one.
	// *rate.Limiter of golang.org/x/time is a Limiter.
	Limiter Limiter
	// Timeouts bounds the phases of a request.
	Timeouts Timeouts
	// Dialect chooses between the API's document and other public sources where they
	// contradict each other.
	Dialect Dialect
}

// Limiter delays requests. Wait blocks until the next request may be sent, or returns an
// error, with which the call fails before it sends anything. It is safe for concurrent
// use.
type Limiter interface {
	Wait(ctx context.Context) error
}

// Timeouts bounds the phases of a request. An upload has no total timeout. The
// default replaces a value that is not positive.
type Timeouts struct {
	// Dial bounds the making of a connection. Default 30 s.
	Dial time.Duration
	// TLS bounds the TLS handshake. Default 15 s.
	TLS time.Duration
	// Stall bounds the time without any progress while an upload's body is sent.
	// Default 2 min.
	Stall time.Duration
	// Answer bounds the wait for the answer after an upload's last byte. Default
	// 10 min. A short timeout turns slow answers into unknown outcomes.
	Answer time.Duration
	// Call bounds every other request as a whole. Default 60 s.
	Call time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	for _, v := range []struct {
		d        *time.Duration
		fallback time.Duration
	}{
		{&t.Dial, 30 * time.Second},
		{&t.TLS, 15 * time.Second},
		{&t.Stall, 2 * time.Minute},
		{&t.Answer, 10 * time.Minute},
		{&t.Call, time.Minute},
	} {
		if *v.d <= 0 {
			*v.d = v.fallback
		}
	}
	return t
}

// Client calls the API. Make one with [New]. It is safe for concurrent use.
type Client struct {
	base      *url.URL // no trailing slash
	token     func(ctx context.Context) (string, error)
	refused   func(token string) // may be nil
	account   int64
	http      *http.Client
	userAgent string
	log       *slog.Logger
	limiter   Limiter
	timeouts  Timeouts
	dialect   Dialect
	answers   sync.Pool // of *bytes.Buffer, for reading answers
}

// New returns a client that authenticates with token, without the white space around
// it. It makes no request. It fails if an option is invalid, if CAFile cannot be read,
// and with ErrNoToken if there is neither a token nor a token source.
func New(token string, opts Options) (*Client, error) {
	base, err := parseBase(opts.BaseURL, opts.AllowInsecure)
	if err != nil {
		return nil, err
	}
	source := opts.TokenSource
	if source == nil {
		token, err = checkToken(token)
		if err != nil {
			return nil, err
		}
		source = func(context.Context) (string, error) { return token, nil }
	}
	c := &Client{
		base:      base,
		token:     source,
		refused:   opts.TokenRefused,
		account:   opts.AccountID,
		userAgent: opts.UserAgent,
		log:       opts.Logger,
		limiter:   opts.Limiter,
		timeouts:  opts.Timeouts.withDefaults(),
		dialect:   opts.Dialect,
		answers:   sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
	if c.userAgent == "" {
		c.userAgent = "replycx-go"
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.http = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if opts.HTTPClient != nil {
		c.http.Transport, c.http.Jar = opts.HTTPClient.Transport, opts.HTTPClient.Jar
	}
	if c.http.Transport == nil {
		if c.http.Transport, err = newTransport(c.timeouts, opts.CAFile); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func parseBase(text string, insecure bool) (*url.URL, error) {
	if text == "" {
		text = DefaultBaseURL
	}
	base, err := url.Parse(text)
	switch {
	case err != nil:
		// The parse error would repeat the URL, which may hold a password.
		return nil, errors.New("invalid API URL: write it like " + DefaultBaseURL)
	case base.User != nil:
		return nil, errors.New("the API URL must not contain a user or password")
	case base.Host == "" || base.Opaque != "" || base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("the API URL %q must be a scheme and a host, like %s", text, DefaultBaseURL)
	case base.Scheme != "https" && base.Scheme != "http":
		return nil, fmt.Errorf("the API URL %q must begin with https://", text)
	case base.Scheme == "http" && !insecure && !loopback(base.Hostname()):
		return nil, fmt.Errorf("the API URL %q would send the token unencrypted: use https, or allow insecure connections", text)
	}
	base.Path = strings.TrimRight(base.Path, "/")
	base.RawPath = strings.TrimRight(base.RawPath, "/")
	return base, nil
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// checkToken trims a token and refuses one that cannot be a header value. Its errors
// do not contain the token.
func checkToken(token string) (string, error) {
	token = strings.TrimSpace(token)
	if token == "" {
		return "", ErrNoToken
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] >= 0x7f {
			return "", errors.New("the API token contains an invalid character: copy it again")
		}
	}
	return token, nil
}

func (c *Client) currentToken(ctx context.Context) (string, error) {
	token, err := c.token(ctx)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	return checkToken(token)
}

// Origin returns the scheme, host and port of the API, such as
// "https://api.reply.cx".
func (c *Client) Origin() string {
	return c.base.Scheme + "://" + strings.ToLower(c.base.Host)
}

// AccountID returns the account for the operations below /v1/accounts: the AccountID
// of the options, or the account_id claim of the token, or 0 if neither is set. It
// fails only if the token source fails.
func (c *Client) AccountID(ctx context.Context) (int64, error) {
	if c.account != 0 {
		return c.account, nil
	}
	token, err := c.currentToken(ctx)
	if err != nil {
		return 0, err
	}
	return accountClaim(token), nil
}

// accountClaim returns the account_id of a JWT, or 0 if there is none. It does not
// check the signature; only the server can.
func accountClaim(token string) int64 {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return 0
	}
	var claims struct {
		AccountID json.Number `json:"account_id"` // a number, or one in quotes
	}
	if json.Unmarshal(payload, &claims) != nil {
		return 0
	}
	id, err := claims.AccountID.Int64()
	if err != nil || id < 0 {
		return 0
	}
	return id
}

// CloseIdleConnections closes the connections that no request is using.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// NewRequest returns a request to a path below the base URL, such as
// "/v1/accounts/51/bots". A query may follow after a question mark. A body that is
// not nil is sent as JSON. Use it with [Client.Do] to call an operation that has no
// method in this package.
func (c *Client) NewRequest(ctx context.Context, method, path string, body any) (*http.Request, error) {
	target := c.base.Scheme + "://" + c.base.Host + c.base.EscapedPath() + "/" + strings.TrimLeft(path, "/")
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	// Without GetBody a transport cannot silently send a request a second time.
	req.GetBody = nil
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// Do sends a request made by [Client.NewRequest] once, with the token, and decodes
// the JSON answer into out unless out is nil. It returns an *Error for a refusal and
// an *AnswerError for a malformed answer. Timeouts.Call bounds it.
func (c *Client) Do(req *http.Request, out any) error {
	return c.do(req.Method+" "+req.URL.Path, req, out)
}

// call performs an operation with JSON in both directions.
func (c *Client) call(ctx context.Context, op, method, path string, body, out any) error {
	req, err := c.NewRequest(ctx, method, path, body)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.do(op, req, out)
}

// callRaw is like call and also returns the answer's body.
func (c *Client) callRaw(ctx context.Context, op, method, path string, body, out any) (json.RawMessage, error) {
	var raw json.RawMessage
	if err := c.call(ctx, op, method, path, body, &raw); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, &AnswerError{Op: op, StatusCode: http.StatusOK, Reason: "has an unexpected form", Err: err}
	}
	return raw, nil
}

func (c *Client) do(op string, req *http.Request, out any) error {
	ctx, cancel := context.WithTimeout(req.Context(), c.timeouts.Call)
	defer cancel()
	a, err := c.send(op, req.WithContext(ctx))
	if err != nil {
		return err
	}
	defer a.free()
	return a.decode(out)
}

// send makes the one attempt: it waits for the limiter, adds the token, sends the
// request and reads the answer. It fails only if no answer came; a refusal is not an
// error here.
func (c *Client) send(op string, req *http.Request) (*answer, error) {
	token, err := c.authorize(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	began := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		c.logRequest(op, req, 0, began, err)
		return nil, fmt.Errorf("%s: %w", op, c.explainNoAnswer(err))
	}
	a := c.readAnswer(op, resp, token)
	c.logRequest(op, req, a.status, began, a.err)
	return a, nil
}

// authorize waits for the limiter and then adds the current token to the request. It
// refuses a request to any other server than the API's.
func (c *Client) authorize(req *http.Request) (token string, err error) {
	if req.URL.Scheme != c.base.Scheme || req.URL.Host != c.base.Host {
		return "", errors.New("the request is not addressed to the API's server: refusing to send the token there")
	}
	if c.limiter != nil {
		if err := c.limiter.Wait(req.Context()); err != nil {
			return "", fmt.Errorf("wait for request rate: %w", err)
		}
	}
	if token, err = c.currentToken(req.Context()); err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("User-Agent", c.userAgent)
	return token, nil
}

func (c *Client) logRequest(op string, req *http.Request, status int, began time.Time, err error) {
	if !c.log.Enabled(req.Context(), slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("op", op),
		slog.String("method", req.Method),
		slog.String("path", req.URL.Path),
		slog.Int("status", status),
		slog.Duration("took", time.Since(began)),
	}
	if req.ContentLength > 0 {
		attrs = append(attrs, slog.Int64("bytes", req.ContentLength))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	c.log.LogAttrs(req.Context(), slog.LevelDebug, "api request", attrs...)
}

// explainNoAnswer names the server and the remedy if err means that no connection was made. The operating system's text
// names neither.
func (c *Client) explainNoAnswer(err error) error {
	err = unwrapURL(err)
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return fmt.Errorf("cannot reach %s; check the network and the address of the API: %w", c.base.Host, err)
	}
	return err
}

// unwrapURL removes the *url.Error around err, which repeats method and address.
func unwrapURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
