package apicommand

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// A Program is the program that runs the commands. All fields are required.
//
// The context of a command ends with the first signal.
type Program struct {
	Console *console.Console
	Stdin   io.Reader
	// Getenv returns the value of an environment variable, empty if it is not set.
	Getenv func(name string) string
	// Hard returns the context that ends with the second signal. All work must then end at once.
	Hard func() context.Context
	// Load reads the config, the environment and the flags of a command.
	Load func(cmd *cobra.Command) (*Session, error)
}

// A Session is one run of a command with its settings.
type Session struct {
	Config *config.Config
	// Emulated reports that Connect starts an emulator.
	Emulated bool
	// OwnFiles are the paths of the program's own files, which an upload refuses.
	OwnFiles []string
	// Connect makes the client. It sends no request. An emulator also has the given knowledge bases.
	Connect func(ctx context.Context, knowledgeBases ...int64) (*Connection, error)
}

// A Connection is a client of ReplyCX or of an emulator.
type Connection struct {
	Client   *engine.LoggingClient
	Emulator *emulator.Emulator // nil for ReplyCX
	// Close closes the connections and stops the emulator, if there is one.
	Close func() error
}

// graceful returns a context for work that may finish after the first signal.
func (p *Program) graceful(cmd *cobra.Command, s *Session) (context.Context, context.CancelFunc) {
	return engine.Graceful(cmd.Context(), p.Hard(), func() time.Duration { return s.Config.ShutdownGrace })
}

// withAPI runs a command that needs the API and no state. A command that writes may finish after the first signal, so that
// its outcome is known.
func (p *Program) withAPI(cmd *cobra.Command, writes bool, do func(context.Context, *Connection) error) (err error) {
	s, err := p.Load(cmd)
	if err != nil {
		return err
	}
	conn, err := s.Connect(cmd.Context())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx := cmd.Context()
	if writes {
		graceful, cancel := p.graceful(cmd, s)
		defer cancel()
		ctx = graceful
	}
	if err := do(ctx, conn); err != nil {
		return err
	}
	if conn.Emulator != nil {
		p.deliver(ctx, conn.Emulator)
	}
	return nil
}

// deliveryTimeout bounds the time that an emulator has for sending its events to a webhook.
const deliveryTimeout = 5 * time.Second

// deliver waits until the emulator has sent its events to the webhook, and reports the failures.
func (p *Program) deliver(ctx context.Context, e *emulator.Emulator) {
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	if e.Delivered(ctx) != nil {
		p.Console.Note("emulator: the webhook accepts no events; is kbsync api webhook listen running?")
		return
	}
	for _, d := range e.Deliveries() {
		if d.Err != "" {
			p.Console.Note("emulator: the webhook did not accept the event %s: %s", console.Printable(d.Type), console.Printable(d.Err))
		}
	}
}
