package apicommand

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
)

// New returns the command kbsync api with all commands below it.
func New(program Program) *cobra.Command {
	p := &program
	cmd := group("api", "Call the ReplyCX API by hand",
		`api calls one operation of the ReplyCX API and prints the answer as text, or with --json as the API sent it. It needs no config,
and uses the same token as every command. With --emulator you can try all operations without an account.`,
		`  kbsync api bots --emulator
  kbsync api status 330783 330784`)
	cmd.AddCommand(
		p.botsCommand(),
		p.apiUploadCommand(),
		p.apiStatusCommand(),
		p.conversationCommand(),
		p.webhookCommand(),
	)
	return cmd
}

// group returns a command that only groups other commands.
func group(name, short, long, example string) *cobra.Command {
	return &cobra.Command{
		Use:     name,
		Short:   short,
		Long:    long,
		Example: example,
		Args:    cobra.ArbitraryArgs,

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
			message := fmt.Sprintf("unknown command %s %s; ", cmd.CommandPath(), console.Printable(args[0]))
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return usageError(message + "did you mean " + strings.Join(near, " or ") + "?")
			}
			return usageError(message + use)
		},
	}
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

// arguments checks the number of arguments.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least {
			return usageError("missing argument; usage: " + cmd.UseLine())
		}
		if len(args) > most {
			return usageError(fmt.Sprintf("unexpected argument %s; usage: %s", console.Quoted(args[most]), cmd.UseLine()))
		}
		return nil
	}
}

func (p *Program) botsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "bots",
		Short: "List the bots of the account",
		Example: `  kbsync api bots
  kbsync api bots --emulator --json`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withAPI(cmd, false, func(ctx context.Context, conn *Connection) error {
				bots, err := conn.Client.Bots(ctx)
				if err != nil {
					return apiFailure(err, "")
				}
				rows := make([]answered[replycx.Bot], len(bots))
				for i, b := range bots {
					rows[i] = answered[replycx.Bot]{b, b.Raw}
				}
				return console.PrintRows(p.Console, botColumns(), slice(rows))
			})
		},
	}
}

func botColumns() []console.Column[answered[replycx.Bot]] {
	type bot = answered[replycx.Bot]
	return []console.Column[bot]{
		console.Brief("bot_id", func(b bot) string { return strconv.FormatInt(b.row.ID, 10) }),
		console.Brief("bot_title", func(b bot) string { return b.row.Title }),
		console.Brief("type", func(b bot) string { return b.row.Type }),
		console.Brief("channels", func(b bot) string { return strings.Join(b.row.Channels, ",") }),
		console.Brief("is_active", func(b bot) string { return strconv.FormatBool(b.row.Active) }),
		console.Brief("language", func(b bot) string { return b.row.Language }),
		console.Brief("bot_owner", func(b bot) string { return cmp.Or(b.row.OwnerEmail, b.row.OwnerName) }),
		console.Brief("last_deployed_at", func(b bot) string { return b.row.LastDeployedAt }),
		console.Brief("bot_key", func(b bot) string { return b.row.Key }),
	}
}

func (p *Program) apiStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status ID... | -",
		Short: "Show the training status of sources",
		Long: `status prints the training status of sources by their ids. With - it reads the ids from stdin, separated by white space or
commas. It does not wait for the training. The code is 1 if a source is missing from the API's answer.`,
		Example: `  kbsync api status 330783 330784
  kbsync sources --json | jq .[].id | kbsync api status -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := p.sourceIDs(cmd, args)
			if err != nil {
				return err
			}
			return p.withAPI(cmd, false, func(ctx context.Context, conn *Connection) error { return p.apiStatus(ctx, conn, ids) })
		},
	}
}

func (p *Program) sourceIDs(cmd *cobra.Command, args []string) ([]int64, error) {
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
		lines := bufio.NewScanner(p.Stdin)
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
			return nil, usageError(console.Quoted(word) + " is not the id of a source; an id is a number such as 330783")
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

func (p *Program) apiStatus(ctx context.Context, conn *Connection, ids []int64) error {
	type source = answered[replycx.SourceStatus]
	answers, err := replycx.CollectStatuses(ctx, ids, conn.Client.SourceStatus)
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
	if err := console.PrintRows(p.Console, []console.Column[source]{
		console.Brief("id", func(s source) string { return strconv.FormatInt(s.row.ID, 10) }),
		console.Brief("status", func(s source) string { return string(s.row.Status) }),
		console.Brief("knowledge_base_id", func(s source) string { return strconv.FormatInt(s.row.KnowledgeBaseID, 10) }),
		console.Brief("name", func(s source) string { return s.row.Name }),
		{
			Name:  "errors",
			Brief: slices.ContainsFunc(rows, func(s source) bool { return s.row.Errors != "" }),
			Text:  func(s source) string { return s.row.Errors },
		},
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
func (p *Program) done(format string, args ...any) error {
	return p.Console.Result(map[string]bool{"ok": true}, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
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
			return nil, usageError(fmt.Sprintf("%s %s is not name=value", label, console.Quoted(arg)))
		}
		if slices.ContainsFunc(list, func(p [2]string) bool { return p[0] == name }) {
			return nil, usageError(fmt.Sprintf("%s %s is given twice", label, console.Quoted(name)))
		}
		list = append(list, [2]string{name, value})
	}
	return list, nil
}
