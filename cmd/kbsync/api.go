package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/replycx"
)

func (a *app) apiCommand() *cobra.Command {
	cmd := group("api", "Call the ReplyCX API by hand",
		`api calls one operation of the ReplyCX API and prints its answer: as text, or with --json as the API wrote it. It needs no config;
the token is that of every command. With --emulator all of it can be tried without an account.`)
	cmd.AddCommand(
		a.botsCommand(),
		a.apiUploadCommand(),
		a.apiStatusCommand(),
		a.conversationCommand(),
		a.webhookCommand(),
	)
	return cmd
}

// group is a command that is nothing without one of its own commands.
func group(name, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: short,
		Long:  long,
		Args:  cobra.ArbitraryArgs,

		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, args []string) error {
			var names []string
			for _, c := range cmd.Commands() {
				names = append(names, c.Name())
			}
			last := len(names) - 1
			write := fmt.Sprintf("write %s %s or %s", cmd.CommandPath(), strings.Join(names[:last], ", "), names[last])
			if len(args) == 0 {
				return usageError(write + "; --help tells what each does")
			}
			message := fmt.Sprintf("there is no %s %s; ", cmd.CommandPath(), printable(args[0]))
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return usageError(message + "did you mean " + strings.Join(near, " or ") + "?")
			}
			return usageError(message + write)
		},
	}
}

// withAPI runs a command that needs the API and no state. What writes is let to finish after the first signal, so that its
// outcome is known.
func (a *app) withAPI(cmd *cobra.Command, writes bool, do func(context.Context, *api) error) (err error) {
	cfg, err := a.load(cmd)
	if err != nil {
		return err
	}
	api, err := a.connectByHand(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.close()) }()
	ctx := cmd.Context()
	if writes {
		graceful, cancel := a.signals.graceful(cfg.ShutdownGrace)
		defer cancel()
		ctx = graceful
	}
	if err := do(ctx, api); err != nil {
		return err
	}
	if api.emulator != nil {
		api.emulator.deliver(ctx)
	}
	return nil
}

// connectByHand is connect for what has no inventory. The embedded emulator has the given knowledge bases too.
func (a *app) connectByHand(ctx context.Context, cfg *config.Config, knowledgeBases ...int64) (*api, error) {
	if !a.useEmulator {
		return a.connect(ctx, cfg)
	}
	p, err := a.connectEmulator(cfg, knowledgeBases...)
	if err == nil {
		a.out.note("emulator: this is not ReplyCX; what happens is kept in %s", printable(emulatorFile(cfg.State)))
	}
	return p, err
}

// A plainError keeps its text when an interrupt is what caused it: it says more than that.
type plainError struct{ error }

func (e *plainError) Unwrap() error { return e.error }

// apiFailure gives an error of the API its exit code, and says what to do where that is known. Unless repeating the
// operation is harmless, lost says what may be there though no answer came.
func apiFailure(err error, lost string) error {
	if err == nil || is[*exitError](err) {
		return err
	}
	if errors.Is(err, replycx.ErrNoAccount) {
		return usageError("the token does not name its account; write --account-id ID, or account_id below api in the config")
	}
	if refused, ok := errors.AsType[*replycx.Error](err); ok {
		switch {
		case errors.Is(err, replycx.ErrTokenInvalid):
			return &exitError{exitFatal, fmt.Errorf("%w (check the token and --api-url)", err)}
		case errors.Is(err, replycx.ErrUnauthorized):
			return &exitError{exitFatal, fmt.Errorf("%w (check the token, and that --account-id is its account)", err)}
		case isOneOf(replycx.ErrFeatureNotEnabled, replycx.ErrAccountNotFound, replycx.ErrKnowledgeBaseNotFound, replycx.ErrKnowledgeBaseNotOwned)(err),
			refused.StatusCode == http.StatusUnauthorized, refused.StatusCode == http.StatusForbidden,
			refused.StatusCode >= 300 && refused.StatusCode < 400:
			return &exitError{exitFatal, err}
		case refused.StatusCode == http.StatusRequestTimeout, refused.StatusCode == http.StatusTooEarly, refused.StatusCode == http.StatusTooManyRequests,
			refused.StatusCode == http.StatusServiceUnavailable && (refused.FromAPI || refused.RetryAfter > 0):
			return &exitError{exitTemporary, fmt.Errorf("%w; nothing was done, try again later", err)}
		case refused.StatusCode < 500:
			return &exitError{exitOther, err}
		}
	}
	if neverSent(err) {
		return err
	}
	interrupted := errors.Is(err, context.Canceled)
	if interrupted {
		err = errors.New("interrupted before the API answered")
	}
	if lost == "" {
		if interrupted {
			return &exitError{exitInterrupted, &plainError{err}}
		}
		return err
	}
	return &exitError{exitOther, &plainError{fmt.Errorf("%w; %s may be there all the same: look in ReplyCX before you repeat this", err, lost)}}
}

