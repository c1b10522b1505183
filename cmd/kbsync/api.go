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
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
)

func (a *app) apiCommand() *cobra.Command {
	cmd := group("api", "Call the ReplyCX API by hand",
		`api calls one operation of the ReplyCX API and prints the answer as text, or with --json as the API sent it. It needs no config,
and uses the same token as every command. With --emulator you can try all operations without an account.`)
	cmd.AddCommand(
		a.botsCommand(),
		a.apiUploadCommand(),
		a.apiStatusCommand(),
		a.conversationCommand(),
		a.webhookCommand(),
	)
	return cmd
}

// group returns a command that only groups other commands.
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
			use := fmt.Sprintf("use %s %s or %s", cmd.CommandPath(), strings.Join(names[:last], ", "), names[last])
			if len(args) == 0 {
				return usageError("a command is missing; " + use + "; --help describes each")
			}
			message := fmt.Sprintf("unknown command %s %s; ", cmd.CommandPath(), printable(args[0]))
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return usageError(message + "did you mean " + strings.Join(near, " or ") + "?")
			}
			return usageError(message + use)
		},
	}
}

// withAPI runs a command that needs the API and no state. A command that writes may finish after the first signal, so that
// its outcome is known.
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

// connectByHand is connect for commands without an inventory. The embedded emulator also has the given knowledge bases.
func (a *app) connectByHand(ctx context.Context, cfg *config.Config, knowledgeBases ...int64) (*api, error) {
	if !a.useEmulator {
		return a.connect(ctx, cfg)
	}
	p, err := a.connectEmulator(cfg, knowledgeBases...)
	if err == nil {
		a.out.note("emulator: this is not ReplyCX; the emulator keeps its data in %s", printable(emulatorFile(cfg.State)))
	}
	return p, err
}

// A plainError is printed with its own text even if an interrupt caused it.
type plainError struct{ error }

func (e *plainError) Unwrap() error { return e.error }

// apiFailure returns the error of an operation with its exit code and, where possible, the remedy. lost names the object
// that may exist although no answer came; it is empty if repeating the operation is harmless.
func apiFailure(err error, lost string) error {
	if err == nil || is[*engine.ClassError](err) {
		return err
	}
	if errors.Is(err, replycx.ErrNoAccount) {
		return usageError("the token does not name its account; set --account-id ID, or account_id below api in the config")
	}
	if refused, ok := errors.AsType[*replycx.Error](err); ok {
		if failure := refusalFailure(err, refused); failure != nil {
			return failure
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
			return engine.WithClass(engine.ClassInterrupted, &plainError{err})
		}
		return err
	}
	return engine.WithClass(engine.ClassOther, &plainError{fmt.Errorf("%w; %s may exist all the same: check in ReplyCX before you repeat this", err, lost)})
}

// refusalFailure returns a refusal with its exit code, or nil if the API may have done the operation.
func refusalFailure(err error, refused *replycx.Error) error {
	switch refused.Class() {
	case replycx.ClassDenied:
		switch {
		case errors.Is(err, replycx.ErrTokenInvalid):
			return engine.WithClass(engine.ClassFatal, fmt.Errorf("%w (check the token and --api-url)", err))
		case errors.Is(err, replycx.ErrUnauthorized):
			return engine.WithClass(engine.ClassFatal, fmt.Errorf("%w (check the token, and that --account-id is its account)", err))
		case refused.StatusCode == http.StatusPaymentRequired, refused.StatusCode > http.StatusNotFound:
			return engine.WithClass(engine.ClassOther, err) // such as 409: it concerns this operation, not the token or the account
		}
		return engine.WithClass(engine.ClassFatal, err)
	case replycx.ClassBusy:
		return engine.WithClass(engine.ClassTemporary, fmt.Errorf("%w; nothing was done, try again later", err))
	case replycx.ClassUnclear:
		if refused.StatusCode >= 500 {
			return nil
		}
	}
	return engine.WithClass(engine.ClassOther, err)
}

