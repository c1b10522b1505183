package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// An app is one run of the program.
type app struct {
	env     []string
	stdin   io.Reader
	out     *console.Console
	now     func() time.Time
	signals *signals
	traces  *traces // nil without an address for them

	// The flags of every command that are not settings of the config.
	configPath  string
	json        bool
	format      string
	useEmulator bool

	// planned are the flags that shaped the plan to apply. Flags of the command line override them.
	planned map[string][]string
}

// begin applies the flags that select the form of the results. It runs before every command.
func (a *app) begin(cmd *cobra.Command) error {
	if err := fromEnvironment(cmd, a.env); err != nil {
		return err
	}
	switch a.format {
	case "":
		if a.json {
			a.out.Format = console.FormatJSON
		}
	case console.FormatText, console.FormatJSON, console.FormatCSV, console.FormatHTML:
		if a.json && a.format != console.FormatJSON {
			return usageError("--json contradicts --output " + a.format + "; remove one of them")
		}
		if (a.format == console.FormatCSV || a.format == console.FormatHTML) && cmd.Annotations[printsRows] == "" {
			return usageError("only kbsync sources supports --output " + a.format + "; write text or json")
		}
		a.out.Format = a.format
	case console.FormatMarkdown:
		if a.json || cmd.Annotations[allowsMarkdown] == "" {
			return usageError("only kbsync plan supports --output markdown, without --json; write text or json")
		}
		a.out.Format = a.format
	default:
		return usageError(fmt.Sprintf("--output: unknown format %s; write text, json, csv, html or markdown", console.Quoted(a.format)))
	}
	return nil
}

// These annotate the commands that can print their results as CSV and as an HTML page, or as Markdown.
const (
	printsRows     = "rows"
	allowsMarkdown = "markdown"
)

// configNames returns the names of a config file in the working directory, in the order in which kbsync looks for them.
func configNames() []string { return []string{"kbsync.yaml", "kbsync.yml"} }

// load reads the config, the environment, the flags of cmd, and NAME or ROOT arguments, and applies the settings of the log.
func (a *app) load(cmd *cobra.Command, args ...string) (*config.Config, error) {
	cfg, err := a.read(cmd, args...)
	if err == nil {
		a.applyLog(cfg)
	}
	return cfg, err
}

// read is load, and changes nothing: a running process may refuse the config.
func (a *app) read(cmd *cobra.Command, args ...string) (*config.Config, error) {
	path, data, err := a.configFile()
	if err != nil {
		return nil, err
	}
	return a.parse(cmd, path, data, args...)
}

// applyLog applies the settings of the log, and logs the warnings about a config.
func (a *app) applyLog(cfg *config.Config) {
	a.out.SetLog(cfg.Log.Format, cfg.Log.Level)
	for _, w := range cfg.Warnings {
		a.out.Log.Warn(w.String())
	}
}

// configFile finds and reads the config file. A missing file is an error only if --config names it.
func (a *app) configFile() (path string, data []byte, err error) {
	if a.configPath != "" {
		data, err = os.ReadFile(a.configPath)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil, usageError(fmt.Sprintf("config file %s does not exist; kbsync init --config %s writes one",
				console.Quoted(a.configPath), console.Printable(a.configPath)))
		}
		if err != nil {
			return "", nil, engine.WithClass(engine.ClassUsage, fmt.Errorf("read config: %w", err))
		}
		return a.configPath, data, nil
	}
	for _, name := range configNames() {
		data, err = os.ReadFile(name)
		if err == nil {
			return name, data, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, engine.WithClass(engine.ClassUsage, fmt.Errorf("read config: %w", err))
		}
	}
	return "", nil, nil
}

