package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/kbsync/kbsync/internal/atomicfile"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/token"
	"github.com/kbsync/kbsync/state"
)

// listenToken returns the token of the page: of --listen-token-file, or else of the file beside the state, which it writes if necessary.
// It is empty if nothing listens, and if the state is a database, which has no place for a file.
func (a *app) listenToken(cfg *config.Config) (string, error) {
	switch {
	case cfg.Listen == "":
		return "", nil
	case cfg.ListenTokenFile != "":
		return a.givenToken(cfg.ListenTokenFile)
	case cfg.StateFile() == "":
		a.out.Log.Warn("the status page has no token, so it refuses every request to start work; set --listen-token-file")
		return "", nil
	}
	path := cfg.StateFile() + state.TokenSuffix
	text, err := a.ownToken(path)
	if err != nil {
		return "", fmt.Errorf("token of the status page: %w; or set --listen-token-file", err)
	}
	a.out.Log.Info("the token of the status page is in a file", "path", console.Printable(path))
	return text, nil
}

// givenToken reads a token that a person has put into a file.
func (a *app) givenToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("read --listen-token-file: %w", err))
	}
	text, err := token.Parse(data, a.out)
	if err != nil {
		return "", engine.WithClass(engine.ClassUsage, fmt.Errorf("--listen-token-file %s %w", path, err))
	}
	return text, nil
}

// ownToken returns the token that an earlier watch, or another one on this state, has written to path. It replaces a file that
// another user could have written or read.
func (a *app) ownToken(path string) (string, error) {
	data, err := readPrivate(path)
	if err == nil {
		return token.Parse(data, a.out)
	}
	if !errors.Is(err, errNotPrivate) && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	text := rand.Text()
	a.out.Hide(text)
	err = atomicfile.Write(path, func(w io.Writer) error {
		_, err := io.WriteString(w, text+"\n")
		return err
	})
	return text, err
}

// errNotPrivate means that other users may know what a file contains.
var errNotPrivate = errors.New("not a private file")

// readPrivate reads a small file that belongs to this user, and that no other user could write or read.
func readPrivate(path string) ([]byte, error) {
	named, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !named.Mode().IsRegular() {
		return nil, errNotPrivate
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, errNotPrivate
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	opened, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(named, opened) || !isPrivate(opened) || opened.Size() == 0 {
		return nil, errNotPrivate
	}
	return io.ReadAll(io.LimitReader(f, 1<<10))
}
