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
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/state"
	"github.com/kbsync/kbsync/watcher"
)

func (a *app) planCommand() *cobra.Command {
	var o passOptions
	cmd := &cobra.Command{
		Use:   "plan [NAME | ROOT]",
		Short: "Show the changes that sync would make, without making them",
		Long: `plan lists the root, hashes new and changed documents, and prints which documents sync would upload, share and remove. It
sends no request, needs no token and writes nothing, not even a state.`,
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

// A planItem is the action that sync would take for one document.
type planItem struct {
	Sync   string `json:"sync"`
	Action string `json:"action"` // upload, share, fail, block, remove, skip, unreadable
	Key    string `json:"key"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// A planTotal counts the plan of one sync.
type planTotal struct {
	Sync      string         `json:"sync"`
	Root      string         `json:"root"`
	Upload    int            `json:"upload"`
	Bytes     int64          `json:"bytes"`
	Share     int            `json:"share"`
	Block     int            `json:"block"`
	Remove    int            `json:"remove"`
	Unchanged int            `json:"unchanged"`
	Unsettled int            `json:"unsettled"`
	Skipped   map[string]int `json:"skipped"`
	Error     string         `json:"error,omitempty"`
}

// plan prints the actions of a sync. Its exit code is 0 if the plan is complete, whatever the actions are.
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
	defer progress.End()

	var totals []planTotal
	var failures []error
	items := func(yield func(planItem, error) bool) {
		for _, s := range syncs {
			total := planTotal{Sync: s.Name, Root: s.Root.String(), Skipped: map[string]int{}}
			dest := state.Destination{Origin: origin, Account: account, KnowledgeBase: s.KnowledgeBase}
			err := a.planSync(ctx, cfg, s, o, store, dest, progress, &total, func(item planItem) bool { return yield(item, nil) })
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

// printPlan prints the documents as they arrive, and then the totals. The items fill the totals.
func (a *app) printPlan(items iter.Seq2[planItem, error], totals *[]planTotal, progress *progress) error {
	if a.out.Format == console.FormatJSON {
		if _, err := io.WriteString(a.out.Stdout, `{"documents": `); err != nil {
			return err
		}
		if err := console.PrintJSON(a.out, items); err != nil {
			return err
		}
		data, err := json.MarshalIndent(*totals, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.out.Stdout, ", \"syncs\": %s}\n", data)
		return err
	}
	for item := range items {
		if a.out.Quiet {
			continue
		}
		progress.End() // the bars would overwrite the results
		text := fmt.Sprintf("%-10s %s", item.Action, console.Printable(item.Key))
		if item.Reason != "" {
			text += " (" + console.Printable(item.Reason) + ")"
		}
		if _, err := fmt.Fprintln(a.out.Stdout, text); err != nil {
			return err
		}
	}
	progress.End()
	if a.out.Quiet {
		return nil
	}
	for _, t := range *totals {
		if t.Error != "" {
			continue
		}
		text := fmt.Sprintf("%s: would upload %d (%s), share %d, remove %d", console.Printable(t.Sync), t.Upload, console.Bytes(t.Bytes), t.Share, t.Remove)
		if t.Block > 0 {
			text += fmt.Sprintf("; block %d", t.Block)
		}
		if len(t.Skipped) > 0 {
			text += "; skipped " + reasons(t.Skipped)
		}
		if t.Unsettled > 0 {
			text += fmt.Sprintf("; %s still being written", console.Count(t.Unsettled, "document"))
		}
		if _, err := fmt.Fprintln(a.out.Stdout, text); err != nil {
			return err
		}
	}
	return nil
}

// planSync plans one sync. It yields the items and fills total, until yield returns false.
func (a *app) planSync(ctx context.Context, cfg *config.Config, s config.Sync, o passOptions, store *state.Store, dest state.Destination,
	progress *progress, total *planTotal, yield func(planItem) bool,
) error {
	known, err := planBasis(ctx, store, s, dest, o)
	if err != nil {
		return err
	}
	root, err := a.openRoot(cfg, s)
	if err != nil {
		return err
	}
	root.Listed = progress.Listed
	defer func() { _ = root.Close() }()
	if err := retry.Sleep(ctx, racy); err != nil {
		return err
	}
	e := engine.Estimate{
		Store: store, Root: root, Destination: known.Destination, Checkers: cfg.Checkers, Policy: engine.PreflightPolicy(s),
		Report: func(p engine.PlanItem) bool {
			return yield(planItem{Sync: s.Name, Action: string(p.Action), Key: p.Key, Size: p.Size, SHA256: hexOf(p.SHA256), Reason: p.Reason})
		},
	}
	options := engine.ScanOptions(s, o.acceptRoot)
	options.Settle = 0 // a sync would wait until new files have settled
	var scan watcher.Result
	changes := watcher.NewScanner(root, options).Changes(ctx, store.Scans, known, "", &scan)
	err = e.Add(ctx, planCandidates(changes, engine.PendingDocuments(ctx, store, known.ID), e.Emit))
	total.Upload, total.Bytes, total.Share, total.Block, total.Remove = e.Uploads, e.Bytes, e.Shares, e.Blocked, scan.Removed
	total.Unchanged, total.Unsettled = scan.Unchanged, scan.Unsettled
	if scan.Skipped != nil {
		total.Skipped = scan.Skipped
	}
	if err != nil {
		return err
	}
	if scan.IncompleteCount > 0 {
		return engine.WithClass(engine.ClassTemporary, fmt.Errorf("%s of the root could not be listed: %w", console.Count(scan.IncompleteCount, "part"), scan.Incomplete[0]))
	}
	if e.Unreadable > 0 {
		return engine.WithClass(engine.ClassTemporary, fmt.Errorf("%s could not be read", console.Count(e.Unreadable, "document")))
	}
	return nil
}

// planCandidates yields the documents that a sync may upload: the changes on the root, and the documents that an earlier
// run left pending. It reports skipped and removed documents, until report returns false.
func planCandidates(
	changes iter.Seq2[state.Change, error], pending iter.Seq2[engine.Candidate, error], report func(engine.PlanItem) bool,
) iter.Seq2[engine.Candidate, error] {
	return func(yield func(engine.Candidate, error) bool) {
		seen := map[string]bool{}
		for c, err := range changes {
			if err != nil {
				yield(engine.Candidate{}, err)
				return
			}
			seen[c.Key] = true
			more := true
			switch c.Op {
			case state.Put:
				more = yield(engine.Candidate{Key: c.Key, Fingerprint: c.Fingerprint}, nil)
			case state.Skip:
				more = report(engine.PlanItem{Action: engine.ActionSkip, Key: c.Key, Size: c.Fingerprint.Size, Reason: c.Reason})
			case state.Vanish:
				more = report(engine.PlanItem{Action: engine.ActionRemove, Key: c.Key})
			}
			if !more {
				return
			}
		}
		for c, err := range pending {
			if err == nil && seen[c.Key] {
				continue
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// racy is a little longer than the shortest age at which a scan takes a file, whatever the settle time.
const racy = 25 * time.Millisecond

// planBasis returns the sync as the state has it. It makes none: a new sync gets no id.
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
		// The sync can share the contents of another sync at the same destination.
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
	return known, nil // every document is new at this destination
}

// address returns the API and the account that a sync would use. It sends no request and needs no token.
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
