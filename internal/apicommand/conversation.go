package apicommand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
)

func (p *Program) conversationCommand() *cobra.Command {
	cmd := group("conversation", "Create, answer, assign and close conversations",
		`conversation starts conversations over SMS and WhatsApp and acts in them as an agent. The contact sees every message at once.
--by EMAIL names the acting agent; KBSYNC_BY can replace it.`,
		`  kbsync api conversation send 12wfegrgt4t --by agent@example.com --text "We open at nine."`)
	cmd.AddCommand(
		p.createConversationCommand(),
		p.sendCommand(),
		p.closeConversationCommand(),
		p.assignCommand(),
		p.variablesCommand(),
	)
	return cmd
}

// conversationArgs checks the arguments of a command whose first argument is a conversation. n is their number, 0 for any.
func conversationArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 || strings.Trim(args[0], ".") == "" {
			return usageError("the id of the conversation is missing; usage: " + cmd.UseLine())
		}
		if n > 0 {
			return arguments(n, n)(cmd, args)
		}
		return nil
	}
}

// byFlag adds the flag for the acting agent.
func byFlag(cmd *cobra.Command, by *string) {
	cmd.Flags().StringVar(by, "by", "", "Email of the acting agent.")
}

func requireBy(by string) error {
	if by == "" {
		return usageError("--by EMAIL is required, the email of the acting agent; or set KBSYNC_BY")
	}
	return nil
}

// messageFlags are the flags for the content of a message.
type messageFlags struct {
	text, file, voice, template string
	size                        int64
	mediaType, name             string
	header, body                []string
	copyCode, otp, buttonURL    string
	variables                   []string
}

func (m *messageFlags) add(cmd *cobra.Command, attachments bool) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&m.text, "text", "", "The text; - reads it from stdin.")
	if attachments {
		f.StringVar(&m.file, "file", "", "URL of a file; the API must be able to fetch it without a login.")
		f.StringVar(&m.voice, "voice", "", "URL of a voice message; the API must be able to fetch it without a login.")
		f.Int64Var(&m.size, "size", 0, "Size of the file in bytes.")
		f.StringVar(&m.mediaType, "type", "", "Media type of the file, such as image/jpeg. Default: by the extension of its name.")
		f.StringVar(&m.name, "name", "", "Name of the file. Default: the last part of the URL.")
	}
	f.StringVar(&m.template, "template", "", "Name of an approved WhatsApp template.")
	f.StringArrayVar(&m.header, "header", nil, "Text for the template's header; repeatable.")
	f.StringArrayVar(&m.body, "body", nil, "Text for the template's body; repeatable, in order.")
	f.StringVar(&m.copyCode, "button-copy-code", "", "Code for the template's copy-code button.")
	f.StringVar(&m.otp, "button-otp", "", "One-time password for the template's button.")
	f.StringVar(&m.buttonURL, "button-url", "", "Variable part of the URL of the template's button.")
	f.StringArrayVar(&m.variables, "variable", nil, "Variable of the conversation, as name=value, sent with the template; repeatable.")
}

// check refuses flags that do not fit together. kinds names the allowed kinds of messages.
func (m *messageFlags) check(kinds string) error {
	given := 0
	for _, text := range []string{m.text, m.file, m.voice, m.template} {
		if text != "" {
			given++
		}
	}
	if given != 1 {
		return usageError("exactly one of " + kinds + " is required")
	}
	if m.template == "" && (m.header != nil || m.body != nil || m.copyCode != "" || m.otp != "" || m.buttonURL != "" || m.variables != nil) {
		return usageError("--header, --body, --button-... and --variable require --template NAME")
	}
	if m.file == "" && m.voice == "" && (m.size != 0 || m.mediaType != "" || m.name != "") {
		return usageError("--size, --type and --name require --file URL or --voice URL")
	}
	return nil
}

