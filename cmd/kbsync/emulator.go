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
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/replycx/emulator"
)

// An embedded emulator is what --emulator talks to. What it accepted is kept in a file beside its own state, so that the
// next run finds what this one uploaded.
type embedded struct {
	*emulator.Emulator
	out *output
}

// emulatorOrigin takes the place of the API's origin in the emulator's inventory: its port is another one in each run.
const emulatorOrigin = "emulator"

// connectEmulator starts an emulator with the knowledge bases of the config and the given ones.
func (a *app) connectEmulator(cfg *config.Config, knowledgeBases ...int64) (*api, error) {
	options := emulator.Options{
		// What --emulator has accepted and what its state knows belong together.
		File:           emulatorFile(cfg.State),
		KnowledgeBases: knowledgeBases,
		Logger:         a.out.log,
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
		Logger:    a.out.log,
	})
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &api{
		client:   engine.NewLoggingClient(client, a.out.log, a.out.verbose > 0),
		origin:   emulatorOrigin,
		account:  emulatorAccount(),
		emulator: &embedded{Emulator: e, out: a.out},
	}, nil
}

// emulatorAccount is the account that --emulator uses.
func emulatorAccount() string { return strconv.FormatInt(emulator.DefaultFixture().Accounts[0].ID, 10) }

// emulatorFile is where the embedded emulator keeps what it accepted.
func emulatorFile(statePath string) string {
	return strings.TrimSuffix(statePath, filepath.Ext(statePath)) + ".jsonl"
}

// emulatorReport is what the emulator itself has counted.
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
shell assignments; with --env-file it writes them to a file as well, once it can be asked:

  kbsync emulator --env-file emulator.env &
  . ./emulator.env && kbsync sync ./docs --knowledge-base 876`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serveEmulator(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "Address to listen on; port 0 takes a free one.")
	f.StringVar(&o.fixture, "fixture", "", "YAML file of accounts, knowledge bases and limits.")
	f.StringVar(&o.faults, "faults", "", "YAML file of faults to play.")
	f.StringVar(&o.file, "file", "", "File that keeps what was accepted; without one it is kept in memory.")
	f.StringVar(&o.envFile, "env-file", "", "File to write the address and the token to.")
	f.DurationVar(&o.train, "train-time", emulator.DefaultTrain, "Time that training takes.")
	f.Int64SliceVar(&o.knowledgeBases, "knowledge-base", nil, "Ids of further knowledge bases.")
	f.Int64Var(&o.account, "account", 0, "Account of the token that is printed; by default the fixture's first.")
	return cmd
}

type emulatorOptions struct {
	listen, fixture, faults, file, envFile string
	train                                  time.Duration
	knowledgeBases                         []int64
	account                                int64
}

func (a *app) serveEmulator(cmd *cobra.Command, o emulatorOptions) (err error) {
	if _, err := a.parse(cmd, "", nil); err != nil {
		return err
	}
	options := emulator.Options{
		Fixture:        emulator.DefaultFixture(),
		KnowledgeBases: o.knowledgeBases,
		Train:          o.train,
		File:           o.file,
		Logger:         a.out.log,
	}
	if o.train <= 0 {
		options.Train = -1
	}
	if o.fixture != "" {
		if options.Fixture, err = readYAML(o.fixture, emulator.ParseFixture); err != nil {
			return err
		}
	}
	if o.faults != "" {
		if options.Faults, err = readYAML(o.faults, emulator.ParseFaults); err != nil {
			return err
		}
	}
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
	if err := a.out.result(ready, func(w io.Writer) { _, _ = io.WriteString(w, assignments) }); err != nil {
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
	a.out.note("emulator: serving at %s until interrupted; training takes %s", url, o.train)
	<-cmd.Context().Done()
	c := e.Counts()
	a.out.note("emulator: %s, %s accepted, %s; %s held",
		count(int(c.Uploads), "upload request"), count(int(c.AcceptedUploads), "upload"),
		count(int(c.Statuses), "status request"), count(len(e.Accepted()), "source"))
	return nil
}

func readYAML[T any](path string, parse func([]byte) (*T, error)) (*T, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	v, err := parse(data)
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("%s: %w", path, err)}
	}
	return v, nil
}
