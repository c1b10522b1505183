// Webhook receives the events of the account's conversations, and prints them until it
// is interrupted. ReplyCX must reach the address at the URL.
//
//	REPLYCX_WEBHOOK_TOKEN=a-secret-of-your-own go run ./examples/go/webhook 127.0.0.1:8080 https://example.com/replycx
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/kbsync/kbsync/replycx"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "webhook:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: webhook ADDRESS URL")
	}
	token := os.Getenv("REPLYCX_WEBHOOK_TOKEN")
	handler, err := replycx.NewEventHandler(token, printEvent, replycx.EventHandlerOptions{})
	if err != nil {
		return err
	}
	client, err := replycx.New(os.Getenv("REPLYCX_TOKEN"), replycx.Options{BaseURL: os.Getenv("KBSYNC_API_URL")})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	// ReplyCX asks the receiver for the token before it accepts the webhook, so the
	// server must run by now.
	if err := client.SetWebhook(ctx, replycx.Webhook{URL: args[1], Events: replycx.EventTypes(), Token: token}); err != nil {
		return errors.Join(err, server.Close())
	}
	fmt.Println("receiving events at", listener.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(last)
}

// printEvent prints an event. An event may arrive twice, or never.
func printEvent(_ context.Context, e replycx.Event) error {
	if e.Created != nil {
		fmt.Println("new conversation", e.ConversationKey, "with", e.Created.Title)
		return nil
	}
	fmt.Println(e.Type, e.ConversationKey, string(e.Payload))
	return nil
}