// message returns the message of the flags.
func (m *messageFlags) message(p *Program, kinds string) (message replycx.Message, err error) {
	if err := m.check(kinds); err != nil {
		return message, err
	}
	switch {
	case m.text == "-":
		const most = 1 << 20
		data, err := io.ReadAll(io.LimitReader(p.Stdin, most+1))
		if err != nil {
			return message, fmt.Errorf("read text: %w", err)
		}
		message.Text = strings.TrimRight(string(data), "\r\n")
		if message.Text == "" || len(data) > most {
			return message, usageError("the text on stdin is empty or larger than 1 MiB")
		}
	case m.text != "":
		message.Text = m.text
	case m.file != "":
		message.File, err = m.attachment("--file", m.file)
	case m.voice != "":
		message.Voice, err = m.attachment("--voice", m.voice)
	default:
		message.Template, err = m.templateMessage()
	}
	return message, err
}

func (m *messageFlags) attachment(flag, address string) (*replycx.File, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, usageError(fmt.Sprintf("%s %s is not a URL; the API fetches the file from the web, for example from https://example.com/photo.jpg",
			flag, console.Quoted(address)))
	}
	f := &replycx.File{Path: address, Size: m.size, Type: m.mediaType, Name: m.name}
	if f.Name == "" {
		f.Name = path.Base(u.Path)
		if f.Name == "." || f.Name == "/" {
			return nil, usageError("the URL has no file name; --name NAME is required")
		}
	}
	if f.Type == "" {
		if f.Type = mime.TypeByExtension(path.Ext(f.Name)); f.Type == "" {
			return nil, usageError(fmt.Sprintf("the media type of %s is unknown; --type is required, such as --type image/jpeg", console.Quoted(f.Name)))
		}
	}
	if f.Size <= 0 {
		return nil, usageError("--size BYTES is required, the size of the file")
	}
	return f, nil
}

func (m *messageFlags) templateMessage() (*replycx.Template, error) {
	t := &replycx.Template{Name: m.template, Header: m.header, Body: m.body}
	for kind, text := range map[string]string{"copy_code": m.copyCode, "otp": m.otp, "url": m.buttonURL} {
		if text != "" {
			if t.Buttons == nil {
				t.Buttons = map[string]string{}
			}
			t.Buttons[kind] = text
		}
	}
	variables, err := pairs("--variable", m.variables)
	if err != nil {
		return nil, err
	}
	for _, v := range variables {
		if t.Variables == nil {
			t.Variables = map[string]string{}
		}
		t.Variables[v[0]] = v[1]
	}
	return t, nil
}

type createOptions struct {
	channel, from, assignee string
	to                      replycx.Person
	file                    string
	message                 messageFlags
}

func (p *Program) createConversationCommand() *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [-]",
		Short: "Start a conversation over SMS or WhatsApp",
		Long: `create starts a conversation with a first message: a text over SMS, or an approved template over WhatsApp. It prints the id of the
conversation for the other commands. With --file FILE, or - for stdin, it sends your own JSON unchanged as the request.`,
		Example: `  kbsync api conversation create --emulator --channel SMS --from 1-123-1231230 --to-phone 1-132-1231320 --text "We open at nine."
  kbsync api conversation create --emulator --channel WHATSAPP --from 1123123123 --to-phone 11231231230 --template test_template \
    --header John --body Doe --body Doe2 --button-otp 123456 --variable name="John Doe"
  echo '{"channel": "SMS", "from": "1-123-1231230", "to": {"phone": "1-132-1231320"},
    "message": {"type": "text", "text": "We open at nine."}}' | kbsync api conversation create --emulator -`,
		Args: arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if args[0] != "-" || o.file != "" {
					return usageError(fmt.Sprintf("unexpected argument %s; use --file FILE for a JSON request", console.Quoted(args[0])))
				}
				o.file = "-"
			}
			return p.createConversation(cmd, o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.channel, "channel", "", "SMS or WHATSAPP.")
	f.StringVar(&o.from, "from", "", "The account's number on the channel.")
	f.StringVar(&o.to.Phone, "to-phone", "", "The contact's number, with country code and without a plus sign.")
	f.StringVar(&o.to.Name, "to-name", "", "The contact's name.")
	f.StringVar(&o.to.Email, "to-email", "", "The contact's email.")
	f.StringVar(&o.assignee, "assignee", "", "Email of the agent to assign.")
	o.message.add(cmd, false)
	f.StringVar(&o.file, "file", "", "File with the whole request as JSON, instead of the flags above; - is stdin.")
	return cmd
}

