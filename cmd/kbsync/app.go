package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// An app is one run of the program.
type app struct {
	env     []string
	stdin   io.Reader
	out     *output
	now     func() time.Time
	signals *signals

	// The flags of every command that are no settings of the config.
	configPath  string
	json        bool
	format      string
	useEmulator bool
}

// begin applies the flags that say what is printed. It runs before every command.
func (a *app) begin(cmd *cobra.Command) error {
	if err := fromEnvironment(cmd, a.env); err != nil {
		return err
	}
	switch a.format {
	case "":
		if a.json {
			a.out.format = formatJSON
		}
	case formatText, formatJSON, formatCSV:
		if a.json && a.format != formatJSON {
			return usageError("--json and --output " + a.format + " are two forms; leave one of them out")
		}
		if a.format == formatCSV && cmd.Annotations[allowsCSV] == "" {
			return usageError("--output csv is for kbsync sources alone; write text or json")
		}
		a.out.format = a.format
	default:
		return usageError(fmt.Sprintf("--output: %s is no form of results; write text, json or csv", quoted(a.format)))
	}
	return nil
}

// allowsCSV is the annotation of commands whose results may be printed as CSV.
const allowsCSV = "csv"

// configNames are the names under which a config file is found in the working directory.
func configNames() []string { return []string{"kbsync.yaml", "kbsync.yml"} }

// load reads the config with the environment, the flags of cmd, and NAME or ROOT arguments.
func (a *app) load(cmd *cobra.Command, args ...string) (*config.Config, error) {
	path, data, err := a.configFile()
	if err != nil {
		return nil, err
	}
	return a.parse(cmd, path, data, args...)
}

// configFile finds and reads the config file. No file is no error, unless one was asked for.
func (a *app) configFile() (path string, data []byte, err error) {
	if a.configPath != "" {
		data, err = os.ReadFile(a.configPath)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil, usageError(fmt.Sprintf("there is no config file %s; kbsync init --config %s writes one", quoted(a.configPath), printable(a.configPath)))
		}
		if err != nil {
			return "", nil, &exitError{exitUsage, fmt.Errorf("read config: %w", err)}
		}
		return a.configPath, data, nil
	}
	for _, name := range configNames() {
		data, err = os.ReadFile(name)
		if err == nil {
			return name, data, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, &exitError{exitUsage, fmt.Errorf("read config: %w", err)}
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
		Flags:      settingsOf(cmd),
		OtherFlags: otherFlags(cmd.Root()),
		Args:       args,
	})
	if err != nil {
		return nil, err
	}
	a.out.hidden.hide(cfg.API.Token.Reveal())
	a.out.logAs(cfg.Log.Format)
	a.out.level.Set(logLevel(cfg.Log.Level, a.out.verbose, a.out.quiet))
	for _, w := range cfg.Warnings {
		a.out.log.Warn(w.String())
	}
	if a.useEmulator {
		cfg.State = emulatorState(cfg.State)
	}
	return cfg, nil
}

// logLevel is the config's level, as -v and -q change it.
func logLevel(configured string, verbose int, quiet bool) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(configured))
	switch {
	case quiet:
		return max(level, slog.LevelWarn)
	case verbose > 1:
		return slog.LevelDebug
	case verbose == 1:
		return min(level, slog.LevelInfo)
	}
	return level
}

// open opens the state; readOnly for commands that change nothing.
func (a *app) open(ctx context.Context, cfg *config.Config, readOnly bool) (*state.Store, error) {
	return state.Open(ctx, state.Options{Path: cfg.State, ReadOnly: readOnly})
}

// closeStore closes the state, and joins what goes wrong to *err.
func closeStore(store *state.Store, err *error) {
	if e := store.Close(); e != nil {
		*err = errors.Join(*err, fmt.Errorf("close state: %w", e))
	}
}

// An api is a way to ReplyCX, or to the emulator.
type api struct {
	client   *engine.LoggingClient
	origin   string
	account  string
	emulator *embedded // nil for the real API
}

// close ends the connections, and the emulator if it is one.
func (p *api) close() error {
	p.client.CloseIdleConnections()
	if p.emulator != nil {
		return p.emulator.close()
	}
	return nil
}

// connect makes the client. It sends nothing.
func (a *app) connect(ctx context.Context, cfg *config.Config) (*api, error) {
	if a.useEmulator {
		p, err := a.connectEmulator(cfg)
		if err == nil {
			a.out.note("emulator: nothing leaves this machine; the knowledge base is %s, its inventory %s",
				printable(emulatorFile(cfg.State)), printable(cfg.State))
		}
		return p, err
	}
	token, err := a.tokenSource(cfg)
	if err != nil {
		return nil, err
	}
	options := replycx.Options{
		BaseURL:       cfg.API.URL,
		AllowInsecure: cfg.API.AllowInsecure,
		AccountID:     cfg.API.AccountID,
		TokenSource:   token,
		CAFile:        cfg.API.CACert,
		UserAgent:     "kbsync/" + buildVersion(),
		Logger:        a.out.log,
	}
	if cfg.API.Rate > 0 {
		options.Limiter = rate.NewLimiter(rate.Limit(cfg.API.Rate), max(1, int(cfg.API.Rate)))
	}
	client, err := replycx.New("", options)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	account, err := client.AccountID(ctx)
	if err != nil {
		return nil, err
	}
	p := &api{client: engine.NewLoggingClient(client, a.out.log, a.out.verbose > 0), origin: client.Origin()}
	if account > 0 {
		p.account = strconv.FormatInt(account, 10)
	}
	return p, nil
}

// emulatorState is the place of the emulator's own inventory, beside the real one.
func emulatorState(path string) string {
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + ".emulator" + ext
}
