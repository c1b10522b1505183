package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

func (a *app) planCommand() *cobra.Command {
	var o passOptions
	cmd := &cobra.Command{
		Use:   "plan [NAME | ROOT]",
		Short: "Show what sync would do, and do nothing",
		Long: `plan lists the root, hashes what is new or has changed, and tells what sync would upload, share and forget. It sends
nothing, needs no token and writes nothing, not even a state.`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			return a.plan(cmd.Context(), cfg, o)
		},
	}
	syncFlags(cmd)
	acceptFlags(cmd, &o)
	return cmd
}

// A planned is what would become of one document.
type planned struct {
	Sync   string `json:"sync"`
	Action string `json:"action"` // upload, share, fail, remove, skip, unreadable
	Key    string `json:"key"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// A planTotal is the sum of one sync's plan.
type planTotal struct {
	Sync      string         `json:"sync"`
	Root      string         `json:"root"`
	Upload    int            `json:"upload"`
	Bytes     int64          `json:"bytes"`
	Share     int            `json:"share"`
	Remove    int            `json:"remove"`
	Unchanged int            `json:"unchanged"`
	Unsettled int            `json:"unsettled"`
	Skipped   map[string]int `json:"skipped"`
	Error     string         `json:"error,omitempty"`
}

// plan tells what sync would do. Its exit code is 0 if it could be told, whatever it is.
func (a *app) plan(ctx context.Context, cfg *config.Config, o passOptions) (err error) {
	syncs, err := selected(cfg)
	if err != nil {
		return err
	}
	origin, account, err := a.address(ctx, cfg)
	if err != nil {
		return err
	}
	store, err := a.open(ctx, cfg, true)
	if err != nil {
		return err
	}
	defer closeStore(store, &err)
	progress := a.startProgress()
	defer progress.end()

	var totals []planTotal
	var failures []error
	items := func(yield func(planned, error) bool) {
		for _, s := range syncs {
			total := planTotal{Sync: s.Name, Root: s.Root.String(), Skipped: map[string]int{}}
			dest := state.Destination{Origin: origin, Account: account, KnowledgeBase: s.KnowledgeBase}
			err := a.planSync(ctx, cfg, s, o, store, dest, progress, &total, func(p planned) bool { return yield(p, nil) })
			if err != nil {
				total.Error = err.Error()
				failures = append(failures, fmt.Errorf("%s: %w", s.Name, err))
			}
			totals = append(totals, total)
		}
	}
	if err := a.printPlan(items, &totals, progress); err != nil {
		return err
	}
	return engine.JoinErrors(failures)
}

// printPlan prints the documents as they come, and the totals behind them.
func (a *app) printPlan(items iter.Seq2[planned, error], totals *[]planTotal, progress *progress) error {
	if a.out.format == formatJSON {
		if _, err := io.WriteString(a.out.stdout, `{"documents": `); err != nil {
			return err
		}
		if err := printJSON(a.out.stdout, items); err != nil {
			return err
		}
		data, err := json.MarshalIndent(*totals, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.out.stdout, ", \"syncs\": %s}\n", data)
		return err
	}
	for p := range items {
		if a.out.quiet {
			continue
		}
		progress.end() // bars and results don't share a terminal well
		text := fmt.Sprintf("%-10s %s", p.Action, printable(p.Key))
		if p.Reason != "" {
			text += " (" + printable(p.Reason) + ")"
		}
		if _, err := fmt.Fprintln(a.out.stdout, text); err != nil {
			return err
		}
	}
	progress.end()
	if a.out.quiet {
		return nil
	}
	for _, t := range *totals {
		if t.Error != "" {
			continue
		}
		text := fmt.Sprintf("%s: would upload %d (%s), share %d, remove %d", printable(t.Sync), t.Upload, bytesOf(t.Bytes), t.Share, t.Remove)
		if len(t.Skipped) > 0 {
			text += "; skipped " + reasons(t.Skipped)
		}
		if t.Unsettled > 0 {
			text += fmt.Sprintf("; %s still being written", count(t.Unsettled, "document"))
		}
		if _, err := fmt.Fprintln(a.out.stdout, text); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) planSync(ctx context.Context, cfg *config.Config, s config.Sync, o passOptions, store *state.Store, dest state.Destination,
	progress *progress, total *planTotal, tell func(planned) bool,
) error {
	known, err := planBasis(ctx, store, s, dest, o)
	if err != nil {
		return err
	}
	root, err := a.openRoot(cfg, s)
	if err != nil {
		return err
	}
	root.Listed = progress.listed
	defer func() { _ = root.Close() }()
	if err := retry.Sleep(ctx, racy); err != nil {
		return err
	}
	stopped := false
	item := func(p planned) {
		p.Sync = s.Name
		stopped = stopped || !tell(p)
	}
	e := engine.Estimate{
		Store: store, Root: root, Destination: known.Destination, Checkers: cfg.Checkers,
		Report: func(p engine.PlanItem) {
			item(planned{Action: string(p.Action), Key: p.Key, Size: p.Size, SHA256: hexOf(p.SHA256), Reason: p.Reason})
		},
	}
	var scan watcher.Result
	seen := map[string]bool{}
	changes := func(yield func(engine.Candidate, error) bool) {
		options := engine.ScanOptions(s, o.acceptRoot)
		options.Settle = 0 // a sync would wait for what was just written
		for c, err := range watcher.NewScanner(root, options).Changes(ctx, store.Scans, known, "", &scan) {
			if err != nil {
				yield(engine.Candidate{}, err)
				return
			}
			seen[c.Key] = true
			switch c.Op {
			case state.Put:
				if !yield(engine.Candidate{Key: c.Key, Fingerprint: c.Fingerprint}, nil) {
					return
				}
			case state.Skip:
				item(planned{Action: "skip", Key: c.Key, Size: c.Fingerprint.Size, Reason: c.Reason})
			case state.Vanish:
				item(planned{Action: "remove", Key: c.Key})
			}
			if stopped {
				return
			}
		}
		// What an earlier run left is uploaded as well.
		for c, err := range engine.PendingDocuments(ctx, store, known.ID) {
			if err == nil && seen[c.Key] {
				continue
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
	err = e.Add(ctx, changes)
	total.Upload, total.Bytes, total.Share, total.Remove = e.Uploads, e.Bytes, e.Shares, scan.Removed
	total.Unchanged, total.Unsettled = scan.Unchanged, scan.Unsettled
	if scan.Skipped != nil {
		total.Skipped = scan.Skipped
	}
	if err != nil {
		return err
	}
	if scan.IncompleteCount > 0 {
		return &exitError{exitTemporary, fmt.Errorf("%s of the root could not be listed: %w", count(scan.IncompleteCount, "part"), scan.Incomplete[0])}
	}
	if e.Unreadable > 0 {
		return &exitError{exitTemporary, fmt.Errorf("%s could not be read", count(e.Unreadable, "document"))}
	}
	return nil
}

// racy is a little more than the age below which a scan takes no file for written, whatever the settle time.
const racy = 25 * time.Millisecond

// planBasis finds what the state knows of a sync, without making one.
func planBasis(ctx context.Context, store *state.Store, s config.Sync, dest state.Destination, o passOptions) (state.Sync, error) {
	syncs, err := store.Syncs.All(ctx)
	if err != nil {
		return state.Sync{}, err
	}
	same := func(d state.Destination) bool {
		return d.Origin == dest.Origin && d.KnowledgeBase == dest.KnowledgeBase && (d.Account == dest.Account || d.Account == "" || dest.Account == "")
	}
	known := state.Sync{Name: s.Name, Root: s.Root.String(), Destination: dest}
	for _, x := range syncs {
		// Another sync to the same place has contents to share.
		if same(x.Destination) {
			known.Destination.ID = x.Destination.ID
		}
	}
	i := slices.IndexFunc(syncs, func(x state.Sync) bool { return x.Name == s.Name })
	if i < 0 {
		return known, nil
	}
	if same(syncs[i].Destination) {
		return syncs[i], nil
	}
	if !o.acceptDestination {
		return known, engine.WithRemedy(&state.DestinationError{Sync: s.Name, Have: syncs[i].Destination, Want: dest})
	}
	return known, nil // everything is new there
}

// address says which API would be asked, without asking it and without a token if there is none.
func (a *app) address(ctx context.Context, cfg *config.Config) (origin, account string, err error) {
	if a.useEmulator {
		return emulatorOrigin, emulatorAccount(), nil
	}
	api, err := a.connect(ctx, cfg)
	if errors.Is(err, errNoToken) {
		without := *cfg
		without.API.Token = config.NewSecret(strings.Repeat("-", 8))
		api, err = a.connect(ctx, &without)
	}
	if err != nil {
		return "", "", err
	}
	return api.origin, api.account, api.close()
}
