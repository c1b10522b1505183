package main

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
	"github.com/kbsync/kbsync/replycx"
)

func (a *app) webhookCommand() *cobra.Command {
	cmd := group("webhook", "Subscribe to events of conversations, and print them",
		`webhook has ReplyCX post what happens in conversations to a URL, and receives it. Both sides share a token of your own choice, by
which the receiver knows the sender. It is read from the variable REPLYCX_WEBHOOK_TOKEN or from --webhook-token-file.`)
	cmd.AddCommand(a.webhookSetCommand(), a.webhookListenCommand())
	return cmd
}

// webhookTokenVariable holds the token that sender and receiver of events share.
const webhookTokenVariable = "REPLYCX_WEBHOOK_TOKEN"

func webhookTokenFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "webhook-token-file", "", "File with the webhook's token, in place of "+webhookTokenVariable+".")
}

// webhookToken reads the webhook's token, and sees to it that it is never printed.
func (a *app) webhookToken(path string) (string, error) {
	if path == "" {
		text := variable(a.env, webhookTokenVariable)
		if strings.TrimSpace(text) == "" {
			return "", usageError("there is no webhook token: think of one, at least 16 letters and digits, and set " + webhookTokenVariable +
				" to it, or put it into a file and write --webhook-token-file FILE; sender and receiver need the same")
		}
		token, err := a.aToken([]byte(text))
		if err != nil {
			return "", &exitError{exitUsage, fmt.Errorf("%s %w", webhookTokenVariable, err)}
		}
		return token, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", &exitError{exitUsage, fmt.Errorf("read webhook token: %w", err)}
	}
	if readableByOthers(info) {
		a.out.log.Warn("the webhook token's file can be read by others; chmod 600 it", "file", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", &exitError{exitUsage, fmt.Errorf("read webhook token: %w", err)}
	}
	token, err := a.aToken(data)
	if err != nil {
		return "", &exitError{exitUsage, fmt.Errorf("--webhook-token-file %s %w", printable(path), err)}
	}
	return token, nil
}

type webhookSetOptions struct {
	url, tokenFile string
	events         []string
	disable        bool
}

func (a *app) webhookSetCommand() *cobra.Command {
	var o webhookSetOptions
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Set the URL that gets the account's events, or switch it off",
		Long: `set replaces the account's one webhook: its URL, its token and its events. No operation of the API reads what was set before.
The API posts to the URL at once, and whoever listens there has to give the token back, as kbsync api webhook listen does.
--disable switches the webhook off.`,
		Example: `  kbsync api webhook set --url https://hooks.example.com/replycx
  kbsync api webhook set --url https://hooks.example.com/replycx --events message,status
  kbsync api webhook set --disable`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.setWebhook(cmd, o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.url, "url", "", "URL that gets the events.")
	f.StringSliceVar(&o.events, "events", nil, "Events to subscribe to, with commas between them; all by default: "+eventNames()+".")
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

func (a *app) setWebhook(cmd *cobra.Command, o webhookSetOptions) error {
	w := replycx.Webhook{URL: o.url, Disabled: o.disable, Events: replycx.EventTypes()}
	if o.events != nil {
		w.Events = nil
	}
	for _, name := range o.events {
		e := replycx.EventType(strings.TrimSpace(name))
		if !slices.Contains(replycx.EventTypes(), e) {
			return usageError(fmt.Sprintf("--events: there is no event %s; write some of %s", quoted(name), eventNames()))
		}
		w.Events = append(w.Events, e)
	}
	if !o.disable {
		if o.url == "" {
			return usageError("where to? write --url URL, or --disable to switch the webhook off")
		}
		u, err := url.Parse(o.url)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return usageError(fmt.Sprintf("--url %s is no URL that events can be posted to; write one such as https://hooks.example.com/replycx", quoted(o.url)))
		}
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			a.out.log.Warn("the token and all messages travel over plain http, where anyone on the way reads them; use https")
		}
	}
	if !o.disable || o.tokenFile != "" || variable(a.env, webhookTokenVariable) != "" {
		token, err := a.webhookToken(o.tokenFile)
		if err != nil {
			return err
		}
		w.Token = token
	}
	return a.withAPI(cmd, true, func(ctx context.Context, api *api) error {
		if err := api.client.SetWebhook(ctx, w); err != nil {
			return apiFailure(err, "")
		}
		if o.disable {
			return a.done("the webhook is switched off")
		}
		var names []string
		for _, e := range w.Events {
			names = append(names, string(e))
		}
		return a.done("%s gets the events %s", printable(o.url), strings.Join(names, ", "))
	})
}

// isLoopback tells the hosts that lead to this machine and no further.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

type listenOptions struct {
	listen, tokenFile, envFile string
	count                      int64
}

// listenAddress is where events are received unless --listen says otherwise. A tunnel or proxy that leads here wants to
// know it beforehand.
const listenAddress = "127.0.0.1:8760"

