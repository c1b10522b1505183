package apicommand

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/atomicfile"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/token"
	"github.com/kbsync/kbsync/replycx"
)

func (p *Program) webhookCommand() *cobra.Command {
	cmd := group("webhook", "Subscribe to events of conversations, and print them",
		`webhook sets the URL to which ReplyCX posts the events of conversations, and can receive these events. Sender and receiver share a
token that you choose; it proves that an event comes from the sender. webhook reads it from REPLYCX_WEBHOOK_TOKEN or --webhook-token-file.`,
		`  kbsync api webhook set --url https://hooks.example.com/replycx
  kbsync api webhook listen`)
	cmd.AddCommand(p.webhookSetCommand(), p.webhookListenCommand())
	return cmd
}

// webhookTokenVariable is the variable with the token shared by sender and receiver of events.
const webhookTokenVariable = "REPLYCX_WEBHOOK_TOKEN"

func webhookTokenFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "webhook-token-file", "", "File with the webhook's token, instead of "+webhookTokenVariable+".")
}

// webhookToken returns the webhook's token and registers it as a secret that is never printed.
func (p *Program) webhookToken(path string) (string, error) {
	if path == "" {
		text := p.Getenv(webhookTokenVariable)
		if strings.TrimSpace(text) == "" {
			return "", usageError("the webhook token is missing: choose one of at least 16 letters and digits, and set " + webhookTokenVariable +
				" or --webhook-token-file FILE; sender and receiver need the same token")
		}
		token, err := token.Parse([]byte(text), p.Console)
		if err != nil {
			return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("%s %w", webhookTokenVariable, err))
		}
		return token, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("read webhook token: %w", err))
	}
	if token.ReadableByOthers(info) {
		p.Console.Log.Warn("other users can read the webhook token's file; chmod 600 it", "file", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("read webhook token: %w", err))
	}
	token, err := token.Parse(data, p.Console)
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("--webhook-token-file %s %w", console.Printable(path), err))
	}
	return token, nil
}

type webhookSetOptions struct {
	url, tokenFile string
	events         []string
	disable        bool
}

func (p *Program) webhookSetCommand() *cobra.Command {
	var o webhookSetOptions
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Set the URL for the account's events, or switch the webhook off",
		Long: `set replaces the account's only webhook: its URL, token and events. The API cannot show the previous webhook.
The API posts to the URL at once, and the receiver must return the token, as kbsync api webhook listen does.
--disable switches the webhook off.`,
		Example: `  kbsync api webhook set --url https://hooks.example.com/replycx
  kbsync api webhook set --url https://hooks.example.com/replycx --events message,status
  kbsync api webhook set --disable`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.setWebhook(cmd, o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.url, "url", "", "URL for the events.")
	f.StringSliceVar(&o.events, "events", nil, "Comma-separated events to subscribe to. Default: all of "+eventNames()+".")
	webhookTokenFlag(cmd, &o.tokenFile)
	f.BoolVar(&o.disable, "disable", false, "Switch the webhook off.")
	return cmd
}

func eventNames() string {
	var names []string
	for _, e := range replycx.EventTypes() {
		names = append(names, string(e))
	}
	return strings.Join(names, ", ")
}

func (p *Program) setWebhook(cmd *cobra.Command, o webhookSetOptions) error {
	w := replycx.Webhook{URL: o.url, Disabled: o.disable, Events: replycx.EventTypes()}
	if o.events != nil {
		w.Events = nil
	}
	for _, name := range o.events {
		e := replycx.EventType(strings.TrimSpace(name))
		if !slices.Contains(replycx.EventTypes(), e) {
			return usageError(fmt.Sprintf("--events: unknown event %s; the events are %s", console.Quoted(name), eventNames()))
		}
		w.Events = append(w.Events, e)
	}
	if !o.disable {
		if o.url == "" {
			return usageError("--url URL is required, or --disable to switch the webhook off")
		}
		u, err := url.Parse(o.url)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return usageError(fmt.Sprintf("--url %s is not a valid URL; expected one such as https://hooks.example.com/replycx", console.Quoted(o.url)))
		}
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			p.Console.Log.Warn("plain http sends the token and all messages unencrypted; use https")
		}
	}
	if !o.disable || o.tokenFile != "" || p.Getenv(webhookTokenVariable) != "" {
		token, err := p.webhookToken(o.tokenFile)
		if err != nil {
			return err
		}
		w.Token = token
	}
	return p.withAPI(cmd, true, func(ctx context.Context, conn *Connection) error {
		if err := conn.Client.SetWebhook(ctx, w); err != nil {
			return apiFailure(err, "")
		}
		if o.disable {
			return p.done("the webhook is switched off")
		}
		var names []string
		for _, e := range w.Events {
			names = append(names, string(e))
		}
		return p.done("%s receives the events %s", console.Printable(o.url), strings.Join(names, ", "))
	})
}

