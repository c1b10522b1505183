package main

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

	"github.com/kbsync/kbsync/replycx"
)

func (a *app) conversationCommand() *cobra.Command {
	cmd := group("conversation", "Create, answer, assign and close conversations",
		`conversation starts conversations over SMS and WhatsApp and works in them as an agent. Everything is seen by the person at the
other end at once. Agents are named by their email; KBSYNC_BY may hold yours, in place of --by.`)
	cmd.AddCommand(
		a.createConversationCommand(),
		a.sendCommand(),
		a.closeConversationCommand(),
		a.assignCommand(),
		a.variablesCommand(),
	)
	return cmd
}

// aConversation is the check of commands whose first argument is a conversation.
func aConversation(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 || strings.Trim(args[0], ".") == "" {
			return usageError("the id of the conversation is missing; write: " + cmd.UseLine())
		}
		if n > 0 {
			return exactly(n)(cmd, args)
		}
		return nil
	}
}

// byFlag adds the agent who does something.
func byFlag(cmd *cobra.Command, by *string) {
	cmd.Flags().StringVar(by, "by", "", "Email of the agent who does it.")
}

func missingBy(by string) error {
	if by == "" {
		return usageError("who does it? write --by EMAIL, an agent's, or set KBSYNC_BY")
	}
	return nil
}

// messageFlags are the flags that say what is said.
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
		f.StringVar(&m.file, "file", "", "URL of a file, which anyone can read: the API fetches it from there.")
		f.StringVar(&m.voice, "voice", "", "URL of a voice message, as for --file.")
		f.Int64Var(&m.size, "size", 0, "Size of the file in bytes.")
		f.StringVar(&m.mediaType, "type", "", "Media type of the file, such as image/jpeg; by default that of its name.")
		f.StringVar(&m.name, "name", "", "Name of the file; by default that of the URL.")
	}
	f.StringVar(&m.template, "template", "", "Name of an approved WhatsApp template.")
	f.StringArrayVar(&m.header, "header", nil, "A text for the template's header; once for each.")
	f.StringArrayVar(&m.body, "body", nil, "A text for the template's body; once for each, in their order.")
	f.StringVar(&m.copyCode, "button-copy-code", "", "The code of the template's button that copies one.")
	f.StringVar(&m.otp, "button-otp", "", "The one-time password of the template's button.")
	f.StringVar(&m.buttonURL, "button-url", "", "The variable part of the URL of the template's button.")
	f.StringArrayVar(&m.variables, "variable", nil, "A variable of the conversation, as name=value, to go with the template; once for each.")
}

// message makes a message of the flags.
func (m *messageFlags) message(a *app, kinds string) (message replycx.Message, err error) {
	given := 0
	for _, text := range []string{m.text, m.file, m.voice, m.template} {
		if text != "" {
			given++
		}
	}
	if given != 1 {
		return message, usageError("what is to be said? write one of " + kinds)
	}
	if m.template == "" && (m.header != nil || m.body != nil || m.copyCode != "" || m.otp != "" || m.buttonURL != "" || m.variables != nil) {
		return message, usageError("--header, --body, --button-... and --variable fill a template; write --template NAME, or leave them out")
	}
	if m.file == "" && m.voice == "" && (m.size != 0 || m.mediaType != "" || m.name != "") {
		return message, usageError("--size, --type and --name describe a file; write --file URL or --voice URL, or leave them out")
	}
	switch {
	case m.text == "-":
		const most = 1 << 20
		data, err := io.ReadAll(io.LimitReader(a.stdin, most+1))
		if err != nil {
			return message, fmt.Errorf("read text: %w", err)
		}
		message.Text = strings.TrimRight(string(data), "\r\n")
		if message.Text == "" || len(data) > most {
			return message, usageError("stdin has no text, or more than 1 MiB of it")
		}
	case m.text != "":
		message.Text = m.text
	case m.file != "":
		message.File, err = m.attachment("--file", m.file)
	case m.voice != "":
		message.Voice, err = m.attachment("--voice", m.voice)
	default:
		message.Template, err = m.filled()
	}
	return message, err
}

