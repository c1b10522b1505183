package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [NAME | KEY | NAME KEY]",
		Short: "Show the state of the documents",
		Long: `status counts the documents of each sync by state and lists the problems with their reasons. With a KEY it prints the
whole history of one document: its versions, the uploads, the sources and their training, and why it is in its state. It reads
only the state and sends no request.`,
		Example: `  kbsync status
  kbsync status handbook returns/withdrawal.md
  kbsync status --json`,
		Args: atMost(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			store, err := a.open(cmd.Context(), cfg, true)
			if err != nil {
				return err
			}
			defer closeStore(store, &err)
			switch {
			case len(args) == 2:
				s, err := findSync(cmd.Context(), store, args[0])
				if err != nil {
					return err
				}
				return a.documentStatus(cmd.Context(), store, []state.Sync{s}, args[1])
			case len(args) == 1 && !configured(cfg, args[0]):
				syncs, err := store.Syncs.All(cmd.Context())
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(syncs, func(s state.Sync) bool { return s.Name == args[0] }) && len(syncs) > 0 {
					return a.documentStatus(cmd.Context(), store, syncs, args[0])
				}
			}
			return a.syncStatus(cmd.Context(), cfg, store, args)
		},
	}
}

// A syncStatus is the status of one sync.
type syncStatus struct {
	Sync         string                      `json:"sync"`
	Root         string                      `json:"root"`
	Destination  *destinationView            `json:"destination,omitempty"`
	Configured   bool                        `json:"configured"`
	ScannedAt    *time.Time                  `json:"scanned_at"`
	Trouble      string                      `json:"trouble,omitempty"`
	Documents    map[state.DocumentState]int `json:"documents"`
	Superseded   int                         `json:"superseded"`
	Orphaned     int                         `json:"orphaned"`
	Troubled     []troubledView              `json:"troubled"`
	neverStarted bool
}

// A processView is a process that works on a shared state.
type processView struct {
	Name       string    `json:"name"`
	Since      time.Time `json:"since"`
	LeaseUntil time.Time `json:"lease_until"`
	Scans      []string  `json:"scans"`
	Claims     int       `json:"claims"`
}

// viewProcesses returns the processes that work on a shared state; none for a file.
func viewProcesses(ctx context.Context, store *state.Store) ([]processView, error) {
	owners, err := store.Syncs.Owners(ctx)
	var views []processView
	for _, o := range owners {
		views = append(views, processView{o.Name, o.Since, o.ExpiresAt, append([]string{}, o.Scans...), o.Claims})
	}
	return views, err
}

func (v processView) print(w io.Writer) {
	fmt.Fprintf(w, "%s, since %s: ", console.Printable(v.Name), console.Moment(v.Since))
	if len(v.Scans) > 0 {
		fmt.Fprintf(w, "scans %s; ", console.Printable(strings.Join(v.Scans, ", ")))
	}
	fmt.Fprintf(w, "%s claimed\n", console.Count(v.Claims, "document"))
}

type destinationView struct {
	Origin        string `json:"origin"`
	Account       string `json:"account,omitempty"`
	KnowledgeBase int64  `json:"knowledge_base"`
}

func viewDestination(d state.Destination) *destinationView {
	return &destinationView{d.Origin, d.Account, d.KnowledgeBase}
}

