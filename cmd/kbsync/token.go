package main

import (
	"context"
	"errors"
	"sync"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/token"
)

var errNoToken = errors.New("no API token: set REPLYCX_TOKEN, or api.token_file or api.token_command in the config " +
	"(--emulator needs no token)")

// A tokenSource gives the API token: REPLYCX_TOKEN, or the token_file, read again when it changes, or the output of the token_command,
// which runs again when the API refuses the token and at a reload.
type tokenSource struct {
	read    func(context.Context) (string, error)
	command *token.Command // nil if no command gives the token

	mu      sync.Mutex
	refused string // by the API, last
}

func (a *app) tokenSource(cfg *config.Config) (*tokenSource, error) {
	switch {
	case !cfg.API.Token.IsZero():
		text := cfg.API.Token.Reveal()
		return &tokenSource{read: func(context.Context) (string, error) { return text, nil }}, nil
	case cfg.API.TokenFile != "":
		return &tokenSource{read: (&token.File{Path: cfg.API.TokenFile, Console: a.out}).Token}, nil
	case len(cfg.API.TokenCommand) > 0:
		command := &token.Command{Args: cfg.API.TokenCommand, Env: a.env, Console: a.out}
		return &tokenSource{read: command.Token, command: command}, nil
	}
	return nil, engine.WithClass(engine.ClassUsage, errNoToken)
}

// token returns the token for a request.
func (s *tokenSource) token(ctx context.Context) (string, error) {
	text, err := s.read(ctx)
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, err)
	}
	return text, nil
}

// refuse notes that the API has refused a token.
func (s *tokenSource) refuse(text string) {
	s.mu.Lock()
	s.refused = text
	s.mu.Unlock()
	if s.command != nil {
		s.command.Refuse(text)
	}
}

// isNew reports whether the token is another one than the API refused last.
func (s *tokenSource) isNew(ctx context.Context) bool {
	text, err := s.read(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	return err == nil && text != s.refused
}

// renew is engine.API.RenewToken.
func (s *tokenSource) renew(ctx context.Context) (use func(), err error) {
	use, err = s.command.Renew(ctx)
	if err != nil {
		return nil, engine.WithClass(engine.ClassUsage, err)
	}
	return use, nil
}
