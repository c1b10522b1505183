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
	"strconv"
	"strings"
	"sync"
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
	// HTTPClient replaces the client's own transport, which speaks HTTP/1.1 and takes
	// proxies from the environment (HTTPS_PROXY): its Transport and Jar are used. Its Timeout and CheckRedirect are not, because one total timeout kills
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
	// Dialect chooses where public sources contradict the API's document.
	Dialect Dialect
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
	account   int64
	http      *http.Client
	userAgent string
	log       *slog.Logger
	limiter   Limiter
	timeouts  Timeouts
	dialect   Dialect
	answers   sync.Pool // of *bytes.Buffer, for reading answers
}

// New returns a client that authenticates with token. It makes no request. It fails
// when an option is unusable: ErrNoToken without a token or token source.
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
		// The parse error would repeat the address, and with it a password in it.
		return nil, errors.New("the API's URL cannot be parsed: write it like " + DefaultBaseURL)
	case base.User != nil:
		return nil, errors.New("the API's URL must not hold a user or password")
	case base.Host == "" || base.Opaque != "" || base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("the API's URL %q must be a scheme and a host, like %s", text, DefaultBaseURL)
	case base.Scheme != "https" && base.Scheme != "http":
		return nil, fmt.Errorf("the API's URL %q must begin with https://", text)
	case base.Scheme == "http" && !insecure && !loopback(base.Hostname()):
		return nil, fmt.Errorf("the API's URL %q would send the token unencrypted: use https, or allow insecure connections", text)
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