func (p *Program) createConversation(cmd *cobra.Command, o createOptions) error {
	const lost = "the conversation"
	if o.file != "" {
		body, err := p.jsonBody(cmd, o.file)
		if err != nil {
			return err
		}
		return p.withAPI(cmd, true, func(ctx context.Context, conn *Connection) error {
			req, err := conn.Client.NewRequest(ctx, http.MethodPost, "/v1/conversations", body)
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := conn.Client.Do(req, &raw); err != nil {
				return apiFailure(err, lost)
			}
			return p.created(raw)
		})
	}
	switch {
	case o.channel == "":
		return usageError("--channel is required: SMS or WHATSAPP")
	case o.from == "":
		return usageError("--from NUMBER is required, one of the account's numbers on the channel")
	case o.to.Phone == "":
		return usageError("--to-phone NUMBER is required")
	}
	message, err := o.message.message(p, "--text TEXT and --template NAME")
	if err != nil {
		return err
	}
	return p.withAPI(cmd, true, func(ctx context.Context, conn *Connection) error {
		c, err := conn.Client.CreateConversation(ctx, replycx.NewConversation{
			Channel: replycx.Channel(strings.ToUpper(o.channel)), From: o.from, To: o.to, Message: message, Assignee: o.assignee,
		})
		if err != nil {
			return apiFailure(err, lost)
		}
		return p.created(c.Raw)
	})
}

// jsonBody reads a request from a file or stdin. It checks only that the request is a JSON object.
func (p *Program) jsonBody(cmd *cobra.Command, name string) (json.RawMessage, error) {
	for _, flag := range []string{
		"channel", "from", "to-phone", "to-name", "to-email", "assignee", "text", "template", "header", "body",
		"button-copy-code", "button-otp", "button-url", "variable",
	} {
		if cmd.Flags().Changed(flag) {
			return nil, usageError("--file and --" + flag + " exclude each other, because the file is the whole request")
		}
	}
	in := p.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, engine.WithClass(engine.ClassUsage, err)
		}
		defer func() { _ = f.Close() }() // opened for reading only
		in = f
	} else {
		name = "stdin"
	}
	const most = 1 << 20
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil || object == nil || len(data) > most {
		why := ""
		if err != nil && len(data) > 0 {
			why = ": " + err.Error()
		}
		return nil, usageError(fmt.Sprintf("%s is not a JSON object of at most 1 MiB%s; see the example of kbsync api conversation create --help",
			console.Printable(name), why))
	}
	return data, nil
}

// created prints a conversation.
func (p *Program) created(raw json.RawMessage) error {
	return p.Console.Result(raw, func(w io.Writer) {
		contact := []string{}
		for _, name := range []string{"name", "phone", "email", "id"} {
			if text := member(raw, "contact", name); text != "" {
				contact = append(contact, text)
			}
		}
		for _, line := range [][2]string{
			{"conversation", member(raw, "conversation", "id")},
			{"message", member(raw, "conversation", "message_id")},
			{"created", member(raw, "conversation", "created_at")},
			{"contact", strings.Join(contact, ", ")},
			{"assignee", member(raw, "conversation", "assignee", "to")},
		} {
			if line[1] != "" {
				fmt.Fprintf(w, "%-13s %s\n", line[0], console.Printable(line[1]))
			}
		}
	})
}

func (p *Program) sendCommand() *cobra.Command {
	var by string
	var flags messageFlags
	cmd := &cobra.Command{
		Use:   "send ID",
		Short: "Send an agent's message in a conversation",
		Example: `  kbsync api conversation send 12wfegrgt4t --by agent@example.com --text "We open at nine."
  kbsync api conversation send 12wfegrgt4t --by agent@example.com --file https://example.com/orchid.jpg --size 152146`,
		Args: conversationArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := requireBy(by); err != nil {
				return err
			}
			message, err := flags.message(p, "--text TEXT, --file URL, --voice URL and --template NAME")
			if err != nil {
				return err
			}
			return p.withAPI(cmd, true, func(ctx context.Context, conn *Connection) error {
				id, err := conn.Client.SendMessage(ctx, args[0], by, message)
				if err != nil {
					return apiFailure(err, "the message")
				}
				return p.Console.Result(struct {
					OK        bool   `json:"ok"`
					MessageID string `json:"message_id"`
				}{true, id}, func(w io.Writer) { fmt.Fprintf(w, "%-13s %s\n", "message", console.Printable(id)) })
			})
		},
	}
	byFlag(cmd, &by)
	flags.add(cmd, true)
	return cmd
}

