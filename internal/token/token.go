// Package token reads secret tokens: of the API, of a webhook, of the status page. Each token that it reads is hidden in all
// output.
package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/process"
)

// timeout is the time limit of a Command.
const timeout = time.Minute

// Parse returns the token that a file or a program gives, and hides it in all output of c. An error begins with a verb; the
// caller puts the origin of the text before it.
func Parse(data []byte, c *console.Console) (string, error) {
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return "", errors.New("is empty; it must give the token and nothing else")
	case len(text) > 16<<10 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("does not give a token; it must give the token on one line and nothing else")
	}
	c.Hide(text)
	return text, nil
}

// A File reads a token from a file, and again when the file changes. Several goroutines can use it.
type File struct {
	Path    string
	Console *console.Console // hides the token, and logs a warning about a file that every user can read

	mu   sync.Mutex
	seen os.FileInfo
	text string
}

// Token returns the token. An error means that the file is missing or wrong.
func (f *File) Token(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.Path)
	if err != nil {
		return "", fmt.Errorf("read token_file: %w", err)
	}
	if f.seen != nil && os.SameFile(f.seen, info) && f.seen.ModTime().Equal(info.ModTime()) && f.seen.Size() == info.Size() {
		return f.text, nil
	}
	if f.seen == nil && ReadableByOthers(info) {
		f.Console.Log.Warn("every user can read the token_file; run chmod 600 on it", "file", f.Path)
	}
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return "", fmt.Errorf("read token_file: %w", err)
	}
	text, err := Parse(data, f.Console)
	if err != nil {
		return "", fmt.Errorf("token_file %s %w", f.Path, err)
	}
	f.seen, f.text = info, text
	return text, nil
}

// A Command runs a program and reads the token from its output: for the first request, and again after Refuse and for Renew. Several
// goroutines can use it.
type Command struct {
	Args    []string         // the program and its arguments
	Env     []string         // the environment of the program
	Console *console.Console // hides the token, and gets what the program prints on stderr

	mu   sync.Mutex
	text string
}

// Token returns the token. It runs the program if there is none yet, for at most a minute, and again after a failure.
func (c *Command) Token(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.text != "" {
		return c.text, nil
	}
	text, err := c.run(ctx)
	if err == nil {
		c.text = text
	}
	return text, err
}

// Refuse forgets the token if it is text, which the API has refused: the next request runs the program.
func (c *Command) Refuse(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.text == text {
		c.text = ""
	}
}

// Renew runs the program, for at most a minute. The token is its output after a call of use. Meanwhile, and after an error, it is the
// earlier one.
func (c *Command) Renew(ctx context.Context) (use func(), err error) {
	text, err := c.run(ctx)
	if err != nil {
		return nil, err
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.text = text
	}, nil
}

func (c *Command) run(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var out bytes.Buffer
	cmd := process.Command(ctx, c.Args)
	cmd.Env = c.Env
	cmd.Stdout = &out
	cmd.Stderr = c.Console.Stderr
	if err := process.Run(cmd); err != nil {
		return "", fmt.Errorf("run token_command %s: %w", console.Printable(c.Args[0]), err)
	}
	text, err := Parse(out.Bytes(), c.Console)
	if err != nil {
		return "", fmt.Errorf("token_command %s %w", console.Printable(c.Args[0]), err)
	}
	return text, nil
}
