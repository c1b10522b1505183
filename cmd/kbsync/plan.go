package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/ingest"
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
		Long: `plan lists the root, hashes new and changed documents, and prints which documents sync would upload, share and remove, and
which sources that would leave behind. It sends no request, needs no token and writes nothing, not even a state. --out also keeps the
plan in a file: kbsync apply FILE does exactly that, or refuses. The exit code is 0 if the plan is complete, whatever it contains; 11
if a guard would halt sync; and 3 or 5 if the root is missing or could not be read.`,
		Example: `  kbsync plan ./docs --knowledge-base 876
  kbsync plan ./docs --knowledge-base 876 --out plan.json
  kbsync plan handbook -o markdown`,
		Args:        atMost(1),
		Annotations: map[string]string{allowsMarkdown: "yes"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			o.planArgs, o.planFlags = args, planFlags(cmd)
			return a.plan(cmd.Context(), cfg, o)
		},
	}
	syncFlags(cmd)
	acceptFlags(cmd, &o)
	cmd.Flags().StringVar(&o.planOut, "out", "", "File to keep the plan in, for kbsync apply.")
	return cmd
}

// plan prints the actions of the selected syncs.
func (a *app) plan(ctx context.Context, cfg *config.Config, o passOptions) (err error) {
	file, failures, err := a.makePlan(ctx, cfg, o, a.planPrinter())
	if err != nil {
		return err
	}
	if o.planOut != "" {
		if err := file.write(o.planOut); err != nil {
			return err
		}
	}
	return errors.Join(engine.JoinErrors(failures), a.printPlan(file))
}