// checkToken trims a token and refuses one that cannot be a header's value, without
// repeating it.
func checkToken(token string) (string, error) {
	token = strings.TrimSpace(token)
	if token == "" {
		return "", ErrNoToken
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] >= 0x7f {
			return "", errors.New("the API token holds a character that no token has: copy it again")
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

// Origin returns the scheme, host and port that requests go to, such as
// "https://api.reply.cx".
func (c *Client) Origin() string {
	return c.base.Scheme + "://" + strings.ToLower(c.base.Host)
}

// AccountID returns the account for the operations below /v1/accounts: that of the
// options, or the account_id claim of the token, or 0 when neither is there. Its
// errors are those of the token source.
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

// accountClaim reads the account_id of a JWT without checking the signature, which
// only the server can. It returns 0 when there is none.
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

// CloseIdleConnections closes the connections that no request uses.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// NewRequest makes a request to a path below the base URL, such as
// "/v1/accounts/51/bots". A query may follow after a question mark. A body that is
// not nil is sent as JSON. With [Client.Do] it reaches what has no method here.
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
	// Without GetBody a transport cannot send a request a second time unasked.
	req.GetBody = nil
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// Do sends a request made by [Client.NewRequest] once, with the token, and decodes
// the JSON answer into out unless out is nil. Errors are as for every operation:
// an *Error for a refusal, an *AnswerError for an answer that makes no sense.
func (c *Client) Do(req *http.Request, out any) error {
	return c.do(req.Method+" "+req.URL.Path, req, out)
}

// call is a whole operation with JSON both ways.
func (c *Client) call(ctx context.Context, op, method, path string, body, out any) error {
	req, err := c.NewRequest(ctx, method, path, body)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.do(op, req, out)
}

// callRaw is call that returns the answer's body too.
func (c *Client) callRaw(ctx context.Context, op, method, path string, body, out any) (json.RawMessage, error) {
	var raw json.RawMessage
	if err := c.call(ctx, op, method, path, body, &raw); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, &AnswerError{Op: op, StatusCode: http.StatusOK, Reason: "does not have the form it should have", Err: err}
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

// send makes the one attempt: waits for the limiter, adds the token, sends, reads
// the answer whole. Its errors are those of the way to an answer; whatever the
// answer says is in it.
func (c *Client) send(op string, req *http.Request) (*answer, error) {
	token, err := c.authorize(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	began := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		c.logRequest(op, req, 0, began, err)
		return nil, fmt.Errorf("%s: %w", op, unwrapURL(err))
	}
	a := c.readAnswer(op, resp, token)
	c.logRequest(op, req, a.status, began, a.err)
	return a, nil
}

// authorize waits for the limiter and then puts the token of that moment on the
// request, if it goes to the API.
func (c *Client) authorize(req *http.Request) (token string, err error) {
	if req.URL.Scheme != c.base.Scheme || req.URL.Host != c.base.Host {
		return "", errors.New("the request goes to another server than the API's: the token is not sent there")
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

// unwrapURL takes off the *url.Error, which repeats method and address.
func unwrapURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// answer is a server's answer, read as far as it goes.
type answer struct {
	op     string
	status int
	header http.Header
	body   []byte // in buf
	err    error  // why the body is not whole
	token  string

	buf  *bytes.Buffer
	pool *sync.Pool
}

func (c *Client) readAnswer(op string, resp *http.Response, token string) *answer {
	defer resp.Body.Close()
	buf := c.answers.Get().(*bytes.Buffer)
	buf.Reset()
	_, err := io.Copy(buf, io.LimitReader(resp.Body, MaxAnswer+1))
	a := &answer{op: op, status: resp.StatusCode, header: resp.Header, body: buf.Bytes(), err: err, token: token, buf: buf, pool: &c.answers}
	if err == nil && len(a.body) > MaxAnswer {
		a.body, a.err = a.body[:MaxAnswer], fmt.Errorf("is larger than %d bytes", MaxAnswer)
	}
	return a
}

// free gives the buffer back. Nothing of body may be used after it.
func (a *answer) free() {
	if a.buf.Cap() <= 64<<10 {
		a.pool.Put(a.buf)
	}
	a.body, a.buf = nil, nil
}

// refused returns the answer as an *Error if it is one: any status but 2xx.
func (a *answer) refused() error {
	if a.status/100 == 2 {
		return nil
	}
	e := refusal(a.op, a.status, a.header, a.body, time.Now())
	if a.status/100 == 3 {
		e.Message = "the server redirects" + redirectTarget(a.header) + ", which is not followed: set the API's URL to the right address"
	}
	a.redact(e)
	return e
}

// refusedWithin is like refused for a 2xx whose body says "ok": false.
func (a *answer) refusedWithin(ok *bool) error {
	if ok == nil || *ok {
		return nil
	}
	e := refusal(a.op, a.status, a.header, a.body, time.Now())
	a.redact(e)
	return e
}

// redact takes the token out of a text that a server sent back.
func (a *answer) redact(e *Error) {
	e.Message = a.redacted(e.Message)
	e.Code = a.redacted(e.Code)
	for _, list := range e.Fields {
		for i := range list {
			list[i] = a.redacted(list[i])
		}
	}
}

func (a *answer) redacted(text string) string {
	return strings.ReplaceAll(text, a.token, "[token]")
}

// broken returns an *AnswerError.
func (a *answer) broken(reason string, err error) error {
	return &AnswerError{Op: a.op, StatusCode: a.status, Reason: a.redacted(reason), Err: err}
}

// whole returns the body if all of it is there, and an *AnswerError otherwise.
func (a *answer) whole() ([]byte, error) {
	switch {
	case a.err != nil:
		return nil, a.broken("could not be read whole", a.err)
	case len(bytes.TrimSpace(a.body)) == 0:
		return nil, a.broken("is empty", nil)
	}
	return trimBOM(a.body), nil
}

// decode checks the answer and reads its JSON into out.
func (a *answer) decode(out any) error {
	if err := a.refused(); err != nil {
		return err
	}
	body, err := a.whole()
	if err != nil {
		return err
	}
	var head struct {
		OK *bool `json:"ok"` // encoding/json takes "Ok" for it too
	}
	if json.Unmarshal(body, &head) != nil {
		// The document prints one answer with typographic quotes.
		body = []byte(strings.NewReplacer("“", `"`, "”", `"`).Replace(string(body)))
		if err := json.Unmarshal(body, &head); err != nil {
			return a.broken(fmt.Sprintf("is not the API's: it begins %q", excerpt(string(a.body))), err)
		}
		a.body = body
	}
	if err := a.refusedWithin(head.OK); err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return a.broken("does not have the form it should have", err)
	}
	return nil
}

// redirectTarget names where a redirect leads, without path and query, which may
// hold secrets.
func redirectTarget(header http.Header) string {
	target, err := url.Parse(header.Get("Location"))
	if err != nil || target.Host == "" {
		return ""
	}
	return " to " + target.Scheme + "://" + clean(target.Host, maxExcerpt)
}

// sourceID reads an id strictly: a JSON number that is a positive integer.
func sourceID(raw json.RawMessage) (int64, error) {
	id, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || id <= 0 {
		return 0, fmt.Errorf("id %s is not a positive integer", excerpt(string(raw)))
	}
	return id, nil
}

// looseText is a text of an answer that must not fail the whole answer when it is
// of another kind: null is "", anything else its JSON.
type looseText string

func (t *looseText) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) != nil {
		s = string(data)
	}
	*t = looseText(clean(s, 4<<10))
	return nil
}

// looseInt is a number of an answer that must not fail the whole answer: what is no
// integer is 0.
type looseInt int64

func (n *looseInt) UnmarshalJSON(data []byte) error {
	v, _ := strconv.ParseInt(strings.Trim(string(data), `"`), 10, 64)
	*n = looseInt(v)
	return nil
}

// looseBool is true for true and for 1.
type looseBool bool

func (b *looseBool) UnmarshalJSON(data []byte) error {
	*b = string(data) == "true" || string(data) == "1"
	return nil
}

// errorText makes the "errors" of a source a text, whose form is not documented:
// nothing for null and for what is empty, a text as it is, a list joined.
func errorText(raw json.RawMessage) string {
	var text string
	var list []string
	switch trimmed := string(bytes.TrimSpace(raw)); trimmed {
	case "", "null", "[]", "{}", "false", `""`:
		return ""
	}
	if json.Unmarshal(raw, &text) == nil {
		return clean(text, 4<<10)
	}
	if json.Unmarshal(raw, &list) == nil {
		return clean(strings.Join(list, "; "), 4<<10)
	}
	text, _ = messageField(raw)
	return text
}
