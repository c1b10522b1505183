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
)

var errNoToken = errors.New("there is no API token: set REPLYCX_TOKEN, or token_file or token_command below api in the config (--emulator needs none)")

// tokenTimeout bounds a token_command.
const tokenTimeout = time.Minute

// tokenSource gives the API's token for each request: REPLYCX_TOKEN, or the content of the token's file, read again when
// it changes, or the output of the token's command, run once.
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
	return nil, &exitError{exitUsage, errNoToken}
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
		return "", &exitError{exitUsage, fmt.Errorf("read token_file: %w", err)}
	}
	if f.seen != nil && os.SameFile(f.seen, info) && f.seen.ModTime().Equal(info.ModTime()) && f.seen.Size() == info.Size() {
		return f.text, nil
	}
	if f.seen == nil && readableByOthers(info) {
		f.app.out.log.Warn("the token's file can be read by others; chmod 600 it", "file", f.path)
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return "", &exitError{exitUsage, fmt.Errorf("read token_file: %w", err)}
	}
	text, err := f.app.aToken(data)
	if err != nil {
		return "", &exitError{exitUsage, fmt.Errorf("token_file %s %w", f.path, err)}
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
		return "", &exitError{exitUsage, fmt.Errorf("run token_command %s: %w", printable(c.args[0]), err)}
	}
	text, err := c.app.aToken(out.Bytes())
	if err != nil {
		return "", &exitError{exitUsage, fmt.Errorf("token_command %s %w", printable(c.args[0]), err)}
	}
	c.text = text
	return text, nil
}

// aToken checks what was read as a token, and sees to it that it is never printed.
func (a *app) aToken(data []byte) (string, error) {
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return "", errors.New("gives nothing; put the token alone into it")
	case len(text) > 16<<10 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("gives something that is no token; put the token alone into it, on one line")
	}
	a.out.hidden.hide(text)
	return text, nil
}