// A troubledView is a document with a problem that may need a person.
type troubledView struct {
	Key    string `json:"key"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

func (a *app) syncStatus(ctx context.Context, cfg *config.Config, store *state.Store, args []string) error {
	syncs, err := findSyncs(ctx, store, args)
	if err != nil && (len(args) == 0 || !configured(cfg, args[0])) {
		return err
	}
	var views []syncStatus
	for _, s := range syncs {
		v, err := viewSync(ctx, store, s)
		if err != nil {
			return err
		}
		v.Configured = configured(cfg, s.Name)
		views = append(views, v)
	}
	for _, s := range cfg.Syncs {
		known := slices.ContainsFunc(syncs, func(x state.Sync) bool { return x.Name == s.Name })
		if !known && (len(args) == 0 || args[0] == s.Name) {
			views = append(views, syncStatus{
				Sync: s.Name, Root: s.Root.String(), Configured: true, neverStarted: true,
				Documents: map[state.DocumentState]int{}, Troubled: []troubledView{},
			})
		}
	}
	processes, err := viewProcesses(ctx, store)
	if err != nil {
		return err
	}
	result := struct {
		State     string        `json:"state"`
		Syncs     []syncStatus  `json:"syncs"`
		Processes []processView `json:"processes,omitempty"`
	}{cfg.State, append([]syncStatus{}, views...), processes}
	return a.out.Result(result, func(w io.Writer) {
		if len(views) == 0 {
			fmt.Fprintf(w, "%s holds no sync yet.\n", console.Printable(cfg.State))
		}
		for i, v := range views {
			if i > 0 {
				fmt.Fprintln(w)
			}
			v.print(w)
		}
		for _, p := range processes {
			p.print(w)
		}
	})
}

func configured(cfg *config.Config, name string) bool {
	_, ok := cfg.Sync(name)
	return ok
}

func viewSync(ctx context.Context, store *state.Store, s state.Sync) (syncStatus, error) {
	v := syncStatus{
		Sync: s.Name, Root: s.Root, Destination: viewDestination(s.Destination), Trouble: s.LastError,
		Documents: map[state.DocumentState]int{}, Troubled: []troubledView{},
	}
	if !s.ScannedAt.IsZero() {
		v.ScannedAt = &s.ScannedAt
	}
	counts, err := store.Documents.Counts(ctx, s.ID)
	if err != nil {
		return v, err
	}
	for st, n := range counts {
		if n > 0 && st != state.Removed {
			v.Documents[st] = n
		}
	}
	if v.Superseded, v.Orphaned, err = store.Inventory.CountLeftBehind(ctx, s.ID); err != nil {
		return v, err
	}
	if counts[state.Failed]+counts[state.Stuck]+counts[state.Uncertain]+counts[state.Skipped] == 0 {
		return v, nil
	}
	for d, err := range store.Documents.All(ctx, s.ID, state.Failed, state.Stuck, state.Uncertain, state.Skipped) {
		if err != nil {
			return v, err
		}
		v.Troubled = append(v.Troubled, troubledView{d.Key, string(d.State), statuspage.Reason(d)})
	}
	return v, nil
}

func (v syncStatus) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", console.Printable(v.Sync), console.Printable(v.Root))
	if v.neverStarted {
		fmt.Fprintln(w, "  never synced")
		return
	}
	d := state.Destination{Origin: v.Destination.Origin, Account: v.Destination.Account, KnowledgeBase: v.Destination.KnowledgeBase}
	fmt.Fprintf(w, "  to %s\n", console.Printable(d.String()))
	if !v.Configured {
		fmt.Fprintf(w, "  not in the config; its sources stay live until: kbsync forget %s\n", console.Printable(v.Sync))
	}
	if v.ScannedAt != nil {
		fmt.Fprintf(w, "  last complete scan %s\n", console.Moment(*v.ScannedAt))
	} else {
		fmt.Fprintln(w, "  no complete scan yet")
	}
	fmt.Fprintf(w, "  %s\n", stateCounts(v.Documents))
	if v.Superseded+v.Orphaned > 0 {
		fmt.Fprintf(w, "  left behind in the knowledge base: %d superseded, %d orphaned (kbsync sources --left-behind)\n",
			v.Superseded, v.Orphaned)
	}
	if v.Trouble != "" {
		fmt.Fprintf(w, "  halted: %s\n", console.Printable(v.Trouble))
	}
	var groups []problemGroup
	for _, t := range v.Troubled {
		if t.State != string(state.Skipped) || state.IsBlocked(t.Reason) {
			groups = addProblem(groups, t)
		}
	}
	cut := false
	for _, g := range groups {
		fmt.Fprintf(w, "  %s\n", g)
		cut = cut || g.count > len(g.keys)
	}
	if cut {
		fmt.Fprintln(w, "  kbsync status --json lists all documents with problems")
	}
}

// findSyncs finds the sync that args name, or returns all syncs if args is empty.
func findSyncs(ctx context.Context, store *state.Store, args []string) ([]state.Sync, error) {
	if len(args) == 0 {
		return store.Syncs.All(ctx)
	}
	s, err := findSync(ctx, store, args[0])
	if err != nil {
		return nil, err
	}
	return []state.Sync{s}, nil
}