func (a *app) webhookListenCommand() *cobra.Command {
	var o listenOptions
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive a webhook's events and print each as it arrives",
		Long: `listen receives the events of a webhook until it is interrupted, and prints a line for each: when it came, what happened, in which
conversation, and the most of what the event says. With --json it is one JSON object a line, as the API sent it. Requests without
the right token are refused with 401. It serves plain HTTP on this machine only; for events from outside, let a tunnel or a proxy
with a certificate lead to it.

Try it without an account, with two terminals and the same REPLYCX_WEBHOOK_TOKEN in both:
  kbsync api webhook listen
  kbsync api webhook set --emulator --url http://` + listenAddress,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listen(cmd, o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.listen, "listen", listenAddress, "Address to listen on; port 0 takes a free one.")
	webhookTokenFlag(cmd, &o.tokenFile)
	f.Int64Var(&o.count, "count", 0, "End after so many events; 0 goes on until interrupted.")
	f.StringVar(&o.envFile, "env-file", "", "File to write the address to, as WEBHOOK_URL, once it can be used.")
	return cmd
}

func (a *app) listen(cmd *cobra.Command, o listenOptions) error {
	if _, err := a.load(cmd); err != nil {
		return err
	}
	token, err := a.webhookToken(o.tokenFile)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(o.listen)
	if err != nil {
		return usageError(fmt.Sprintf("--listen %s is no address; write host:port, such as %s", quoted(o.listen), listenAddress))
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if !isLoopback(host) {
		a.out.log.Warn("events are received over plain http from anywhere; let a proxy with a certificate stand before it", "listen", o.listen)
	}
	ctx, stop := context.WithCancelCause(cmd.Context())
	defer stop(nil)
	l := &listener{out: a.out, now: a.now, count: o.count, stop: stop}
	handler, err := replycx.NewEventHandler(token, l.event, replycx.EventHandlerOptions{Logger: a.out.log})
	if err != nil {
		return err
	}
	socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return &exitError{exitOther, fmt.Errorf("%w; --listen 127.0.0.1:0 takes a free port", err)}
	}
	server := &http.Server{
		Handler:           l.noting(handler),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(socket) }()

	address := "http://" + socket.Addr().String()
	a.out.note("listening at %s until interrupted", address)
	if o.envFile != "" {
		err = atomicfile.Write(o.envFile, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "export WEBHOOK_URL=%s\n", address)
			return err
		})
	}
	if err == nil {
		select {
		case err = <-served:
			return fmt.Errorf("serve: %w", err)
		case <-ctx.Done():
		}
	}
	// Whoever is sending gets an answer.
	end, cancel := context.WithTimeout(a.signals.hard, 5*time.Second)
	defer cancel()
	if server.Shutdown(end) != nil {
		_ = server.Close()
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", e))
	}
	a.out.note("%s received", count(int(l.events.Load()), "event"))
	if cause := context.Cause(ctx); err == nil && cmd.Context().Err() == nil && !errors.Is(cause, errEnough) {
		err = cause
	}
	return err
}

var errEnough = errors.New("as many events as were asked for")

// A listener prints events.
type listener struct {
	out    *output
	now    func() time.Time
	count  int64
	stop   context.CancelCauseFunc
	events atomic.Int64
}

// event prints one event in one write, so that deliveries that come at once do not mix. What cannot be printed is not
// accepted either: its sender may try again.
func (l *listener) event(_ context.Context, e replycx.Event) error {
	line := []byte(eventLine(l.now(), e))
	if l.out.format == formatJSON {
		var b bytes.Buffer
		if err := json.Compact(&b, e.Raw); err != nil {
			return fmt.Errorf("print event: %w", err)
		}
		b.WriteByte('\n')
		line = b.Bytes()
	} else if l.out.quiet {
		line = nil
	}
	if len(line) > 0 {
		if _, err := l.out.stdout.Write(line); err != nil {
			err = fmt.Errorf("print event: %w", err)
			l.stop(err)
			return err
		}
	}
	if n := l.events.Add(1); l.count > 0 && n >= l.count {
		l.stop(errEnough)
	}
	return nil
}

// noting tells of what comes without an event, as the first request does that a webhook's setting causes.
func (l *listener) noting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before := l.events.Load()
		s := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(s, r)
		if s.status == http.StatusOK && l.events.Load() == before {
			l.out.note("a request with the right token and no event was answered: the webhook is being set")
		}
	})
}

// A statusWriter keeps the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader is that of the answer.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// eventLine is an event on one line. The payloads of most events are not documented: what is in them is shown as
// name=value, whatever it is.
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
	line := fmt.Sprintf("%s  %-19s  %s  %s", at.Local().Format("15:04:05"), printable(kind), printable(conversation), shortened(strings.Join(facts, " ")))
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

// payloadFacts lists what is in a payload, with dots between the names of what is nested. What is nested without sense is
// taken as it is written.
func payloadFacts(name string, raw json.RawMessage, facts []string, depth int) []string {
	const deepest = 8
	var object map[string]json.RawMessage
	var list []json.RawMessage
	switch {
	case depth == deepest:
		return append(facts, fact(name, scalar(raw)))
	case json.Unmarshal(raw, &object) == nil && object != nil:
		// A variable is a name and a value, and reads best so.
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
		return quoted(value)
	}
	if value == "" || strings.ContainsAny(value, " =\"") {
		return printable(name) + "=" + quoted(value)
	}
	return printable(name) + "=" + printable(value)
}

// shortened keeps a line readable; --json has everything.
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