// neverSent reports whether the request failed before the API had all of it.
func neverSent(err error) bool {
	if is[*replycx.UnsentError](err) || isOneOf(replycx.ErrNoToken)(err) {
		return true
	}
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// An answered row is printed in JSON as the API sent it.
type answered[T any] struct {
	row T
	raw json.RawMessage
}

// MarshalJSON returns the JSON of the API.
func (r answered[T]) MarshalJSON() ([]byte, error) { return r.raw, nil }

// slice returns the rows as a sequence for printRows.
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

func (a *app) apiStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status ID... | -",
		Short: "Show the training status of sources",
		Long: `status prints the training status of sources by their ids. With - it reads the ids from stdin, separated by white space or
commas. It does not wait for the training. The code is 1 if a source is missing from the API's answer.`,
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
		return nil, usageError("the ids of sources are missing; usage: " + cmd.UseLine())
	}
	var words []string
	separator := func(r rune) bool { return r == ',' || unicode.IsSpace(r) }
	for _, arg := range args {
		if arg != "-" {
			words = append(words, strings.FieldsFunc(arg, separator)...)
			continue
		}
		lines := bufio.NewScanner(a.stdin)
		for lines.Scan() {
			words = append(words, strings.FieldsFunc(lines.Text(), separator)...)
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read ids: %w", err)
		}
	}
	var ids []int64
	for _, word := range words {
		id, err := strconv.ParseInt(word, 10, 64)
		if err != nil || id <= 0 {
			return nil, usageError(quoted(word) + " is not the id of a source; an id is a number such as 330783")
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, usageError("stdin has no ids; expected numbers such as 330783, separated by white space or commas")
	}
	return ids, nil
}

func (a *app) apiStatus(ctx context.Context, api *api, ids []int64) error {
	type source = answered[replycx.SourceStatus]
	answers, err := replycx.CollectStatuses(ctx, ids, api.client.SourceStatus)
	if err != nil {
		return apiFailure(err, "")
	}
	var rows []source
	var missing []int64
	for _, id := range ids {
		if s, ok := answers.Found[id]; ok {
			rows = append(rows, source{s, s.Raw})
		} else {
			missing = append(missing, id)
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
		return engine.WithClass(engine.ClassOther, fmt.Errorf("sources missing from the API's answer: %s", numbers(missing)))
	}
	return nil
}

// numbers lists ids for a message, at most ten of them.
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

// done prints the result of an operation whose answer is only "ok".
func (a *app) done(format string, args ...any) error {
	return a.out.result(map[string]bool{"ok": true}, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
}

// member returns a member of an answer as text, empty if the answer lacks it.
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

// scalar returns a JSON value for a person: a string without its quotes, nothing for null, anything else as JSON.
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

// pairs parses name=value arguments. label describes them in an error.
func pairs(label string, args []string) ([][2]string, error) {
	var list [][2]string
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, usageError(fmt.Sprintf("%s %s is not name=value", label, quoted(arg)))
		}
		if slices.ContainsFunc(list, func(p [2]string) bool { return p[0] == name }) {
			return nil, usageError(fmt.Sprintf("%s %s is given twice", label, quoted(name)))
		}
		list = append(list, [2]string{name, value})
	}
	return list, nil
}

// deliveryTimeout bounds the time that the embedded emulator has for sending its events to a webhook.
const deliveryTimeout = 5 * time.Second

// deliver waits until the embedded emulator has sent its events to the webhook, and reports the failures.
func (e *embedded) deliver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	if e.Delivered(ctx) != nil {
		e.out.note("emulator: the webhook accepts no events; is kbsync api webhook listen running?")
		return
	}
	for _, d := range e.Deliveries() {
		if d.Err != "" {
			e.out.note("emulator: the webhook did not accept the event %s: %s", printable(d.Type), printable(d.Err))
		}
	}
}