// isLoopback reports whether the host is this machine's loopback.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

type listenOptions struct {
	listen, tokenFile, envFile string
	count                      int64
}

// listenAddress is the default of --listen. Its port is fixed so that a tunnel or proxy can be configured for it.
const listenAddress = "127.0.0.1:8760"

func (p *Program) webhookListenCommand() *cobra.Command {
	var o listenOptions
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive a webhook's events and print each as it arrives",
		Long: `listen receives the events of a webhook until it is interrupted, and prints a line for each: time, event, conversation and the main
content. With --json it prints one JSON object per line, as the API sent it. It refuses a request without the right token with 401.
It serves plain HTTP on this machine only; to receive events from outside, forward them with a tunnel or a proxy that has a certificate.
Try it without an account, with two terminals and the same REPLYCX_WEBHOOK_TOKEN in both.`,
		Example: `  kbsync api webhook listen
  kbsync api webhook set --emulator --url http://` + listenAddress,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.listen(cmd, o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.listen, "listen", listenAddress, "Address to listen on; port 0 selects a free port.")
	webhookTokenFlag(cmd, &o.tokenFile)
	f.Int64Var(&o.count, "count", 0, "Number of events after which to exit; 0 is no limit.")
	f.StringVar(&o.envFile, "env-file", "", "File for the address, written as WEBHOOK_URL when the listener is ready.")
	return cmd
}

func (p *Program) listen(cmd *cobra.Command, o listenOptions) error {
	if _, err := p.Load(cmd); err != nil {
		return err
	}
	token, err := p.webhookToken(o.tokenFile)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(o.listen)
	if err != nil {
		return usageError(fmt.Sprintf("--listen %s is not an address; expected host:port, such as %s", console.Quoted(o.listen), listenAddress))
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if !isLoopback(host) {
		p.Console.Log.Warn("the listener accepts plain http from other machines; put a proxy with a certificate in front of it", "listen", o.listen)
	}
	ctx, stop := context.WithCancelCause(cmd.Context())
	defer stop(nil)
	l := &listener{out: p.Console, count: o.count, stop: stop}
	handler, err := replycx.NewEventHandler(token, l.event, replycx.EventHandlerOptions{Logger: p.Console.Log})
	if err != nil {
		return err
	}
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return engine.WithClass(engine.ClassOther, fmt.Errorf("%w; --listen 127.0.0.1:0 selects a free port", err))
	}
	ended, err := p.serveEvents(ctx, socket, l.logHandshake(handler), o.envFile)
	if !ended {
		return err
	}
	p.Console.Note("%s received", console.Count(int(l.events.Load()), "event"))
	cause := context.Cause(ctx)
	if err == nil && cmd.Context().Err() == nil && !errors.Is(cause, errCountReached) && !errors.Is(cause, errNoReader) {
		err = cause
	}
	return err
}

// serveEvents serves events until ctx ends. It reports false if the server failed before that.
func (p *Program) serveEvents(ctx context.Context, socket net.Listener, handler http.Handler, envFile string) (ended bool, err error) {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(socket) }()

	address := "http://" + socket.Addr().String()
	p.Console.Note("listening at %s until interrupted", address)
	if envFile != "" {
		err = atomicfile.Write(envFile, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "export WEBHOOK_URL=%s\n", address)
			return err
		})
	}
	if err == nil {
		select {
		case err = <-served:
			return false, fmt.Errorf("serve: %w", err)
		case <-ctx.Done():
		}
	}
	// Requests in progress get an answer.
	end, cancel := context.WithTimeout(p.Hard(), 5*time.Second)
	defer cancel()
	if server.Shutdown(end) != nil {
		_ = server.Close()
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", e))
	}
	return true, err
}

