package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/atomicfile"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// An embedded emulator serves --emulator. It keeps the accepted sources in a file beside its own state, so that the next
// run finds them.
type embedded struct{ *emulator.Emulator }

// emulatorOrigin replaces the API's origin in the inventory of --emulator, because the emulator's port changes with every
// run.
const emulatorOrigin = "emulator"

// connectEmulator starts an emulator with the given knowledge bases and those of the config.
func (a *app) connectEmulator(cfg *config.Config, knowledgeBases ...int64) (*api, error) {
	options := emulator.Options{
		// The emulator's sources and the inventory of --emulator belong together.
		File:           emulatorFile(cfg.LocalState),
		KnowledgeBases: knowledgeBases,
		Logger:         a.out.Log,
	}
	for _, s := range cfg.Syncs {
		options.KnowledgeBases = append(options.KnowledgeBases, s.KnowledgeBase)
	}
	e, err := emulator.New(options)
	if err != nil {
		return nil, err
	}
	url, err := e.Start("")
	if err != nil {
		return nil, err
	}
	account := emulator.DefaultFixture().Accounts[0].ID
	client, err := replycx.New(e.Token(account), replycx.Options{
		BaseURL:   url,
		AccountID: account,
		UserAgent: "kbsync/" + buildVersion(),
		Logger:    a.out.Log,
	})
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &api{
		client:   engine.NewLoggingClient(client, a.out.Log, a.traces.tracer(), a.out.Verbose > 0),
		origin:   emulatorOrigin,
		account:  emulatorAccount(),
		emulator: &embedded{e},
	}, nil
}

// emulatorAccount returns the account of --emulator.
func emulatorAccount() string { return strconv.FormatInt(emulator.DefaultFixture().Accounts[0].ID, 10) }

// emulatorFiles returns the files of --emulator, so that they are never uploaded, whether the flag is set or not. The state in a
// database may have no path for them.
func (a *app) emulatorFiles(cfg *config.Config) []string {
	path := cfg.LocalState
	if path == "" {
		return nil
	}
	if !a.useEmulator {
		path = emulatorState(path)
	}
	return []string{path, path + "-wal", path + "-shm", emulatorFile(path)}
}

// emulatorFile returns the path of the embedded emulator's file of accepted sources.
func emulatorFile(statePath string) string {
	return strings.TrimSuffix(statePath, filepath.Ext(statePath)) + ".jsonl"
}

// An emulatorReport holds the emulator's own counts.
type emulatorReport struct {
	UploadRequests int64 `json:"upload_requests"`
	StatusRequests int64 `json:"status_requests"`
	SourcesHeld    int   `json:"sources_held"`
}

func (e *embedded) report() *emulatorReport {
	if e == nil {
		return nil
	}
	c := e.Counts()
	return &emulatorReport{UploadRequests: c.Uploads, StatusRequests: c.Statuses, SourcesHeld: len(e.Accepted())}
}

func (e *embedded) close() error { return e.Close() }

func (a *app) emulatorCommand() *cobra.Command {
	var o emulatorOptions
	cmd := &cobra.Command{
		Use:   "emulator",
		Short: "Serve the ReplyCX API locally",
		Long: `emulator serves the ReplyCX API on this machine until it is interrupted. It prints its address and a token as
shell assignments. With --env-file it also writes them to a file, once it is ready.`,
		Example: `  kbsync emulator --env-file emulator.env &
  . ./emulator.env && kbsync sync ./docs --knowledge-base 876`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serveEmulator(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "Address to listen on; port 0 selects a free port.")
	f.StringVar(&o.fixture, "fixture", "", "YAML file with accounts, knowledge bases and limits.")
	f.StringVar(&o.faults, "faults", "", "YAML file with a fault script.")
	f.StringVar(&o.file, "file", "", "File for the accepted sources and conversations; without one they are kept in memory.")
	f.StringVar(&o.envFile, "env-file", "", "File for the address and the token.")
	f.DurationVar(&o.train, "train-time", emulator.DefaultTrain, "Duration of training.")
	f.Uint64Var(&o.seed, "seed", 0, "Number that makes the ids of conversations, messages and contacts repeatable; 0 makes random ids.")
	f.Int64SliceVar(&o.knowledgeBases, "knowledge-base", nil, "Ids of additional knowledge bases.")
	f.Int64Var(&o.account, "account", 0, "Account of the printed token. Default: the fixture's first account.")
	return cmd
}

type emulatorOptions struct {
	listen, fixture, faults, file, envFile string
	train                                  time.Duration
	seed                                   uint64
	knowledgeBases                         []int64
	account                                int64
}

// read returns the options of the emulator, with the fixture and the faults from their files.
func (o emulatorOptions) read() (options emulator.Options, err error) {
	options = emulator.Options{
		Fixture:        emulator.DefaultFixture(),
		KnowledgeBases: o.knowledgeBases,
		Train:          o.train,
		Seed:           o.seed,
		File:           o.file,
	}
	if o.train <= 0 {
		options.Train = -1
	}
	if o.fixture != "" {
		if options.Fixture, err = readYAML(o.fixture, emulator.ParseFixture); err != nil {
			return options, err
		}
	}
	if o.faults != "" {
		options.Faults, err = readYAML(o.faults, emulator.ParseFaults)
	}
	return options, err
}

func (a *app) serveEmulator(cmd *cobra.Command, o emulatorOptions) (err error) {
	cfg, err := a.parse(cmd, "", nil)
	if err != nil {
		return err
	}
	a.applyLog(cfg)
	options, err := o.read()
	if err != nil {
		return err
	}
	options.Logger = a.out.Log
	e, err := emulator.New(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	url, err := e.Start(o.listen)
	if err != nil {
		return err
	}
	account := o.account
	if account == 0 {
		account = options.Fixture.Accounts[0].ID
	}
	token := e.Token(account)
	assignments := fmt.Sprintf("export KBSYNC_API_URL=%s\nexport REPLYCX_TOKEN=%s\n", url, token)
	ready := struct {
		URL     string `json:"url"`
		Token   string `json:"token"`
		Account int64  `json:"account"`
	}{url, token, account}
	if err := a.out.Result(ready, func(w io.Writer) { _, _ = io.WriteString(w, assignments) }); err != nil {
		return err
	}
	if o.envFile != "" {
		if err := atomicfile.Write(o.envFile, func(w io.Writer) error {
			_, err := io.WriteString(w, assignments)
			return err
		}); err != nil {
			return err
		}
	}
	a.out.Note("emulator: serving at %s until interrupted; training takes %s", url, o.train)
	<-cmd.Context().Done()
	c := e.Counts()
	a.out.Note("emulator: %s, %s accepted, %s; %s held",
		console.Count(int(c.Uploads), "upload request"), console.Count(int(c.AcceptedUploads), "upload"),
		console.Count(int(c.Statuses), "status request"), console.Count(len(e.Accepted()), "source"))
	return nil
}

func readYAML[T any](path string, parse func([]byte) (*T, error)) (*T, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, engine.WithClass(engine.ClassUsage, err)
	}
	v, err := parse(data)
	if err != nil {
		return nil, engine.WithClass(engine.ClassUsage, fmt.Errorf("%s: %w", path, err))
	}
	return v, nil
}