func (m *messageFlags) attachment(flag, address string) (*replycx.File, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, usageError(fmt.Sprintf("%s %s is no URL of a file: the API fetches it from the web, so write one such as https://example.com/photo.jpg", flag, quoted(address)))
	}
	f := &replycx.File{Path: address, Size: m.size, Type: m.mediaType, Name: m.name}
	if f.Name == "" {
		f.Name = path.Base(u.Path)
		if f.Name == "." || f.Name == "/" {
			return nil, usageError("the URL has no file name; write --name NAME")
		}
	}
	if f.Type == "" {
		if f.Type = mime.TypeByExtension(path.Ext(f.Name)); f.Type == "" {
			return nil, usageError(fmt.Sprintf("the name %s does not tell the media type; write --type, such as --type image/jpeg", quoted(f.Name)))
		}
	}
	if f.Size <= 0 {
		return nil, usageError("the API wants to know how large the file is; write --size BYTES")
	}
	return f, nil
}

func (m *messageFlags) filled() (*replycx.Template, error) {
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

func (a *app) createConversationCommand() *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [-]",
		Short: "Start a conversation over SMS or WhatsApp",
		Long: `create starts a conversation with a first message: a text over SMS, or an approved template over WhatsApp. It prints the id by
which the other commands name the conversation. With --file, or with - from stdin, the body is JSON of your own, sent as it is.`,
		Example: `  kbsync api conversation create --emulator --channel SMS --from 1-123-1231230 --to-phone 1-132-1231320 --text "We open at nine."
  kbsync api conversation create --emulator --channel WHATSAPP --from 1123123123 --to-phone 11231231230 --template test_template \
    --header John --body Doe --body Doe2 --button-otp 123456 --variable name="John Doe"
  echo '{"channel": "SMS", "from": "1-123-1231230", "to": {"phone": "1-132-1231320"},
    "message": {"type": "text", "text": "We open at nine."}}' | kbsync api conversation create --emulator -`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if args[0] != "-" || o.file != "" {
					return usageError(fmt.Sprintf("%s is one argument too many; a file with the JSON body goes to --file", quoted(args[0])))
				}
				o.file = "-"
			}
			return a.createConversation(cmd, o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.channel, "channel", "", "SMS or WHATSAPP.")
	f.StringVar(&o.from, "from", "", "The account's own number on the channel.")
	f.StringVar(&o.to.Phone, "to-phone", "", "The other's number, with its country code and without a plus sign.")
	f.StringVar(&o.to.Name, "to-name", "", "The other's name.")
	f.StringVar(&o.to.Email, "to-email", "", "The other's email.")
	f.StringVar(&o.assignee, "assignee", "", "Email of the agent who gets the conversation.")
	o.message.add(cmd, false)
	f.StringVar(&o.file, "file", "", "File with the whole request as JSON, in place of the flags above; - is stdin.")
	return cmd
}

func (a *app) createConversation(cmd *cobra.Command, o createOptions) error {
	const lost = "the conversation"
	if o.file != "" {
		body, err := a.jsonBody(cmd, o.file)
		if err != nil {
			return err
		}
		return a.withAPI(cmd, true, func(ctx context.Context, api *api) error {
			req, err := api.client.NewRequest(ctx, http.MethodPost, "/v1/conversations", body)
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := api.client.Do(req, &raw); err != nil {
				return apiFailure(err, lost)
			}
			return a.created(raw)
		})
	}
	switch {
	case o.channel == "":
		return usageError("over which channel? write --channel SMS or --channel WHATSAPP")
	case o.from == "":
		return usageError("from which number? write --from NUMBER, one of the account's own on this channel")
	case o.to.Phone == "":
		return usageError("with whom? write --to-phone NUMBER")
	}
	message, err := o.message.message(a, "--text TEXT and --template NAME")
	if err != nil {
		return err
	}
	return a.withAPI(cmd, true, func(ctx context.Context, api *api) error {
		c, err := api.client.CreateConversation(ctx, replycx.NewConversation{
			Channel: replycx.Channel(strings.ToUpper(o.channel)), From: o.from, To: o.to, Message: message, Assignee: o.assignee,
		})
		if err != nil {
			return apiFailure(err, lost)
		}
		return a.created(c.Raw)
	})
}

// jsonBody reads a request from a file or stdin. It goes out as it is; only that it is a JSON object is made sure of.
func (a *app) jsonBody(cmd *cobra.Command, name string) (json.RawMessage, error) {
	for _, flag := range []string{
		"channel", "from", "to-phone", "to-name", "to-email", "assignee", "text", "template", "header", "body",
		"button-copy-code", "button-otp", "button-url", "variable",
	} {
		if cmd.Flags().Changed(flag) {
			return nil, usageError("the JSON body has everything; leave --" + flag + " out, or --file")
		}
	}
	in := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		defer func() { _ = f.Close() }() // it was only read
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
		return nil, usageError(fmt.Sprintf("%s has no JSON object of at most 1 MiB%s; kbsync api conversation create --help shows one", printable(name), why))
	}
	return data, nil
}

