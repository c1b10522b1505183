// Upload adds the files of a folder to a knowledge base, and waits until ReplyCX has
// trained each of them.
//
//	go run ./examples/go/upload 876 ./docs '*.md' '*.pdf'
//
// Every run creates new sources, because the API cannot replace one. To keep a folder in
// step with a knowledge base, use kbsync.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/kbsync/kbsync/replycx"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "upload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: upload KNOWLEDGE-BASE FOLDER [PATTERN...]")
	}
	knowledgeBase, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return fmt.Errorf("the knowledge base must be a number: %w", err)
	}
	client, err := replycx.New(os.Getenv("REPLYCX_TOKEN"), replycx.Options{BaseURL: os.Getenv("KBSYNC_API_URL")})
	if err != nil {
		return err
	}
	var ids []int64
	var failures []error
	for file, err := range client.UploadFiles(ctx, knowledgeBase, os.DirFS(args[1]), args[2:]...) {
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", file.Path, err))
		}
		for _, source := range file.Sources {
			fmt.Printf("%d  uploaded   %s\n", source.ID, file.Path)
			ids = append(ids, source.ID)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Hour)
	defer cancel()
	statuses, err := client.WaitForSources(ctx, ids, replycx.WaitOptions{})
	if err != nil {
		failures = append(failures, err)
	}
	for _, s := range statuses {
		fmt.Printf("%d  %-10s %s\n", s.ID, s.Status, s.Name)
		if s.Status.Is(replycx.StatusFailed) {
			failures = append(failures, fmt.Errorf("the training of %s failed", s.Name))
		}
	}
	return errors.Join(failures...)
}
