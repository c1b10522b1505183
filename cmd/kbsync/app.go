package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
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

	// The flags of every command that are not settings of the config.
	configPath  string
	json        bool
	format      string
	useEmulator bool
}

// begin applies the flags that select the form of the results. It runs before every command.
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
			return usageError("--json contradicts --output " + a.format + "; remove one of them")
		}
		if a.format == formatCSV && cmd.Annotations[allowsCSV] == "" {
			return usageError("only kbsync sources supports --output csv; write text or json")
		}
		a.out.format = a.format
	default:
		return usageError(fmt.Sprintf("--output: unknown format %s; write text, json or csv", quoted(a.format)))
	}
	return nil
}

// allowsCSV annotates the commands that can print their results as CSV.
const allowsCSV = "csv"

// configNames returns the names of a config file in the working directory, in the order in which kbsync looks for them.
func configNames() []string { return []string{"kbsync.yaml", "kbsync.yml"} }

// load reads the config, the environment, the flags of cmd, and NAME or ROOT arguments.
func (a *app) load(cmd *cobra.Command, args ...string) (*config.Config, error) {
	path, data, err := a.configFile()
	if err != nil {
		return nil, err
	}
	return a.parse(cmd, path, data, args...)
}

// configFile finds and reads the config file. A missing file is an error only if --config names it.
func (a *app) configFile() (path string, data []byte, err error) {
	if a.configPath != "" {
		data, err = os.ReadFile(a.configPath)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil, usageError(fmt.Sprintf("config file %s does not exist; kbsync init --config %s writes one",
				quoted(a.configPath), printable(a.configPath)))
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

// logLevel returns the configured level, changed by -v and -q.
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

// open opens the state. Commands that change nothing open it read-only.
func (a *app) open(ctx context.Context, cfg *config.Config, readOnly bool) (*state.Store, error) {
	return state.Open(ctx, state.Options{Path: cfg.State, ReadOnly: readOnly})
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
}

// close closes the connections and stops the emulator, if there is one.
func (p *api) close() error {
	p.client.CloseIdleConnections()
	if p.emulator != nil {
		return p.emulator.close()
	}
	return nil
}

// connect makes the client. It sends no request.
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
		return nil, engine.WithClass(engine.ClassUsage, err)
	}
	account, err := client.AccountID(ctx)
	if err != nil {
		return nil, err
	}
	p := &api{client: engine.NewLoggingClient(client, a.out.log, a.out.verbose > 0), origin: client.Origin() + basePath(cfg.API.URL)}
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

// emulatorState returns the path of the state for the emulator, beside the configured state.
func emulatorState(path string) string {
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + ".emulator" + ext
}