func (p *Program) closeConversationCommand() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:     "close ID",
		Short:   "Close a conversation",
		Long:    "close closes a conversation. The API cannot open it again.",
		Example: `  kbsync api conversation close 12wfegrgt4t --by agent@example.com`,
		Args:    conversationArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := requireBy(by); err != nil {
				return err
			}
			return p.withAPI(cmd, true, func(ctx context.Context, conn *Connection) error {
				if err := conn.Client.CloseConversation(ctx, args[0], by); err != nil {
					return apiFailure(err, "")
				}
				return p.done("conversation %s is closed", console.Printable(args[0]))
			})
		},
	}
	byFlag(cmd, &by)
	return cmd
}

func (p *Program) assignCommand() *cobra.Command {
	var by, to, team string
	cmd := &cobra.Command{
		Use:   "assign ID",
		Short: "Assign a conversation to another agent or a team",
		Example: `  kbsync api conversation assign 12wfegrgt4t --by agent@example.com --to another@example.com
  kbsync api conversation assign 12wfegrgt4t --by agent@example.com --team Sales`,
		Args: conversationArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := requireBy(by); err != nil {
				return err
			}
			if (to == "") == (team == "") {
				return usageError("exactly one of --to EMAIL and --team NAME is required")
			}
			return p.withAPI(cmd, true, func(ctx context.Context, conn *Connection) error {
				if team != "" {
					if err := conn.Client.AssignToTeam(ctx, args[0], by, team); err != nil {
						return apiFailure(err, "")
					}
					return p.done("conversation %s is assigned to the team %s", console.Printable(args[0]), console.Printable(team))
				}
				if err := conn.Client.AssignToUser(ctx, args[0], by, to); err != nil {
					return apiFailure(err, "")
				}
				return p.done("conversation %s is assigned to %s", console.Printable(args[0]), console.Printable(to))
			})
		},
	}
	byFlag(cmd, &by)
	cmd.Flags().StringVar(&to, "to", "", "Email of the new assignee.")
	cmd.Flags().StringVar(&team, "team", "", "Name of the new team.")
	return cmd
}

func (p *Program) variablesCommand() *cobra.Command {
	var contact []string
	cmd := &cobra.Command{
		Use:     "variables ID NAME=VALUE...",
		Short:   "Set variables of a conversation and its contact",
		Example: `  kbsync api conversation variables 12wfegrgt4t company=ReplyCX --contact phone=9999999999 --contact email=john@example.com`,
		Args:    conversationArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			own, err := pairs("variable", args[1:])
			theirs, err2 := pairs("--contact", contact)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			var list []replycx.Variable
			for _, p := range own {
				list = append(list, replycx.Variable{Name: p[0], Type: replycx.ConversationVariable, Value: p[1]})
			}
			for _, p := range theirs {
				list = append(list, replycx.Variable{Name: p[0], Type: replycx.ContactVariable, Value: p[1]})
			}
			if len(list) == 0 {
				return usageError("a variable is required: NAME=VALUE for the conversation, --contact NAME=VALUE for the contact")
			}
			return p.withAPI(cmd, true, func(ctx context.Context, conn *Connection) error {
				if err := conn.Client.UpdateVariables(ctx, args[0], list); err != nil {
					return apiFailure(err, "")
				}
				return p.done("set %s of conversation %s", console.Count(len(list), "variable"), console.Printable(args[0]))
			})
		},
	}
	cmd.Flags().StringArrayVar(&contact, "contact", nil, "Variable of the contact, as name=value; repeatable.")
	return cmd
}