func (a *app) parse(cmd *cobra.Command, path string, data []byte, args ...string) (*config.Config, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	cfg, err := config.Parse(config.Input{
		Path:       path,
		File:       data,
		Dir:        dir,
		Environ:    a.env,
		Flags:      a.withPlanned(settingsOf(cmd)),
		OtherFlags: otherFlags(cmd.Root()),
		Args:       args,
	})
	if err != nil {
		return nil, err
	}
	a.out.Hide(cfg.API.Token.Reveal())
	a.out.Hide(cfg.StatePassword.Reveal())
	if a.useEmulator {
		if cfg.LocalState == "" {
			return nil, usageError("--emulator keeps its inventory in a file, and there is no directory for it; write --state FILE")
		}
		cfg.LocalState = emulatorState(cfg.LocalState)
		cfg.State, cfg.StatePassword = cfg.LocalState, config.Secret{}
	}
	return cfg, nil
}

// withPlanned returns the flags, and those of the plan that they do not override.
func (a *app) withPlanned(flags map[string][]string) map[string][]string {
	for name, values := range a.planned {
		if _, given := flags[name]; !given {
			flags[name] = values
		}
	}
	return flags
}

// open opens the state. Commands that change nothing open it read-only.
func (a *app) open(ctx context.Context, cfg *config.Config, readOnly bool) (*state.Store, error) {
	return state.Open(ctx, state.Options{Path: cfg.OpenState(), ReadOnly: readOnly})
}

// closeStore closes the state and joins its error to *err.
func closeStore(store *state.Store, err *error) {
	if e := store.Close(); e != nil {
		*err = errors.Join(*err, fmt.Errorf("close state: %w", e))
	}
}

// An api is a connection to ReplyCX or to the emulator.
type api struct {
	client   *engine.LoggingClient
	origin   string // scheme, host, port and base path
	account  string
	emulator *embedded // nil for ReplyCX
	limiter  *engine.Limiter
	token    *tokenSource // nil for the emulator
}

// close closes the connections and stops the emulator, if there is one.
func (p *api) close() error {
	p.client.CloseIdleConnections()
	if p.emulator != nil {
		return p.emulator.close()
	}
	return nil
}

// connect makes the client, and starts the traces, whose warnings need the log of the config. It sends no request.
func (a *app) connect(ctx context.Context, cfg *config.Config) (*api, error) {
	if err := a.startTraces(ctx); err != nil {
		return nil, err
	}
	if a.useEmulator {
		p, err := a.connectEmulator(cfg)
		if err == nil {
			a.out.Note("emulator: nothing leaves this machine; the knowledge base is %s, its inventory %s",
				console.Printable(emulatorFile(cfg.LocalState)), console.Printable(cfg.State))
		}
		return p, err
	}
	source, err := a.tokenSource(cfg)
	if err != nil {
		return nil, err
	}
	options := replycx.Options{
		BaseURL:       cfg.API.URL,
		AllowInsecure: cfg.API.AllowInsecure,
		AccountID:     cfg.API.AccountID,
		TokenSource:   source.token,
		TokenRefused:  source.refuse,
		CAFile:        cfg.API.CACert,
		UserAgent:     "kbsync/" + buildVersion(),
		Logger:        a.out.Log,
	}
	limiter := engine.NewLimiter(cfg.API.Rate)
	options.Limiter = limiter
	client, err := replycx.New("", options)
	if err != nil {
		return nil, engine.WithClass(engine.ClassUsage, err)
	}
	account, err := client.AccountID(ctx)
	if err != nil {
		return nil, err
	}
	p := &api{client: engine.NewLoggingClient(client, a.out.Log, a.traces.tracer(), a.out.Verbose > 0), origin: client.Origin() + basePath(cfg.API.URL),
		limiter: limiter, token: source}
	if account > 0 {
		p.account = strconv.FormatInt(account, 10)
	}
	return p, nil
}

// basePath returns the path of the URL of an API, without a slash at its end. It is part of the destination, because one
// host may serve several APIs under different paths, and each has its own knowledge bases.
func basePath(apiURL string) string {
	u, err := url.Parse(apiURL)
	if err != nil {
		return "" // replycx.New has rejected the URL
	}
	return strings.TrimRight(u.EscapedPath(), "/")
}

// emulatorState returns the path of the state for the emulator, beside the file of the configured state. The emulator never
// uses a database: other processes may share it.
func emulatorState(path string) string {
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + ".emulator" + ext
}
