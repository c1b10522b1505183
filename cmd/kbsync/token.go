package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
)

var errNoToken = errors.New("no API token: set REPLYCX_TOKEN, or api.token_file or api.token_command in the config " +
	"(--emulator needs no token)")

// tokenTimeout is the time limit of a token_command.
const tokenTimeout = time.Minute

// tokenSource returns the source of the API token: REPLYCX_TOKEN, or the token_file, read again when it changes, or the
// output of the token_command, run once.
func (a *app) tokenSource(cfg *config.Config) (func(context.Context) (string, error), error) {
	switch {
	case !cfg.API.Token.IsZero():
		token := cfg.API.Token.Reveal()
		return func(context.Context) (string, error) { return token, nil }, nil
	case cfg.API.TokenFile != "":
		f := &tokenFile{app: a, path: cfg.API.TokenFile}
		return f.token, nil
	case len(cfg.API.TokenCommand) > 0:
		c := &tokenCommand{app: a, args: cfg.API.TokenCommand}
		return c.token, nil
	}
	return nil, engine.WithClass(engine.ClassUsage, errNoToken)
}

type tokenFile struct {
	app  *app
	path string

	mu   sync.Mutex
	seen os.FileInfo
	text string
}

func (f *tokenFile) token(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("read token_file: %w", err))
	}
	if f.seen != nil && os.SameFile(f.seen, info) && f.seen.ModTime().Equal(info.ModTime()) && f.seen.Size() == info.Size() {
		return f.text, nil
	}
	if f.seen == nil && readableByOthers(info) {
		f.app.out.log.Warn("every user can read the token_file; run chmod 600 on it", "file", f.path)
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("read token_file: %w", err))
	}
	text, err := f.app.aToken(data)
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("token_file %s %w", f.path, err))
	}
	f.seen, f.text = info, text
	return text, nil
}

type tokenCommand struct {
	app  *app
	args []string

	mu   sync.Mutex
	text string
}

func (c *tokenCommand) token(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.text != "" {
		return c.text, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = c.app.env
	cmd.Stdout = &out
	cmd.Stderr = c.app.out.stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("run token_command %s: %w", printable(c.args[0]), err))
	}
	text, err := c.app.aToken(out.Bytes())
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("token_command %s %w", printable(c.args[0]), err))
	}
	c.text = text
	return text, nil
}

// aToken checks the text of a token and hides it from all output.
func (a *app) aToken(data []byte) (string, error) {
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return "", errors.New("is empty; it must give the token and nothing else")
	case len(text) > 16<<10 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("does not give a token; it must give the token on one line and nothing else")
	}
	a.out.hidden.hide(text)
	return text, nil
}
