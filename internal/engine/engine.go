package engine

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/tracker"
)

// Options are the options that both drivers have. All fields are required, except those marked optional.
type Options struct {
	Config *config.Config
	Store  *state.Store
	API    *API
	Logger *slog.Logger
	Now    func() time.Time

	// Cut ends when work that was begun must end at once. The context of a driver ends before it, softly: sealed requests are
	// finished within Config.ShutdownGrace, and nothing new is begun.
	Cut context.Context
	// Accept names the guards that a person has overridden. Optional.
	Accept Accept
	// UploadOnly leaves the scans to other processes, which share the state. Optional.
	UploadOnly bool
	// OwnFiles are files of the program that are never documents, beside those of the config. Optional.
	OwnFiles []string

	// Tracer records the passes, scans, uploads and requests as spans. Optional.
	Tracer trace.Tracer
	// Environ is the environment of hooks that are commands. Optional.
	Environ []string
	// Version is the version of the program, for the page and for the User-Agent of webhooks. Optional.
	Version string
	// ExitCode returns the number of a class in the error file and in messages to hooks. The engine decides nothing on it.
	ExitCode func(Class) int
}

func (o *Options) userAgent() string { return "kbsync/" + o.Version }

// syncs returns the selected syncs of the config.
func (o *Options) syncs() []config.Sync { return selected(o.Config) }

func selected(cfg *config.Config) []config.Sync {
	var syncs []config.Sync
	for _, name := range cfg.Selected {
		if s, ok := cfg.Sync(name); ok {
			syncs = append(syncs, s)
		}
	}
	return syncs
}

// Accept names guards that let a change pass which they would halt otherwise.
type Accept struct {
	// Destination accepts that a sync now belongs to another knowledge base.
	Destination bool
	// Root accepts another directory in the place of the root.
	Root bool
	// State accepts a new state in a place that may be lost, and a state that is not the one of the last upload.
	State bool
}

// An API is a connection to ReplyCX, or to an emulator.
type API struct {
	Client Client
	// Origin and Account identify the API in destinations.
	Origin, Account string
	// Local is set if the API is served on this machine, so a state that is soon lost does no harm. Embedded is set if this process
	// serves it, with a knowledge base that belongs to the state.
	Local, Embedded bool
	// RenewToken gets the token from its command again, and returns a function that uses it from then on. It is nil if no command
	// gives the token.
	RenewToken func(context.Context) (use func(), err error)
	// HasNewToken reports, after the API refused a token, whether the next request has another one. If it is nil, there is none.
	HasNewToken func(context.Context) bool
	// Close ends the connections.
	Close func() error
}

// A renewal decides whether work that the API refused for its token goes on at once, because there is another token by now. The zero
// value is ready to use.
type renewal struct{ fruitless bool }

// next returns true if the work goes on: err is such a refusal, there is another token, and the work has progressed since the last
// renewal. Without progress, a command that gives a wrong token each time would never end.
func (r *renewal) next(ctx context.Context, api *API, err error, progressed bool) bool {
	e, ok := errors.AsType[*replycx.Error](err)
	again := ok && e.StatusCode == http.StatusUnauthorized && (progressed || !r.fruitless) && api.HasNewToken != nil && api.HasNewToken(ctx)
	r.fruitless = again
	return again
}

// A Client makes the requests of the stages.
type Client interface {
	ingest.API
	tracker.API
}

// Destination returns the destination of a knowledge base at this API.
func (a *API) Destination(knowledgeBase int64) state.Destination {
	return state.Destination{Origin: a.Origin, Account: a.Account, KnowledgeBase: knowledgeBase}
}

// Serves reports whether a destination is at this API.
func (a *API) Serves(d state.Destination) bool {
	return d.Origin == a.Origin && (d.Account == a.Account || d.Account == "" || a.Account == "")
}

// Graceful returns a context for work that may finish after soft has ended: it ends with hard, or when the grace after the end
// of soft is over. grace is called at the end of soft.
func Graceful(soft, hard context.Context, grace func() time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(hard)
	release := context.AfterFunc(soft, func() {
		timer := time.NewTimer(grace())
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		release()
		cancel()
	}
}