// neverSent tells failures before the API had the whole request.
func neverSent(err error) bool {
	if is[*replycx.UnsentError](err) || isOneOf(replycx.ErrNoToken)(err) {
		return true
	}
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// An answered row is printed as JSON with what the API said of it.
type answered[T any] struct {
	row T
	raw json.RawMessage
}

// MarshalJSON gives the API's own words.
func (r answered[T]) MarshalJSON() ([]byte, error) { return r.raw, nil }

// slice makes the rows that printRows takes of a list.
func slice[T any](rows []T) func(yield func(T, error) bool) {
	return func(yield func(T, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}
}

func (a *app) botsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "bots",
		Short: "List the bots of the account",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAPI(cmd, false, func(ctx context.Context, api *api) error {
				bots, err := api.client.Bots(ctx)
				if err != nil {
					return apiFailure(err, "")
				}
				rows := make([]answered[replycx.Bot], len(bots))
				for i, b := range bots {
					rows[i] = answered[replycx.Bot]{b, b.Raw}
				}
				return printRows(a.out, botColumns(), slice(rows))
			})
		},
	}
}

func botColumns() []column[answered[replycx.Bot]] {
	type bot = answered[replycx.Bot]
	return []column[bot]{
		{"bot_id", true, func(b bot) string { return strconv.FormatInt(b.row.ID, 10) }},
		{"bot_title", true, func(b bot) string { return b.row.Title }},
		{"type", true, func(b bot) string { return b.row.Type }},
		{"channels", true, func(b bot) string { return strings.Join(b.row.Channels, ",") }},
		{"is_active", true, func(b bot) string { return strconv.FormatBool(b.row.Active) }},
		{"language", true, func(b bot) string { return b.row.Language }},
		{"bot_owner", true, func(b bot) string { return cmp.Or(b.row.OwnerEmail, b.row.OwnerName) }},
		{"last_deployed_at", true, func(b bot) string { return b.row.LastDeployedAt }},
		{"bot_key", true, func(b bot) string { return b.row.Key }},
	}
}

// idsPerQuestion is how many ids go into the address of one status request.
const idsPerQuestion = 100