// These end a listener: it has received --count events, or its output is closed.
var (
	errCountReached = errors.New("received the requested number of events")
	errNoReader     = errors.New("the output is closed")
)

// A listener prints events.
type listener struct {
	out    *console.Console
	count  int64
	stop   context.CancelCauseFunc
	events atomic.Int64
}

// event prints one event in one write, so that concurrent deliveries do not mix. If printing fails, the listener does not
// accept the event and the sender may retry.
func (l *listener) event(_ context.Context, e replycx.Event) error {
	line := []byte(eventLine(time.Now(), e))
	if l.out.Format == console.FormatJSON {
		var b bytes.Buffer
		if err := json.Compact(&b, e.Raw); err != nil {
			return fmt.Errorf("print event: %w", err)
		}
		b.WriteByte('\n')
		line = b.Bytes()
	} else if l.out.Quiet {
		line = nil
	}
	if len(line) > 0 {
		if _, err := l.out.Stdout.Write(line); err != nil {
			err = fmt.Errorf("print event: %w", err)
			l.stop(err)
			return err
		}
		if l.out.Closed() {
			l.stop(errNoReader)
			return errNoReader
		}
	}
	if n := l.events.Add(1); l.count > 0 && n >= l.count {
		l.stop(errCountReached)
	}
	return nil
}

// logHandshake reports accepted requests without an event, such as the first request after a webhook was set.
func (l *listener) logHandshake(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before := l.events.Load()
		s := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(s, r)
		if s.status == http.StatusOK && l.events.Load() == before {
			l.out.Note("received a request with the right token and no event: the webhook is being set")
		}
	})
}

// A statusWriter records the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader records and sends the status.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// eventLine returns an event on one line. The payloads of most events are not documented, so it shows all members as
// name=value.
func eventLine(at time.Time, e replycx.Event) string {
	kind, conversation := string(e.Type), e.ConversationKey
	if kind == "" {
		kind = "?"
	}
	if conversation == "" {
		conversation = "-"
	}
	var facts []string
	if c := e.Created; c != nil {
		facts = createdFacts(c)
	} else {
		facts = payloadFacts("", e.Payload, nil, 0)
	}
	line := fmt.Sprintf("%s  %-19s  %s  %s", at.Local().Format("15:04:05"), console.Printable(kind), console.Printable(conversation), shortened(strings.Join(facts, " ")))
	return strings.TrimRight(line, " ") + "\n"
}

func createdFacts(c *replycx.ConversationCreated) []string {
	facts := []string{}
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, fact(name, value))
		}
	}
	add("title", c.Title)
	add("assigned_to", c.AssigneeEmail)
	add("created_at", c.CreatedAt)
	for _, v := range c.Variables {
		add(v.Name, v.Value)
	}
	return facts
}

// payloadFacts lists the members of a payload as name=value. A nested member has the names of its parents, joined by dots.
// Below eight levels the value is its JSON.
func payloadFacts(name string, raw json.RawMessage, facts []string, depth int) []string {
	const deepest = 8
	var object map[string]json.RawMessage
	var list []json.RawMessage
	switch {
	case depth == deepest:
		return append(facts, fact(name, scalar(raw)))
	case json.Unmarshal(raw, &object) == nil && object != nil:
		// An object with a name and a value is a variable.
		if named, value := scalar(object["name"]), scalar(object["value"]); named != "" && object["value"] != nil {
			return append(facts, fact(named, value))
		}
		for _, key := range slices.Sorted(maps.Keys(object)) {
			below := key
			if name != "" {
				below = name + "." + key
			}
			facts = payloadFacts(below, object[key], facts, depth+1)
		}
	case json.Unmarshal(raw, &list) == nil && list != nil:
		for _, element := range list {
			facts = payloadFacts(name, element, facts, depth+1)
		}
	default:
		if text := scalar(raw); text != "" {
			facts = append(facts, fact(name, text))
		}
	}
	return facts
}

func fact(name, value string) string {
	if name == "" {
		return console.Quoted(value)
	}
	if value == "" || strings.ContainsAny(value, " =\"") {
		return console.Printable(name) + "=" + console.Quoted(value)
	}
	return console.Printable(name) + "=" + console.Printable(value)
}

// shortened cuts a long line; --json prints everything.
func shortened(text string) string {
	const most = 300
	if len(text) <= most {
		return text
	}
	cut := most
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