// created prints a conversation.
func (a *app) created(raw json.RawMessage) error {
	return a.out.result(raw, func(w io.Writer) {
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
				fmt.Fprintf(w, "%-13s %s\n", line[0], printable(line[1]))
			}
		}
	})
}

func (a *app) sendCommand() *cobra.Command {
	var by string
	var flags messageFlags
	cmd := &cobra.Command{
		Use:   "send ID",
		Short: "Send an agent's message in a conversation",
		Example: `  kbsync api conversation send 12wfegrgt4t --by agent@example.com --text "We open at nine."
  kbsync api conversation send 12wfegrgt4t --by agent@example.com --file https://example.com/orchid.jpg --size 152146`,
		Args: aConversation(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := missingBy(by); err != nil {
				return err
			}
			message, err := flags.message(a, "--text TEXT, --file URL, --voice URL and --template NAME")
			if err != nil {
				return err
			}
			return a.withAPI(cmd, true, func(ctx context.Context, api *api) error {
				id, err := api.client.SendMessage(ctx, args[0], by, message)
				if err != nil {
					return apiFailure(err, "the message")
				}
				return a.out.result(struct {
					OK        bool   `json:"ok"`
					MessageID string `json:"message_id"`
				}{true, id}, func(w io.Writer) { fmt.Fprintf(w, "%-13s %s\n", "message", printable(id)) })
			})
		},
	}
	byFlag(cmd, &by)
	flags.add(cmd, true)
	return cmd
}

func (a *app) closeConversationCommand() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:     "close ID",
		Short:   "Close a conversation",
		Long:    "close closes a conversation. The API cannot open it again.",
		Example: `  kbsync api conversation close 12wfegrgt4t --by agent@example.com`,
		Args:    aConversation(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := missingBy(by); err != nil {
				return err
			}
			return a.withAPI(cmd, true, func(ctx context.Context, api *api) error {
				if err := api.client.CloseConversation(ctx, args[0], by); err != nil {
					return apiFailure(err, "")
				}
				return a.done("conversation %s is closed", printable(args[0]))
			})
		},
	}
	byFlag(cmd, &by)
	return cmd
}

func (a *app) assignCommand() *cobra.Command {
	var by, to, team string
	cmd := &cobra.Command{
		Use:   "assign ID",
		Short: "Hand a conversation to another agent or a team",
		Example: `  kbsync api conversation assign 12wfegrgt4t --by agent@example.com --to another@example.com
  kbsync api conversation assign 12wfegrgt4t --by agent@example.com --team Sales`,
		Args: aConversation(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := missingBy(by); err != nil {
				return err
			}
			if (to == "") == (team == "") {
				return usageError("to whom? write --to EMAIL, or --team NAME")
			}
			return a.withAPI(cmd, true, func(ctx context.Context, api *api) error {
				if team != "" {
					if err := api.client.AssignToTeam(ctx, args[0], by, team); err != nil {
						return apiFailure(err, "")
					}
					return a.done("conversation %s is with the team %s", printable(args[0]), printable(team))
				}
				if err := api.client.AssignToUser(ctx, args[0], by, to); err != nil {
					return apiFailure(err, "")
				}
				return a.done("conversation %s is with %s", printable(args[0]), printable(to))
			})
		},
	}
	byFlag(cmd, &by)
	cmd.Flags().StringVar(&to, "to", "", "Email of the agent who gets it.")
	cmd.Flags().StringVar(&team, "team", "", "Name of the team that gets it.")
	return cmd
}

func (a *app) variablesCommand() *cobra.Command {
	var contact []string
	cmd := &cobra.Command{
		Use:     "variables ID NAME=VALUE...",
		Short:   "Set variables of a conversation and its contact",
		Example: `  kbsync api conversation variables 12wfegrgt4t company=ReplyCX --contact phone=9999999999 --contact email=john@example.com`,
		Args:    aConversation(0),
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
				return usageError("which variables? write NAME=VALUE for the conversation's, --contact NAME=VALUE for the contact's")
			}
			return a.withAPI(cmd, true, func(ctx context.Context, api *api) error {
				if err := api.client.UpdateVariables(ctx, args[0], list); err != nil {
					return apiFailure(err, "")
				}
				return a.done("set %s of conversation %s", count(len(list), "variable"), printable(args[0]))
			})
		},
	}
	cmd.Flags().StringArrayVar(&contact, "contact", nil, "A variable of the contact, as name=value; once for each.")
	return cmd
}
