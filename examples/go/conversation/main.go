// Conversation starts a conversation by SMS, writes a second message, hands the
// conversation to a team, and closes it.
//
//	go run ./examples/go/conversation 1-123-1231230 1-1321231320 agent@example.com Sales
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/kbsync/kbsync/replycx"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "conversation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("usage: conversation FROM-NUMBER TO-NUMBER AGENT-EMAIL TEAM")
	}
	from, to, agent, team := args[0], args[1], args[2], args[3]
	client, err := replycx.New(os.Getenv("REPLYCX_TOKEN"), replycx.Options{BaseURL: os.Getenv("KBSYNC_API_URL")})
	if err != nil {
		return err
	}
	conversation, err := client.CreateConversation(ctx, replycx.NewConversation{
		Channel:  replycx.ChannelSMS,
		From:     from,
		To:       replycx.Person{Phone: to},
		Message:  replycx.Message{Text: "Your order is on its way."},
		Assignee: agent,
	})
	if errors.Is(err, replycx.ErrPhoneNumberNotConfigured) {
		return fmt.Errorf("add the number %s to the account's SMS channel: %w", from, err)
	}
	if err != nil {
		return err
	}
	fmt.Println("created", conversation.ID)
	if err := client.UpdateVariables(ctx, conversation.ID, []replycx.Variable{
		{Name: "order", Type: replycx.ConversationVariable, Value: "4711"},
	}); err != nil {
		return err
	}
	id, err := client.SendMessage(ctx, conversation.ID, agent, replycx.Message{Text: "It will arrive tomorrow."})
	if err != nil {
		return err
	}
	fmt.Println("sent", id)
	if err := client.AssignToTeam(ctx, conversation.ID, agent, team); err != nil {
		return err
	}
	if err := client.CloseConversation(ctx, conversation.ID, agent); err != nil {
		return err
	}
	fmt.Println("closed")
	return nil
}