func (a *app) apiStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status ID... | -",
		Short: "Ask for the training status of sources",
		Long: `status asks the API how the training of sources goes, by their ids; with - it reads the ids from stdin, with white space or
commas between them. It asks once. A source that the answer lacks ends it with code 1.`,
		Example: `  kbsync api status 330783 330784
  kbsync sources --json | jq .[].id | kbsync api status -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := a.sourceIDs(cmd, args)
			if err != nil {
				return err
			}
			return a.withAPI(cmd, false, func(ctx context.Context, api *api) error { return a.apiStatus(ctx, api, ids) })
		},
	}
}

func (a *app) sourceIDs(cmd *cobra.Command, args []string) ([]int64, error) {
	if len(args) == 0 {
		return nil, usageError("name the ids of sources, or - to read them from stdin; write: " + cmd.UseLine())
	}
	var words []string
	between := func(r rune) bool { return r == ',' || unicode.IsSpace(r) }
	for _, arg := range args {
		if arg != "-" {
			words = append(words, strings.FieldsFunc(arg, between)...)
			continue
		}
		lines := bufio.NewScanner(a.stdin)
		for lines.Scan() {
			words = append(words, strings.FieldsFunc(lines.Text(), between)...)
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read ids: %w", err)
		}
	}
	var ids []int64
	for _, word := range words {
		id, err := strconv.ParseInt(word, 10, 64)
		if err != nil || id <= 0 {
			return nil, usageError(quoted(word) + " is not the id of a source; ids are numbers, such as 330783")
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, usageError("stdin has no ids; put in numbers such as 330783, with white space or commas between them")
	}
	return ids, nil
}

func (a *app) apiStatus(ctx context.Context, api *api, ids []int64) error {
	type source = answered[replycx.SourceStatus]
	var rows []source
	missing := slices.Clone(ids)
	for chunk := range slices.Chunk(ids, idsPerQuestion) {
		list, err := api.client.SourceStatus(ctx, chunk)
		if err != nil {
			return apiFailure(err, "")
		}
		for _, s := range list {
			rows = append(rows, source{s, s.Raw})
			missing = slices.DeleteFunc(missing, func(id int64) bool { return id == s.ID })
		}
	}
	if err := printRows(a.out, []column[source]{
		{"id", true, func(s source) string { return strconv.FormatInt(s.row.ID, 10) }},
		{"status", true, func(s source) string { return string(s.row.Status) }},
		{"knowledge_base_id", true, func(s source) string { return strconv.FormatInt(s.row.KnowledgeBaseID, 10) }},
		{"name", true, func(s source) string { return s.row.Name }},
		{"errors", slices.ContainsFunc(rows, func(s source) bool { return s.row.Errors != "" }), func(s source) string { return s.row.Errors }},
	}, slice(rows)); err != nil {
		return err
	}
	if len(missing) > 0 {
		return &exitError{exitOther, fmt.Errorf("the API knows nothing of %s", numbers(missing))}
	}
	return nil
}

// numbers lists ids for a sentence, the first ones of many.
func numbers(ids []int64) string {
	const most = 10
	var words []string
	for i, id := range ids {
		if i == most {
			words = append(words, fmt.Sprintf("and %d more", len(ids)-most))
			break
		}
		words = append(words, strconv.FormatInt(id, 10))
	}
	return strings.Join(words, " ")
}

// done prints the result of an operation whose answer says nothing but ok.
func (a *app) done(format string, args ...any) error {
	return a.out.result(map[string]bool{"ok": true}, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
}

// member finds a text in an answer, whatever its JSON type; it is empty where the answer has none.
func member(raw json.RawMessage, path ...string) string {
	for _, name := range path {
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil {
			return ""
		}
		raw = object[name]
	}
	return scalar(raw)
}

// scalar is a JSON value as a person writes it: a text without its quotation marks, nothing for null.
func scalar(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return ""
	}
	return b.String()
}

// pairs reads name=value arguments.
func pairs(what string, args []string) ([][2]string, error) {
	var list [][2]string
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, usageError(fmt.Sprintf("%s %s is no name=value", what, quoted(arg)))
		}
		if slices.ContainsFunc(list, func(p [2]string) bool { return p[0] == name }) {
			return nil, usageError(fmt.Sprintf("%s %s is given twice", what, quoted(name)))
		}
		list = append(list, [2]string{name, value})
	}
	return list, nil
}

// deliverPatience is how long the embedded emulator is given to hand events to a webhook.
const deliverPatience = 5 * time.Second

// deliver waits until the embedded emulator has handed its events to the webhook, and says what did not arrive.
func (e *embedded) deliver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, deliverPatience)
	defer cancel()
	if e.Delivered(ctx) != nil {
		e.out.note("emulator: the webhook does not take its events; is kbsync api webhook listen running?")
		return
	}
	for _, d := range e.Deliveries() {
		if d.Err != "" {
			e.out.note("emulator: the webhook did not take the event %s: %s", printable(d.Type), printable(d.Err))
		}
	}
}