// makePlan plans the selected syncs. It calls report with each action. failures has an error for each sync that is not planned
// completely, or that a guard would halt.
func (a *app) makePlan(ctx context.Context, cfg *config.Config, o passOptions, report func(*planProgress, planItem)) (file *planFile, failures []error, err error) {
	syncs, err := selected(cfg)
	if err != nil {
		return nil, nil, err
	}
	api, err := a.address(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	store, err := a.open(ctx, cfg, true)
	if err != nil {
		return nil, nil, err
	}
	defer closeStore(store, &err)
	progress := a.startProgress()
	defer progress.End()

	file = &planFile{Format: planFormat, CreatedAt: a.now().UTC().Truncate(time.Second), Arguments: o.planArgs, Settings: o.planFlags}
	if file.Inventory, err = inventoryOf(ctx, store); err != nil {
		return nil, nil, err
	}
	for _, s := range syncs {
		p := &syncPlan{Sync: s.Name, Root: s.Root.String(), Documents: []planItem{}, Skipped: map[string]int{}, LeftBehind: []plannedSource{}}
		p.Destination.API, p.Destination.Account, p.Destination.KnowledgeBase = api.Origin, api.Account, s.KnowledgeBase
		planner := &syncPlanner{app: a, cfg: cfg, config: s, accept: o, api: api, store: store, plan: p, progress: progress, report: func(item planItem) {
			report(progress, item)
		}}
		if err := planner.run(ctx); err != nil {
			p.Error = err.Error()
			failures = append(failures, fmt.Errorf("%s: %w", s.Name, err))
		}
		file.Syncs = append(file.Syncs, p)
	}
	return file, failures, nil
}

// inventoryOf returns the ID of the inventory; empty for a state that holds nothing yet.
func inventoryOf(ctx context.Context, store *state.Store) (string, error) {
	syncs, err := store.Syncs.All(ctx)
	if err != nil || len(syncs) == 0 {
		return "", err
	}
	identity, err := store.Identity(ctx)
	return identity.ID, err
}

// A syncPlanner plans one sync.
type syncPlanner struct {
	*app
	cfg      *config.Config
	config   config.Sync
	accept   passOptions
	api      *engine.API
	store    *state.Store
	plan     *syncPlan
	progress *progress
	report   func(planItem)
}

// run fills the plan. An error of a guard leaves the plan complete, except that of the state.
func (p *syncPlanner) run(ctx context.Context) error {
	known, err := planBasis(ctx, p.store, p.config, p.api.Destination(p.config.KnowledgeBase), p.accept)
	if err != nil {
		return err
	}
	if err := engine.GuardState(ctx, p.cfg, p.store, p.api, p.config); err != nil && (!p.accept.acceptState || engine.Classify(err) != engine.ClassGuard) {
		return err
	}
	root, err := p.openRoot(p.cfg, p.config)
	if err != nil {
		return err
	}
	root.Listed = p.progress.Listed
	defer func() { _ = root.Close() }()
	if err := retry.Sleep(ctx, racy); err != nil {
		return err
	}
	e := engine.Estimate{
		Store: p.store, Root: root, Destination: known.Destination, Checkers: p.cfg.Checkers,
		Policy: engine.PreflightPolicy(p.config), SyncID: known.ID, Resaved: p.config.Resaved, Report: p.add,
	}
	options := engine.ScanOptions(p.cfg, p.config, p.store, root, p.accept.acceptRoot)
	options.TakeUnsettled = true // a sync would wait until new files have settled
	var scan watcher.Result
	changes := watcher.NewScanner(root, options).Changes(ctx, p.store.Scans, known, "", &scan)
	err = e.Add(ctx, planCandidates(changes, engine.PendingDocuments(ctx, p.store, known.ID), e.Emit))
	plan := p.plan
	plan.Upload, plan.Bytes, plan.Share, plan.Resaved, plan.Block, plan.Remove = e.Uploads, e.Bytes, e.Shares, e.SavedAgain, e.Blocked, scan.Removed
	plan.Unchanged, plan.Unsettled = scan.Unchanged, scan.Unsettled
	if scan.Skipped != nil {
		plan.Skipped = scan.Skipped
	}
	plan.LeftOut, plan.listed = viewLeftOut(scan.LeftOut), scan.Listed
	if err != nil {
		return err
	}
	if err := p.complete(ctx, known); err != nil {
		return err
	}
	switch {
	case scan.Halted != nil:
		return scan.Halted
	case scan.IncompleteCount > 0:
		return engine.WithClass(engine.ClassTemporary, fmt.Errorf("%s of the root could not be listed: %w", console.Count(scan.IncompleteCount, "part"), scan.Incomplete[0]))
	case e.Unreadable > 0:
		return engine.WithClass(engine.ClassTemporary, fmt.Errorf("%s could not be read", console.Count(e.Unreadable, "document")))
	}
	return engine.GuardUploads(p.config, e.Uploads)
}

func (p *syncPlanner) add(i engine.PlanItem) bool {
	item := newPlanItem(p.config.Name, i)
	p.plan.Documents = append(p.plan.Documents, item)
	p.report(item)
	return true
}

// complete adds the batches, and the sources that the plan would leave behind.
func (p *syncPlanner) complete(ctx context.Context, known state.Sync) error {
	type upload struct{ id, size int64 }
	var uploads []upload
	changing := map[int64]int{} // documents that leave a content
	holdings := map[int64]plannedSource{}
	sources := map[int64]state.Holding{}
	staying := map[string]bool{}
	for _, d := range p.plan.Documents {
		h, err := p.store.Inventory.Holding(ctx, known.ID, d.Key)
		if err != nil {
			return err
		}
		if d.Action == string(engine.ActionUpload) {
			// New documents follow the others, in the order of their keys.
			uploads = append(uploads, upload{cmp.Or(h.DocumentID, math.MaxInt64), d.Size})
		}
		staying[d.SHA256] = true
		if h.ContentID == 0 || d.SHA256 == hexOf(h.SHA256) || d.Action == string(engine.ActionUnreadable) || d.Action == string(engine.ActionFail) ||
			d.Action == string(engine.ActionBlock) || d.Action == string(engine.ActionResaved) {
			continue
		}
		why := "changed"
		if d.Action == string(engine.ActionRemove) {
			why = "removed"
		}
		changing[h.ContentID]++
		holdings[h.ContentID], sources[h.ContentID] = plannedSource{Document: d.Key, Why: why}, h
	}
	slices.SortStableFunc(uploads, func(a, b upload) int { return cmp.Compare(a.id, b.id) })
	batches := ingest.BatchCount{Documents: p.config.Batch.Documents, Bytes: int64(p.config.Batch.Bytes)}
	for _, u := range uploads {
		batches.Add(u.size)
	}
	p.plan.Batches, p.plan.NewSources = batches.Batches, p.plan.Upload
	for id, h := range sources {
		if changing[id] < h.Documents || staying[hexOf(h.SHA256)] {
			continue
		}
		for _, source := range h.Sources {
			left := holdings[id]
			left.Source = source
			p.plan.LeftBehind = append(p.plan.LeftBehind, left)
		}
	}
	slices.SortFunc(p.plan.LeftBehind, func(a, b plannedSource) int { return cmp.Compare(a.Source, b.Source) })
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
				more = report(engine.PlanItem{Action: engine.ActionSkip, Key: c.Key, Size: c.Fingerprint.Size, Reason: c.Reason, Fingerprint: c.Fingerprint})
			case state.Vanish:
				more = report(engine.PlanItem{Action: engine.ActionRemove, Key: c.Key, Fingerprint: c.Fingerprint})
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

// address returns the address that a sync would use, for its destinations. It sends no request and needs no token.
func (a *app) address(ctx context.Context, cfg *config.Config) (*engine.API, error) {
	if a.useEmulator {
		return &engine.API{Origin: emulatorOrigin, Account: emulatorAccount(), Local: true, Embedded: true}, nil
	}
	p, err := a.connect(ctx, cfg)
	if errors.Is(err, errNoToken) {
		without := *cfg
		without.API.Token = config.NewSecret(strings.Repeat("-", 8))
		p, err = a.connect(ctx, &without)
	}
	if err != nil {
		return nil, err
	}
	return p.engine(cfg), p.close()
}
