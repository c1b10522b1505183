// Bots lists the bots of the token's account.
//
//	go run ./examples/go/bots
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/kbsync/kbsync/replycx"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bots:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	client, err := replycx.New(os.Getenv("REPLYCX_TOKEN"), replycx.Options{BaseURL: os.Getenv("KBSYNC_API_URL")})
	if err != nil {
		return err
	}
	bots, err := client.Bots(ctx)
	if errors.Is(err, replycx.ErrUnauthorized) {
		return fmt.Errorf("copy the token of Settings, Account Settings, Developer again: %w", err)
	}
	if err != nil {
		return err
	}
	for _, bot := range bots {
		deployed := "never"
		if at, err := replycx.ParseTime(bot.LastDeployedAt); err == nil {
			deployed = at.Format("2006-01-02")
		}
		fmt.Printf("%d  %s  %s  deployed %s\n", bot.ID, bot.Title, strings.Join(bot.Channels, ", "), deployed)
	}
	return nil
}
